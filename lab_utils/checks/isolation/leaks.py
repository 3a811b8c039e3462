"""The check of the category user_isolation that fills and ends sessions again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from lab_utils.checks.memory.leak_hunt import MOST_ASKED_BYTES, MOST_BYTES, Caller, LeakHunt
from lab_utils.judges.leaks import counts_are_back
from lab_utils.target import Capability, Command, EndReport, Recipe
from lab_utils.trial import ASKED, LAB, Check, Trial
from lab_utils.values.workload import rows_for

__all__ = ["CHECKS"]

_ROWS_EACH = 4
_WARM_UPS = 3
_IN_A_CYCLE = 50
"""Users in one cycle, if there are more: growth shows itself over cycles, not over users."""
_LEAST_IN_A_CYCLE = 8
"""Fewer come again within a cycle: a few bytes each would be lost in the steps by which tables grow."""


async def _factories(trial: Trial) -> None:
    users = trial.user_ids(int(trial.parameters["users"]))
    each = int(trial.parameters["agents_per_user"])
    cycles = int(trial.parameters["cycles"])
    rows = {user: rows_for(user, _ROWS_EACH, trial.rng) for user in users}
    types = [f"helper-{number}" for number in range(each)]
    async with LeakHunt.opened(trial, [Recipe(name) for name in types], rows) as hunt:
        await hunt.target.create("anchor", types[0])

        async def fill(user: str) -> None:
            client = Caller(trial, hunt.target, f"client of {user}", user)
            for agent_type in types:
                handle = await client.create(agent_type, data=client.nested("context"))
                await client.run(handle, Command("write", {"key": "note", "value": user}))
                await hunt.see(handle)

        async def come_and_go(visitors: Sequence[str], *, shown: bool = False) -> None:
            answers = await trial.waiting.together(map(fill, visitors))
            failures = [f"{type(answer).__name__}: {answer}" for answer in answers if answer is not None]
            hunt.require(not failures, "failed-operation", "creating agents failed", *failures[:3])
            if shown:
                hunt.show("work", hunt.counts())
            reports = await trial.waiting.together([hunt.leave(user) for user in visitors])
            if Capability.END in hunt.target.capabilities:
                closed = sum(report.closed for report in reports if isinstance(report, EndReport))
                right = closed == len(visitors) * each
                hunt.require(right, "wrong-count", f"{closed} agents of {len(visitors) * each} closed")

        # The same in every cycle: a new one would leave the lab's own records of each.
        few = users[:_IN_A_CYCLE]

        async def cycle(number: int) -> None:
            for again in range(-(-_LEAST_IN_A_CYCLE // len(few))):
                await come_and_go(few, shown=number == 0 and not again)

        for number in range(-_WARM_UPS, 0):
            await cycle(number)
        trial.note(
            f"Warmed up before the baseline: {_WARM_UPS} of the same cycles. One anchor user stays throughout, so that "
            "tasks the target keeps running for any user are in the baseline."
        )
        hunt.baseline()
        before = hunt.traced()
        trends = await hunt.trend("factories", cycle, cycles, cycles)
        grown, repeated = hunt.grown_since(before)
        done = max(sum(fit.cycles for fit in trend.fits) for trend in trends)
        came = done * len(few) * -(-_LEAST_IN_A_CYCLE // len(few))
        await hunt.judge_back(came * each, f"over {done} cycles")
        await hunt.judge_trend(trends, cycle, done)
        hunt.measure_cycles(grown, repeated)
        trial.measure("agents made by factories", came * each, "agents")
        if len(few) < len(users):
            await _all_at_once(hunt, lambda: come_and_go(users), len(users) * each)
            trial.note(
                f"In each cycle {len(few)} of the {len(users)} users came and left; after these cycles all of them did "
                "at once, two times, and every count was the same after both."
            )


async def _all_at_once(hunt: LeakHunt, come_and_go: Callable[[], Awaitable[None]], agents: int) -> None:
    """Let everybody come and leave once to warm up, once more to be counted."""
    when = "when all users had come at once"
    await come_and_go()
    hunt.watch.forget()
    counts, traced = hunt.counts(), hunt.traced()
    await come_and_go()
    grown = [hunt.traced() - traced]
    hunt.trial.judge(counts_are_back(counts, hunt.counts(), agents))
    hunt.judge_freed(when)
    (after,) = await hunt.grown_again(grown, come_and_go)
    hunt.measure_growth(f"traced growth {when}", after, "bytes", ASKED("<", MOST_ASKED_BYTES), LAB("<=", MOST_BYTES))
    hunt.trial.measure("agents of all users at once", agents, "agents")


CHECKS = (
    Check(
        name="factory_pattern_memory_leak_prevention_under_load",
        category="user_isolation",
        claim="Every agent that a factory makes is freed when its user leaves, by reference counting alone, in every "
        "cycle; nothing grows.",
        protects="stability",
        looks_like="The factory appends each agent to a list, for an admin page that was dropped a year ago. With "
        "every agent goes its context, with every context a customer's data, and a bug that reads the last item of "
        "that list is all that is missing for one customer to see another's.",
        body=_factories,
        measures=True,
        planted=("FactoryClosureKeeps", "LastAgentCached", "MetricsLabels", "MemoizedMethod", "DefaultArgumentKeeps"),
        uses=frozenset({Capability.ANY_VALUES, Capability.END, Capability.EVENTS, Capability.PARTS}),
    ),
)
