"""Names the findings of a run: a key within it, and a fingerprint that is the same in every run; runs nothing."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lab_utils.values.history import Op, Operations
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Finding

__all__ = ["Identified", "identified"]

# Their witness is whatever came last before them, which differs from run to run.
_LAST_BEFORE: Final = frozenset(
    ("never-ends", "stop-failed", "process-died", "loop-blocked", "failed-operation", "unhandled-error", "task-left")
)
_MOST_INVOLVED: Final = 3
"""A witness of more operations than these shows a whole race, and each run draws another part of it."""

_OP_LINE: Final = re.compile(r"(?:[a-z ]{1,20}: )?op (\d{1,18}) ")
_LOST_OP_LINE: Final = re.compile(r"op \d+ .*?: ([a-z_]+(?::[a-z_]+)?) ")
_CORE: Final = re.compile(r"\(registration/([a-z_]+)[^+)]*\+([a-z_]+)[^)]*@\d")
_CALL_AT_BEGINNING: Final = re.compile(r"([a-z_]{2,30}) of ")
_NAMED_TYPES: Final = (
    re.compile(r"^([A-Za-z_][\w.]*): \d+ are left "),
    re.compile(r" have the same ([a-z_ ]+)$"),
    re.compile(r"^([a-z][\w ,/-]*?) is (?:none|[-+.,%\deinfa\\u]+) .*\bbudget "),
    re.compile(r"^([a-z][\w ,/-]*?) grows by "),
    re.compile(r" failed with ([A-Za-z_]\w*)"),
)
_CALLS: Final = frozenset(("create", "get", "get_or_create", "remove", "reset", "end", "run", "connections", "attach"))
_NUMBER_AT_END: Final = re.compile(r"[-_.]?\d+$")


@dataclass(frozen=True, slots=True)
class Identified:
    """One finding and its identity.

    `key`: `F1`, `F2`, ... in the order of the run. `number`: its place among those of its check, from 1. `calls`,
    `types`: the operations and agent types it is about. `operations`: the `index` of each operation of its witness that
    the result has kept. `users`: those affected, as far as the witness names them.
    """

    key: str
    result: CheckResult
    number: int
    finding: Finding
    calls: tuple[str, ...]
    types: tuple[str, ...]
    operations: tuple[int, ...]
    users: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """The same in every run that finds the same: made of the anomaly, the check, the calls and the types involved,
        never of ids, addresses, times, the seed or the wording."""
        parts = (self.finding.anomaly, self.result.check, " ".join(self.calls), " ".join(self.types))
        text = "\n".join(parts).encode("utf-8", "backslashreplace")
        # Read and compared by people: two checksums of 32 bits are enough, for a check has some dozens at most.
        return f"{zlib.crc32(text):08x}{zlib.adler32(text) & 0xFFFF:04x}"


def identified(results: Iterable[CheckResult]) -> list[Identified]:
    """Name every finding of the results, in their order: a result that is added at the end changes no key."""
    found: list[Identified] = []
    for result in results:
        findings = result.verdict.findings
        kept = _kept(result.operations, {index for one in findings for index in _indexes(one.witness)})
        users = _users(result.operations) if findings else {}
        for number, finding in enumerate(findings, 1):
            found.append(_named(f"F{len(found) + 1}", result, number, finding, kept, users))
    return found


def _named(
    key: str, result: CheckResult, number: int, finding: Finding, kept: dict[int, Op], users: dict[str, set[str]]
) -> Identified:
    involved = [op for line in finding.witness for op in _of_line(line, kept)]
    named = {op.user for op in involved}.union(*(users.get(_escaped(one), ()) for one in _quoted(finding.sentence)))
    return Identified(
        key,
        result,
        number,
        finding,
        tuple(sorted(_calls(finding, involved))),
        tuple(sorted(_types(finding, involved))),
        tuple(dict.fromkeys(op.index for op in involved)),
        tuple(sorted(named)),
    )


def _indexes(witness: Sequence[str]) -> Iterator[int]:
    return (int(found[1]) for line in witness if (found := _OP_LINE.match(line)))


def _kept(operations: Sequence[Op], wanted: set[int]) -> dict[int, Op]:
    """The operations of these indexes, by index."""
    if not wanted:
        return {}
    columns = operations if isinstance(operations, Operations) else Operations(operations)
    return {index: columns[place] for place, index in enumerate(columns.column("index")) if index in wanted}


def _users(operations: Sequence[Op]) -> dict[str, set[str]]:
    """The users of these operations, by their names in ASCII."""
    columns = operations if isinstance(operations, Operations) else Operations(operations)
    found: dict[str, set[str]] = {}
    for user in set(columns.column("user")):
        found.setdefault(_escaped(user), set()).add(user)
    return found


def _of_line(line: str, kept: dict[int, Op]) -> Iterator[Op]:
    """The operation that a line of a witness shows. A text of the target's own that reads like an operation is not
    one."""
    found = _OP_LINE.match(line)
    op = kept.get(int(found[1])) if found else None
    if op is not None and _escaped(f"op {op.index} {op.client}: {op.action} ") in _escaped(line):
        yield op


def _calls(finding: Finding, involved: Sequence[Op]) -> Iterator[str]:
    if core := _CORE.search(finding.sentence):
        yield from {core[1], core[2]} - {"nothing"}
        return
    begins = _CALL_AT_BEGINNING.match(finding.sentence)
    if begins and begins[1] in _CALLS:
        yield begins[1]
    elif finding.anomaly in _LAST_BEFORE:
        return
    elif len(involved) <= _MOST_INVOLVED:
        lost = {found[1] for line in finding.witness if (found := _LOST_OP_LINE.match(line))}
        yield from {op.action for op in involved} or (lost if len(lost) <= _MOST_INVOLVED else ())


def _types(finding: Finding, involved: Sequence[Op]) -> Iterator[str]:
    sentence = finding.sentence
    named = (found[1] for pattern in _NAMED_TYPES if (found := pattern.search(sentence)))
    # The number of cycles or users is a parameter, and not part of the finding.
    yield from {re.sub(r"\d+", "N", name) for name in named}
    if finding.anomaly not in _LAST_BEFORE and 0 < len(involved) <= _MOST_INVOLVED:
        # A type that is one of several alike bears its number, which the seed may have drawn.
        yield from {_NUMBER_AT_END.sub("", op.agent_type) for op in involved[-1:] if op.agent_type}


def _escaped(text: str) -> str:
    """In ASCII: some versions of the lab write a witness so, others do not."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _quoted(sentence: str) -> Iterator[str]:
    return (found[1] for found in re.finditer(r"'([^']*)'", sentence))
