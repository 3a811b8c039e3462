"""`registry-lab serve`: says its addresses and a token that lets its user in, and stops at Ctrl-C."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from lab_utils.cli import main
from lab_utils.sockets.device import EventClient
from lab_utils.sockets.fleet import ClientFleet

ROOT = Path(__file__).resolve().parents[3]
RUN = "import sys; from lab_utils.cli import main; sys.exit(main())"


async def let_in(url: str, *tokens: str) -> list[EventClient]:
    """The clients that tried these tokens, as the server's own page does, each either greeted or sent away."""
    origin = re.sub("^ws(.*?)/events/$", r"http\1", url)
    async with ClientFleet() as fleet:
        clients = [fleet.add(EventClient(url, token, origin=origin)) for token in tokens]
        await fleet.until(lambda one: one.is_ready or one.is_ended)
        return clients


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not has_ipv6(), reason="the machine has no address ::1")


@pytest.mark.parametrize(
    ("host", "named"), [([], "127.0.0.1"), pytest.param(["--host", "::1"], "[::1]", marks=IPV6)], ids=["IPv4", "IPv6"]
)
def test_it_says_its_addresses_lets_its_user_in_and_stops_at_an_interrupt(host: list[str], named: str) -> None:
    words = [sys.executable, "-c", RUN, "serve", "--user", "grace", *host]
    # In the background of a script interrupts are ignored, and whatever is started there would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    signal.signal(signal.SIGINT, before)
    with started as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            said = [process.stdout.readline() for _ in range(3)]
            page, events = (
                re.fullmatch(rf"{name}: +(\S+)\n", line) for name, line in zip(("page", "events"), said, strict=False)
            )
            token = re.fullmatch(r"token:  (\S+)  \(of user 'grace', good for \d+ minutes\)\n", said[2])
            assert page is not None, (said, process.stderr.read() if process.poll() is not None else "")
            assert events is not None
            assert token is not None
            assert re.fullmatch(rf"http://{re.escape(named)}:\d+/", page[1])
            with urllib.request.urlopen(page[1]) as answer:
                assert b"<title>" in answer.read()
            known, unknown = asyncio.run(let_in(events[1], token[1], token[1] + "x"))
            assert (known.tally.connects, known.stream is not None) == (1, True)
            assert unknown.close_code == 4402
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "stopped\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "host '0.0.0.0' is not loopback"),
        (["--host", "example.org"], "use 127.0.0.1"),
        (["--port", "65536"], "--port 65536 is not between 0 and 65535"),
        (["--port", "-1"], "--port -1"),
        (["--user", ""], "is empty; pass at least one character"),
        (["--user", "a\nb"], "control characters"),
    ],
)
def test_wrong_words_end_with_2_and_the_remedy(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["serve", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in said
    assert "--port 0" in said


WITHOUT = """
import sys
sys.modules |= dict.fromkeys(["itsdangerous", "starlette", "uvicorn", "websockets"])
from lab_utils.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_the_extra_it_says_in_one_line_what_is_missing() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, "serve"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (ran.returncode, ran.stdout) == (3, "")
    (line,) = ran.stderr.splitlines()
    assert "pip install 'agent-registry-lab[server]'" in line
