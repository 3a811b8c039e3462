"""A server's processes end with the lab, however it ends; one that does not start is named with its output."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lab_utils.service.file import ServiceFile
from lab_utils.service.process import _KEEPER, ServiceProcess, StartFailed, _free_port
from tests.processes import gone, is_alive
from tests.running import turns

# A tree: the server, a child of its group, and one that has left group and session, as a daemon does. All but the first
# may ignore that they are asked to end.
TREE = """
import os, signal, socket, subprocess, sys, time
asked = f"signal.SIG_{'DFL' if 'polite' in sys.argv else 'IGN'}"
child = f"import signal, time; signal.signal(signal.SIGTERM, {asked}); print('up', flush=True); time.sleep(600)"
one = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
two = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, start_new_session=True)
one.stdout.readline(), two.stdout.readline()
open(sys.argv[2], "w").write(f"{os.getpid()} {one.pid} {two.pid}")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(600)
"""


def service(*command: str, ready_text: str = "") -> ServiceFile:
    return ServiceFile("tree", command=command, ready_text=ready_text, ready_within_s=60.0)


def tree(pids: Path, *more: str) -> ServiceFile:
    return service(sys.executable, "-c", TREE, "{port}", str(pids), *more)


def read(pids: Path) -> list[int]:
    return [int(word) for word in pids.read_text().split()]


def test_a_lab_that_is_killed_leaves_nothing_running(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    lab = (
        "import asyncio, sys\n"
        "from lab_utils.service.file import ServiceFile\n"
        "from lab_utils.service.process import ServiceProcess\n"
        f"one = ServiceProcess(ServiceFile('tree', command=(sys.executable, '-c', {TREE!r}, '{{port}}', {str(pids)!r})))\n"
        "async def main():\n"
        "    await one.start()\n"
        "    print(one.pid, one._folder, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", lab], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        keeper, folder = killed.stdout.readline().split()
        assert Path(folder).is_dir()
        killed.send_signal(signal.SIGKILL)
    assert gone(*read(pids), int(keeper))
    assert not Path(folder).exists()


@pytest.mark.parametrize("killed", ["first", "second"])
async def test_a_keeper_that_is_killed_takes_every_process_of_the_server_with_it(killed: str, tmp_path: Path) -> None:
    process = ServiceProcess(tree(tmp_path / "pids"))
    await process.start()
    keeper = psutil.Process(process.pid)
    [second] = keeper.children()
    (keeper if killed == "first" else second).kill()
    assert gone(*read(tmp_path / "pids"), second.pid)
    await process.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no name keeps a port")
def test_a_port_is_one_lab_s_alone_and_none_that_the_system_hands_out(monkeypatch: pytest.MonkeyPatch) -> None:
    port, kept = _free_port()
    assert port < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    monkeypatch.setattr("lab_utils.service.process._PORTS", range(port, port + 1))
    with pytest.raises(StartFailed, match=f"no port from {port} to {port} is free"):
        _free_port()
    kept.close()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(StartFailed):
        _free_port()


async def test_a_server_that_ends_is_named_with_its_last_lines() -> None:
    process = ServiceProcess(service(sys.executable, "-c", "import sys; sys.exit('no database')", "{port}"))
    with pytest.raises(StartFailed, match=r"(?s)exit code 1.*no database"):
        await process.start()


async def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(StartFailed, match="no-such-command"):
        await ServiceProcess(service("no-such-command", "{port}")).start()


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("true", 0)])
def test_a_command_that_ends_leaves_its_folder_to_the_lab_alone(command: str, code: int, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-I", str(_KEEPER), str(tmp_path), command], stdin=subprocess.PIPE) as kept:
        assert kept.wait() == code
    # Another lab would take it for one that was left behind, and remove it with the lines that name the trouble.
    assert list(tmp_path.iterdir()) == []


async def test_readiness_may_be_a_text_of_the_output() -> None:
    code = "import time; print('almost'); print('ready on 1', flush=True); time.sleep(600)"
    process = ServiceProcess(service(sys.executable, "-c", code, "{port}", ready_text=r"ready on \d"))
    await process.start()
    await process.stop()


async def test_a_server_that_is_never_ready_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    process = ServiceProcess(service(sys.executable, "-c", code, "{port}", ready_text="never"))
    starting = asyncio.create_task(process.start())
    while not process.tail().strip():
        await turns()
    # Its minute is over at once, and not before it has written.
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: time.monotonic() + 3_600)
    with pytest.raises(StartFailed, match="not ready after 60 s") as failed:
        await starting
    assert gone(int(str(failed.value).split()[-1]))


async def test_a_restart_keeps_port_and_folder_and_a_stop_ends_every_process(tmp_path: Path) -> None:
    process = ServiceProcess(tree(tmp_path / "pids", "polite"))
    await process.start()
    before, base = read(tmp_path / "pids"), process.base
    folder = Path(psutil.Process(before[0]).cwd())
    (folder / "data").touch()
    await process.restart()
    assert (folder / "data").exists()
    after = read(tmp_path / "pids")
    assert gone(*before)
    assert process.base == base
    assert all(map(is_alive, after))
    assert not set(before) & set(after)
    await process.stop()
    assert gone(*after)
    assert not folder.exists()  # noqa: ASYNC240 - one look, and nothing else runs
    await process.stop()
