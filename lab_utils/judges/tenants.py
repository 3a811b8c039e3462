"""Judges whether tools answered every tenant with exactly its own rows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab_utils.values.quantities import counted
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Asked", "own_rows_only", "row_text"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One tool call of one tenant: the request, in words, and the answer: rows, or the total of `column`.

    Rows may be given by their `row_text`, which costs less to keep.
    """

    tenant: str
    question: str
    answer: Any
    column: str | None = None


def own_rows_only(asked: Iterable[Asked], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Verdict:
    """Judge every answer against the tenant's own rows, as a multiset; a total against their sum.

    | anomaly      | the answer                                                                       |
    |--------------|----------------------------------------------------------------------------------|
    | foreign-rows | a row of another tenant, or a total that is right for somebody else              |
    | lost-rows    | not all of the tenant's own rows                                                 |
    | wrong-rows   | rows or totals that are nobody's                                                 |

    No two tenants may own equal rows. One finding a tenant and anomaly: the first.
    """
    own = {tenant: Counter(map(row_text, of_tenant)) for tenant, of_tenant in rows.items()}
    owner = {row: tenant for tenant, counted in own.items() for row in counted}
    findings: dict[tuple[str, str], Finding] = {}
    count = 0
    for one in asked:
        count += 1
        judged = _total(one, rows) if one.column is not None else _rows(one, own.get(one.tenant, Counter()), owner)
        if judged is not None:
            anomaly, sentence, witness = judged
            finding = Finding(anomaly, f"{one.tenant!r} asked {one.question} and {sentence}", witness)
            findings.setdefault((one.tenant, anomaly), finding)
    return Verdict.of(findings.values(), count, "tool answers, each of exactly the tenant's own rows")


def row_text(row: Any) -> str:
    """A row as text: two rows have the same exactly if they are equal as JSON data. The text of a text is itself."""
    return row if isinstance(row, str) else json.dumps(row, sort_keys=True, default=repr)


def _rows(one: Asked, own: Counter[str], owner: Mapping[str, str]) -> tuple[str, str, tuple[str, ...]] | None:
    if not isinstance(one.answer, list):
        return "wrong-rows", "was answered no list of rows", (repr(one.answer)[:300],)
    got = Counter(map(row_text, one.answer))
    if got == own:
        return None
    extra = list((got - own).elements())
    foreign = [row for row in extra if owner.get(row, one.tenant) != one.tenant]
    if foreign:
        others = sorted({owner[row] for row in foreign})
        return (
            "foreign-rows",
            f"received {counted(len(foreign), 'row')} of {', '.join(map(repr, others))}",
            (foreign[0],),
        )
    if extra:
        words = f"received {counted(len(extra), 'row')} that nobody owns, or too often"
        return "wrong-rows", words, (extra[0],)
    missing = list((own - got).elements())
    return "lost-rows", f"did not receive {len(missing)} of {own.total()} own rows", (missing[0],)


def _total(one: Asked, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[str, str, tuple[str, ...]] | None:
    own = _sum(rows.get(one.tenant, ()), one.column)
    if _near(one.answer, own):
        return None
    witness = (f"answered {one.answer!r}", f"the sum of {one.column} over the tenant's rows is {own!r}")
    for other, of_other in rows.items():
        theirs = _sum(of_other, one.column)
        for wrong, words in ((theirs, "the total of"), (own + theirs, "a total that includes that of")):
            if other != one.tenant and theirs and _near(one.answer, wrong):
                return "foreign-rows", f"received {words} {other!r}", witness
    everybody = sum(_sum(of_tenant, one.column) for of_tenant in rows.values())
    if _near(one.answer, everybody):
        return "foreign-rows", "was answered the total over everybody", witness
    return "wrong-rows", "was answered a total that is not its own", witness


def _sum(rows: Sequence[Mapping[str, Any]], column: str | None) -> float:
    return math.fsum(row[column] for row in rows) if column is not None else 0.0


def _near(answer: Any, expected: float) -> bool:
    # The order of a sum is the target's own; nine digits are not.
    return isinstance(answer, (int, float)) and math.isclose(answer, expected, rel_tol=1e-9, abs_tol=1e-9)
