"""The check of types that are registered again, and replaced, while agents of them live and are being made."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from lab_utils.checks.limits_and_time.asking import attempt, of, require_refused, said
from lab_utils.target import Capability, Command, Handle, Hook, Recipe, Refusal
from lab_utils.trial import Trial
from lab_utils.trial.faults import Gate

__all__ = ["type_changes"]

_ADMIN = frozenset({"admin"})


class _Recipes:
    """Recipes of one type that can be distinguished by which of them was used: to make, to run, to close."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()

    def make(self, label: str, making: Hook | None = None, requires: frozenset[str] = frozenset()) -> Recipe:
        async def create(user: str) -> None:
            self.used[f"{user} made by {label}"] += 1
            if making is not None:
                await making(user)

        async def run(user: str) -> None:
            self.used[f"{user} run by {label}"] += 1

        async def close(user: str) -> None:
            self.used[f"{user} closed by {label}"] += 1

        return Recipe("helper", create, run, close, requires)


async def type_changes(trial: Trial) -> None:
    """Register a type twice, replace it, and see by which recipe each agent is made, run and closed."""
    recipes, gate = _Recipes(), Gate()
    gate.open()
    target = await trial.target([recipes.make("the first", gate)])
    able = target.capabilities

    async def make(user: str, **given: Any) -> Any:
        return await attempt(trial, of(trial, target, user).create("helper", **given), f"a create for {user}")

    async def use(user: str, handle: Handle) -> None:
        await attempt(trial, of(trial, target, user).run(handle, Command("recall")), f"a run of {user}")

    async def register(recipe: Recipe, **given: Any) -> Any:
        async def call() -> None:
            target.register(recipe, **given)

        return await attempt(trial, of(trial, target, "everybody", "the operator").call("register", call()), "register")

    def require(user: str, label: str, what: str) -> None:
        """Require that all that was done for the user was done by one recipe."""
        lines = [f"{line}: {count}" for line, count in recipes.used.items() if line.startswith(f"{user} ")]
        wrong = [line for line in lines if f" by {label}: " not in line]
        anomaly, sentence = "wrong-recipe", f"{what} should be of {label} recipe alone"
        trial.require(bool(lines) and not wrong, anomaly, sentence, *lines)

    old = await make("old")
    duplicate = await register(recipes.make("a duplicate"))
    require_refused(trial, duplicate, Refusal.DUPLICATE, "not-refused", "a type that is registered again")
    after = await make("after-a-duplicate")
    if isinstance(after, Handle):
        await use("after-a-duplicate", after)
    require("after-a-duplicate", "the first", "an agent that is made after a refused duplicate")
    gate.shut()
    task = asyncio.ensure_future(make("held"))
    await trial.waiting.until(lambda: gate.reached.is_set() or task.done())
    needs = _ADMIN if Capability.PERMISSIONS in able else frozenset()
    replaced = await register(recipes.make("the second", requires=needs), replace=True)
    trial.require(replaced is None, "failed-operation", f"the replacement of a type {said(replaced)}", said(replaced))
    # Who was there before has had what the first recipe required.
    for user in ("not-allowed", "after-a-duplicate") if Capability.CREATE_ANEW in able else ("not-allowed",):
        if needs:
            refused = await make(user)
            what = f"a create of {user!r} without the permission that the second recipe requires"
            require_refused(trial, refused, Refusal.PERMISSION, "not-refused", what)
    new = await make("new", permissions=needs)
    if isinstance(new, Handle):
        await use("new", new)
    require("new", "the second", "an agent of a new user, made after the replacement,")
    if needs:
        # A replacement may also require less.
        await register(recipes.make("the third"), replace=True)
        admitted = await make("admitted")
        sentence = "a create was refused though the recipe that replaced the type requires no permission"
        trial.require(isinstance(admitted, Handle), "wrong-recipe", sentence, said(admitted))
        await register(recipes.make("the second", requires=needs), replace=True)
    gate.open()
    held = await task
    handles = {"old": old, "held": held}
    for user, handle in handles.items():
        sentence = f"a create of {user!r} failed: {said(handle)}"
        if trial.require(isinstance(handle, Handle), "failed-operation", sentence, said(handle)):
            await use(user, handle)
    if Capability.GET_OR_CREATE in able and isinstance(old, Handle):
        call = of(trial, target, "old").get_or_create("helper", permissions=needs)
        found = await attempt(trial, call, "a get_or_create after the replacement")
        is_same = isinstance(found, Handle) and found.instance == old.instance
        sentence = f"the agent that lives was asked for after its type's replacement, and get_or_create {said(found)}"
        trial.require(is_same, "lost-agent", sentence, said(old), said(found))
    if Capability.END in able:
        for user in handles:
            await attempt(trial, of(trial, target, user).end(), f"ending {user}")
    require("old", "the first", "an agent made before the replacement")
    require("held", "the first", "an agent that was being made during the replacement")
    again = await make("after-a-duplicate", permissions=needs, thread="main")
    if isinstance(after, Handle) and isinstance(again, Handle) and Capability.CREATE_ANEW in able:
        made = recipes.used["after-a-duplicate made by the second"]
        sentence = "a user who was there before the replacement gets agents of the first recipe after it"
        trial.require(made > 0, "wrong-recipe", sentence, said(again))
