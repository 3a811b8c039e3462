"""A user's credentials as the service file describes them, and wrong ones made of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx

from lab_utils.service.answers import Answer
from lab_utils.service.door import answered
from lab_utils.service.file import Identity, Operation
from lab_utils.service.filling import filled, filled_path
from lab_utils.service.traffic import Traffic, trusted
from lab_utils.values.quantities import counted

__all__ = ["Credentials", "TokenFailed", "turned"]

_VALID_S: Final = 3_600
_COMMAND_S: Final = 30.0
_SHOWN: Final = 300
_KINDS: Final = ("0123456789", "abcdef", "ghijklmnopqrstuvwxyz", "ABCDEF", "GHIJKLMNOPQRSTUVWXYZ")
_TURNED: Final = str.maketrans("".join(_KINDS), "".join(kind[1:] + kind[0] for kind in _KINDS))


class TokenFailed(Exception):
    """The token command gave no token. The message names it and the remedy."""


class Credentials:
    """Makes the tokens of users. `folder` is where a token command runs, `address` the server's once it has one; logins
    are written down in `traffic`. `variables`: those of the file, which all its templates may use."""

    def __init__(
        self,
        identity: Identity,
        folder: str,
        traffic: Traffic | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._identity = identity
        self._variables = variables
        self._traffic = traffic
        self.address = ""
        self._folder = folder or "."

    @property
    def exist(self) -> bool:
        """Whether users have tokens at all."""
        one = self._identity
        return bool(one.sources)

    @property
    def can_expire(self) -> bool:
        """Whether the lab can make one that has expired."""
        return self._identity.can_expire

    @property
    def without_expiry(self) -> str:
        """The part of a claim that is not tried with tokens that cannot expire, and why; "" where they can."""
        return self._identity.without_expiry

    def token(self, user: str, expires_in: int = _VALID_S) -> str:
        """The user's token; a negative `expires_in` (seconds) makes an expired one, where the file can."""
        one = self._identity
        secret = one.accounts.get(user, "")
        values = {
            **self._variables,
            "user": user,
            "secret": secret,
            "expires_in": str(expires_in),
            "address": self.address,
        }
        if one.login is not None:
            return self._logged_in(one.login, user, values)
        if one.token_command:
            values |= {"folder": str(Path(self._folder).resolve()), "python": sys.executable}
            return self._printed([str(filled(word, values)) for word in one.token_command])
        if one.signing_key:
            return self._signed(user, expires_in)
        return str(filled(one.token, values)) if one.token else secret

    def _logged_in(self, operation: Operation, user: str, values: Mapping[str, str]) -> str:
        url = f"{self.address}{filled_path(operation.path, values)}"
        try:
            # Not awaited: the server is another process.
            with httpx.Client(verify=trusted(), trust_env=False, timeout=_COMMAND_S) as client:
                response = client.request(
                    operation.method,
                    url,
                    params=filled(operation.query, values) or None,
                    headers=filled(operation.headers, values),
                    json=filled(operation.body, values) if operation.body is not None else None,
                    data=filled(operation.form, values) or None,
                )
        except httpx.HTTPError as error:
            raise TokenFailed(f"identity.login of {user!r}: {operation.method} {url}: {error}") from error
        answer = answered(operation, response, response.text)
        token = answer.extracted.get("token", "")
        if operation.extract["token"].lower() == "header:set-cookie":
            # A client sends back only the name and value of a cookie.
            token = token.partition(";")[0]
        # Where a login succeeds or leads on, the token is in its answer, wherever the file looks for it.
        said = _without_texts(answer) if 200 <= answer.status < 400 and not token else str(answer)
        if self._traffic is not None:
            for secret in filter(None, (token, values["secret"])):
                self._traffic.learn(secret)
            row = {"word": "login", "request": f"{operation.method} {url}", "body": "***"}
            self._traffic.log(0, user, row, said)
        if not answer.is_done or not token:
            reason = answer.error or "its status is not among those that mean done"
            raise TokenFailed(f"identity.login of {user!r} gave no token; {reason}: {operation.method} {url}: {said}")
        return token

    def _printed(self, words: list[str]) -> str:
        try:
            done = subprocess.run(
                words, cwd=self._folder, capture_output=True, text=True, timeout=_COMMAND_S, check=False
            )
            trouble = f"it ended with {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            raise TokenFailed(f"identity.token_command did not end in {_COMMAND_S:g} s: {' '.join(words)}") from None
        except OSError as error:
            raise TokenFailed(
                f"identity.token_command: {words[0]}: {error.strerror}; it runs in {self._folder}"
            ) from None
        token = done.stdout.strip()
        if not token and not trouble:
            trouble = "it printed nothing"
        if trouble:
            said = f": {_head_and_tail(done.stderr.strip())}" if done.stderr.strip() else ""
            raise TokenFailed(
                f"identity.token_command gave no token; {trouble}{said}; try it by hand: {' '.join(words)}"
            )
        return token

    def headers(self, user: str, token: str | None) -> dict[str, str]:
        """The headers that carry this token; without one, only those that carry none."""
        return self._carrying(self._identity.headers, user, token)

    def query(self, user: str, token: str | None) -> dict[str, str]:
        """The same of an address."""
        return self._carrying(self._identity.query, user, token)

    def _carrying(self, templates: Mapping[str, str], user: str, token: str | None) -> dict[str, str]:
        made = {}
        for name, template in templates.items():
            if "{token}" not in template:
                made[name] = str(filled(template, {**self._variables, "user": user}))
            elif token is not None:
                made[name] = str(filled(template, {**self._variables, "user": user, "token": token}))
        return made

    def forged(self, user: str, forger: str, *, seen: str = "") -> dict[str, str]:
        """Tokens that no server may take for the user's: name -> token.

        They are made of a valid token of another user, `forger`, with the user's name in place of theirs. Where tokens
        are JWTs, their signature is that of another token, missing, or made with another key. `seen`: a valid token of
        the user's that they are made of, in place of a new one.
        """
        found = {"made-up": "lab-guess-0123456789abcdef"}
        valid, own = seen or self.token(user), self.token(forger)
        renamed = _renamed(own, forger, user)
        # A file's own tokens may be names; those that a server gives at a login are to hold more.
        if renamed != own and valid.count(".") != 2 and (renamed != valid or self._identity.login is not None):
            found["another's with the owner's name in it"] = renamed
        # More than one letter: the last one of a text in base64 may hold bits that nobody reads.
        if len(valid) > 8 and (other := turned(valid, 4)) != valid:
            found["other in its last letters"] = other
        if valid.count(".") == 2:
            head, body, _ = valid.split(".")
            none = _part({"alg": "none", "typ": "JWT"})
            found["unsigned"] = f"{none}.{body}."
            # A server that refuses `none` by its letters takes this one, where its library compares without case.
            found["unsigned in other letters"] = f"{_part({'alg': 'nOnE', 'typ': 'JWT'})}.{body}."
            found["with another token's signature"] = f"{head}.{body}.{own.rpartition('.')[2]}"
            found["signed with another key"] = (
                f"{head}.{body}.{_signature('sha256', b'lab-wrong-key', f'{head}.{body}')}"
            )
        return found

    def _signed(self, user: str, expires_in: int) -> str:
        one = self._identity
        now = int(time.time())
        claims: Mapping[str, Any] = filled(one.claims, {**self._variables, "user": user})
        body = {**claims, "iat": min(now, now + expires_in) - 60, "exp": now + expires_in}
        text = f"{_part({'alg': one.algorithm, 'typ': 'JWT'})}.{_part(body)}"
        return f"{text}.{_signature(f'sha{one.algorithm[2:]}', one.signing_key.encode(), text)}"


def turned(text: str, last: int) -> str:
    """A text of the same form, in which each of the last letters and digits is another one."""
    return f"{text[:-last]}{text[-last:].translate(_TURNED)}"


def _head_and_tail(text: str) -> str:
    """The cause stands first in what Node prints, and last in what Python prints."""
    if len(text) <= 2 * _SHOWN:
        return text
    return f"{text[:_SHOWN]} ... {text[-_SHOWN:]}"


def _renamed(token: str, before: str, after: str) -> str:
    """The token with one name in place of another: in its text, or else in what a part of it is in base64."""
    if before in token:
        return token.replace(before, after, 1)

    def turned(found: re.Match[str]) -> str:
        part = found[0]
        try:
            text = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_" if set(part) & set("-_") else None)
        except ValueError:
            return part
        changed = base64.b64encode(text.replace(before.encode(), after.encode(), 1)).decode()
        return part if before.encode() not in text else changed if part.endswith("=") else changed.rstrip("=")

    return re.sub(r"[A-Za-z0-9+/_-]{8,}={0,2}", turned, token)


def _part(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def _signature(algorithm: str, key: bytes, text: str) -> str:
    digest = hmac.new(key, text.encode(), getattr(hashlib, algorithm)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _without_texts(answer: Answer) -> str:
    """The answer with its keys and numbers, for who looks for a key's name; its texts may be credentials."""
    try:
        shown = json.dumps(_masked(json.loads(answer.text)))
    except ValueError:
        shown = f"a text of {counted(len(answer.text), 'character')}"
    return f"{answer.status} {shown}"


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return "***" if isinstance(value, str) else value
