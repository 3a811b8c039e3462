"""The bodies of service_burst_latency and service_memory."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from lab_utils.checks.service.stage import Stage, needing, nothing_to_ask, overlapped
from lab_utils.judges.services import Growth, limit_of, nothing_kept
from lab_utils.probes.memory import slope_of
from lab_utils.probes.tree import Tree, tree_now
from lab_utils.service.file import ServiceFile
from lab_utils.trial import Trial
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["burst", "memory"]

_ASKED = 5
_MOST_TIMES = 20
_TIMES_ALONE = 5.0
_ROUNDS = 3
_WARM_UP = 2
_SERIES = 2
_LEAST_CYCLES = 4
_SERIES_BETWEEN_RESTS = 2
_LONGER = 4
"""Where a series leaves it open whether anything is kept, one of so many times its cycles decides."""
_CLEAR = 2
"""A series whose every cycle adds so many times the limit ends early: more of it would only fill the machine."""
_SERIES_S = 60.0
"""A slow server is asked for fewer cycles, so that a series lasts no longer than this, or its least cycles."""
_LATE_S = 2
_UNITS = {"memory": "bytes", "descriptors": "objects", "threads": "objects", "connections": "objects"}


@needing(unless=nothing_to_ask, uses=("run", "write", "read"))
async def burst(stage: Stage) -> None:
    """How long B waits beside a burst of A's, and alone."""
    trial, service = stage.trial, stage.target.service
    neighbour, watcher = stage.pair()
    theirs, mine = await neighbour.opened_and_tried(), await watcher.opened_and_tried()
    word = "run" if service.may("run") else "write"

    count = int(trial.parameters["burst"])
    promised = service.promises.latency_beside_burst_s

    async def waits() -> float:
        began = time.perf_counter()
        await watcher.ask(word, mine, value=watcher.new())
        return time.perf_counter() - began

    async def round_of() -> tuple[float, list[float]]:
        """The median wait alone, and the waits beside a burst."""
        alone = statistics.median([await waits() for _ in range(_ASKED)])
        is_over = asyncio.Event()

        async def presses(number: int) -> None:
            # Each that is answered is followed by another: the burst lasts for as long as B asks.
            for _ in range(_MOST_TIMES):
                await neighbour.ask(word, theirs, value=neighbour.new())
                if is_over.is_set():
                    break

        async def asks() -> list[float]:
            # The first one waits for a burst that has yet to come.
            waited = [await waits() for _ in range(_ASKED + 1)][1:]
            is_over.set()
            return waited

        beside: list[float] = (await overlapped(trial, [asks(), *map(presses, range(count))]))[0]
        return alone, beside

    # A planted server that a loaded machine delays once is delayed anyhow.
    rounds = 1 if trial.waiting.is_hasty else _ROUNDS
    for _ in range(rounds):
        alone, beside = await round_of()
        during = statistics.median(beside)
        is_delayed = promised is not None and during > max(promised, _TIMES_ALONE * alone)
        # A machine that others load too delays one round or another; a server that makes users wait delays each.
        if not is_delayed:
            break
    trial.measure("median wait alone", alone, "s")
    trial.measure(f"median wait beside {count} requests of another user", during, "s")
    for wait in beside:
        trial.sample("wait beside a burst", wait, "s")
    if promised is None:
        trial.judge(Verdict.passed(f"{len(beside)} waits measured; the server promises nothing of them"))
        return
    findings = []
    if is_delayed:
        sentence = (
            f"{watcher.user!r} waits {during:.2f} s beside {count} requests of {neighbour.user!r}, in each of "
            f"{rounds} bursts, {alone:.3f} s alone; at most {promised:g} s are promised"
        )
        findings.append(Finding("delayed-by-neighbour", sentence, tuple(f"{wait:.3f} s" for wait in beside)))
    trial.judge(Verdict.of(findings, len(beside), f"waits beside a burst, at most {promised:g} s by the median"))


def _keeps_rightly(service: ServiceFile) -> str:
    if not service.command:
        return "the lab does not start the server, and does not know its processes"
    if not service.promises.end_erases or service.promises.retention_s > 0:
        return "the server promises to keep what ended sessions held"
    return ""


@needing("open", "write", "end", uses=("read",), unless=_keeps_rightly)
async def memory(stage: Stage) -> None:
    """Users come, write, and leave, cycle after cycle: does the server grow by their data?"""
    trial, service = stage.trial, stage.target.service
    users = stage.target.users(int(trial.parameters["users"]))
    payload = 1024 * int(trial.parameters["payload_kb"])
    cycles = int(trial.parameters["cycles"])
    written = float(payload * len(users))
    limit = limit_of(written)
    rng = random.Random(trial.seed)

    answers_meanwhile = True

    async def cycle(size: int, number: int) -> None:
        async def visit(user: str) -> None:
            nonlocal answers_meanwhile
            person = stage.person(user, name=f"{user} cycle {number}")
            session = await person.open()
            stream = person.listen(session) if service.may("stream") else None
            if stream is not None:
                await stream.opened()
            # Varied: a server that keeps one copy of equal texts keeps each of these.
            await person.write(session, rng.randbytes(size // 2).hex())
            if service.may("read"):
                await person.ask("read", session)
            if service.may("run"):
                # What a run that is answered holds goes too: as a trace, or in a memory of the agent's own.
                await person.ask("run", session, value=rng.randbytes(size // 2).hex())
                # A user who leaves in the middle: what an abandoned request and a dropped stream hold goes too.
                await person.door.abandon("run", session, {"value": rng.randbytes(size // 2).hex()}, 0)
                # Two requests more, one after another: by then the one before has begun. After the end of its session
                # it would be refused, and hold nothing. A server that answers none meanwhile has begun, too.
                for _ in range(2 * answers_meanwhile):
                    answer = await person.ask("read" if service.may("read") else "write", session, value=person.new())
                    answers_meanwhile = answers_meanwhile and answer.status > 0
            if stream is not None:
                await stream.close()
            await person.ask("end", session)
            await person.leave()

        await overlapped(trial, map(visit, users))
        stage.seen.clear()

    def now() -> Mapping[str, float]:
        return _quantities(tree_now(stage.target.process.pid))

    async def series(
        size: int, phase: str, most: int = cycles, *, may_end_early: bool = True
    ) -> Mapping[str, list[float]]:
        taken: dict[str, list[float]] = {name: [] for name in _UNITS}
        ends_at = time.monotonic() + _SERIES_S
        for number in range(most):
            is_enough = time.monotonic() > ends_at or (may_end_early and _is_clear(taken["memory"], limit))
            if number >= _LEAST_CYCLES and is_enough:
                break
            await cycle(size, number)
            for name, value in now().items():
                taken[name].append(value)
                trial.sample(f"tree:{name}", value, _UNITS[name], phase=phase)
            trial.progress(f"{phase}, cycle {number + 1}", number / most)
        return taken

    for number in range(_WARM_UP):
        await cycle(payload, number)
    without = await series(0, "without payload")
    measured = [await series(payload, f"series {number}") for number in range(1, _SERIES + 1)]
    growths = _growths(measured, limit, len(users), trial.seed)
    if any(growth.is_open for growth in growths):
        measured = [await series(payload, "a longer series", _LONGER * len(measured[-1]["memory"]))]
        growths = _growths(measured, limit, len(users), trial.seed)
    for name, unit in _UNITS.items():
        slope = slope_of(measured[-1][name], trial.seed)
        trial.measure(f"growth of {name} of the process tree", slope.per_step, f"{unit}/cycle")
    control = {name: slope_of(values, trial.seed).per_step for name, values in without.items()}
    if service.may("run") and nothing_kept(growths, len(users), written, control).findings:
        # An abandoned run may rightly go on, and hold its session: many of them pile up. So the cycles are repeated
        # between moments in which none goes on.
        promised = service.promises.run_outlives_caller_s
        rest_s = (service.bounds.deadline_s if promised is None else promised) + _LATE_S
        rests = 1 + _SERIES_BETWEEN_RESTS
        if rests * rest_s >= service.bounds.seconds:
            trial.judge(
                Verdict.unknown(
                    f"something grew, and bounds.seconds = {service.bounds.seconds:g} leaves no time for {rests} rests "
                    f"of {rest_s:g} s, in which dropped runs end; raise it in the service file"
                )
            )
            return
        trial.note(f"Something grew, so the lab repeated it between rests of {rest_s:g} s, in which runs end.")
        await _rest(trial, rest_s)
        rested = now()
        for _ in range(_SERIES_BETWEEN_RESTS):
            again = await series(payload, "after a rest", len(measured[-1]["memory"]), may_end_early=False)
            await _rest(trial, rest_s)
            before, rested = rested, now()
            grown = {name: (rested[name] - value) / len(again[name]) for name, value in before.items()}
            growths = [replace(one, between_rests=(*one.between_rests, grown[one.what])) for one in growths]
            if not nothing_kept(growths, len(users), written, control).findings:
                break
    trial.judge(nothing_kept(growths, len(users), written, control))
    if control["memory"] > limit:
        trial.note("Memory grows without the data of users, too, which is not judged: an allocator's steps do so.")
    trial.measure("written in a cycle", written, "bytes")


def _growths(measured: Sequence[Mapping[str, Sequence[float]]], limit: float, users: int, seed: int) -> list[Growth]:
    growths = []
    for name, unit in _UNITS.items():
        slopes = [slope_of(one[name], seed) for one in measured]
        # For counted things, half of one for each user: keep-alive sways by ten, and comes back.
        most = limit if unit == "bytes" else users / 2
        growths.append(Growth(name, unit, tuple((slope.low, slope.high) for slope in slopes), most))
    return growths


async def _rest(trial: Trial, seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        trial.progress("resting until abandoned runs are over", 1 - left / seconds)
        await asyncio.sleep(min(1.0, left))


def _is_clear(taken: Sequence[float], limit: float) -> bool:
    return all(after - before >= _CLEAR * limit for before, after in pairwise(taken))


def _quantities(tree: Tree) -> dict[str, float]:
    return {
        "memory": float(tree.own),
        "descriptors": float(tree.descriptors),
        "threads": float(tree.threads),
        "connections": float(tree.connections),
    }
