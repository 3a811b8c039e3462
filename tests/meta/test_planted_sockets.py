"""Each defect planted behind sockets shows to plain clients of them, and to none of the correct twin's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("itsdangerous")

from lab_utils.checks import CHECKS
from lab_utils.runner import run_check
from lab_utils.sockets.device import EventClient
from lab_utils.sockets.fleet import ClientFleet
from lab_utils.sockets.loopback import LoopbackServer, serving
from lab_utils.target import Command, Handle, Recipe, Target
from lab_utils.targets import make_target
from lab_utils.targets.planted import sockets
from lab_utils.values.verdict import Outcome
from registry.events.wire import CloseCode
from tests.running import run

AT_ONCE = 1_100
"""Thoughts of one run, more than are kept for anybody."""


class Stage:
    """A target behind a server, its agents, and clients on a loop of their own."""

    def __init__(self, target: Any, server: LoopbackServer, fleet: ClientFleet, *, patience_s: float) -> None:
        self.target = target
        self.server = server
        self.fleet = fleet
        # How long to wait for events that a defect holds back. The correct twin is given all the time that it needs.
        self.patience_s = patience_s
        self.users: dict[EventClient, str] = {}
        self.emitted: dict[str, list[str]] = {}
        self._agents: dict[str, Handle] = {}

    async def client(
        self, user: str, *, query: str = "", token: str | None = None, after: EventClient | None = None, **options: Any
    ) -> EventClient:
        """Connect and wait to be greeted or refused; `after`: come back as that client, with its knowledge."""
        token = token or self.target.token(user)
        client = EventClient(self.server.url(f"/{query}"), token, reconnect=False, **options)
        if after is not None:
            client.stream, client.seq = after.stream, after.seq
        self.users[client] = user
        self.fleet.add(client)
        await self.fleet.until(lambda one: one.is_ready or one.is_ended, [client])
        return client

    async def drop(self, client: EventClient) -> None:
        """Break a connection; return when the server knows."""
        left = self.target.manager.admissions.total - 1
        await self.fleet.do(client.drop)
        await turns_until(lambda: self.target.manager.admissions.total == left)

    async def say(self, user: str, *thoughts: str) -> None:
        """Let the user's agent think, in one run."""
        if user not in self._agents:
            self._agents[user] = await self.target.create(user, "helper")
        self.emitted.setdefault(user, []).extend(thoughts)
        await self.target.run(self._agents[user], Command("think", {"thoughts": list(thoughts)}))

    async def has(self, client: EventClient, seq: int) -> None:
        await self.fleet.until(lambda one: one.seq >= seq or one.is_ended, [client])

    async def acknowledge(self, client: EventClient) -> None:
        """Acknowledge the received events; return when the server knows."""
        await self.fleet.call(client.acknowledge())
        log = self.target.manager._channels[self.users[client]].log
        await turns_until(lambda: client.seq in [one.acked for one in log.open_subscriptions()])

    async def end(self) -> None:
        """End every session, and wait for the connections to go with them, and for all that came over them."""
        for user in list(self._agents):
            await self.target.end(user)
            del self._agents[user]
        with contextlib.suppress(TimeoutError):
            await self.fleet.until(lambda one: one.is_ended, timeout_s=self.patience_s)


Scenario = Callable[[Stage], Awaitable[object]]
"""Plays; its answer is true, and the evidence, if the defect was seen."""


async def turns_until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  # The server tells nobody.
            await asyncio.sleep(0)


def thoughts(client: EventClient) -> list[str]:
    return [event["payload"]["thought"] for event in client.events if event["type"] == "agent_thinking"]


def numbers(client: EventClient) -> list[int]:
    return [event["seq"] for event in client.events]


def foreign(stage: Stage) -> list[str]:
    return [text for one, user in stage.users.items() for text in one.texts if json.loads(text)["user_id"] != user]


async def lost(stage: Stage, client: EventClient, *expected: str) -> list[str]:
    """The events that the client never received, without a warning."""
    await stage.end()
    if client.tally.resyncs or client.close_code == CloseCode.SLOW_CONSUMER:
        return []
    received = set(thoughts(client))
    return [thought for thought in expected if thought not in received]


async def both_speak(stage: Stage) -> object:
    for user in ("ada", "bob"):
        await stage.client(user)
        await stage.say(user, "first")
    await asyncio.gather(stage.say("ada", "second"), stage.say("bob", "second"))
    await stage.end()
    return foreign(stage)


async def in_order(stage: Stage) -> object:
    client = await stage.client("ada")
    await stage.say("ada", "one", "two", "three")
    await stage.end()
    return numbers(client) != sorted(numbers(client)) and numbers(client)


async def two_runs_each(stage: Stage) -> dict[str, list[EventClient]]:
    """Two users, both with a run of an agent in each of two threads, and one more of the first."""
    clients = {user: [await stage.client(user)] for user in ("ada", "bob")}
    for user in clients:
        other = await stage.target.create(user, "helper", thread="other")
        await stage.say(user, "one")
        await stage.target.run(other, Command("think", {"thoughts": ["two"]}))
        await stage.target.run(other, Command("think", {"thoughts": ["three"]}, "an own run"))
    for user in clients:
        await stage.target.end(user)
    await stage.end()
    return clients


def told(*names: str) -> Scenario:
    """The fields that the events of two users name; a finding if they are not those of their runs, or the same for two
    users."""

    async def play(stage: Stage) -> object:
        events = {user: one[0].events for user, one in (await two_runs_each(stage)).items()}
        assert all(len(each) == 9 for each in events.values())
        wrong = []
        for name in names:
            ada, bob = ([event[name] for event in events[user]] for user in ("ada", "bob"))
            runs = [set(values[start : start + 3]) for values in (ada, bob) for start in (0, 3, 6)]
            many = {"stream": 1, "thread_id": 2, "agent_id": 2, "run_id": 3}[name]
            mixed = any(len(run) != 1 for run in runs)
            shared = set(ada) & set(bob) - {"main", "other", "an own run"}
            if mixed or shared or len(set(ada)) != many or len(set(bob)) != many:
                wrong.append((name, ada, bob))
        return wrong

    return play


async def runs_at_once(stage: Stage) -> object:
    clients = [await stage.client(user) for user in ("ada", "bob")]
    agents = [await stage.target.create(user, "helper") for user in ("ada", "bob")]
    # Each waits between its two events, and the other begins.
    add = Command("add", {"key": "n", "amount": 1, "pause_s": 0})
    await asyncio.gather(*(stage.target.run(agent, add) for agent in agents))
    for client in clients:
        await stage.has(client, 2)
    runs = [{event["run_id"] for event in client.events} for client in clients]
    return runs[0] & runs[1] and runs


async def greeted_with_its_stream(stage: Stage) -> object:
    clients = await two_runs_each(stage)
    return [client for (client,) in clients.values() if {each["stream"] for each in client.events} != {client.stream}]


async def names_stand_once(stage: Stage) -> object:
    clients = await two_runs_each(stage)
    return [text for (client,) in clients.values() for text in client.texts if _twice(text)]


def _twice(text: str) -> list[str]:
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated.extend(name for name in set(names) if names.count(name) > 1)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    return repeated


async def fields_are_known(stage: Stage) -> object:
    ((client,), _) = (await two_runs_each(stage)).values()
    started = next(event for event in client.events if event["type"] == "agent_started")
    known = {"stream", "seq", "type", "user_id", "thread_id", "run_id", "agent_type", "agent_id", "payload"}
    return set(started["payload"]) - {"request"} or set(started) - known


async def greeted_at_the_end(stage: Stage) -> object:
    await stage.client("ada")
    await stage.say("ada", "one")
    late = await stage.client("ada")
    await stage.say("ada", "two")
    await stage.end()
    assert numbers(late) == [4, 5, 6]
    return late.tally.gaps


async def overflow(stage: Stage) -> object:
    client = await stage.client("ada")
    said = [f"{number}: {'x' * 50_000}" for number in range(30)]
    await stage.say("ada", *said)
    return await lost(stage, client, *said)


async def full_twice(stage: Stage) -> object:
    client = await stage.client("ada")
    said = [f"{number}: {'x' * 50_000}" for number in range(15)]
    await stage.say("ada", *said)
    await stage.has(client, len(said) + 2)
    await stage.acknowledge(client)
    await stage.say("ada", *said)
    await stage.end()
    return client.close_code == CloseCode.SLOW_CONSUMER


async def numbered(stage: Stage) -> object:
    client = await stage.client("ada")
    await stage.say("ada", "one")
    await stage.say("ada", "two")
    await stage.end()
    assert thoughts(client) == ["one", "two"]
    return client.tally.gaps


def delivers(*said: str) -> Scenario:
    async def play(stage: Stage) -> object:
        client = await stage.client("ada")
        await stage.say("ada", *said)
        return await lost(stage, client, *said)

    return play


async def late_device(stage: Stage) -> object:
    first = await stage.client("ada")
    await stage.say("ada", "one")
    late = await stage.client("ada")
    await stage.say("ada", "two")
    await stage.end()
    assert numbers(first) == [1, 2, 3, 4, 5, 6]
    kinds = [event["type"] for event in late.events]
    return kinds != ["agent_started", "agent_thinking", "agent_completed"] and kinds


async def keeps_everything(stage: Stage) -> object:
    client = await stage.client("ada")
    await stage.say("ada", *map(str, range(AT_ONCE)))
    await stage.has(client, AT_ONCE)
    client.seq = 0
    again = await stage.client("ada", after=client)
    await stage.end()
    return len(thoughts(again)) == AT_ONCE


async def one_stalls(stage: Stage) -> object:
    reading = await stage.client("ada")
    stalled = await stage.client("ada", receive_buffer=4_096)
    await stage.fleet.do(stalled.stall)
    # Far more than the kernel takes for a client that does not read.
    saying = asyncio.ensure_future(say_much(stage, reading))
    had, stands_still = -1, False
    while not saying.done() and not stands_still:
        had = reading.seq
        await asyncio.wait({saying}, timeout=stage.patience_s)
        stands_still = reading.seq == had and not saying.done()
    await stage.fleet.do(stalled.drop)
    async with asyncio.timeout(60):
        # Not only when a ping makes somebody look.
        await saying
    await stage.end()
    assert reading.close_code == CloseCode.SESSION_ENDED
    return stands_still


async def say_much(stage: Stage, reading: EventClient) -> None:
    for number in range(1, 21):
        await stage.say("ada", *(f"{place}: {'x' * 50_000}" for place in range(10)))
        await stage.has(reading, 12 * number)


async def comes_back(stage: Stage) -> tuple[EventClient, EventClient]:
    phone = await stage.client("ada")
    await stage.say("ada", "one")
    await stage.has(phone, 3)
    await stage.acknowledge(phone)
    await stage.drop(phone)
    await stage.say("ada", "two")
    return phone, await stage.client("ada", after=phone)


async def missed(stage: Stage) -> object:
    _, again = await comes_back(stage)
    await stage.say("ada", "three")
    return await lost(stage, again, "two", "three")


async def twice(stage: Stage) -> object:
    phone, again = await comes_back(stage)
    await stage.end()
    return set(phone.texts) & set(again.texts)


async def comes_back_too_late(stage: Stage) -> object:
    phone = await stage.client("ada")
    await stage.say("ada", "one")
    await stage.has(phone, 3)
    await stage.drop(phone)
    said = [str(number) for number in range(AT_ONCE)]
    await stage.say("ada", *said)
    return await lost(stage, await stage.client("ada", after=phone), *said)


async def another_life(stage: Stage) -> object:
    phone = await stage.client("ada")
    await stage.say("ada", "one")
    await stage.has(phone, 3)
    await stage.end()
    again = await stage.client("ada", after=phone)
    await stage.say("ada", "two")
    missing = await lost(stage, again, "two")
    assert again.tally.resyncs or missing
    return missing


async def names_a_stream(stage: Stage) -> object:
    ada = await stage.client("ada")
    await stage.say("ada", "one")
    await stage.has(ada, 3)
    ada.seq = 0
    await stage.client("bob", after=ada)
    for user in ("ada", "bob"):
        await stage.say(user, "two")
    await stage.end()
    return foreign(stage)


async def is_told_the_stream_of_another(stage: Stage) -> object:
    ada = await stage.client("ada")
    await stage.say("ada", "one")
    await stage.has(ada, 3)
    bob = await stage.client("bob", after=ada)
    await stage.say("bob", "hello")  # Only a session can end, and with it the connection.
    await stage.end()
    return bob.controls[0]["stream"] == ada.stream


async def other_acknowledges(stage: Stage) -> object:
    phone, tablet = await stage.client("ada"), await stage.client("ada")
    await stage.say("ada", "one")
    await stage.has(phone, 3)
    await stage.drop(phone)
    await stage.say("ada", "two")
    await stage.has(tablet, 6)
    await stage.acknowledge(tablet)
    again = await stage.client("ada", after=phone)
    await stage.end()
    return thoughts(again) != ["two"] and again.controls


async def two_devices(stage: Stage) -> object:
    phone, _ = await stage.client("ada"), await stage.client("ada")
    held = stage.target.connections("ada")
    await stage.say("ada", "one")
    missing = await lost(stage, phone, "one")
    assert held == (1 if missing else 2)
    return missing


async def waits_for_the_session(stage: Stage) -> object:
    early = await stage.client("ada")
    await stage.say("ada", "one")
    late = await stage.client("ada")
    await stage.target.attach("ada")
    await stage.say("ada", "two")
    missing = await lost(stage, early, "one", "two")
    assert thoughts(late) == ["two"]
    return missing


async def other_leaves(stage: Stage) -> object:
    phone, tablet = await stage.client("ada"), await stage.client("ada")
    await stage.say("ada", "one")
    await stage.has(tablet, 3)
    await stage.drop(phone)
    # Forgotten or not, it may acknowledge its events.
    await stage.fleet.call(tablet.acknowledge())
    await stage.say("ada", "two")
    missing = await lost(stage, tablet, "two")
    assert tablet.close_code in (None, CloseCode.SESSION_ENDED)
    return missing


async def session_ends(stage: Stage) -> object:
    client = await stage.client("ada")
    await stage.say("ada", "one")
    await stage.has(client, 3)
    await stage.end()
    return not client.is_ended


async def session_ends_in_mid_speech(stage: Stage) -> object:
    client = await stage.client("ada")
    said = [f"{number}: {'x' * 16_250}" for number in range(60)]
    # Not a turn between the last event and the end.
    await stage.say("ada", *said)
    missing = await lost(stage, client, *said)
    assert client.close_code == CloseCode.SESSION_ENDED
    return missing


def resumes(ahead: int) -> Scenario:
    """Come back with the number before the first that is kept, or so many before that."""

    async def play(stage: Stage) -> object:
        phone = await stage.client("ada")
        await stage.say("ada", "one")
        await stage.has(phone, 3)
        await stage.acknowledge(phone)
        await stage.drop(phone)
        await stage.say("ada", "two")
        phone.seq -= ahead
        again = await stage.client("ada", after=phone)
        await stage.end()
        told = again.tally.resyncs
        assert numbers(again) == ([] if told else [4, 5, 6])
        return told if ahead == 0 else not told

    return play


async def outlives_its_token(stage: Stage) -> object:
    long, short = [
        await stage.client("ada", token=stage.target.token("ada", max_age=max_age)) for max_age in (3_600.0, 60.0)
    ]
    stage.target.pass_time(90.0)
    with contextlib.suppress(TimeoutError):
        await stage.fleet.until(lambda one: one.is_ended, [short], timeout_s=stage.patience_s)
    await stage.say("ada", "one")
    await stage.has(long, 3)
    assert short.close_code in (None, CloseCode.EXPIRED_TOKEN)
    again = await stage.client("ada", token=short.token)
    assert again.close_code == CloseCode.EXPIRED_TOKEN
    return not short.is_ended


async def says_who_it_is(stage: Stage) -> object:
    await stage.client("bob")
    by_query = await stage.client("ada", query="?user_id=bob")
    by_header = await stage.client("ada", headers={"X-User-Id": "bob"})
    greeted = {client.controls[0]["user_id"] for client in (by_query, by_header)}
    assert len(greeted) == 1
    return greeted == {"bob"}


async def same_address(stage: Stage) -> object:
    greeted = {user: (await stage.client(user)).controls[0]["user_id"] for user in ("ada", "bob")}
    return greeted["bob"] != "bob" and greeted


async def token_as_subprotocol(stage: Stage) -> object:
    client = await stage.client("ada", as_subprotocol=True)
    assert client.is_ready
    assert "websocket" in client.answered
    return str(client.token) in client.answered


def refused(code: CloseCode, **claims: Any) -> Scenario:
    async def play(stage: Stage) -> object:
        client = await stage.client("ada", token=stage.target.token("ada", **claims))
        assert client.is_ready or client.close_code == code
        bad = await stage.client("ada", token=stage.target.token("ada", **claims) + "x")
        assert bad.close_code == CloseCode.BAD_TOKEN
        return client.is_ready

    return play


async def a_page_elsewhere(stage: Stage) -> object:
    assert (await stage.client("ada", origin=stage.server.url("", "http"))).is_ready
    client = await stage.client("ada", origin="https://elsewhere.example")
    assert client.is_ready or client.close_code == CloseCode.WRONG_ORIGIN
    return client.is_ready


async def a_page_named_alike(stage: Stage) -> object:
    client = await stage.client("ada", origin="http://{host}.elsewhere.example")
    assert client.is_ready or client.close_code == CloseCode.WRONG_ORIGIN
    return client.is_ready


async def many_neighbours(stage: Stage) -> object:
    clients = [await stage.client(f"user {number}") for number in range(17)]
    turned_away = [client.close_code for client in clients if not client.is_ready]
    await stage.drop(clients[0])
    assert (await stage.client("user 17")).is_ready
    return turned_away


async def comes_and_goes(stage: Stage) -> object:
    for _ in range(stage.target.manager.limits.max_connections_per_user + 1):
        client = await stage.client("ada")
        if not client.is_ready:
            return client.close_code
        await stage.drop(client)
    return None


SCENARIOS: dict[str, Scenario] = {
    "BroadcastOverSockets": both_speak,
    "SharedFrameCache": both_speak,
    "FirstUsersSocket": both_speak,
    "ReordersFrames": in_order,
    "LossWhenFull": overflow,
    "BytesNeverGivenBack": full_twice,
    "SkipsNumbers": numbered,
    "StreamOfFirstUser": greeted_with_its_stream,
    "NeighboursRun": runs_at_once,
    "RunOfFirstEvent": told("run_id"),
    "ThreadLeftToDefault": told("thread_id"),
    "AgentNamedByType": told("agent_id"),
    "UserToldTwice": names_stand_once,
    "RequestDefaulted": names_stand_once,
    "RegionInStarts": fields_are_known,
    "TraceInEnvelope": fields_are_known,
    "GreetsFromZero": greeted_at_the_end,
    "GreetsAsAsked": is_told_the_stream_of_another,
    "OversizedFrameDropped": delivers("short", "x" * 70_000, "the end"),
    "BatchEndLost": delivers(*map(str, range(100))),
    "ThreeByteText": delivers("plain", "\U0001f600"),
    "SeparatorsCleaned": delivers("plain", "two\u2028lines"),
    "FinishedRunsEventLate": late_device,
    "UnboundedReplay": keeps_everything,
    "StalledReaderStopsAll": one_stalls,
    "DuplicateAfterReconnect": twice,
    "ForgetsMissed": missed,
    "ResyncUntold": comes_back_too_late,
    "RestartKeepsStreamName": another_life,
    "ResumesAnyStream": names_a_stream,
    "ResumesOneTooEarly": resumes(1),
    "ResumesOneTooLate": resumes(0),
    "AckOfOneDevicePrunes": other_acknowledges,
    "SocketOutlivesSession": session_ends,
    "TailLostAtEnd": session_ends_in_mid_speech,
    "SecondDeviceReplacesFirst": two_devices,
    "LateSocketUnassociated": waits_for_the_session,
    "OneLeavesAllForgotten": other_leaves,
    "TokenNotBound": says_who_it_is,
    "VerifiedOncePerAddress": same_address,
    "AcceptsForeignAudience": refused(CloseCode.FOREIGN_TOKEN, audience="another"),
    "AnyOrigin": a_page_elsewhere,
    "OriginByItsBeginning": a_page_named_alike,
    "TokenEchoed": token_as_subprotocol,
    "AcceptsExpired": refused(CloseCode.EXPIRED_TOKEN, max_age=0),
    "ExpiryAtConnectOnly": outlives_its_token,
    "LimitPerAddress": many_neighbours,
    "LeakedAdmissions": comes_and_goes,
}


def played(target: Target, scenario: Scenario, patience_s: float) -> object:
    async def main() -> object:
        await target.start([Recipe("helper")], {}, 5.0)
        async with (
            serving(target.asgi_app(), lifespan="off", timeout_graceful_shutdown=3) as server,
            ClientFleet() as fleet,
        ):
            seen = await scenario(Stage(target, server, fleet, patience_s=patience_s))
        await target.stop()
        return seen

    return run(main)


def test_every_defect_has_its_scenario() -> None:
    # The events left to the next client are a part of their own, tested with it.
    assert {*SCENARIOS, "RedeliveredToTheNext"} == {planted.name for planted in sockets.PLANTED}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_defect_shows(name: str) -> None:
    planted = next(one for one in sockets.PLANTED if one.name == name)
    assert played(planted.make(), SCENARIOS[name], 0.3)


@pytest.mark.parametrize("scenario", list(dict.fromkeys(SCENARIOS.values())))
def test_the_correct_twin_does_not_have_it(scenario: Scenario) -> None:
    assert not played(make_target("agent_registry"), scenario, 30.0)


@pytest.mark.parametrize("check", [check.name for check in CHECKS.values() if set(check.planted) & set(SCENARIOS)])
def test_in_process_the_checks_pass(check: str) -> None:
    for name in CHECKS[check].planted:
        if name in SCENARIOS:
            result = run_check(check, target=name, parameters={"transport": "inprocess", "users": 4})
            assert result.outcome is Outcome.PASS, f"{name}: {result.verdict.reason}\n{result.traceback}"
