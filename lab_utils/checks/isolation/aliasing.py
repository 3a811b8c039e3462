"""A part of shared_state_contamination_detection: changes by users to the objects that they handed in and received."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lab_utils.judges.isolation import SPOILED, same_after_mutation
from lab_utils.target import Capability, Command, Handle, Recipe
from lab_utils.trial import Trial
from lab_utils.values.workload import canary, rows_for

__all__ = ["judge_aliasing", "spoil"]

_USERS = ("spoils", "spoils-too")
_DEEP, _LONG = 60, 1_100
_KINDS = ("flat", "list", "long", "twice")


async def judge_aliasing(trial: Trial) -> None:
    """Let each user spoil the objects they handed in and every kind of answer; judge the later answers to them and to
    the others, and the source of their rows."""
    source = {user: rows_for(user, 3, trial.rng) for user in _USERS}
    as_made = copy.deepcopy(source)
    target = await trial.target([Recipe("helper")], source)
    can = target.capabilities
    # A value that is flat, a list or long, or stands in two places, may be copied in another way than others.
    asked = {"memory": Command("recall")} | {f"{kind} value": Command("read", {"key": kind}) for kind in _KINDS}
    if Capability.CONTEXT_DATA in can:
        asked["context"] = Command("context")
    if Capability.TOOLS in can:
        asked["rows"] = Command("tool", {"name": "rows", "parameters": {}})
    handles: dict[str, Handle] = {}
    expected: dict[str, dict[str, Any]] = {}
    cases: list[tuple[str, str, Any, Any]] = []

    async def answers(user: str) -> dict[str, Any]:
        client = trial.client(target, f"client of {user}", user)
        return {what: await client.run(handles[user], command) for what, command in asked.items()}

    for user in _USERS:
        client = trial.client(target, f"client of {user}", user)
        handed_in: dict[str, Any] = {what: client.nested(what) | {"deep": _deep()} for what in ("context", "memory")}
        handles[user] = await client.create("helper", data=handed_in["context"])
        await client.run(handles[user], Command("write", {"key": "note", "value": handed_in["memory"]}))
        handed_in["flat value"] = {"flat": canary(user, "flat value", 0)}
        handed_in["list value"] = [canary(user, "list value", 0)]
        handed_in["long value"] = [f"{number} of {user}" for number in range(_LONG)]
        handed_in["twice value"] = {"here": (again := {"inner": [canary(user, "twice value", 0)]}), "and here": again}
        for kind in _KINDS:
            await client.run(handles[user], Command("write", {"key": kind, "value": handed_in[f"{kind} value"]}))
        before = await answers(user)
        expected[user] = copy.deepcopy(before)
        spoil(handed_in)
        inside = copy.deepcopy(await answers(user))
        cases += [
            (
                "aliased-input",
                f"the objects that {user!r} had passed in (read: the {what})",
                expected[user][what],
                answer,
            )
            for what, answer in inside.items()
        ]
        # What was handed in and is not copied has changed now: no later answer is to blame for that.
        expected[user] = inside
        spoil(before)
    for user in _USERS:
        # Read again when all have spoiled theirs: also as somebody else.
        again = await answers(user)
        cases += [
            (
                "aliased-output",
                f"the answers that anybody had received (read: the {what} of {user!r})",
                kept,
                again[what],
            )
            for what, kept in expected[user].items()
        ]
    cases.append(("aliased-output", "the answers of tools (read: the rows at their source)", as_made, source))
    trial.judge(same_after_mutation(cases))
    await trial.stop(target)


def _deep() -> Any:
    """Lists and dicts in each other, deeper than a copy goes that counts its levels."""
    value: Any = ["the innermost"]
    for level in range(_DEEP):
        value = [value] if level % 2 else {"inner": value}
    return value


def spoil(value: Any) -> None:
    """Change every dict, list, set and bytearray inside a value, at every depth."""
    if isinstance(value, Mapping):
        for inner in value.values():
            spoil(inner)
        if isinstance(value, dict):
            # Another key each time: what was spoiled before is seen to change again.
            value[f"{SPOILED} {len(value)}"] = SPOILED
    elif isinstance(value, (list, tuple)):
        for inner in value:
            spoil(inner)
        if isinstance(value, list):
            value.append(SPOILED)
    elif isinstance(value, set):
        value.add(f"{SPOILED} {len(value)}")
    elif isinstance(value, bytearray):
        value.extend(SPOILED.encode())
