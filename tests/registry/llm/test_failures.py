"""When a refused call is made again: what may pass, what the server asks for, and how the pauses grow."""

from __future__ import annotations

import random
from email.utils import formatdate

import pytest

from registry.llm.failures import LONGEST_ASKED, is_passing, pause_asked, pause_before

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_what_the_server_asks_for_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert pause_asked(headers, NOW) == seconds


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_these_refusals_may_pass(status: int) -> None:
    assert is_passing(status, {})
    assert not is_passing(status, {"x-should-retry": "false"})


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 413, 422])
def test_these_do_not(status: int) -> None:
    assert not is_passing(status, {})
    assert is_passing(status, {"x-should-retry": "true"})


def test_what_is_asked_for_is_a_floor_with_jitter_and_has_a_limit() -> None:
    rng = random.Random(1)
    pauses = [pause_before(1, 10.0, rng) or 0.0 for _ in range(200)]
    assert min(pauses) >= 10.0
    assert 12.0 < max(pauses) <= 12.5
    assert LONGEST_ASKED == 120.0, "two minutes"
    assert pause_before(1, LONGEST_ASKED, rng) is not None
    assert pause_before(1, LONGEST_ASKED + 1, rng) is None
    assert pause_before(1, float("inf"), rng) is None


def test_else_pauses_double_up_to_a_limit_with_jitter() -> None:
    rng = random.Random(1)
    for retry, longest in enumerate([0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0], start=1):
        pauses = [pause_before(retry, None, rng) or 0.0 for _ in range(200)]
        assert max(pauses) <= longest
        assert min(pauses) >= 0.75 * longest
        assert max(pauses) - min(pauses) > 0.2 * longest
    assert (pause_before(10_000, None, rng) or 99) <= 8.0
