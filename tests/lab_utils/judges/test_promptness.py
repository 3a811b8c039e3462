"""Events that come with their run or too late, and devices that receive the same or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab_utils.judges.promptness import Pause, Told, none_late, told_the_same
from lab_utils.judges.speech import said_by
from lab_utils.target import Delivered
from lab_utils.values.verdict import Outcome

FIRST = said_by("helper", "think", {"thoughts": ["canary<ann|a|1>", "canary<ann|a|2>"]})
SECOND = said_by("scribe", "think", {"thoughts": ["canary<ann|a|3>"]})
EVENTS = tuple(
    Delivered("ann", seq, said.type, said.agent, "run", said.body) for seq, said in enumerate((*FIRST, *SECOND), 1)
)
DUE = len(FIRST)
PROMPT = Pause("phone", "ann", FIRST, EVENTS[:DUE], EVENTS)


def late_of(pause: Pause) -> list[str]:
    verdict = none_late([PROMPT, pause])
    assert (verdict.outcome is Outcome.FAIL) == bool(verdict.findings)
    return [line for finding in verdict.findings for line in finding.witness]


def test_an_event_that_comes_with_the_next_run_is_late() -> None:
    (late,) = late_of(replace(PROMPT, arrived=EVENTS[: DUE - 1]))
    assert late == f"late: {FIRST[-1]}"
    assert none_late([replace(PROMPT, arrived=())]).findings[0].anomaly == "late-event"


@pytest.mark.parametrize(
    "pause",
    [
        PROMPT,
        replace(PROMPT, later=EVENTS[:DUE]),
        # Lost, not late: only events of the next run have come meanwhile.
        replace(PROMPT, arrived=EVENTS[: DUE - 1], later=(*EVENTS[: DUE - 1], *EVENTS[DUE:])),
        replace(PROMPT, arrived=EVENTS[: DUE - 1], later=()),
    ],
)
def test_what_came_in_time_or_never_is_not_late(pause: Pause) -> None:
    assert late_of(pause) == []


PHONE, TABLET = Told("phone", "ann", ("one", "two")), Told("tablet", "ann", ("one", "two"))


@pytest.mark.parametrize(
    ("texts", "place"),
    [
        (("one", "tw0"), 2),
        (("one",), 2),
        (("one", "two", "three"), 3),
        ((), 1),
        (("one ", "two"), 1),
    ],
)
def test_the_first_difference_of_two_devices_is_the_witness(texts: tuple[str, ...], place: int) -> None:
    verdict = told_the_same([(PHONE, TABLET), (PHONE, replace(TABLET, texts=texts))])
    (finding,) = verdict.findings
    assert finding.anomaly == "devices-differ"
    assert f"as event {place}" in finding.sentence
    assert len(finding.witness) == 2


def test_devices_that_were_told_the_same_pass() -> None:
    assert told_the_same([(PHONE, TABLET)]).outcome is Outcome.PASS
