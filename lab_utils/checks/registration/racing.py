"""Callers that race, are held in a factory, and are cancelled: the parts of the registration races."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from lab_utils.target import Capability, Handle, Recipe, Target
from lab_utils.trial import Client, Trial, loops
from lab_utils.trial.faults import Failure, Gate, Planned, SlowToStop, counted
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Races", "stems_from_cancellation"]

_WAITS_IN_FACTORY = 4

Outcome = Handle | BaseException


class _Undeterred(Gate):
    """Returns an answer when it is cancelled, like code whose `except` is too broad."""

    async def __call__(self, user: str) -> None:
        with suppress(asyncio.CancelledError):
            await super().__call__(user)


class InTurn:
    """Holds each comer by itself; the first one fails when it is let go."""

    def __init__(self) -> None:
        self.inside: list[asyncio.Event] = []
        self._is_open = False

    async def __call__(self, user: str) -> None:
        mine, number = asyncio.Event(), len(self.inside)
        self.inside.append(mine)
        if not self._is_open:
            await mine.wait()
        if number == 0:
            raise Planned(f"the first attempt fails (user {user!r})")

    def open(self) -> None:
        """Let everybody go, and hold nobody any more."""
        self._is_open = True
        for one in self.inside:
            one.set()


class Races:
    """One trial of races: the target, and who was cancelled by the lab."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.racers = int(trial.parameters["racers"])
        self.target: Target
        self.cancelled: set[str] = set()
        self.closed: Counter[str] = Counter()
        self.failure: Failure
        self.in_turn: InTurn
        self.others = 0
        """Agents that the user has beside those raced for; with one, the user's session stays whatever fails."""

    async def open(self, gates: Sequence[str]) -> dict[str, Gate]:
        """Open a target with a gated agent type for each name, one that fails once, one that a cancellation does not
        stop, one that it stops slowly, and one that waits some turns."""
        made = {name: Gate() for name in gates}
        recipes = [Recipe(name, gate, on_cleanup=counted(self.closed)) for name, gate in made.items()]
        made["flaky"] = Gate()
        self.failure = Failure("the first attempt fails", times=1, before=made["flaky"])
        recipes.append(Recipe("flaky", self.failure))
        made["undeterred"] = _Undeterred()
        made["stopping"] = SlowToStop()
        recipes.append(Recipe("stopping", made["stopping"]))
        recipes.append(Recipe("undeterred", made["undeterred"]))
        self.in_turn = InTurn()
        recipes.append(Recipe("in-turn", self.in_turn))
        recipes.append(Recipe("turns", _some_turns, on_cleanup=counted(self.closed)))
        self.target = await self.trial.target(recipes)
        return made

    async def settle_in(self, user: str) -> None:
        """Give the user a session, with one agent of a type that nobody races for."""
        await self.trial.waiting.ends(self.client("the settler", user).create("turns"), "a create")
        self.others = 1

    def client(self, name: str, user: str) -> Client:
        return self.trial.client(self.target, f"{name} of {user}", user)

    @property
    def are_joined(self) -> bool:
        """Whether callers who ask at once for one agent get the same."""
        return self.can(Capability.GET_OR_CREATE)

    def asked(self, client: Client, agent_type: str) -> Coroutine[Any, Any, Handle]:
        """The client's call for an agent: by get_or_create, or by create where the target lacks it."""
        return client.get_or_create(agent_type) if self.are_joined else client.create(agent_type)

    def callers(self, user: str, agent_type: str, count: int) -> dict[Client, asyncio.Task[Handle]]:
        """Callers that ask at once for one agent, in this order; a single one where callers are not joined."""
        clients = [self.client(f"caller {number}", user) for number in range(count if self.are_joined else 1)]
        return {client: asyncio.create_task(self.asked(client, agent_type)) for client in clients}

    async def arrived(self, gate: Gate, what: str) -> None:
        """Wait until somebody is inside the factory, and everybody else who asked waits."""
        await self.trial.waiting.ends(gate.reached.wait(), f"reaching the factory of {what}")
        await self.trial.waiting.settle()

    async def cancel(self, callers: dict[Client, asyncio.Task[Handle]], indices: Sequence[int]) -> None:
        """Cancel some callers, and make sure that the cancellations have arrived."""
        named = list(callers.items())
        for index in indices:
            client, task = named[index]
            self.cancelled.add(client.name)
            task.cancel()
        await self.trial.waiting.settle()
        # One may give back in a thread, such as by the rollback of a database.
        await loops.done_in(self.trial.waiting.patience_s, [named[index][1] for index in indices])
        for index in indices:
            client, task = named[index]
            self.trial.require(task.done(), "never-ends", f"{client.name} was cancelled and still waits")

    async def all_of(self, tasks: Sequence[asyncio.Task[Any]], what: str) -> list[Any]:
        """The outcomes of the callers, exceptions as values."""
        await self.trial.waiting.ends(asyncio.wait(tasks), what)
        return [asyncio.CancelledError() if task.cancelled() else task.exception() or task.result() for task in tasks]

    def can(self, *capabilities: Capability) -> bool:
        """Whether the target has all of these."""
        return self.target.capabilities.issuperset(capabilities)

    def expect(self, sessions: int | None, agents: int, anomaly: str, when: str) -> None:
        """Require these exact counts, of agents alone where `sessions` is None, and beside those of `settle_in`, if the
        target reports its counts, and those before could be ended."""
        if not self.can(Capability.POPULATION, Capability.END):
            return
        if self.others:
            sessions, agents = None if sessions is None else 1, agents + self.others
        found = self.target.population()
        right = found.sessions == (found.sessions if sessions is None else sessions) and found.agents == agents
        sentence = (
            f"{when}: the target holds {found.sessions} sessions and {found.agents} agents, not {sessions} and {agents}"
        )
        self.trial.require(right, anomaly, sentence, *self.trial.history[-6:])

    def require_one_agent(self, answers: Sequence[Outcome], what: str, if_failed: str = "failed-operation") -> None:
        """Require that all of these callers were given one and the same agent. `if_failed`: the anomaly of a failure
        other than a cancellation."""
        failures = [answer for answer in answers if not isinstance(answer, Handle)]
        findings = []
        if failures:
            # A failure of another kind may stand beside one that is a cancellation: the cancellation is the cause.
            is_cancelled = any(
                isinstance(failure, asyncio.CancelledError) or (self.cancelled and stems_from_cancellation(failure))
                for failure in failures
            )
            anomaly = "cancelled-others" if is_cancelled else if_failed
            findings.append(
                Finding(anomaly, f"{len(failures)} of {len(answers)} {what} failed", tuple(map(repr, failures)))
            )
        instances = {answer.instance for answer in answers if isinstance(answer, Handle)}
        if len(instances) > 1:
            sentence = f"{len(answers)} {what} received {len(instances)} agents"
            findings.append(Finding("double-activation", sentence, tuple(sorted(instances))))
        self.trial.expectations += len(answers) - len(failures)
        if findings:
            self.trial.judge(Verdict.of(findings, len(answers), what))

    async def leave(self, user: str) -> None:
        """End the user, where that can be done, and require that nobody is left."""
        self.others = 0
        if not self.can(Capability.END):
            return
        await self.trial.waiting.ends(self.client("the end", user).end(), f"ending {user}")
        self.expect(0, 0, "left-behind", f"after {user!r} has gone")


def stems_from_cancellation(error: object) -> bool:
    """Whether an error is a cancellation, or was raised because of one."""
    seen: set[int] = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        if isinstance(error, asyncio.CancelledError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


async def _some_turns(user: str) -> None:
    for _ in range(_WAITS_IN_FACTORY):
        await asyncio.sleep(0)
