"""The speed and delay of events on their way to clients, and the cost of an idle client, each against a bare floor in
the same run.

    python -m benchmarks.websocket_speed [--rounds N] [--json FILE]

Servers are processes of their own; this process is all clients at once, reading bytes and doing nothing with them, so
that only the server is measured. Rounds of both take turns; medians are compared. Exit 1 if a budget is missed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARK = b'"at": '
AT = re.compile(rb'"at": (\d+)')


class Server:
    """A server process."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.websocket_servers", kind],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.port: int = self.answer()["port"]

    def pin(self, core: int) -> None:
        """Run on one core only."""
        os.sched_setaffinity(self._process.pid, {core})

    def order(self, do: str, **more: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.kind} server ended; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def rss(self) -> int:
        self.order("measure")
        return int(self.answer()["rss"])

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Clients:
    """Many sockets of one thread, that count events and know the delay of each."""

    def __init__(self, server: Server, count: int, users: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._tails: dict[socket.socket, bytes] = {}
        self.count = count
        self.late: list[int] = []
        speaks = server.kind == "managed"
        opened = [_open(server.port, f"user-{number % users}") for number in range(count)]
        if speaks:
            for one in opened:
                one.sendall(_frame(b'{"type": "start"}'))
        for one in opened:
            if speaks:
                one.recv(4_096)  # hello
            one.setblocking(False)
            self._tails[one] = b""
            self._selector.register(one, selectors.EVENT_READ)

    def receive(self, expected: int, *, timed: bool = False, limit_s: float = 120.0) -> None:
        """Read until so many events have come. Raises `TimeoutError`, `ConnectionError`."""
        deadline = time.monotonic() + limit_s
        while expected > 0:
            ready = self._selector.select(1.0)
            if not ready and time.monotonic() > deadline:
                raise TimeoutError(f"{expected} events did not come")
            for key, _ in ready:
                one = key.fileobj
                assert isinstance(one, socket.socket)
                read = one.recv(262_144)
                now = time.monotonic_ns()
                if not read:
                    raise ConnectionError("the server closed a connection")
                data = self._tails[one] + read
                expected -= data.count(MARK)
                if timed:
                    self.late += [now - int(at) for at in AT.findall(data)]
                # From the last mark on, all that can still be part of an uncounted one.
                self._tails[one] = data[-len(MARK) + 1 :]

    def close(self) -> None:
        for one in self._tails:
            one.close()
        self._selector.close()


@contextmanager
def connected(server: Server, count: int, users: int) -> Iterator[Clients]:
    clients = Clients(server, count, users)
    try:
        yield clients
    finally:
        clients.close()


@contextmanager
def servers() -> Iterator[dict[str, Server]]:
    """New ones for each measurement: users of an earlier one would still have their streams."""
    made = {kind: Server(kind) for kind in ("bare", "managed")}
    try:
        yield made
    finally:
        for server in made.values():
            server.stop()


def _open(port: int, token: str) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port))
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.settimeout(30)
    key = base64.b64encode(os.urandom(16)).decode()
    one.sendall(
        f"GET /events/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += one.recv(4_096)
    if b" 101 " not in answer.split(b"\r\n")[0]:
        raise ConnectionError(answer.decode())
    return one


def _frame(text: bytes) -> bytes:
    # A mask of zeros leaves the text as it is.
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text


def rate(server: Server, clients: Clients, how: str, count: int) -> float:
    """Events delivered per second: from the order to the last byte."""
    began = time.perf_counter()
    server.order("burst", how=how, count=count)
    clients.receive(count * clients.count)
    seconds = time.perf_counter() - began
    server.answer()
    return count * clients.count / seconds


def p99(server: Server, clients: Clients, count: int, per_second: float) -> float:
    """Seconds from the time at which an event was due to its arrival, that all but one in a hundred keep."""
    clients.late = []
    server.order("paced", count=count, per_second=per_second)
    clients.receive(count * clients.count, timed=True)
    server.answer()
    late = sorted(clients.late)
    if len(late) < 0.9 * count * clients.count:
        raise RuntimeError(f"only {len(late)} of {count * clients.count} events could be timed")
    return late[int(0.99 * len(late))] / 1e9


def speed(kinds: dict[str, Server], rounds: int, count: int, users: int, how: str, events: int) -> dict[str, float]:
    """Median rates of both servers, rounds in turn."""
    with connected(kinds["bare"], count, users) as bare, connected(kinds["managed"], count, users) as managed:
        pairs = {"bare": bare, "managed": managed}
        for kind, clients in pairs.items():
            rate(kinds[kind], clients, how, events // 4)
        found: dict[str, list[float]] = {"bare": [], "managed": []}
        for _ in range(rounds):
            for kind, clients in pairs.items():
                found[kind].append(rate(kinds[kind], clients, how, events))
    return {kind: statistics.median(rates) for kind, rates in found.items()}


def latency(kinds: dict[str, Server], rounds: int, users: int, load: float, events: int) -> dict[str, float]:
    """Median p99 in seconds of both servers at the same load, in events delivered per second, rounds in turn."""
    with connected(kinds["bare"], users, users) as bare, connected(kinds["managed"], users, users) as managed:
        pairs = {"bare": bare, "managed": managed}
        for kind, clients in pairs.items():
            p99(kinds[kind], clients, events // 4, load)
        found: dict[str, list[float]] = {"bare": [], "managed": []}
        for _ in range(rounds):
            for kind, clients in pairs.items():
                found[kind].append(p99(kinds[kind], clients, events, load))
    return {kind: statistics.median(values) for kind, values in found.items()}


@contextmanager
def cores_apart(kinds: dict[str, Server]) -> Iterator[None]:
    """Let servers and clients each have a core, so that none waits for the other's; where the system can do that."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(mine) < 2:
        yield
        return
    for server in kinds.values():
        server.pin(mine[0])
    os.sched_setaffinity(0, {mine[1]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def idle(count: int, rounds: int) -> dict[str, float]:
    """Median bytes of RSS that a connection adds, in fresh processes."""
    found: dict[str, list[float]] = {"idle": [], "managed": []}
    for _ in range(rounds):
        for kind, values in found.items():
            server = Server(kind)
            try:
                # One connection first: modules and caches made at the first use are not a connection's.
                with connected(server, 1, 1):
                    before = server.rss()
                    with connected(server, count, count):
                        values.append((server.rss() - before) / count)
            finally:
                server.stop()
    return {kind: statistics.median(values) for kind, values in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    rounds = options.rounds
    rows: list[tuple[str, float, float, str, float, bool]] = []

    def judge(name: str, figures: dict[str, float], floor: str, unit: str, budget: float, *, least: bool) -> None:
        ratio = figures["managed"] / figures[floor]
        kept = ratio >= budget if least else ratio <= budget
        rows.append((name, figures[floor], figures["managed"], unit, ratio, kept))
        word = "at least" if least else "at most"
        print(
            f"{name:42} floor {figures[floor]:>10,.2f}  ours {figures['managed']:>10,.2f} {unit:9} "
            f"ratio {ratio:4.2f} ({word} {budget}) {'ok' if kept else 'MISSED'}",
            flush=True,
        )

    for how, name in (("to_all", "one user's event to {} connections"), ("to_each", "an event to each of {} users")):
        for count, events in ((25, 4_000), (1_000, 100)):
            with servers() as kinds:
                found = speed(kinds, rounds, count, 1 if how == "to_all" else count, how, events)
            judge(name.format(count), found, "bare", "events/s", 0.6, least=True)
            if (how, count) == ("to_each", 25):
                load = min(found.values()) / 2
    with servers() as kinds, cores_apart(kinds):
        # Many short rounds: the machine stalls a few times a second, in a round of the one or of the other.
        late = latency(kinds, 8 * rounds, 25, load, int(load / 25 / 2))
    in_ms = {kind: seconds * 1_000 for kind, seconds in late.items()}
    judge(f"p99 latency, 25 users, {load:,.0f} events/s", in_ms, "bare", "ms", 2.0, least=False)
    in_kb = {kind: each_bytes / 1_000 for kind, each_bytes in idle(1_000, max(3, rounds // 2)).items()}
    judge("an idle connection of 1,000, server RSS", in_kb, "idle", "kB", 1.5, least=False)
    if options.json:
        names = ("name", "floor", "ours", "unit", "ratio", "kept")
        options.json.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1) + "\n")
    return 0 if all(row[-1] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
