"""Checks of the category user_isolation."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from lab_utils.check import Check
from lab_utils.checkers.isolation import distinct_objects, own_answers
from lab_utils.target import Capability, Recipe
from lab_utils.trial import Trial
from lab_utils.workload import user_ids

__all__ = ["CHECKS"]


async def _distinct(trial: Trial) -> None:
    users = user_ids(int(trial.parameters["users"]), trial.rng)
    types = [f"helper-{number}" for number in range(int(trial.parameters["agents_per_user"]))]
    target = await trial.target([Recipe(name) for name in types])

    async def fill(user: str) -> None:
        client = trial.client(target, f"client of {user}", user)
        for agent_type in types:
            await client.create(agent_type)

    failures = [failure for failure in await trial.together(map(fill, users)) if failure is not None]
    trial.require(not failures, "failed-operation", "creating agents failed", *failures)
    parts: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for user in users:
        client = trial.client(target, f"client of {user}", user)
        for agent_type in types:
            handle = await client.get(agent_type)
            if handle is None:
                trial.find("lost-agent", f"{user!r} does not find their {agent_type}", *trial.history.where(user=user))
                continue
            for kind, part in (await target.parts(handle)).items():
                parts[kind][user].append(part)
    trial.judge(distinct_objects(parts))
    trial.judge(own_answers(trial.history))
    population = target.population()
    expected = (len(users), len(users) * len(types))
    found = (population.sessions, population.agents)
    trial.require(found == expected, "wrong-count", f"the target holds {found}, made were {expected}", population)
    trial.measure("agents created", len(users) * len(types), "agents")


CHECKS = (
    Check(
        name="per_user_agent_registry_isolation_validation",
        category="user_isolation",
        claim="Sessions, agents, dispatchers, bridges and contexts are distinct over all pairs of users.",
        protects="data",
        looks_like="Two customers' agents share a tool dispatcher: whoever calls second works on the first one's rows.",
        body=_distinct,
        planted=("SharedDispatcher", "CaseFoldedKeys"),
        needs=frozenset({Capability.PARTS, Capability.POPULATION}),
        extra_markers=frozenset({"enterprise_critical"}),
    ),
)
