"""Events that name another stream, thread, run or agent than their own are named; ids that no target sent are not
judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from lab_utils.judges.delivery import Received, exactly_its_own
from lab_utils.judges.envelope import unnamed
from lab_utils.judges.speech import Ran, Said, said_by
from lab_utils.target import Delivered
from lab_utils.values.verdict import Finding, Outcome

Events = list[Delivered]

FIRST = Ran("#1", thread="main", agent_id="a1")
"""The target named it: the caller did not receive its run."""
SECOND = Ran("#1", run="r2", thread="main", agent_id="a1")
THIRD = Ran("#2", run="r3", thread="other", agent_id="a2")
BOBS = Ran("#3", run="r4", thread="main", agent_id="a3")
SAID = tuple(
    said
    for agent, run, ran in (("helper", "first", FIRST), ("helper", "second", SECOND), ("scribe", "third", THIRD))
    for said in said_by(agent, "think", {"thoughts": [run]}, ran)
)
BOB_SAID = said_by("helper", "think", {"thoughts": ["bobs"]}, BOBS)


def heard(said: Sequence[Said] = SAID, user: str = "ann", stream: str = "s1", greeted: str = "s1") -> Events:
    events = []
    for seq, one in enumerate(said, 1):
        assert one.ran is not None
        run, thread, agent_id = one.ran.run or "made up", one.ran.thread, one.ran.agent_id
        event = Delivered(user, seq, one.type, one.agent, run, one.body, stream, thread, agent_id, greeted)
        events.append(event)
    return events


def ann(events: Events, **more: object) -> Received:
    return replace(Received("phone", "ann", events, SAID), **more)  # type: ignore[arg-type]


def bob(events: Events | None = None) -> Received:
    return Received("phone", "bob", heard(BOB_SAID, "bob", "s2", "s2") if events is None else events, BOB_SAID)


def findings(*clients: Received) -> list[Finding]:
    verdict = exactly_its_own(clients)
    assert (verdict.outcome is Outcome.FAIL) == bool(verdict.findings)
    return list(verdict.findings)


def anomalies(*clients: Received) -> set[str]:
    return {finding.anomaly for finding in findings(*clients)}


def all_with(**ids: str) -> Events:
    return [replace(event, **ids) for event in heard()]  # type: ignore[arg-type]


def one_with(place: int, **ids: str) -> Events:
    events = heard()
    return [*events[:place], replace(events[place], **ids), *events[place + 1 :]]  # type: ignore[arg-type]


def test_what_is_right_passes_on_every_device() -> None:
    assert findings(ann(heard()), ann(heard()), bob()) == []


@pytest.mark.parametrize(
    ("events", "anomaly"),
    [
        (lambda: all_with(stream="s3"), "wrong-stream"),
        (lambda: one_with(4, stream="s3"), "wrong-stream"),
        (lambda: one_with(0, stream="s2", greeted="s2"), "wrong-stream"),
        (lambda: all_with(stream=""), "wrong-stream"),
        (lambda: all_with(run="r2"), "wrong-run"),
        (lambda: all_with(run=""), "wrong-run"),
        (lambda: one_with(0, run="r2"), "wrong-run"),
        (lambda: one_with(2, run="something else"), "wrong-run"),
        (lambda: one_with(4, run="R2"), "wrong-run"),
        (lambda: [replace(event, run="r4") if event.run == "made up" else event for event in heard()], "wrong-run"),
        (lambda: all_with(thread="main"), "wrong-thread"),
        (lambda: all_with(thread=""), "wrong-thread"),
        (lambda: one_with(3, thread="other"), "wrong-thread"),
        (lambda: all_with(agent_id="a1"), "wrong-agent"),
        (lambda: all_with(agent_id=""), "wrong-agent"),
        (lambda: one_with(8, agent_id="a3"), "wrong-agent"),
    ],
)
def test_what_is_wrong_is_named_alone(events: Callable[[], Events], anomaly: str) -> None:
    assert anomalies(ann(events()), bob()) == {anomaly}


def test_streams_of_two_users_differ_even_where_both_were_told_so() -> None:
    (finding,) = findings(ann(heard()), bob(heard(BOB_SAID, "bob", "s1", "s1")))
    assert finding.anomaly == "wrong-stream"
    assert "'ann'" in finding.sentence


def test_in_process_a_stream_is_the_same_throughout() -> None:
    assert anomalies(ann(heard(greeted=""))) == set()
    mixed = [replace(event, stream=f"s{event.seq > 4}", greeted="") for event in heard()]
    assert anomalies(ann(mixed)) == {"wrong-stream"}


def test_after_a_restart_another_stream_is_right_as_told() -> None:
    events = [replace(event, stream="s9", greeted="s9") if event.seq > 4 else event for event in heard()]
    assert findings(ann(events), bob()) == []


def unheard(said: Sequence[Said]) -> tuple[Said, ...]:
    """As a caller without ids knows it."""
    told: dict[Ran | None, Ran] = {}
    return tuple(replace(one, ran=told.setdefault(one.ran, Ran(one.ran.agent))) for one in said if one.ran)


def test_what_no_event_names_in_process_is_not_judged_and_told() -> None:
    silent = [replace(event, stream="", thread="", run="", agent_id="", greeted="") for event in heard()]
    quiet = ann(silent, said=unheard(SAID))
    assert findings(quiet) == []
    assert unnamed([quiet]) == ("stream", "thread", "run", "agent")
    assert unnamed([ann(heard(greeted=""))]) == ()
    assert unnamed([ann([])]) == ()


def test_an_id_that_the_caller_was_promised_is_judged_where_no_event_names_it() -> None:
    silent = ann([replace(event, stream="", thread="", run="", agent_id="", greeted="") for event in heard()])
    assert anomalies(silent) == {"wrong-run", "wrong-agent"}
    assert unnamed([silent]) == ("stream", "thread")


@pytest.mark.parametrize(
    ("events", "anomaly"),
    [
        (heard, None),
        (lambda: all_with(run="r"), "wrong-run"),
        (lambda: one_with(1, run="r"), "wrong-run"),
        (lambda: [*heard()[:3], *(replace(event, run="made up") for event in heard()[3:6]), *heard()[6:]], "wrong-run"),
        (lambda: all_with(agent_id="a"), "wrong-agent"),
        (lambda: one_with(5, agent_id="a"), "wrong-agent"),
        (lambda: one_with(5, thread="t"), "wrong-thread"),
        (lambda: all_with(thread="t"), None),
    ],
)
def test_ids_that_nobody_was_told_are_one_throughout(events: Callable[[], Events], anomaly: str | None) -> None:
    assert anomalies(ann(events(), said=unheard(SAID))) == ({anomaly} if anomaly else set())


def test_agents_of_two_users_may_have_one_name_in_two_registries() -> None:
    alike = tuple(replace(one, ran=Ran("#1")) for one in unheard(BOB_SAID[:1]))
    bobs = replace(bob(), events=heard(BOB_SAID, "bob", "s2", "s2")[:1], said=alike)
    assert findings(ann(heard(), said=unheard(SAID)), bobs) == []


def test_the_stream_of_a_foreign_event_is_no_finding_of_its_own() -> None:
    foreign = replace(heard(BOB_SAID, "bob", "s2", "s1")[0], seq=99)
    assert anomalies(ann([*heard(), foreign]), bob()) == {"foreign-event"}


def test_the_ids_of_what_was_lost_are_not_guessed() -> None:
    events = one_with(0, run="r2")
    assert anomalies(ann([events[0], *events[2:]])) == {"lost-event"}
    assert anomalies(ann(heard()[:4], cut_off=True)) == set()
    assert anomalies(ann(one_with(3, run="x")[:4], cut_off=True)) == {"wrong-run"}


CALLS = said_by("helper", "tool", {"name": "total"}, FIRST, 1) + said_by("helper", "tool", {"name": "total"}, SECOND, 2)


@pytest.mark.parametrize(
    ("calls", "anomaly"),
    [
        ((1, 1, 2, 2), None),
        ((None, None, None, None), None),
        ((1, 1, 1, 1), "altered-payload"),
        ((1, 2, 2, 2), "altered-payload"),
        ((1, 1, None, None), "altered-payload"),
        (("1", "1", "2", "2"), "extra-field"),
        ((1, 1, 2, True), "extra-field"),
    ],
)
def test_tool_calls_are_numbered_in_their_agent(calls: Sequence[object], anomaly: str | None) -> None:
    numbers = iter(calls)
    events = []
    for event in heard(CALLS):
        payload = json.loads(event.body)
        if event.type.startswith("tool_") and (call := next(numbers)) is not None:
            payload["call"] = call
        events.append(replace(event, body=json.dumps(payload)))
    assert anomalies(ann(events, said=CALLS)) == ({anomaly} if anomaly else set())
