"""A trial's clients over sockets: their events, how they go and come back, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from lab_utils.runner import runner
from lab_utils.sockets import choice, descriptors
from lab_utils.sockets.choice import require_sockets
from lab_utils.sockets.descriptors import TooFewDescriptors, room_for
from lab_utils.sockets.transport import NotLetIn, SocketSubscription, SocketTransport
from lab_utils.target import Command, Handle, Target
from lab_utils.targets import make_target
from lab_utils.trial import Check, Stuck, Trial
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome, Verdict

OVER = {"transport": "websocket"}
TEXT = 'na\u00efve \U0001f600 "payload": {"x": 1}\u2028'


@asynccontextmanager
async def in_trial(target: str = "agent_registry", **parameters: Any) -> AsyncIterator[tuple[Trial, Target]]:
    """A trial and a target of it, both stopped afterwards; no thread may be left."""
    trial = Trial(lambda: make_target(target), {**OVER, **parameters}, 1)
    try:
        yield trial, await trial.target()
    finally:
        await trial.stop_all()
        assert not [thread for thread in threading.enumerate() if thread.name == "client-fleet"]


async def connected(trial: Trial, target: Target, user: str = "ada", **options: Any) -> SocketSubscription:
    sockets = trial.sockets(target)
    assert sockets is not None
    return await sockets.connect(user, **options)


async def think(target: Target, handle: Handle, *thoughts: str) -> None:
    await target.run(handle, Command("think", {"thoughts": list(thoughts)}))


def thoughts(subscription: SocketSubscription) -> list[str]:
    return [json.loads(each.body)["thought"] for each in subscription.received() if each.type == "agent_thinking"]


async def test_events_arrive_as_they_were_sent() -> None:
    async with in_trial(transport="websocket") as (trial, target):
        device = await trial.connect(target, "ada")
        assert isinstance(device, SocketSubscription)
        beside = target.subscribe("ada")
        await think(target, await target.create("ada", "helper"), TEXT)
        assert await trial.waiting.until(lambda: len(device.received()) == 3)
        assert device.received() == beside.received()
        assert [json.loads(text)["seq"] for text in device.texts] == [1, 2, 3]
        assert device.is_open
        assert target.connections("ada") == 2
    assert trial.notes == ["Events crossed 1 WebSockets on loopback to clients in a thread of their own."]


@pytest.mark.parametrize(
    ("name", "transport", "reason"),
    [("reference", "websocket", "serves no sockets"), ("agent_registry", "inprocess", "as was chosen")],
)
async def test_a_trial_in_process_says_so(name: str, transport: str, reason: str) -> None:
    async with in_trial(name, transport=transport) as (trial, target):
        assert trial.sockets(target) is None
        device = await trial.connect(target, "ada")
        await think(target, await target.create("ada", "helper"), "here")
        assert len(device.received()) == 3
    assert len(trial.notes) == 1
    assert reason in trial.notes[0]


async def test_who_is_dropped_comes_back_where_it_was() -> None:
    async with in_trial() as (trial, target):
        device = await connected(trial, target)
        handle = await target.create("ada", "helper")
        await think(target, handle, "one")
        assert await trial.waiting.until(lambda: len(device.received()) == 3)
        await device.drop()
        assert (device.is_open, device.is_over, device.close_code) == (False, True, 1006)
        assert await trial.waiting.until(lambda: target.connections("ada") == 0)
        await think(target, handle, "two")
        await device.resume()
        assert await trial.waiting.until(lambda: len(device.received()) == 6)
        assert thoughts(device) == ["one", "two"]
        assert (device.resyncs, device.client.tally.resumes, device.client.tally.duplicates) == (0, 1, 0)


async def test_each_event_has_the_stream_that_its_connection_was_greeted_with() -> None:
    async with in_trial() as (trial, target):
        device = await connected(trial, target)
        first = device.stream
        await think(target, await target.create("ada", "helper"), "one")
        assert await trial.waiting.until(lambda: len(device.client.texts) == 3)
        await target.end("ada")
        assert await trial.waiting.until(lambda: device.is_over)
        # Another life of the same user, greeted as one that may have missed something.
        await device.resume()
        await think(target, await target.create("ada", "helper"), "two")
        assert await trial.waiting.until(lambda: len(device.client.texts) == 6)
        greeted = [each.greeted for each in device.received()]
        assert greeted == [first] * 3 + [device.stream] * 3
        assert [each.stream for each in device.received()] == greeted
        assert (device.stream == first, device.resyncs, device.gaps) == (False, 1, 0)
        device.client.tally.gaps = 2
        assert device.gaps == 2


async def test_a_restarted_server_serves_the_same_streams_at_the_same_address() -> None:
    async with in_trial() as (trial, target):
        device = await connected(trial, target)
        handle = await target.create("ada", "helper")
        sockets = trial.sockets(target)
        assert sockets is not None
        url = device.client.url
        await sockets.restart()
        assert await trial.waiting.until(lambda: device.is_over)
        await think(target, handle, "while nothing served")
        await device.resume()
        assert device.client.url == url
        assert await trial.waiting.until(lambda: len(device.received()) == 3)
        assert device.resyncs == 0


async def test_a_new_process_at_the_same_address_tells_who_comes_back() -> None:
    async with in_trial() as (trial, target):
        device = await connected(trial, target)
        await think(target, await target.create("ada", "helper"), "of the old one")
        assert await trial.waiting.until(lambda: len(device.received()) == 3)
        fresh = await trial.target()
        await trial.replace(target, fresh)
        assert trial.sockets(fresh) is not None
        assert await trial.waiting.until(lambda: device.is_over)
        await device.resume(fresh.token("ada"))
        assert device.resyncs == 1
        await think(fresh, await fresh.create("ada", "helper"), "of the new one")
        assert await trial.waiting.until(lambda: len(device.received()) == 6)
        assert thoughts(device) == ["of the old one", "of the new one"]
        await trial.stop(target)
        await think(fresh, await fresh.create("ada", "helper"), "and on")
        assert await trial.waiting.until(lambda: len(device.received()) == 9)


async def test_a_stalled_client_receives_nothing_until_it_reads_again() -> None:
    async with in_trial() as (trial, target):
        device, other = await connected(trial, target), await connected(trial, target)
        await device.stall()
        await think(target, await target.create("ada", "helper"), "one", "two")
        assert await trial.waiting.until(lambda: len(other.received()) == 4)
        await trial.flush()
        # One message that was on its way may have been taken in.
        had = len(device.received())
        assert had <= 4
        assert device.is_open
        await device.resume_reading()
        assert await trial.waiting.until(lambda: len(device.received()) == 4)


async def test_flush_waits_for_what_was_sent_and_for_nothing_else() -> None:
    async with in_trial() as (trial, target):
        devices = [await connected(trial, target, user) for user in ("ada", "bo")]
        handle = await target.create("ada", "helper")
        for number in range(20):
            await think(target, handle, f"{number}")
            await trial.flush()
            assert [len(device.received()) for device in devices] == [3 * (number + 1), 0]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"token": ""}, 4401),
        ({"token": "none"}, 4402),
        ({"own": {"max_age": 0}}, 4403),
        ({"own": {"audience": "another"}}, 4404),
        ({"claims": {"user_id": "bo"}}, 4400),
    ],
)
async def test_who_is_refused_is_not_let_in(options: dict[str, Any], code: int) -> None:
    async with in_trial() as (trial, target):
        sockets = trial.sockets(target)
        assert sockets is not None
        own = options.pop("own", None)
        if own is not None:
            options["token"] = target.token("ada", **own)
        attempt = await sockets.attempt("ada", **options)
        assert (attempt.is_open, attempt.close_code, attempt.client.has_been_greeted) == (False, code, False)
        with pytest.raises(NotLetIn, match=f"'ada' was closed with {code}"):
            await sockets.connect("ada", **options)


async def test_the_token_decides_and_what_else_is_said_does_not() -> None:
    async with in_trial() as (trial, target):
        sockets = trial.sockets(target)
        assert sockets is not None
        both = await sockets.attempt("ada", token=target.token("ada"), second_token=target.token("bo"))
        assert both.close_code == 4402
        said = {"headers": {"X-User-Id": "bo"}, "query": "?user_id=bo"}
        device = await sockets.connect("ada", **said)
        assert device.client.controls[0]["user_id"] == "ada"
        limited = await sockets.connect("ada", token=target.token("ada", max_age=60))
        assert limited.is_open


async def test_targets_are_stopped_with_their_sockets_after_whatever_happens() -> None:
    async with in_trial() as (trial, target):
        stalled = await connected(trial, target, receive_buffer=4_096)
        await stalled.stall()
        await think(target, await target.create("ada", "helper"), "x" * 300_000)
        dropped = await connected(trial, target)
        await dropped.drop()

    async def crashed(trial: Trial, target: Target) -> None:
        await connected(trial, target)
        raise KeyError("the check's own mistake")

    async def stuck(trial: Trial, target: Target) -> None:
        trial.waiting.stuck_after = 0.01
        await trial.waiting.together([asyncio.Event().wait()])

    async def cancelled(trial: Trial, target: Target) -> None:
        await connected(trial, target)
        raise asyncio.CancelledError

    for body, error in ((crashed, KeyError), (stuck, Stuck), (cancelled, asyncio.CancelledError)):
        with pytest.raises(error):
            async with in_trial() as (trial, target):
                await body(trial, target)


async def test_a_server_is_started_once_for_all_who_come_at_once() -> None:
    async with in_trial() as (trial, target):
        devices = await asyncio.gather(*(connected(trial, target, f"user-{number}") for number in range(40)))
        assert len({device.client.url for device in devices}) == 1
        assert target.connections() == 40


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Trial], Awaitable[None]]], CheckResult]:
    """Run a body as if it were a check of events."""

    def checked(body: Callable[[Trial], Awaitable[None]]) -> CheckResult:
        check = Check("made_up", "websocket_bridge", "claim", "data", "looks like", body, ("BroadcastEvents",))
        monkeypatch.setattr(runner, "RUNNABLE", {"made_up": check})
        return runner.run_check("made_up", in_process=True)

    return checked


def test_the_extra_that_is_missing_is_said_before_anything_runs(
    checked: Callable[[Callable[[Trial], Awaitable[None]]], CheckResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(trial: Trial) -> None:
        raise AssertionError("must not run")

    monkeypatch.setattr(choice, "_NEEDED", ("websockets", "no_such_package"))
    with pytest.raises(UsageError, match=r"needs no_such_package: pip install 'agent-registry-lab\[server\]'"):
        require_sockets(lambda: True)
    require_sockets(lambda: False)
    with pytest.raises(UsageError, match="no_such_package"):
        checked(body)


def test_a_limit_of_the_machine_is_no_finding_about_the_target(
    checked: Callable[[Callable[[Trial], Awaitable[None]]], CheckResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab_utils.checks.events.talking import Talk, each

    async def body(trial: Trial) -> None:
        trial.judge(Verdict.passed("1 thing"))
        target = await trial.target()

        async def work(_: int, talk: Talk) -> None:
            await talk.connect("phone")

        await each(trial, [Talk(trial, target, "ada")], work)

    monkeypatch.setattr(descriptors, "_BESIDE", 10**12)
    result = checked(body)
    assert result.outcome is Outcome.UNKNOWN
    assert "ulimit -n" in result.verdict.reason


class Limits:
    """The limits of open files, in place of the process's own."""

    RLIMIT_NOFILE, RLIM_INFINITY = 7, -1

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = (soft, hard)

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [(1_024, 4_096, 2_256), (2_256, 4_096, 2_256), (2_255, 2_256, 2_256), (1_024, -1, 2_256), (-1, -1, -1)],
)
def test_the_soft_limit_is_raised_as_far_as_needed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, after: int
) -> None:
    limits = Limits(soft, hard)
    monkeypatch.setitem(sys.modules, "resource", limits)
    room_for(1_000)
    assert limits.limits == (after, hard)


def test_a_hard_limit_that_is_too_low_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(1_024, 2_255)
    monkeypatch.setitem(sys.modules, "resource", limits)
    with pytest.raises(TooFewDescriptors, match=r"1000 sockets.*2256 open files.*2255.*ulimit -n 2256"):
        room_for(1_000)
    assert limits.limits == (1_024, 2_255)


async def test_room_is_made_for_the_sockets_that_are_open_not_for_those_that_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("lab_utils.sockets.transport.room_for", asked.append)
    async with in_trial() as (trial, target):
        for _ in range(66):
            device = await connected(trial, target)
            await device.close()
            assert await trial.waiting.until(lambda: target.connections() == 0)
        assert len(asked) > 1
        assert max(asked) <= 2 * 64


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await receive()

    async with in_trial() as (_, target):
        vars(target)["make_events_app"] = lambda *_: silent
        sockets = SocketTransport(target, 0.2)
        try:
            attempt = await sockets.attempt("ada")
            assert (attempt.is_open, attempt.is_over) == (False, False)
            with pytest.raises(NotLetIn, match="'ada' was left waiting"):
                await sockets.connect("ada")
        finally:
            await sockets.aclose()


@pytest.mark.parametrize(("in_vain_before", "ends_at"), [(False, 120.0), (True, 10.0)])
async def test_patience_lasts_as_long_as_anything_arrives_and_nobody_has_waited_in_vain(
    monkeypatch: pytest.MonkeyPatch, in_vain_before: bool, ends_at: float
) -> None:
    async with in_trial() as (trial, _):
        turns, now, arrived = 0, 0.0, 0
        trial.waiting.stuck_after = 40.0
        trial.waiting.waited_in_vain = in_vain_before

        def turn() -> bool:
            nonlocal turns, now, arrived
            turns += 1
            if turns > 500:  # The first turns are asked for without a look at the clock.
                now += 1.0
                arrived += now % 10 == 0 and now < 80
            return False

        monkeypatch.setattr(trial.waiting, "_now", lambda: now)
        monkeypatch.setattr(trial._transports, "arrived", lambda: arrived)
        assert not await trial.waiting.until(turn)
        assert now == ends_at
        assert trial.waiting.waited_in_vain
