"""No judge passes on nothing: where nothing was looked at, or nothing that could have shown a fault, it is unknown."""

from __future__ import annotations

import pytest

from lab_utils.judges import activation, counts, leaks, leaving
from lab_utils.judges.admission import let_in_by_token
from lab_utils.judges.delivery import Received, exactly_its_own
from lab_utils.judges.interference import not_interfered
from lab_utils.judges.promptness import Told, none_late, told_the_same
from lab_utils.judges.services import only_own
from lab_utils.judges.succession import no_resurrection
from lab_utils.judges.tenants import own_rows_only
from lab_utils.judges.updates import counters_add_up
from lab_utils.values.history import History
from lab_utils.values.verdict import Outcome, Verdict
from tests.lab_utils.judges.test_activation import op
from tests.lab_utils.judges.test_leaks import BEFORE, PROCESS_GROWS

MADE = History([op((1, 2), "#1")])
FAILED = History([op((1, 2), "failure 1", error="Planned")])
SILENT = Told("phone", "ann", ()), Told("tablet", "ann", ())


@pytest.mark.parametrize(
    "verdict",
    [
        *(activation.single_activation(MADE), activation.single_activation(History([]))),
        activation.failures_forgotten(FAILED),
        *(activation.only_own_cancellations(MADE, {"a"}), activation.only_own_cancellations(History([]), set())),
        *(counts.population_follows(History([]), []), counts.closed_once({}, {}, "by the end")),
        counts.refused_after_close([]),
        *(leaks.counts_are_back(BEFORE, BEFORE, 0), leaks.all_freed(0, ())),
        *(leaks.no_steady_growth(some) for some in ([], [leaks.Trend("memory", "bytes", ())], [PROCESS_GROWS])),
        leaving.closed_once([], {}, ("first",), []),
        let_in_by_token([]),
        *(exactly_its_own([]), exactly_its_own([Received("phone", "ann", [], ())])),
        *(not_interfered({}, {}), not_interfered({"ann": []}, {"ann": []})),
        *(none_late([]), told_the_same([]), told_the_same([SILENT])),
        *(only_own([], ["ada", "bob"]), no_resurrection([]), own_rows_only([], {"ann": []})),
        counters_add_up([], {"ann": 0}),
    ],
    ids=lambda verdict: verdict.reason,
)
def test_nothing_is_unknown(verdict: Verdict) -> None:
    assert verdict.outcome is Outcome.UNKNOWN
