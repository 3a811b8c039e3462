"""Drives two registries with the same calls and compares all that can be seen of them.

The one under test answers first. The other, the reference, is asked one call after another; where two calls were made
at once it is asked in either order, and it is enough that one order gives the same. In which order two agents were made
may show much later, when they are closed: both are kept then, each as a world of its own, until one is refuted.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab_utils.target import Command, Delivered, EndReport, Handle, Recipe, Refused, Subscription, Target
from lab_utils.values.workload import rows_for

__all__ = ["THREADS", "TYPES", "Beside", "Call", "Disagreement"]

TYPES = ("helper", "slow", "guarded", "fragile", "rude", "moody", "unlucky")
THREADS = ("main", "t2", "MAIN")


class Disagreement(AssertionError):
    """The registry acted as the reference does in no order."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a target's method. `on`: the number of the call that answered with the handle it is made on, or of
    the one that opened the client."""

    number: int
    method: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    on: int | None = None

    def __str__(self) -> str:
        shown = [f"the answer of {self.on}"] if self.on is not None else []
        shown += [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.options.items())]
        return f"{self.number}: {self.method}({', '.join(shown)})"


class Side:
    """One registry, its handles and clients, and the observations on it."""

    def __init__(self, make: Callable[[], Target], users: Sequence[str], rng: Any) -> None:
        self.target = make()
        self._users = users
        # In order of time, for nobody promises an order of rows.
        self._rows = {user: sorted(rows_for(user, 3, rng), key=lambda row: str(row["at"])) for user in users}
        self._handles: dict[int, Handle] = {}
        self._clients: dict[int, Subscription] = {}
        self._names: dict[str, int] = {}
        self._hooks: list[tuple[str, str, str]] = []

    async def start(self) -> None:
        await self.target.start(self._recipes(), self._rows, 5.0)

    def _recipes(self) -> list[Recipe]:
        def hook(place: str, kind: str, *, suspends: bool = False, error: str | None = None, once: bool = False) -> Any:
            failed: set[str] = set()

            async def called(user: str) -> None:
                self._hooks.append((place, kind, user))
                if suspends:
                    await asyncio.sleep(0)
                if error is not None and not (once and user in failed):
                    failed.add(user)
                    raise OSError(error)

            return called

        def recipe(kind: str, requires: frozenset[str] = frozenset(), **how: Mapping[str, Any]) -> Recipe:
            places = {place: hook(place, kind, **how.get(place, {})) for place in ("on_create", "on_run", "on_cleanup")}
            return Recipe(kind, **places, requires=requires)

        waits = {"suspends": True}
        return [
            recipe("helper"),
            recipe("slow", on_create=waits, on_run=waits, on_cleanup=waits),
            recipe("guarded", frozenset({"admin"})),
            recipe("fragile", on_create={"suspends": True, "error": "no luck"}),
            recipe("rude", on_cleanup={"error": "will not go"}),
            recipe("moody", on_run={"error": "not today"}),
            recipe("unlucky", on_create={"error": "not at first", "once": True}),
        ]

    async def perform(self, call: Call) -> Any:
        """Make the call; return its answer or the error."""
        answer: Any
        arguments, options = copy.deepcopy(call.arguments), copy.deepcopy(dict(call.options))
        try:
            if call.method == "run":
                # A handle that this side never gave: its answers differ already.
                answer = await self.target.run(self._handles[call.on or 0], *arguments)
            elif call.method == "hang_up":
                await self._clients[call.on or 0].close()
                answer = None
            elif call.method == "subscribe":
                answer = self.target.subscribe(*arguments)
                self._clients[call.number] = answer
            elif call.method == "connections":
                answer = self.target.connections(*arguments)
            else:
                answer = await getattr(self.target, call.method)(*arguments, **options)
        except Exception as error:
            answer = error
        if isinstance(answer, Handle):
            self._handles[call.number] = answer
        # A caller's later changes to its own objects must change nothing.
        _spoil(options.get("data"))
        for argument in arguments:
            _spoil(argument.arguments if isinstance(argument, Command) else None)
        return answer

    async def seen(self, answers: Sequence[Any], *, in_order: bool) -> dict[str, Any]:
        """The answers and all else that can be seen, with the names of instances made comparable."""
        for _ in range(10):
            await asyncio.sleep(0)
        answered = [self._comparable(answer) for answer in answers]
        for answer in answers:
            _spoil(answer)
        hooks, self._hooks = self._hooks, []
        population = self.target.population()
        # Every lookup there is; they make nothing either.
        found = {
            (user, kind, thread): self._comparable(agent)
            for user in self._users
            for kind in TYPES
            for thread in (None, *THREADS)
            if (agent := await self.target.get(user, kind, thread)) is not None
        }
        return {
            "answers": answered,
            "found": found,
            # Users are independent of one another, also when all of them end at once.
            "hooks": _by_user(hooks) if in_order else _kept(hooks),
            "population": (population.sessions, population.agents),
            "connections": {user: self.target.connections(user) for user in (None, *self._users)},
            "open": {number: client.is_open for number, client in self._clients.items()},
            "events": {number: _events(client.received()) for number, client in self._clients.items()},
        }

    def _comparable(self, answer: Any) -> Any:
        match answer:
            case Handle():
                instance = self._names.setdefault(answer.instance, len(self._names) + 1)
                return ("handle", answer.user, answer.agent_type, answer.thread, instance)
            case Refused():
                return ("refused", answer.kind)
            case BaseException():
                return ("raised", type(answer), str(answer))
            case EndReport():
                return ("ended", answer.found, answer.closed, sorted(_told(error) for error in answer.errors))
            case _ if hasattr(answer, "received"):
                return "a client"
            case _:
                return copy.deepcopy(answer)


class Beside:
    """A registry and the worlds in which the reference agrees with it so far."""

    def __init__(
        self,
        make: Callable[[], Target],
        reference: Callable[[], Target],
        users: Sequence[str],
        new_rng: Callable[[], Any],
    ) -> None:
        self._users = users
        self._new_rng = new_rng
        self._reference = reference
        self._subject = Side(make, users, new_rng())
        self._worlds: list[Side] = []
        self._pasts: dict[int, list[tuple[Call, ...]]] = {}

    async def start(self) -> None:
        await self._subject.start()
        await self._add_world([])

    async def step(self, *calls: Call, orders: Sequence[Sequence[int]] = ()) -> list[Any]:
        """Make the calls, all at once; raise `Disagreement` if the reference, asked in any of `orders` (by default in
        the order given), does not give the same. Return the comparable answers."""
        in_order = len(calls) == 1
        answers = await asyncio.gather(*(self._subject.perform(call) for call in calls))
        seen = await self._subject.seen(answers, in_order=in_order)
        one_is_enough = any(call.method not in ("create", "get_or_create") for call in calls)
        kept: list[Side] = []
        differences: list[str] = []
        for world in self._worlds:
            past, fits = self._pasts.pop(id(world)), False
            for place, order in enumerate(orders or [range(len(calls))]):
                if fits and one_is_enough:
                    break
                tried = world if place == 0 else await self._rebuilt(past)
                other = await _asked(tried, calls, order, in_order)
                if other == seen:
                    fits = True
                    kept.append(tried)
                    self._pasts[id(tried)] = [*past, *((calls[index],) for index in order)]
                else:
                    differences += _differences(seen, other)
                    await tried.target.stop()
        self._worlds = kept
        if not kept:
            made = "\n  at once with ".join(map(str, calls))
            raise Disagreement(f"{made}\n" + "\n".join(differences))
        told: list[Any] = seen["answers"]
        return told

    async def stop(self) -> None:
        for side in (self._subject, *self._worlds):
            await side.target.stop()

    async def _add_world(self, past: list[tuple[Call, ...]]) -> None:
        world = await self._rebuilt(past)
        self._worlds.append(world)
        self._pasts[id(world)] = past

    async def _rebuilt(self, past: list[tuple[Call, ...]]) -> Side:
        """A reference to which all that has happened."""
        world = Side(self._reference, self._users, self._new_rng())
        await world.start()
        for calls in past:
            await _asked(world, calls, (0,), in_order=True)
        return world


async def _asked(side: Side, calls: Sequence[Call], order: Sequence[int], in_order: bool) -> dict[str, Any]:
    answers: dict[int, Any] = {}
    for index in order:
        answers[index] = await side.perform(calls[index])
    return await side.seen([answers[index] for index in range(len(calls))], in_order=in_order)


def _spoil(value: Any) -> None:
    """Change every container within a value."""
    if isinstance(value, dict):
        for item in list(value.values()):
            _spoil(item)
        value["spoilt"] = True
    elif isinstance(value, list):
        for item in value:
            _spoil(item)
        value.append("spoilt")


def _by_user(hooks: Sequence[tuple[str, str, str]]) -> dict[str, list[tuple[str, str]]]:
    called: dict[str, list[tuple[str, str]]] = {}
    for place, kind, user in hooks:
        called.setdefault(user, []).append((place, kind))
    return called


def _kept(hooks: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], int]:
    """How often each was run, and how many agents are left of those made: one may be made in vain and closed again."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for place, kind, user in hooks:
        if place == "on_run":
            counts["runs", kind, user] += 1
        elif kind != "fragile":
            # Callers may share an attempt that fails.
            counts["agents", kind, user] += 1 if place == "on_create" else -1
    return {what: count for what, count in counts.items() if count}


def _events(received: Sequence[Delivered]) -> list[tuple[Any, ...]]:
    # Without the run's name: a run may go by its own or by its context's.
    return [(event.user, event.seq, event.type, event.agent, _body(event.body)) for event in received]


def _body(text: str) -> Any:
    """The payload without the texts that each registry words for itself."""
    payload = json.loads(text)
    # The reference numbers no calls.
    payload.pop("call", None)
    if payload.get("error") in REFUSALS:
        payload = {**payload, "error": "Refused", "message": ""}
    return payload


REFUSALS = ("Refused", "PermissionDenied", "UnknownTool")


def _told(error: str) -> tuple[str, ...]:
    """The agents whose cleanup failed, and the errors, without the sentence around them."""
    return tuple(word for word in ("rude", "OSError", "will not go") if word in error)


def _differences(seen: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [f"  {what}: {seen[what]!r}\n  reference: {other[what]!r}" for what in seen if seen[what] != other[what]]
