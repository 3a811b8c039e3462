"""Who cannot reach a session, and with which ids and names they try."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable

import pytest

pytest.importorskip("httpx2")

from lab_utils.checks.service import denial
from lab_utils.runner import run_check
from lab_utils.service.credentials import turned


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
