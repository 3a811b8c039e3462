"""Makes the frames of findings: each finding, its identity, and its operations."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from lab_utils.judges.causes import causes
from lab_utils.judges.identity import identified
from lab_utils.output.frames.columns import fill, which
from lab_utils.runner.again import token_of
from lab_utils.values.result import CheckResult

__all__ = ["findings", "involved"]


def findings(run: str, results: Iterable[CheckResult]) -> pd.DataFrame:
    """One row a finding, in the order of the run.

    `key` names it in this run and `fingerprint` in all runs; `cause` is the key of the finding that explains it first,
    its own for that one. `witness` is one line an operation or object, `token` the argument of `registry-lab replay`.
    """
    found = identified(results)
    explains = {one.key: cause.first.key for cause in causes(found) for one in cause.all}
    return fill(
        "findings",
        (
            {
                **which(run, one.result),
                "number": one.number,
                "anomaly": one.finding.anomaly,
                "sentence": one.finding.sentence,
                "witness": "\n".join(one.finding.witness),
                "key": one.key,
                "fingerprint": one.fingerprint,
                "cause": explains[one.key],
                "calls": " ".join(one.calls),
                "types": ", ".join(one.types),
                "users": ", ".join(one.users),
                "token": str(token_of(one)),
            }
            for one in found
        ),
    )


def involved(run: str, results: Iterable[CheckResult]) -> pd.DataFrame:
    """One row an operation of a finding's witness: joins findings, by `key`, to operations, by `check` and `index`."""
    return fill(
        "involved",
        (
            {**which(run, one.result), "key": one.key, "index": index}
            for one in identified(results)
            for index in one.operations
        ),
    )
