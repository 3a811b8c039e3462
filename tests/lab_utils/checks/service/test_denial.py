"""An id that nobody was given differs from each that was: else its owner's session would count as one that was adopted."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable

import pytest

pytest.importorskip("httpx2")

from lab_utils.checks.service.denial import made_up


@pytest.mark.parametrize("make", [lambda: secrets.token_urlsafe(12), lambda: "01K8XQWZHGJKMNPQRSTVWXYZGH"])
def test_a_made_up_id_is_another_one(make: Callable[[], str]) -> None:
    assert all(made_up(id) != id for id in (make() for _ in range(200)))


def test_a_made_up_id_has_the_form_of_the_given_one() -> None:
    given = uuid.uuid4()
    assert uuid.UUID(made_up(str(given))) != given
