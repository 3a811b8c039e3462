"""The causes of a run's findings as cards: the sentence for people, the affected users, the evidence, the replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from lab_utils.judges.anomalies import sentence_for
from lab_utils.judges.causes import Cause, causes, may_follow
from lab_utils.judges.difference import witness_lines
from lab_utils.judges.identity import Identified, identified
from lab_utils.judges.remedies import REMEDIES
from lab_utils.output import charts
from lab_utils.output.pages.templating import printable
from lab_utils.runner.again import token_of
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import REPLAY

__all__ = ["cause_cards"]

_MOST_SHOWN: Final = 3
_MOST_WHOLE: Final = 100
_MOST_FOLLOW: Final = 8


def cause_cards(results: Iterable[CheckResult], run: str, known: Mapping[str, str]) -> list[dict[str, Any]]:
    """One card a cause, the most serious first, and those of which all is `known` (reasons by fingerprint) last. Of its
    findings the one that explains it stands first, and few others; `more` says how many are left out. `run`: how a
    command names the run."""
    found = causes(identified(results))
    found.sort(key=lambda cause: all(one.fingerprint in known for one in cause.all))
    cards = [_card(number, cause, run, known) for number, cause in enumerate(found, 1)]
    for card, cause in zip(cards, found, strict=True):
        above = [root for root, other in zip(cards, found, strict=True) if may_follow(cause, other)]
        card["above"] = above[0] if above else None
    return cards


def _card(number: int, cause: Cause, run: str, known: Mapping[str, str]) -> dict[str, Any]:
    # If there are very many causes, only the first have room for more than their explanation.
    kept = cause.telling(_MOST_SHOWN if number <= _MOST_WHOLE else 1)
    reasons = list(dict.fromkeys(known.get(one.fingerprint, "") for one in cause.all))
    remedy = REMEDIES.get(cause.anomaly)
    return {
        "id": f"cause-{number}",
        "number": number,
        "sentence": printable(cause.sentence),
        "lead": "" if cause.is_of_their_own else printable(cause.sentence),
        "effect": printable(cause.effect),
        "anomaly": printable(cause.anomaly),
        "affected": cause.affected,
        "users": cause.users,
        "count": len(cause.all),
        "protects": printable(cause.first.result.protects.strip().rstrip(".")),
        "known": "; ".join(reasons) if all(reasons) else "",
        "checks": list(cause.checks),
        "usually": remedy.cause if remedy else "",
        "remedy": remedy.action if remedy else "",
        "replay": f"registry-lab replay {run} {cause.first.key}",
        "token": printable(str(token_of(cause.first))),
        "findings": [_finding(one) for one in kept],
        "more": len(cause.findings) - len(kept),
        "follows": [
            {"anomaly": printable(anomaly), "sentence": sentence_for(anomaly), "count": count}
            for anomaly, count in cause.consequences[:_MOST_FOLLOW]
        ],
    }


def _finding(one: Identified) -> dict[str, Any]:
    # Its own token is the card's, or stands beside it: in the evidence it would be said twice.
    witness = [line for line in one.finding.witness if not line.startswith(REPLAY)] or list(one.finding.witness)
    drawn = charts.picture(one.finding.sentence, "\n".join(one.finding.witness))
    return {
        "key": one.key,
        "check": one.result.check,
        "anomaly": printable(one.finding.anomaly),
        "sentence": printable(one.finding.sentence),
        "fingerprint": one.fingerprint,
        "picture": drawn.html if drawn else "",
        "lines": [{"mark": mark, "text": printable(text)} for mark, text in witness_lines(witness)],
    }
