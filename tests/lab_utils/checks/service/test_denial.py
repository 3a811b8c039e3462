"""Who cannot reach a session, and with which ids and names they try."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("httpx2")

from lab_utils.checks.service import denial
from lab_utils.runner import run_check
from lab_utils.service.credentials import turned
from lab_utils.service.target import ServiceTarget
from lab_utils.targets.planted.services import planted_file
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome

LOOKS_EVERY_FEW_SECONDS = """
import sys

import uvicorn

from lab_utils.service.planted.notes import Notes, Request

class LooksEveryFewSeconds(Notes):
    def stream_ends_at(self, request: Request) -> float | None:
        ends_at = super().stream_ends_at(request)
        return None if ends_at is None else ends_at + 5.0

uvicorn.run(LooksEveryFewSeconds(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off", ws="none")
"""


@pytest.mark.parametrize("make", [lambda: secrets.token_urlsafe(12), lambda: "01K8XQWZHGJKMNPQRSTVWXYZGH"])
def test_a_made_up_id_is_another_one(make: Callable[[], str]) -> None:
    """Else its owner's session would count as one that was adopted."""
    assert all(turned(id, 8) != id for id in (make() for _ in range(200)))


def test_a_made_up_id_has_the_form_of_the_given_one() -> None:
    given = uuid.uuid4()
    assert uuid.UUID(turned(str(given), 8)) != given


def test_who_reads_without_a_disguise_is_one_finding() -> None:
    found = run_check("service_access_denial", target="ReadOfAnyone").verdict.findings
    reads = [finding.sentence for finding in found if finding.anomaly == "read-by-another"]
    assert reads == ["another user, with a token of their own, can read in a session of another user"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("StreamOfAnyone", "; its stream brought"),
        ("ResumedByAnyone", "; its stream, which goes on after the id of the owner's last event, brought"),
        (
            "EventIdNamesLog",
            "; a stream of a session of their own, which goes on after the id of the owner's first event,",
        ),
    ],
)
def test_the_witness_of_a_stream_says_how_it_was_opened(target: str, words: str) -> None:
    finding = run_check("service_access_denial", target=target).verdict.findings[0]
    assert finding.anomaly == "read-by-another"
    assert finding.witness[0].startswith("stream: answered 200")
    assert words in finding.witness[0]


@pytest.mark.parametrize("target", ["TokensRemembered", "right_service"])
def test_a_token_that_expires_before_its_first_use_is_followed_by_one_with_more_time(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine."""
    monkeypatch.setattr(denial, "_SHORT_S", (0, 3))
    result = run_check("service_access_denial", target=target, parameters={"users": 2}, in_process=True)
    found = {finding.anomaly for finding in result.verdict.findings}
    assert found == ({"expired-token-accepted"} if target == "TokensRemembered" else set())
    assert "tokens that expire after they were used" not in result.verdict.reason


def streamed(defect: str, seconds: float | None, **changed: Any) -> CheckResult:
    """The verdict on a server that promises so much of its streams, of which few other words are asked."""
    service = planted_file(defect)
    promises = msgspec.structs.replace(service.promises, only_owner=("read", "stream"), stream_outlives_token_s=seconds)
    service = msgspec.structs.replace(service, promises=promises, **changed)
    return run_check("service_access_denial", target=lambda: ServiceTarget(service))


@pytest.mark.parametrize("defect", ["right", "StreamOutlivesToken"])
def test_a_stream_that_outlives_its_token_is_not_asked_where_nothing_is_promised(defect: str) -> None:
    result = streamed(defect, None)
    assert result.outcome is Outcome.PASS, result.verdict
    assert "streams whose token expires meanwhile: promises.stream_outlives_token_s is not set" in result.verdict.reason


@pytest.mark.parametrize(("seconds", "outcome"), [(0.0, Outcome.FAIL), (6.0, Outcome.PASS)])
def test_a_stream_may_outlive_its_token_by_the_seconds_that_are_promised(
    seconds: float, outcome: Outcome, tmp_path: Path
) -> None:
    (tmp_path / "server.py").write_text(LOOKS_EVERY_FEW_SECONDS)
    result = streamed("right", seconds, command=("{python}", str(tmp_path / "server.py"), "{port}"))
    assert result.outcome is outcome, result.verdict
    assert "left out" not in result.verdict.reason
    sentence = "the bearer of a token that expired while its stream was open can stream in a session of another user"
    found = [(one.anomaly, one.sentence) for one in result.verdict.findings]
    assert found == ([("expired-token-accepted", sentence)] if outcome is Outcome.FAIL else [])
