"""`registry-lab check-service`: starts a service, tries each request of its file once, and shows the answers."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab_utils.cli.exits import Exit
from lab_utils.service import require_extra
from lab_utils.values.canaries import word as canary_word
from lab_utils.values.texts import shown, shown_lines

if TYPE_CHECKING:
    from lab_utils.service.answers import Answer, StreamEvent
    from lab_utils.service.door import Session
    from lab_utils.service.file import Operation
    from lab_utils.service.target import ServiceTarget

__all__ = ["arguments", "run"]

_LONGEST: Final = 600
_FIELD_OF_SSE: Final = re.compile("(id|event|data|retry):")
_MOMENT_S: Final = 1.0
"""A server that has answered and crashes then ends soon."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check-service`."""
    parser.epilog = "exit codes: 0 all requests were done, 1 one was not, 2 the file is wrong, 3 no server starts"
    parser.add_argument("file", metavar="FILE", help="the service file")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST", help="a host beside this machine; may be repeated"
    )


def run(options: argparse.Namespace) -> int:
    """Try each request once. Raises `UsageError` for a file with a problem."""
    require_extra()
    from lab_utils.service.credentials import TokenFailed
    from lab_utils.service.file import read_service
    from lab_utils.service.process import StartFailed
    from lab_utils.service.target import ServiceTarget

    service = read_service(options.file, allowed_hosts=options.allow_host)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "sent.jsonl"
        try:
            failed = asyncio.run(_try(ServiceTarget(service, log=log), log))
        except (StartFailed, TokenFailed) as error:
            # The last lines of a server's output stay lines.
            print(shown_lines(error, 4_000) if isinstance(error, StartFailed) else shown(error, 4_000))
            return Exit.LAB_FAILED
    if failed:
        print(f"not done: {', '.join(failed)}; mend them in {shown(options.file)}, then try again")
        return Exit.FINDINGS
    print(f"each request was done; judge it with: registry-lab run --service {shown(options.file)}")
    return Exit.PASSED


async def _try(target: ServiceTarget, log: Path) -> list[str]:
    """The words that were not done."""
    from lab_utils.service.door import Session
    from lab_utils.service.file import WORDS

    try:
        await target.launch()
        print(f"{target.name} is ready at {target.process.base}\n")
        user = target.users(1)[0]
        trouble = _logins(target)
        if target.service.only_owner and target.credentials.without_expiry:
            print(f"not tried: {shown(target.credentials.without_expiry, _LONGEST)}\n")
        door, session, failed = target.door(user), Session(user), ["identity"] * bool(trouble)
        if target.service.promises.session_ids == "client":
            session.values["session"] = "lab-check-1"
        rows = _Rows(log)
        written = canary_word(user, 1)
        for word in WORDS:
            if not target.service.may(word):
                continue
            events: list[StreamEvent] = []
            within_s = _MOMENT_S
            if word == "stream":
                trouble, events = await _listen(target, door, session)
            else:
                answer = await door.do(word, session, {"value": written, "amount": 5})
                session.values.update(answer.extracted)
                trouble = answer.error
                if answer.status == 0:
                    # A server that crashes drops its connections before its process has ended: on a busy machine, long
                    # before.
                    within_s = max(within_s, target.service.bounds.deadline_s)
                if not (answer.is_done or trouble):
                    trouble = f"status {answer.status} is not among those that mean done; `ok` names others"
                    if answer.status in (401, 403):
                        trouble = f"status {answer.status}: the server did not accept who asks; see [identity]"
                if word == "read" and answer.is_done and not answer.holds(written):
                    trouble = f"it does not hold {written}, which write has sent"
                if word == "total" and answer.value != 5:
                    trouble = f"after an add of 5 the total is {answer.value!r}; does `answer` name the number?"
                trouble = trouble or _nothing_found(target.service.operations[word], answer)
            for row, more in _alike(rows):
                _show(row)
                if more:
                    print(f"  and {more} more like it")
            for event in events[-3:]:
                print(f"  event {event.id or '-'} {event.type or '-'}: {shown(event.data, _LONGEST)}")
            for name, value in session.values.items() if word == "open" else ():
                print(f"  {name} = {shown(value)}")
            print(f"  {'done' if not trouble else f'NOT DONE: {shown(trouble, _LONGEST)}'}\n")
            if trouble:
                failed.append(word)
            if trouble and await target.process.ends_within(within_s):
                print(f"the server has ended; the last lines that it wrote{shown_lines(target.process.tail(), 4_000)}")
                break
            if trouble and word == "open":
                break
        return failed
    finally:
        await target.stop()


def _logins(target: ServiceTarget) -> str:
    """Make a token of one user twice, and one of another user; show what differs, and return the fault, or ""."""
    credentials, users = target.credentials, target.users(2)
    if not credentials.exist:
        return ""
    first, again = credentials.token(users[0]), credentials.token(users[0])
    same = "the same token" if first == again else f"another token ({_differing(first, again)})"
    print(f"identity: {shown(users[0])} has a token of {len(first)} characters\n  a second login: {same}")
    if len(users) < 2:
        print("  NOT DONE: identity.accounts names one user; most checks need two\n")
        return "one user"
    other = credentials.token(users[1])
    if first == other:
        print(f"  NOT DONE: {shown(users[1])} has the same token; does it name {{user}}?\n")
        return "one token"
    print(f"  {shown(users[1])}: another token ({_differing(first, other)})\n  done\n")
    return ""


def _differing(one: str, other: str) -> str:
    """The parts in which two tokens differ: the claims of a JWT, else the place of the first difference."""
    claims = [_claims(token) for token in (one, other)]
    if all(claims):
        names = sorted({name for found in claims for name in found})
        unlike = [name for name in names if claims[0].get(name) != claims[1].get(name)]
        return f"claims that differ: {shown(', '.join(unlike)) or 'none'}"
    place = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"from character {place + 1} on"


def _claims(token: str) -> dict[str, Any]:
    part = (*token.split("."), "")[1]
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _nothing_found(operation: Operation, answer: Answer) -> str:
    """The fault of an expression that names no part of an answer: its value would count as the answer to all."""
    pages = answer.value if operation.next and isinstance(answer.value, list) else [answer.value]
    if not operation.answer or not answer.is_done or any(page is not None for page in pages):
        return ""
    return f"answer = {operation.answer!r} finds nothing in the answer; which part of it is meant?"


async def _listen(target: ServiceTarget, door: Any, session: Session) -> tuple[str, list[StreamEvent]]:
    """Listen, write, and wait for the event; return the fault, or "", and the events."""
    stream = door.listen(session, {"last_id": ""})
    answer = await stream.opened()
    if not answer.is_done:
        return answer.error or f"status {answer.status}: {answer.text}", []
    value = canary_word(session.user, 2)
    word = "write" if target.service.may("write") else "run"
    if target.service.may(word):
        await door.do(word, session, {"value": value})

    def is_here() -> bool:
        return any(value in event.data for event in stream.events)

    within = target.service.bounds.deadline_s
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            while not is_here() and stream.is_open:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    if not is_here():
        when = f"within {within:g} s of the write" if stream.is_open else "before the stream ended"
        return f"no event held {value} {when}; it brought {len(stream.events)}", stream.events
    service, operation = target.service, target.service.operations["stream"]
    if operation.events == "lines" and any(_FIELD_OF_SSE.match(event.data) for event in stream.events):
        return 'its lines are the fields of server-sent events; set events = "sse"', stream.events
    if service.promises.resumes and not (service.door or operation.tool or stream.events[-1].id):
        return "its events have no id, so no client can resume after one; set promises.resumes = false", stream.events
    return "", stream.events


class _Rows:
    """The rows that were logged since they were last asked for."""

    def __init__(self, log: Path) -> None:
        self._log, self._read = log, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        lines = self._log.read_text(encoding="utf-8").splitlines()
        new, self._read = lines[self._read :], len(lines)
        return iter([json.loads(line) for line in new])


def _alike(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int]]:
    """Each row, and how many follow it that would be shown alike, as the logins of several users are."""
    for _, same in groupby(
        rows, key=lambda row: {name: row.get(name) for name in ("word", "request", "body", "answer")}
    ):
        first, *more = same
        yield first, len(more)


def _show(row: dict[str, Any]) -> None:
    print(f"{row['word']}: {shown(row['request'])}")
    for name, value in row.get("headers", {}).items():
        if name.lower() not in ("accept", "accept-encoding", "connection", "user-agent", "host", "content-length"):
            print(f"  {shown(name)}: {shown(value)}")
    if row.get("body"):
        print(f"  sent {shown(row['body'], _LONGEST)}")
    print(f"  answered {shown(row['answer'], _LONGEST)}")
