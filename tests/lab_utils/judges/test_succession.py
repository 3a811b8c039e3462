"""Sessions that were opened again: each way in which the old one may act in the new one has its own name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab_utils.judges.succession import Life, no_resurrection
from lab_utils.target import Delivered
from lab_utils.values.canaries import canary
from lab_utils.values.verdict import Outcome

ADA = "ada"
MINE = [canary(ADA, "second life", number) for number in range(2)]
OF_THE_OLD, OF_ITS_REST = canary(ADA, "first life", 0), canary(ADA, "left over", 0)


def event(seq: int, run: str, kind: str, body: str = "{}") -> Delivered:
    return Delivered(ADA, seq, kind, "helper", run, body)


def life() -> Life:
    """A life in which all is well; each call gives a new one."""
    return Life(
        ADA,
        "a write",
        old_events=[event(1, "r1", "agent_started"), event(2, "r1", "agent_thinking", canary(ADA, "first life", 0))],
        new_events=[
            *(event(1, "r2", "agent_started"), event(2, "r2", "agent_thinking", MINE[0])),
            *(event(3, "r2", "agent_completed"), event(4, "r3", "agent_started")),
            *(event(5, "r3", "agent_thinking", MINE[1]), event(6, "r3", "agent_completed")),
        ],
        thoughts_due=MINE,
        old_handle={"write": "closed", "recall": "closed"},
        memory={"mine": MINE[0]},
        memory_due={"mine": MINE[0]},
        instances=("#1", "#2", "#2"),
        privileged={"create": "permission", "the tool admin": "permission"},
    )


def changed(**fields: object) -> Callable[[Life], None]:
    def change(one: Life) -> None:
        for name, value in fields.items():
            setattr(one, name, value)

    return change


def events(*more: Delivered, first: int = 0, last: int | None = None) -> Callable[[Life], None]:
    def change(one: Life) -> None:
        kept = [*list(one.new_events)[first:last], *more]
        one.new_events = [event(n, e.run, e.type, e.body) for n, e in enumerate(kept, 1)]

    return change


WRONG: dict[str, tuple[Callable[[Life], None], str]] = {
    "the old handle answers": (changed(old_handle={"write": "answered None", "recall": "closed"}), "old-handle-works"),
    "the old handle is refused as something else": (changed(old_handle={"recall": "boundary"}), "old-handle-works"),
    "what needs a permission is done": (changed(privileged={"admin": "answered 'admin'"}), "old-permission-works"),
    "a permission is refused as something else": (changed(privileged={"create": "boundary"}), "old-permission-works"),
    "the second create answers with the old agent": (changed(instances=("#1", "#1", "#1")), "old-agent-found"),
    "the old agent is found": (changed(instances=("#1", "#2", "#1")), "old-agent-found"),
    "nothing is found": (changed(instances=("#1", "#2", "nothing")), "lost-agent"),
    "something left over wrote": (changed(memory={"mine": MINE[0], "note": OF_ITS_REST}), "old-life-wrote"),
    "something left over wrote over": (changed(memory={"mine": OF_ITS_REST}), "old-life-wrote"),
    "the old memory is read": (changed(memory={"mine": MINE[0], "note": OF_THE_OLD}), "old-life-read"),
    "the new memory is lost": (changed(memory={}), "lost-write"),
    "the old context is read": (changed(context={"flat": OF_THE_OLD}), "old-life-read"),
    "an event of an old run": (events(event(0, "r1", "agent_completed")), "old-life-event"),
    "an old thought in a new run": (events(event(0, "r3", "agent_thinking", OF_ITS_REST)), "old-life-event"),
    "a replayed run": (
        events(event(0, "r1", "agent_started"), event(0, "r1", "agent_thinking", OF_THE_OLD)),
        "old-life-event",
    ),
    "the old client hears the new session": (changed(late_events=[event(3, "r2", "agent_started")]), "old-life-event"),
    "a run has an old id": (events(event(0, "r1", "agent_started")), "run-id-reused"),
    "a thought is lost": (events(last=-2), "lost-event"),
    "no event at all": (changed(new_events=[]), "lost-event"),
}


@pytest.mark.parametrize(("change", "anomaly"), WRONG.values(), ids=WRONG)
def test_each_way_has_its_name(change: Callable[[Life], None], anomaly: str) -> None:
    one = life()
    change(one)
    verdict = no_resurrection([life(), one])
    assert anomaly in {finding.anomaly for finding in verdict.findings}
    assert all("'ada' came back after an end in the middle of a write" in found.sentence for found in verdict.findings)


@pytest.mark.parametrize(
    ("number", "anomaly"), [(7, "gap-in-seq"), (1, "duplicate-event"), (0, "reordered-events")], ids=str
)
def test_wrong_numbers_are_named(number: int, anomaly: str) -> None:
    one = life()
    one.new_events = [*one.new_events[:-1], event(number, "r3", "agent_completed")]
    (finding,) = no_resurrection([one]).findings
    assert finding.anomaly == anomaly


def without_ids(one: Life) -> None:
    one.old_events = [event(e.seq, "", e.type, e.body) for e in one.old_events]
    one.new_events = [event(e.seq, "", e.type, e.body) for e in one.new_events]


RIGHT: dict[str, Callable[[Life], None]] = {
    "all is well": changed(),
    "numbers go on from the session before": changed(
        new_events=[event(e.seq + 10, e.run, e.type, e.body) for e in life().new_events]
    ),
    "a target that sends no ids": without_ids,
    "the next session has the same key again": changed(instances=("", "helper/main", "helper/main")),
}


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
def test_what_is_well_passes(change: Callable[[Life], None]) -> None:
    one = life()
    change(one)
    assert no_resurrection([one]).outcome is Outcome.PASS
