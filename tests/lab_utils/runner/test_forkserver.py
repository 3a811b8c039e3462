"""A fork server: children start clean, report how they ended, and go with their client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from lab_utils.runner.forkserver import ForkServer, ServerFailed, enter, is_available, surroundings
from tests.processes import gone

pytestmark = pytest.mark.skipif(not is_available(), reason="children are not forked here")

HERE = "tests.lab_utils.runner.test_forkserver"


def echoes(connection: Connection) -> None:
    connection.send_bytes(connection.recv_bytes())


def raises(connection: Connection) -> None:
    raise ValueError("no good")


def waits(connection: Connection) -> None:
    child = subprocess.Popen(["sleep", "600"])
    connection.send_bytes(json.dumps([os.getpid(), child.pid]).encode())
    signal.pause()


def around(connection: Connection) -> None:
    told = {"session": os.getsid(0), "input": os.read(0, 1).decode(), "decimal": "decimal" in sys.modules}
    connection.send_bytes(json.dumps({**told, "files": len(list(Path("/proc/self/fd").iterdir()))}).encode())


def enters(connection: Connection) -> None:
    enter(json.loads(connection.recv_bytes()))
    connection.send_bytes(json.dumps([os.environ["WHO"], str(Path.cwd()), sys.path[0], os.getppid()]).encode())


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer(["tests.lab_utils.runner.test_forkserver"])
    yield made
    made.close()


def test_a_child_answers_and_exits_with_0(server: ForkServer) -> None:
    child = server.start(f"{HERE}:echoes")
    child.connection.send_bytes(b"hello")
    assert child.connection.recv_bytes() == b"hello"
    assert child.wait() == 0
    child.close()


def test_a_child_that_raises_exits_with_1_and_prints_why(server: ForkServer) -> None:
    child = server.start(f"{HERE}:raises")
    assert child.wait() == 1
    assert b"ValueError: no good" in os.read(child.output, 65_536)
    child.close()


def test_a_child_is_the_leader_of_a_session_with_an_empty_input_and_no_file_of_another(server: ForkServer) -> None:
    others = [server.start(f"{HERE}:waits") for _ in range(3)]
    child = server.start(f"{HERE}:around")
    told = json.loads(child.connection.recv_bytes())
    child.wait()
    assert (told["session"], told["input"]) == (child.pid, "")
    # Standard input and outputs, the connection, and the folder that is being listed.
    assert told["files"] == 5
    for one in (*others, child):
        one.close()


def test_a_signal_ends_a_child_with_its_negative_number(server: ForkServer) -> None:
    child = server.start(f"{HERE}:waits")
    child.connection.recv_bytes()
    child.signal(signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    child.close()


DETACHED = """
import os, sys, time
for way in ("session", "forks"):
    reading, writing = os.pipe()
    if not os.fork():
        os.setsid()
        if way == "forks" and os.fork():
            os._exit(0)
        os.setpgid(0, 0) if way == "forks" else None
        # One of its own, detached from it in turn.
        if not (below := os.fork()):
            os.setsid()
        else:
            os.write(writing, f"{os.getpid()} {below}".encode())
        while True:
            time.sleep(600)
    pids = os.read(reading, 100).decode().split()
    print(*pids, flush=True)
"""


def detaches(connection: Connection) -> None:
    started = subprocess.Popen([sys.executable, "-c", DETACHED], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    told = [started.stdout.readline() for _ in range(2)]
    connection.send_bytes(json.dumps([int(pid) for line in told for pid in line.split()]).encode())
    if connection.recv_bytes() == b"return":
        return
    signal.pause()


@pytest.mark.parametrize("way", ["return", "kill", "close"])
def test_what_a_child_has_detached_from_itself_ends_with_it(server: ForkServer, way: str) -> None:
    bystander, child = server.start(f"{HERE}:detaches"), server.start(f"{HERE}:detaches")
    others, pids = (json.loads(each.connection.recv_bytes()) for each in (bystander, child))
    assert len(pids) == 4
    child.connection.send_bytes(way.encode())
    if way != "close":
        if way == "kill":
            child.kill()
        # They are gone when the client hears that the child is.
        child.wait()
        assert not any(map(psutil.pid_exists, pids))
    child.close()
    assert gone(*pids)
    assert all(map(psutil.pid_exists, others))
    bystander.close()
    assert gone(*others)


def test_what_was_detached_ends_with_the_server() -> None:
    server = ForkServer([HERE])
    child = server.start(f"{HERE}:detaches")
    pids = json.loads(child.connection.recv_bytes())
    server.close()
    assert gone(*pids)
    child.close()


@pytest.mark.parametrize("way", ["kill", "close"])
def test_a_child_goes_with_everything_it_has_started(server: ForkServer, way: str) -> None:
    child = server.start(f"{HERE}:waits")
    pids = json.loads(child.connection.recv_bytes())
    getattr(child, way)()
    assert gone(*pids)
    if way == "kill":
        child.close()


def test_modules_are_imported_once_for_all_who_ask_for_the_same(server: ForkServer) -> None:
    with_it = [server.start(f"{HERE}:around", imports=("decimal",)) for _ in range(2)]
    without = server.start(f"{HERE}:around")
    told = [json.loads(child.connection.recv_bytes())["decimal"] for child in (*with_it, without)]
    assert told == [True, True, "decimal" in sys.modules and told[2]]
    parents = {psutil.Process(child.pid).ppid() for child in with_it if child.pid and psutil.pid_exists(child.pid)}
    assert len(parents) <= 1
    for child in (*with_it, without):
        child.close()


def test_modules_for_all_are_imported_once_whatever_surrounds_those_who_ask(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for name in ("one", "two"):
        (folder := tmp_path / name).mkdir()
        monkeypatch.setenv("WHO", name)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        child = server.start(f"{HERE}:enters", imports=("decimal",), for_all=True)
        child.connection.send_bytes(json.dumps(surroundings()).encode())
        told.append(json.loads(child.connection.recv_bytes()))
        child.close()
    parents = {one.pop() for one in told}
    assert told == [[name, *2 * [str(tmp_path / name)]] for name in ("one", "two")]
    assert len(parents) == 1


def test_a_module_that_cannot_be_imported_is_left_to_the_child(server: ForkServer) -> None:
    child = server.start(f"{HERE}:echoes", imports=("no_such_module",))
    child.connection.send_bytes(b"hello")
    assert child.connection.recv_bytes() == b"hello"
    child.close()


def test_a_module_that_ends_its_process_ends_no_server(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends_its_process.py").write_text("import os; os._exit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    # The process that was to import it ends before it is asked for a child, or afterwards.
    with (
        pytest.raises(ServerFailed, match=r"the fork server has ended|no fork server answers"),
        closing(server.start(f"{HERE}:echoes", imports=("ends_its_process",))) as child,
    ):
        child.wait()
    test_a_child_answers_and_exits_with_0(server)
    # Nor does it keep the next modules from being imported in a process for all.
    after = server.start(f"{HERE}:waits", imports=("fractions",))
    pid, _ = json.loads(after.connection.recv_bytes())
    assert server._process is not None
    assert psutil.Process(pid).ppid() != server._process.pid
    after.close()


def test_another_process_may_use_the_server_and_its_children_end_with_it(server: ForkServer, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from lab_utils.runner.forkserver import ForkServer\n"
        f"child = ForkServer([], address={server.address!r}).start({HERE + ':waits'!r})\n"
        "pathlib.Path(sys.argv[1]).write_bytes(child.connection.recv_bytes())\n"
        "import os; os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "pids")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert gone(*json.loads((tmp_path / "pids").read_bytes()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_one_that_started_the_server(number: int) -> None:
    code = (
        "import signal; from lab_utils.runner.forkserver import ForkServer\n"
        f"server = ForkServer([{HERE!r}])\n"
        f"children = [server.start({HERE + ':waits'!r}, imports=names) for names in ((), ('decimal',))]\n"
        "pids = [child.connection.recv_bytes().decode() for child in children]\n"
        "print('[' + ','.join(pids) + ']', flush=True)\n"
        "signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pids = [pid for pair in json.loads(starter.stdout.readline()) for pid in pair]
        starter.send_signal(number)
    assert gone(*pids)


def test_a_server_that_cannot_start_says_what_it_imported() -> None:
    # Only a caller that needs it waits for it, and gets the error.
    server = ForkServer(["no_such_module"])
    with pytest.raises(ServerFailed, match="exit code 1 while it imported no_such_module"):
        server.start("lab_utils.runner.worker:work")
