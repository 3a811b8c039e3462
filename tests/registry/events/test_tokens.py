"""Tokens: one user's, one service's, for a time; nothing else is believed."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from registry.errors import BadToken, ExpiredToken, ForeignToken, RegistryError, TokenError
from registry.events.tokens import Grant, TokenSigner
from tests.registry.kit import Clock

SECRET = "a secret that is long enough"


@pytest.mark.parametrize("user", ["ada", "a:b", "é語", "x" * 256, 'a"}, {"sub": "bob'])
def test_a_token_is_its_users(user: str) -> None:
    clock = Clock()
    signer = TokenSigner(SECRET, max_age=60, clock=clock)
    token = signer.issue(user)
    assert token.isascii()
    assert all(sign.isalnum() or sign in "-_." for sign in token), "safe in a header and as a subprotocol"
    grant = signer.verify(token)
    assert (grant.user_id, grant.expires_at) == (user, 1_060.0)
    assert signer(token) == grant


def test_no_altered_token_is_good() -> None:
    signer = TokenSigner(SECRET)
    token = signer.issue("ada")
    for place in range(len(token)):
        # The last letter of each part holds bits that stand for nothing; a change of those alone changes no byte.
        for sign in ("A", "Q", "z"):
            altered = token[:place] + sign + token[place + 1 :]
            if altered != token:
                try:
                    assert signer.verify(altered).user_id == "ada"
                    assert place + 1 in (len(token), *(n for n, each in enumerate(token) if each == "."))
                except TokenError:
                    continue  # Refused, as nearly every change is; an accepted one must have passed both lines above.
    for wrong in ("", ".", "a.b.c", token[:-1], token + "A", token.split(".")[0], "\x00", "é"):
        with pytest.raises(BadToken):
            signer.verify(wrong)


# Made at 1,000 s after the epoch by `TokenSigner(SECRET).issue("ada")`.
ISSUED = "eyJzdWIiOiJhZGEiLCJhdWQiOiJhZ2VudC1yZWdpc3RyeSJ9.A-g.mTFX2-f2kv1MFxXIpDrfYk1_BfjK_JDjiuVd63Jofjc"


def test_a_token_stays_good_over_releases_and_on_other_machines() -> None:
    clock = Clock()
    signer = TokenSigner(SECRET, clock=clock)
    assert signer.issue("ada") == ISSUED
    assert signer.verify(ISSUED) == Grant("ada", 4_600.0), "for an hour, where nothing else is said"
    assert Grant("ada") == Grant("ada", None)
    assert repr(signer) == "<TokenSigner audience='agent-registry' max_age=3600.0>"


@pytest.mark.parametrize(
    ("token", "kind", "words"),
    [
        (ISSUED, ExpiredToken, "the token has expired; fetch a new one"),
        (ISSUED[:-1], BadToken, "the token was not signed here"),
        ({"sub": "ada", "aud": "a"}, ForeignToken, "the token is for another audience; this one is 'agent-registry'"),
        ({"sub": "ada"}, BadToken, "the token was signed here for something else"),
        (None, BadToken, "the token was signed here for something else"),
        ([], BadToken, "the token was signed here for something else"),
        ({}, BadToken, "the token was signed here for something else"),
        ({"sub": 1, "aud": "agent-registry"}, BadToken, "the token names no user"),
        ({"sub": " ", "aud": "agent-registry"}, BadToken, "the token names no user"),
    ],
)
def test_a_refusal_says_what_the_token_lacks_and_nothing_of_the_token(token: Any, kind: Any, words: str) -> None:
    clock = Clock()
    clock.now += 3_601
    signer = TokenSigner(SECRET, clock=clock)
    with pytest.raises(TokenError) as refused:
        signer.verify(token if isinstance(token, str) else signer._serializer.dumps(token))
    assert (type(refused.value), str(refused.value)) == (kind, words)
    assert isinstance(refused.value, RegistryError)


def test_secrets_can_be_changed() -> None:
    old, new = TokenSigner(SECRET), TokenSigner([SECRET, "another secret, also long"])
    assert new.verify(old.issue("ada")).user_id == "ada"
    with pytest.raises(BadToken):
        old.verify(new.issue("ada"))


@pytest.mark.parametrize("secret", ["", "x" * 15, b"short", [], [SECRET, "short"]])
def test_a_secret_that_can_be_guessed_is_refused(secret: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^a secret of fewer than 16 characters can be guessed; use secrets\.token_hex\(32\)"
    ):
        TokenSigner(secret)
    assert TokenSigner("x" * 16).verify(TokenSigner(b"x" * 16).issue("ada")).user_id == "ada"


def test_a_time_that_is_none_is_refused() -> None:
    assert TokenSigner(SECRET, max_age=0.5).max_age == 0.5
    with pytest.raises(ValueError, match=r"^max_age=0 seconds is not above 0$"):
        TokenSigner(SECRET, max_age=0)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(
        ImportError, match=r"^TokenSigner needs itsdangerous: pip install 'agent-registry-lab\[server\]'$"
    ):
        TokenSigner(SECRET)


@pytest.mark.parametrize("late", [False, True], ids=["rubbish", "expired"])
def test_a_refused_token_leaves_no_garbage(late: bool) -> None:
    clock = Clock()
    signer = TokenSigner(SECRET, max_age=60, clock=clock)
    token = signer.issue("ada") if late else "rubbish"
    clock.now += 61

    def refuse() -> None:
        with pytest.raises(TokenError):
            signer.verify(token)

    refuse()
    gc.collect()
    refuse()
    assert not gc.collect()
