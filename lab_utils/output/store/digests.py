"""Makes a run's digest, which is kept to be compared with others."""

from __future__ import annotations

import math
from datetime import datetime

from lab_utils.judges.anomalies import sentence_for
from lab_utils.judges.causes import causes
from lab_utils.judges.identity import Identified, identified
from lab_utils.output.store.reading import Run
from lab_utils.values.digest import DIGEST_FORMAT, CheckDigest, Digest, FoundDigest, MeasuredDigest
from lab_utils.values.result import CheckResult, Measurement

__all__ = ["digest_of"]

_LONGEST = 300


def digest_of(run: Run, status: str = "") -> Digest:
    """The digest of a run, finished or not. `status`: how it ended, where its record does not say so yet."""
    about = run.about
    found = identified(run.results)
    # A finding that follows from another anomaly has a sentence of its own.
    sentences: dict[str, str] = {}
    for cause in causes(found):
        followed = {one.key: sentence_for(one.finding.anomaly) or one.finding.sentence for one in cause.followers}
        sentences |= followed | dict.fromkeys((one.key for one in cause.findings), cause.sentence)
    by_check: dict[str, list[Identified]] = {}
    for one in found:
        by_check.setdefault(one.result.check, []).append(one)
    git, machine = about["provenance"]["git"], about["provenance"]["machine"]
    return Digest(
        format=DIGEST_FORMAT,
        run_id=run.run_id,
        status=status or about["status"],
        started_at=about["started_at"],
        seconds=_seconds(about["started_at"], about["finished_at"]),
        target=about["target"],
        profile=about["profile"],
        seed=about["seed"],
        commit=(git["commit"] or "") if git else "",
        python=about["provenance"]["python"],
        machine=f"{machine['system']} {machine['architecture']}, {machine['cpus']} cores",
        parameters=about["parameters"],
        checks=tuple(_check(result, by_check.get(result.check, []), sentences) for result in run.results),
    )


def _check(result: CheckResult, found: list[Identified], sentences: dict[str, str]) -> CheckDigest:
    groups: dict[str, list[Identified]] = {}
    for one in found:
        groups.setdefault(one.fingerprint, []).append(one)
    return CheckDigest(
        check=result.check,
        category=result.category,
        outcome=result.outcome,
        reason=result.verdict.reason[:_LONGEST],
        seconds=result.duration_s,
        found=tuple(
            FoundDigest(
                fingerprint,
                alike[0].finding.anomaly,
                len(alike),
                alike[0].key,
                alike[0].finding.sentence[:_LONGEST],
                sentences[alike[0].key][:_LONGEST],
            )
            for fingerprint, alike in groups.items()
        ),
        measured=tuple(map(_measured, result.measurements)),
    )


def _measured(one: Measurement) -> MeasuredDigest:
    # JSON has no NaN and no infinity.
    value = one.value if math.isfinite(one.value) else None
    if one.budget is None:
        return MeasuredDigest(one.metric, value, one.unit)
    return MeasuredDigest(
        one.metric, value, one.unit, one.budget.comparison, one.budget.limit, one.budget.source, one.decides
    )


def _seconds(began: str, ended: str | None) -> float:
    try:
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds() if ended else 0.0
    except (TypeError, ValueError):
        return 0.0
