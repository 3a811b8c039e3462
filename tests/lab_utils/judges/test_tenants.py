"""Tool answers with foreign, lost and invented rows, and right ones."""

from __future__ import annotations

from typing import Any

import pytest

from lab_utils.judges.tenants import Asked, own_rows_only
from lab_utils.values.verdict import Outcome

ANN = [{"feature": "a1", "tokens": 3}, {"feature": "a2", "tokens": 4}]
BOB = [{"feature": "b1", "tokens": 10}]
ROWS: dict[str, list[dict[str, Any]]] = {"ann": ANN, "bob": BOB, "cid": []}
RIGHT = {
    "own rows": Asked("ann", "rows", ANN),
    "in another order": Asked("ann", "rows", ANN[::-1]),
    "none of none": Asked("cid", "rows", []),
    "own total": Asked("ann", "total", 7, "tokens"),
    "own total as a float": Asked("ann", "total", 7.0, "tokens"),
    "a total of nothing": Asked("cid", "total", 0, "tokens"),
}
WRONG = {
    "a foreign row more": (Asked("ann", "rows", [*ANN, *BOB]), "foreign-rows"),
    "foreign rows instead": (Asked("ann", "rows", BOB), "foreign-rows"),
    "rows where there are none": (Asked("cid", "rows", BOB), "foreign-rows"),
    "a row lost": (Asked("ann", "rows", ANN[:1]), "lost-rows"),
    "a row twice": (Asked("ann", "rows", [*ANN, ANN[0]]), "wrong-rows"),
    "a row changed": (Asked("ann", "rows", [ANN[0], {"feature": "a2", "tokens": 5}]), "wrong-rows"),
    "no list": (Asked("ann", "rows", None), "wrong-rows"),
    "another's total": (Asked("ann", "total", 10, "tokens"), "foreign-rows"),
    "a total that includes another's": (Asked("ann", "total", 17, "tokens"), "foreign-rows"),
    "everybody's total": (Asked("cid", "total", 17, "tokens"), "foreign-rows"),
    "nobody's total": (Asked("ann", "total", 8, "tokens"), "wrong-rows"),
    "no number": (Asked("ann", "total", "7", "tokens"), "wrong-rows"),
}


@pytest.mark.parametrize("asked", RIGHT.values(), ids=RIGHT)
def test_right(asked: Asked) -> None:
    assert own_rows_only([asked], ROWS).outcome is Outcome.PASS


@pytest.mark.parametrize(("asked", "anomaly"), WRONG.values(), ids=WRONG)
def test_wrong(asked: Asked, anomaly: str) -> None:
    (finding,) = own_rows_only([asked, RIGHT["own rows"]], ROWS).findings
    assert finding.anomaly == anomaly
    assert asked.question in finding.sentence


def test_one_finding_a_tenant_and_anomaly() -> None:
    asked = [Asked("ann", "rows", BOB), Asked("ann", "rows again", BOB), Asked("cid", "rows", BOB)]
    assert len(own_rows_only(asked, ROWS).findings) == 2
