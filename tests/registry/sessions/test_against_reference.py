"""Our registry beside the obviously right, slow one: whatever is asked of both, they agree."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from lab_utils.target import Command
from lab_utils.targets import make_target
from lab_utils.values.workload import nested, user_ids
from tests.registry.sessions.beside import THREADS, TYPES, Beside, Call, Disagreement

EXAMPLES = int(os.environ.get("REGISTRY_MODEL_EXAMPLES", "30"))
"""How many sequences of calls are tried: twice as many as any planted registry needs. Set it higher for a longer
search, which then takes new ones at every run."""

USERS = user_ids(12, random.Random(4))
ALIKE = [["ACME", "acme"], ["1", "01"], ["café", "cafe\u0301"]]
"""Users whom a careless comparison takes for each other: of all of them few would meet."""
NOBODY = [None, 0, False, "", " ", " acme", "acme\t", "ac\x00me", "acme\x85", "\ud800", "x" * 257, b"acme", ("acme",)]

Request = tuple[str, tuple[Any, ...], dict[str, Any]]
"""A method, and its arguments after the user."""

places = st.integers(0, 3)
"""Which of an example's few users: many would seldom meet."""
types = st.sampled_from(("helper", *TYPES))
known_or_not = st.sampled_from((*TYPES, "unknown", "Helper", ""))
threads = st.sampled_from(THREADS)
permissions = st.sampled_from((frozenset(), frozenset({"admin"}), frozenset({"admin", "more"}), frozenset({"ADMIN"})))
keys = st.sampled_from(("k", "l"))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("aé\n", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=4,
)
data = (
    st.none()
    | st.sampled_from(USERS).map(lambda user: nested(user, "data"))
    | st.dictionaries(st.text("ab", max_size=2), plain)
)
tools = st.sampled_from(
    (
        ("rows", {}),
        ("total", {"column": "tokens_in"}),
        ("total", {"column": "no such"}),
        ("admin", {}),
        ("no such", {}),
        *(("rows", {"user_id": user}) for user in USERS[:4]),
    )
)
ADD = Command("add", {"key": "n", "amount": 1, "pause_s": 0})
commands = st.one_of(
    st.builds(lambda key, value: Command("write", {"key": key, "value": value}), keys, plain),
    st.builds(lambda key: Command("read", {"key": key}), keys),
    st.just(Command("recall")),
    st.just(ADD),
    st.just(Command("context")),
    st.builds(lambda tool: Command("tool", {"name": tool[0], "parameters": tool[1]}), tools),
    st.lists(st.text("aé", max_size=2) | st.just("long " * 500), max_size=3).map(
        lambda thoughts: Command("think", {"thoughts": thoughts})
    ),
    st.text("ab é", max_size=3).map(lambda message: Command("fail", {"message": message})),
    st.builds(lambda value: Command("collect", {"value": value}), plain),
    st.just(Command("no such")),
)
at_once = (
    st.sampled_from((ADD, ADD, Command("write", {"key": "n", "value": 0}), Command("read", {"key": "n"}))) | commands
)
some_commands = st.lists(commands, min_size=1, max_size=5)


@st.composite
def makings(draw: st.DrawFn, kinds: Sequence[str] = TYPES) -> Request:
    """A call that makes or finds an agent of a given user."""
    kind = draw(st.sampled_from(("helper", *kinds)))
    options: dict[str, Any] = {"thread": draw(threads), "permissions": draw(permissions)}
    if draw(st.sampled_from((False, False, True))):
        return "get_or_create", (kind,), options
    return (
        "create",
        (draw(types),),
        {**options, "data": draw(data), "connect": draw(st.sampled_from((True, True, False)))},
    )


lookups: st.SearchStrategy[Request] = st.tuples(st.just("get"), st.tuples(types, st.none() | threads), st.just({}))
closings: st.SearchStrategy[Request] = st.one_of(
    st.tuples(st.just("remove"), st.tuples(types), st.just({})), st.tuples(st.just("reset"), st.just(()), st.just({}))
)
endings: st.SearchStrategy[Request] = st.tuples(st.just("end"), st.just(()), st.just({}))
attaching: st.SearchStrategy[Request] = st.tuples(st.just("attach"), st.just(()), st.just({}))
# Not an ending: calls that it meets under way are refused, as in no order. Not calls that fail once: two may share the
# failure.
paired = makings(TYPES[:-1]) | lookups | closings
of_a_user = makings() | lookups | closings | endings | attaching


class Made(NamedTuple):
    """The call that was answered with an agent, and which agent that is."""

    number: int
    user: str
    kind: str
    thread: str


class Registries(RuleBasedStateMachine):
    """The target named `subject` beside the reference."""

    subject = "agent_registry"
    agents = Bundle("agents")
    clients = Bundle("clients")

    @initialize(
        target=clients,
        users=st.lists(st.sampled_from(USERS), min_size=2, max_size=4, unique=True) | st.sampled_from(ALIKE),
    )
    def start(self, users: list[str]) -> Any:
        self.users = users
        self.runner = asyncio.Runner()
        self.number = 0
        self.beside = Beside(
            lambda: make_target(self.subject), lambda: make_target("reference"), users, lambda: random.Random(7)
        )
        self.runner.run(self.beside.start())
        return multiple(*(self.subscribe(place) for place in range(len(users))))

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        with self.runner:
            self.runner.run(self.beside.stop())
            left = asyncio.all_tasks(self.runner.get_loop())
        assert not left

    def user(self, place: int) -> str:
        return self.users[place % len(self.users)]

    def call(self, method: str, *arguments: Any, on: int | None = None, **options: Any) -> Call:
        self.number += 1
        return Call(self.number, method, arguments, options, on)

    def of(self, user: Any, what: Request) -> Call:
        method, arguments, options = what
        return self.call(method, user, *arguments, **options)

    def step(self, *calls: Call, orders: Sequence[Sequence[int]] = ()) -> Any:
        """Make the calls in both registries; return the agents that they were answered with."""
        answers = self.runner.run(self.beside.step(*calls, orders=orders))
        made = [
            Made(call.number, *answer[1:4])
            for call, answer in zip(calls, answers, strict=True)
            if isinstance(answer, tuple) and answer[0] == "handle"
        ]
        return multiple(*made)

    @rule(target=agents, user=places, what=makings(), given=some_commands)
    def make_and_run(self, user: int, what: Request, given: list[Command]) -> Any:
        made = self.step(self.of(self.user(user), what))
        for agent in made.values:
            self.run(agent, given)
        return made

    @rule(user=places, kind=known_or_not, thread=threads, permissions=permissions, whose=st.none() | places)
    def make_what_may_be_refused(self, user: int, kind: str, thread: str, permissions: Any, whose: int | None) -> None:
        context_user = None if whose is None else self.user(whose)
        options = {"thread": thread, "permissions": permissions, "context_user": context_user}
        self.step(self.of(self.user(user), ("create", (kind,), options)))

    @rule(target=agents, user=places, what=lookups | closings)
    def look_or_close(self, user: int, what: Request) -> Any:
        return self.step(self.of(self.user(user), what))

    @rule(user=places, what=endings | attaching | st.just("end_all"))
    def end_or_attach(self, user: int, what: Request | str) -> None:
        self.step(self.call(what) if isinstance(what, str) else self.of(self.user(user), what))

    @rule(user=st.sampled_from(NOBODY), what=of_a_user)
    def ask_for_nobody(self, user: Any, what: Request) -> None:
        self.step(self.of(user, what))

    @rule(agent=agents, given=some_commands)
    def run_again(self, agent: Made, given: list[Command]) -> None:
        self.run(agent, given)

    def run(self, agent: Made, given: list[Command]) -> None:
        for command in given:
            self.step(self.call("run", command, on=agent.number))

    @rule(target=clients, user=places)
    def subscribe(self, user: int) -> int:
        self.step(call := self.call("subscribe", self.user(user)))
        return call.number

    @rule(client=consumes(clients))
    def hang_up(self, client: int) -> None:
        self.step(self.call("hang_up", on=client))

    @rule(target=agents, user=places, first=paired, second=paired)
    def two_of_one_user(self, user: int, first: Request, second: Request) -> Any:
        calls = [self.of(self.user(user), what) for what in (first, second)]
        return self.step(*calls, orders=((0, 1), (1, 0)))

    @rule(agent=agents, first=at_once, second=at_once)
    def two_runs_of_one_agent(self, agent: Made, first: Command, second: Command) -> None:
        calls = [self.call("run", command, on=agent.number) for command in (first, second)]
        self.step(*calls, orders=((0, 1), (1, 0)))

    @rule(agent=agents, other=agents, first=at_once, second=at_once)
    def two_runs(self, agent: Made, other: Made, first: Command, second: Command) -> None:
        if agent.user != other.user:
            self.step(self.call("run", first, on=agent.number), self.call("run", second, on=other.number))

    @rule(target=agents, agent=agents, permissions=permissions)
    def find_again(self, agent: Made, permissions: frozenset[str]) -> Any:
        what = ("get_or_create", (agent.kind,), {"thread": agent.thread, "permissions": permissions})
        return self.step(self.of(agent.user, what))

    @rule(target=agents, first=places, second=places, one=of_a_user, other=of_a_user)
    def two_users(self, first: int, second: int, one: Request, other: Request) -> Any:
        if self.user(first) == self.user(second):
            return multiple()
        return self.step(self.of(self.user(first), one), self.of(self.user(second), other))

    @rule(target=agents, agent=agents, command=commands, user=places, what=of_a_user)
    def a_run_beside_another_user(self, agent: Made, command: Command, user: int, what: Request) -> Any:
        if self.user(user) == agent.user:
            return multiple()
        return self.step(self.call("run", command, on=agent.number), self.of(self.user(user), what))


def search(subject: str, examples: int, *, shrink: bool = True) -> None:
    """Look for a disagreement between the target of this name and the reference; raise it, made small if asked."""
    machine = type(f"Registries_{subject}", (Registries,), {"subject": subject})
    how = settings(
        max_examples=examples,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        stateful_step_count=30,
        derandomize="REGISTRY_MODEL_EXAMPLES" not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(machine, settings=how)


def test_our_registry_agrees_with_the_reference() -> None:
    search("agent_registry", EXAMPLES)


CAUGHT = (
    "AliasedContext",
    "BridgePerAgent",
    "CaseFoldedKeys",
    "CheckThenAwait",
    "DriftingCounter",
    "EndDisconnectsNeighbours",
    "EndsByPrefix",
    "GhostSession",
    "LookupCreates",
    "NoBoundaryCheck",
    "OldestFound",
    "RemoveTakesOldest",
    "UseAfterClose",
)
"""Planted registries, each wrong in one way that a caller can see."""


@pytest.mark.parametrize("planted", CAUGHT)
def test_a_planted_registry_is_told_from_the_reference(planted: str) -> None:
    with pytest.raises(Disagreement):
        search(planted, 5 * EXAMPLES, shrink=False)
