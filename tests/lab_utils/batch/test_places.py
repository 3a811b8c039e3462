"""Runs of a grid on workers: they are made, sent and brought back, and a lost worker changes nothing."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab_utils.batch.errand import COMMAND, Errand, GivenUp, OtherLab, carry_out, lab_here
from lab_utils.batch.places import cluster, made
from lab_utils.values.profiles import UsageError
from tests.processes import LIMIT_S

WAITING = COMMAND.replace(
    "from lab_utils.cli import main",
    """
import pathlib, socket

def main(words):
    gate = socket.create_connection(("127.0.0.1", int(words[0])))
    gate.sendall(f"{words[1]} {os.getppid()}\\n".encode())
    gate.recv(1)
    run = pathlib.Path(words[words.index("--out") + 1], "run")
    run.mkdir()
    run.joinpath("run.json").write_text(pathlib.Path("sent/text").read_text() + words[1])
    return 1
""",
)


class Gate:
    """Where runs report that they have begun, and wait."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._accepted: list[socket.socket] = []
        self.port = self._listening.getsockname()[1]

    def arrival(self) -> tuple[int, int, socket.socket]:
        """The next run that begins: its number, the process of its worker, and its connection."""
        connection, _ = self._listening.accept()
        self._accepted.append(connection)
        with connection.makefile() as lines:
            number, worker = lines.readline().split()
        return int(number), int(worker), connection

    def close(self) -> None:
        for one in (self._listening, *self._accepted):
            one.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.close()


def errand(gate: Gate, number: int, lab: str = "") -> Errand:
    return Errand("grid", number, (str(gate.port), str(number)), {"sent/text": b"run "}, lab, WAITING)


@contextmanager
def workers(address: str, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    words = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
    started = [
        subprocess.Popen([*words, "--nthreads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for one in started:
            one.terminate()
        for one in started:
            one.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_lost_worker_loses_no_run_and_makes_none_twice(gate: Gate) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as scheduler,
        workers(scheduler.scheduler_address, 2) as running,
        cluster(scheduler.scheduler_address) as place,
    ):
        begun: list[tuple[int, int]] = []

        def conduct() -> None:
            first, second = gate.arrival(), gate.arrival()
            assert first[1] != second[1], "each worker makes one run"
            os.kill(first[1], signal.SIGKILL)
            assert first[2].recv(1) == b"", "the run of a lost worker ends by itself"
            begun.extend((one[0], one[1]) for one in (first, second))
            second[2].sendall(b"x")
            for _ in range(3):
                number, worker, connection = gate.arrival()
                begun.append((number, worker))
                connection.sendall(b"x")

        conducting = threading.Thread(target=conduct, daemon=True)
        conducting.start()
        brought = {}
        errands = [*(errand(gate, number, lab_here()) for number in range(4)), errand(gate, 4, "another version")]
        for one, what in made(place, errands, lambda: None):
            if one.number == 4:
                assert isinstance(what, OtherLab)
                continue
            assert one.number not in brought
            assert not isinstance(what, Exception), what
            brought[one.number] = what
        conducting.join(LIMIT_S)
        assert sorted(brought) == [0, 1, 2, 3]
        for number, what in brought.items():
            archive = zipfile.ZipFile(io.BytesIO(what.archive))
            assert archive.read("run/run.json") == f"run {number}".encode()
            assert what.exit_code == 1
        lost, survivor = begun[0], begun[1][1]
        assert [number for number, _ in begun].count(lost[0]) == 2
        assert {worker for _, worker in begun[1:]} == {survivor}
        assert {one.pid for one in running} == {lost[1], survivor}

        with cluster(scheduler.scheduler_address) as left:
            left.executor.submit(left.work, errand(gate, 5))
            _, _, connection = gate.arrival()
        assert connection.recv(1) == b"", "the run of a client that is gone is ended"


def test_a_run_that_nobody_waits_for_is_ended(gate: Gate) -> None:
    arrived = threading.Event()
    ends: list[bytes] = []

    def conduct() -> None:
        _, _, connection = gate.arrival()
        arrived.set()
        ends.append(connection.recv(1))

    conducting = threading.Thread(target=conduct, daemon=True)
    conducting.start()
    with pytest.raises(GivenUp):
        carry_out(errand(gate, 0), {}, is_wanted=lambda: not arrived.is_set())
    conducting.join(LIMIT_S)
    assert ends == [b""]


def test_where_no_scheduler_answers_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("lab_utils.batch.places._ANSWERS_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(UsageError, match="dask scheduler"), cluster(address):
        pass
