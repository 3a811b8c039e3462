"""Checks of the category websocket_bridge; the events are those that running agents emit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from lab_utils.checks.events import clients
from lab_utils.checks.events.rare import judge_rare_events
from lab_utils.checks.events.stalled import stalled_reader
from lab_utils.checks.events.talking import Listener, Talk, all_arrived, bridges_of, each, heard, some_of, thought
from lab_utils.judges.delivery import exactly_its_own
from lab_utils.judges.isolation import distinct_objects
from lab_utils.judges.promptness import Pause, Told, none_late, told_the_same
from lab_utils.target import Capability, Handle, Recipe, Refusal, Refused, brings_a_manager
from lab_utils.trial import Check, Part, Trial
from lab_utils.trial.faults import Failure, Hang, OnlyFor, planned_in
from lab_utils.values.workload import canary, rows_for

__all__ = ["CHECKS"]

_BURST, _BURST_RUNS = 250, 6
"""Thoughts a run and runs, for a client that reads nothing: more than a bounded queue is likely to hold."""


_RUN = "one-request"
_LONG = 70_000
"""Characters of the longest text, more than the 64 KiB that a frame or a buffer often holds."""


def _awkward(user: str, longest: int) -> list[str]:
    """Texts that a careless channel cuts, escapes twice, or takes for the end of a message."""
    texts = [
        "",
        " ",
        '"quoted" \\ and /',
        "two\r\nlines\u2028three\x00",
        "na\u00efve \u65e5\u672c \U0001f600",
        "x" * longest,
    ]
    return [f"{thought(user, number)}{text}" for number, text in enumerate(texts)]


async def _association(trial: Trial) -> None:
    users = trial.neighbours(int(trial.parameters["users"]))
    broken = Recipe("broken", on_create=Failure("this factory never works"))
    target = await trial.target([Recipe("early"), Recipe("late"), Recipe("other"), broken])
    talks = [Talk(trial, target, user) for user in users]
    bridges: dict[str, list[Any]] = {}
    begins_without = brings_a_manager(target)
    if not begins_without:
        trial.leave_out("sessions that begin without a manager, for the target has none")
    has_borders = Capability.PERMISSIONS in target.capabilities
    if not has_borders:
        trial.leave_out("that a refused context binds nothing, for the target does not say that it refuses any")

    async def associate(position: int, talk: Talk) -> None:
        await talk.connect("phone")
        stranger = users[position - 1]
        if has_borders:
            await _refused(trial, talk, stranger)
        # It would have been the first of the session, and brings the manager: it takes no client along.
        await _fails(trial, talk)
        early = await talk.client.create("early", connect=False)
        if begins_without:
            await talk.run_unheard(early, thought(talk.user, 0))
        if has_borders:
            await _refused(trial, talk, stranger)
        if position % 2:
            await target.attach(talk.user)
            await talk.run(early, "think", thoughts=[thought(talk.user, 20)])
        # Else the first of these brings the manager, and they race for it.
        places = (("late", "main"), ("other", "main"), ("late", "elsewhere"))
        handles = await asyncio.gather(*(talk.client.create(kind, thread=thread) for kind, thread in places))
        for number, handle in enumerate([early, *handles], 1):
            await talk.run(handle, "think", thoughts=[thought(talk.user, number)])
        bridges[talk.user] = await bridges_of(target, [early, *handles])
        await target.attach(talk.user)
        for number, handle in enumerate([early, *handles], 10):
            await talk.run(handle, "think", thoughts=[thought(talk.user, number)])
        if Capability.TOOLS in target.capabilities:
            # Tools were made with their agent, which was there before either manager.
            await talk.run(early, "tool", name="total", parameters={"column": "tokens_in"})

    await each(trial, talks, associate)
    trial.judge(exactly_its_own(await all_arrived(trial, talks)))
    if Capability.PARTS in target.capabilities:
        trial.judge(distinct_objects({"bridge": bridges}))
        for user, found in bridges.items():
            many = len({id(bridge) for bridge in found})
            trial.require(
                many <= 1, "several-bridges", f"the session of {user!r} has {many} bridges", *map(repr, found)
            )
    trial.measure("users with a bridge of their own", len(users), "users")


async def _fails(trial: Trial, talk: Talk) -> None:
    try:
        await talk.client.create("broken")
    except Exception as error:
        if planned_in(error) is None:
            raise
    sentence = f"a create of {talk.user!r} failed, and their client was disconnected"
    trial.require(talk.listeners[0].is_open, "connection-lost", sentence)


async def _refused(trial: Trial, talk: Talk, stranger: str) -> None:
    try:
        await talk.client.create("late", context_user=stranger)
    except Refused as refusal:
        sentence = f"a context of {stranger!r} offered by {talk.user!r} was refused as {refusal.kind}, not as boundary"
        trial.require(refusal.kind is Refusal.BOUNDARY, "wrong-refusal", sentence, refusal)
    else:
        trial.find("boundary-crossed", f"{talk.user!r} received an agent in the name of {stranger!r}",
                   *trial.history.where(user=talk.user, action="create")[-1:])  # fmt: skip


async def _communication(trial: Trial) -> None:
    *users, listens = trial.neighbours(int(trial.parameters["users"]) + 1)
    hangs = {user: Hang() for user in users}
    recipes = [Recipe("helper"), Recipe("scribe"), Recipe("held", on_run=OnlyFor(dict(hangs)))]
    target = await trial.target(recipes, {user: rows_for(user, 5, trial.rng) for user in users})
    talks = [Talk(trial, target, user) for user in users]
    has_sockets = trial.sockets(target) is not None
    verbose = frozenset(some_of(trial, users, f"a text of {_LONG:,} characters arrives"))
    pauses: list[Pause] = []
    has_tools = Capability.TOOLS in target.capabilities
    if not has_tools:
        trial.leave_out(f"the events of tools (the target lacks: {Capability.TOOLS})")

    async def total(talk: Talk, speaker: Handle, column: str) -> None:
        if has_tools:
            await talk.run(speaker, "tool", name="total", parameters={"column": column})
        else:
            await talk.run(speaker, "think", thoughts=[thought(talk.user, 80), column])

    async def converse(position: int, talk: Talk) -> None:
        user = talk.user
        devices = [await talk.connect("phone"), await talk.connect("tablet")]
        helper, scribe, held = [await talk.client.create(kind) for kind in ("helper", "scribe", "held")]
        await talk.run(helper, "think", thoughts=_awkward(user, _LONG if user in verbose else _LONG // 100))
        pause = await _pause(trial, devices[0])
        await total(talk, scribe, "tokens_in")
        await heard(trial, devices[0])
        pauses.append(replace(pause, later=devices[0].read()))
        await total(talk, scribe, "tokens_out")
        await talk.run(helper, "fail", message=canary(user, "failure", 0))
        for number, speaker in enumerate((helper, scribe)):
            # One request that two agents work on: both of its runs have its id.
            await talk.run(speaker, "think", _RUN, thoughts=[thought(user, 90 + number)])
        await talk.run_cancelled(held, hangs[user].reached)
        for number in range(int(trial.parameters["runs_per_user"])):
            speaker = (scribe, helper)[number % 2]
            await talk.run(speaker, "think", thoughts=[thought(user, 100 + 2 * number + half) for half in (0, 1)])
        if position == 0 and not has_sockets:
            await talk.connect("stalled reader", reads=False)
            for run in range(_BURST_RUNS):
                first = 1_000 + run * _BURST
                await talk.run(helper, "think", thoughts=[thought(user, first + n) for n in range(_BURST)])
                for device in devices:
                    device.read()

    # Without a session while all others talk.
    listener = Talk(trial, target, listens)
    await listener.connect("phone")
    await each(trial, talks, converse)
    await listener.run(await listener.client.create("helper"), "think", thoughts=[thought(listens, 0)])
    received = await all_arrived(trial, [*talks, listener])
    trial.judge(exactly_its_own(received))
    trial.judge(none_late(pauses))
    trial.judge(told_the_same((_told(phone), _told(tablet)) for talk in talks for phone, tablet in _pairs(talk)))
    stalled = [one for one in received if one.client == "stalled reader"]
    for one in stalled:
        kept = "was disconnected" if one.cut_off else f"received all {len(one.said)} events"
        trial.note(f"A client that did not read {kept}; either is a stated policy, a silent gap is not.")
    trial.measure("event types seen", len({event.type for one in received for event in one.events}), "types")
    await trial.stop(target)
    if has_sockets:
        await stalled_reader(trial)


async def _pause(trial: Trial, listener: Listener) -> Pause:
    """Between two runs: everything of the first must have come."""
    await heard(trial, listener)
    return Pause(listener.name, listener.user, listener.due, listener.read(), ())


def _pairs(talk: Talk) -> list[tuple[Listener, Listener]]:
    phone, tablet = [*talk.listeners, None, None][:2]
    return [(phone, tablet)] if phone is not None and tablet is not None else []


def _told(listener: Listener) -> Told:
    return Told(listener.name, listener.user, [str(text) for text in listener.texts])


CHECKS = (
    Check(
        name="websocket_manager_association_with_user_context",
        category="websocket_bridge",
        claim="A session has one bridge, its own user's, no matter who attaches the manager, late or twice; a refused "
        "context attaches nothing.",
        protects="data",
        looks_like="A customer's progress bar stands still, while in another company's browser a chat scrolls that "
        "nobody there has started: the first request after the deployment made the bridge, and everybody who came "
        "later was given it.",
        body=_association,
        planted=(
            "FirstUsersBridge",
            "BridgePerAgent",
            "RefusedContextBinds",
            "LateManagerIgnored",
            "ThreadOfSession",
            "LastAgentsName",
            "ThreadLeftToDefault",
            "AgentNamedByType",
            "OldBridgeKept",
            "BothBridgesSpeak",
            "LateSocketUnassociated",
            "FailedCreateHangsUp",
            "ToolsOfTheFirstBridge",
        ),
        uses=frozenset(
            {
                Capability.AGENT_IDS,
                Capability.PARTS,
                Capability.PERMISSIONS,
                Capability.RUN_IDS,
                Capability.SOCKETS,
                Capability.THREADS,
                Capability.TOOLS,
            }
        ),
        needs=frozenset({Capability.EVENTS}),
    ),
    Check(
        name="bridge_communication_validation_per_user",
        category="websocket_bridge",
        claim="All six event types of real runs, failed and cancelled ones too, reach every device of their user: in "
        "order, numbered without a gap, and with the payload that was emitted. A run that leaves the line is reported "
        "whole or not at all, and a client that reads late misses nothing. One that has gone leaves its place to "
        "others. A user who has no session yet is sent nothing.",
        protects="golden_path",
        looks_like="The spinner never stops: the agent failed an hour ago, but agent_error is the one event that the "
        "error path forgot to send. Support sees a tool that completed before it began and an answer cut off in the "
        "middle of a word.",
        body=(
            Part(
                "events of users who talk at once",
                _communication,
                planted=(
                    "LobbyHearsAll",
                    "ReorderedEvents",
                    "GapInNumbers",
                    "DeliversTwice",
                    "CallsRestart",
                    "ReusedEventObject",
                    "TruncatedPayload",
                    "SilentErrors",
                    "SwallowedToolEvents",
                    "RunOfSession",
                    "SpeakerOfTheRequest",
                    "HostInCompletions",
                    "RequestToldTwice",
                    "ReordersFrames",
                    "LossWhenFull",
                    "SkipsNumbers",
                    "StalledReaderStopsAll",
                    "UnboundedReplay",
                    "ResyncUntold",
                    "SecondDeviceReplacesFirst",
                    "FinishedRunsEventLate",
                    "OversizedFrameDropped",
                    "BatchEndLost",
                    "ThreeByteText",
                    "SeparatorsCleaned",
                ),
            ),
            Part(
                "events that are rare",
                judge_rare_events,
                planted=(
                    "DropsWhenFull",
                    "StartedInLine",
                    "NumberedBeforeEncoded",
                    "UnreadLostAtEnd",
                    "OldestUnreadDropped",
                    "SixClientsServed",
                    "AudienceOfTheStart",
                    "EqualThoughtsOnce",
                    "EmptyThoughtsDropped",
                    "ErrorsShortened",
                    "EachManagerHoldsClients",
                    "EndKeepsPlacesOfClients",
                    "FirstToLeaveTakesAll",
                    "RefusedSocketsCounted",
                ),
            ),
        ),
        uses=frozenset(
            {
                Capability.AGENT_IDS,
                Capability.END,
                Capability.RUN_IDS,
                Capability.SOCKETS,
                Capability.THREADS,
                Capability.TOOLS,
            }
        ),
        needs=frozenset({Capability.EVENTS}),
    ),
    Check(
        name="event_delivery_isolation_between_users",
        category="websocket_bridge",
        claim="Users run at once, and each receives all of its own events, errors included, and none of another's.",
        protects="data",
        looks_like="Under load, and only then, a bank's analyst reads in the progress panel an agent's thoughts about "
        "a competitor's figures. The log of the sender shows nothing: for it every event was delivered.",
        body=clients.isolation,
        planted=(
            "PrefixRouting",
            "BroadcastEvents",
            "FirstUsersBridge",
            "OneStreamForAll",
            "CurrentUserSlot",
            "ErrorsToEverybody",
            "BroadcastOverSockets",
            "StreamOfFirstUser",
            "NeighboursRun",
            "RunOfFirstEvent",
            "RequestDefaulted",
            "UserToldTwice",
            "RegionInStarts",
            "TraceInEnvelope",
            "GreetsFromZero",
            "GreetsAsAsked",
            "SharedFrameCache",
            "FirstUsersSocket",
            "ResumesAnyStream",
            "TokenNotBound",
            "VerifiedOncePerAddress",
            "AcceptsForeignAudience",
            "AcceptsExpired",
            "AnyOrigin",
            "OriginByItsBeginning",
            "TokenEchoed",
            "LimitPerAddress",
        ),
        uses=frozenset({Capability.AGENT_IDS, Capability.RUN_IDS, Capability.SOCKETS, Capability.THREADS}),
        needs=frozenset({Capability.EVENTS}),
    ),
    Check(
        name="websocket_connection_lifecycle_management",
        category="websocket_bridge",
        claim="Clients connect, drop, reconnect, and leave with their session or their token. Each receives every "
        "event that is sent while it is connected, to the last one, and in the end nothing is left.",
        protects="stability",
        looks_like="After two weeks the server runs out of file descriptors: every phone that went through a tunnel "
        "left a connection behind. A user who logged out and in again is shown yesterday's run once more, event by "
        "event.",
        body=clients.lifecycle,
        planted=(
            "ConnectionOutlivesSession",
            "ConnectionOutlivesEmptySession",
            "DroppedConnectionKept",
            "ReplaysOnReconnect",
            "BytesNeverGivenBack",
            "ReplacingDropsClients",
            "EndDisconnectsNeighbours",
            "DuplicateAfterReconnect",
            "ForgetsMissed",
            "AckOfOneDevicePrunes",
            "RestartKeepsStreamName",
            "SocketOutlivesSession",
            "OneLeavesAllForgotten",
            "LeakedAdmissions",
            "TailLostAtEnd",
            "ResumesOneTooEarly",
            "ResumesOneTooLate",
            "ExpiryAtConnectOnly",
            "ResumedForGood",
            "TimerLeavesWithTheFirst",
            "LogBeginsAtOne",
        ),
        uses=frozenset(
            {
                Capability.AGENT_IDS,
                Capability.END,
                Capability.EXPIRY,
                Capability.PARTS,
                Capability.REMOVE,
                Capability.RUN_IDS,
                Capability.SOCKETS,
                Capability.THREADS,
            }
        ),
        needs=frozenset({Capability.EVENTS}),
    ),
)
