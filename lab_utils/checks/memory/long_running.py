"""The check of the category memory_management that runs one session for long."""

from __future__ import annotations

from lab_utils.checks.memory.leak_hunt import MOST_BYTES_AN_OPERATION, Caller, LeakHunt, attempt
from lab_utils.checks.memory.work import PAYLOAD, kinds_of_work, operate, write_note
from lab_utils.target import Capability, Command, Recipe
from lab_utils.trial import ASKED, LAB, Check, Trial
from lab_utils.trial.faults import Failure
from lab_utils.values.workload import rows_for

__all__ = ["CHECKS"]

_ROWS_EACH = 8
_MB = 1_000_000
_RESIDENT = "resident"
_VISITORS = 2


async def _long_running(trial: Trial) -> None:
    shown, cycles = int(trial.parameters["cycles"]), int(trial.parameters["long_cycles"])
    count = int(trial.parameters["operations_per_cycle"])
    recipes = [Recipe("helper"), Recipe("flaky", on_create=Failure("this factory never works"))]
    async with LeakHunt.opened(trial, recipes, {_RESIDENT: rows_for(_RESIDENT, _ROWS_EACH, trial.rng)}) as hunt:
        resident = Caller(trial, hunt.target, "the resident's client", _RESIDENT)
        kept = await resident.create("helper", thread="kept")
        await hunt.see(kept)
        # Else the newest agent is the one that is kept.
        makes_another = resident.can(Capability.CREATE_ANEW) or resident.can(Capability.THREADS)
        gives_back = resident.can(Capability.REMOVE) and makes_another
        if not gives_back:
            # A store that loads a whole conversation for each run takes time with the square of their number.
            count = min(count, 2 + len(kinds_of_work(resident, kept, tools=False)))
            trial.note(
                "The resident works with one agent throughout, and does each kind of work once in a cycle: the target "
                "cannot remove another, and objects that the lab itself makes in every cycle must not look like a leak."
            )

        async def work(least: int, *, tools: bool = True) -> None:
            if gives_back:
                await operate(resident, max(least, count - 1), tools=tools)
                await resident.remove("helper")
            else:
                await operate(resident, max(least, count - 1), tools=tools, agent=kept)
                # The loop holds the answer that woke this task until its next turn.
                await trial.waiting.settle(1)

        async def cycle(number: int) -> None:
            # The same work in every cycle: the resident's agents are removed again, visitors leave again.
            await work(1, tools=False)
            await resident.run(kept, write_note(_RESIDENT, number))
            await attempt(resident, resident.create("flaky"))
            if resident.can(Capability.EVENTS):
                # A device that comes and goes, while an agent that was there before speaks to it.
                device = hunt.target.subscribe(_RESIDENT)
                await resident.run(kept, Command("think", {"thoughts": ["one"]}))
                await device.close()
                del device
            if resident.can(Capability.MODEL):
                await resident.run(kept, Command("ask", {"text": "What now?"}))
            for place in range(_VISITORS):
                visitor = Caller(trial, hunt.target, "a visitor's client", f"visitor-{number:09d}-{place}")
                if place and visitor.can(Capability.GET_OR_CREATE):
                    guest = await visitor.get_or_create("helper")
                else:
                    guest = await visitor.create("helper", data={"note": "x" * PAYLOAD})
                await hunt.see(guest)
                await visitor.run(guest, write_note(visitor.user, number))
                if visitor.can(Capability.TOOLS):
                    await visitor.run(guest, Command("tool", {"name": "rows"}))
                del guest
                await hunt.leave(visitor.user)

        warm_ups = max(shown, cycles // 3)
        await work(2)
        for number in range(warm_ups):
            await cycle(number)
        trial.note(
            f"Warmed up before the baseline: {warm_ups} of the same cycles, and the tools. One resident user stays; "
            f"every cycle brings {_VISITORS} visitors with user ids of their own, who leave again. In these cycles "
            "only visitors call tools: a database's cursors pile up and are dropped by the hundred, a bounded rise and "
            f"fall that would hide a small leak. The resident calls them in {shown} more cycles at the end, judged by "
            "exact counts and budgets."
        )
        await hunt.at_rest()
        hunt.baseline()
        before = hunt.traced()
        trends = await hunt.trend("a session that lives long", cycle, cycles, shown, first=warm_ups)
        for _ in range(shown):
            await work(1)
        await hunt.at_rest()
        grown, repeated = hunt.grown_since(before)
        await hunt.judge_back(cycles * count, "after every cycle")
        done = max(sum(fit.cycles for fit in trend.fits) for trend in trends)
        await hunt.judge_trend(trends, cycle, warm_ups + done)
        hunt.measure_cycles(grown, repeated)
        hunt.measure_growth(
            "traced growth an operation",
            (repeated - hunt.found_garbage) / (done * count),
            "bytes",
            ASKED("<", 1 * _MB),
            LAB("<", MOST_BYTES_AN_OPERATION),
        )
        trial.measure("cycles of work", done, "cycles")


CHECKS = (
    Check(
        name="long_running_session_resource_management",
        category="memory_management",
        claim="A session that lives long is flat: over hundreds of cycles of the same work neither memory nor any "
        "count grows, and users who come and go leave nothing.",
        protects="stability",
        looks_like="Memory rises by 2 MB an hour, too little for any alert. On the eleventh day the process is killed, "
        "at noon, with every customer's session in it. The cause is a metric with the user's id as its label.",
        body=_long_running,
        measures=True,
        planted=(
            "SessionLogGrows",
            "SupersededKept",
            "TimesInArray",
            "SampleOfSessions",
            "ReceiptsKept",
            "DroppedClientsCounted",
            "AnswersKept",
        ),
        uses=frozenset(
            {
                Capability.ANY_VALUES,
                Capability.CONTEXT_DATA,
                Capability.CREATE_ANEW,
                Capability.END,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.LOOKUP,
                Capability.MODEL,
                Capability.PARTS,
                Capability.REMOVE,
                Capability.TOOLS,
            }
        ),
    ),
)
