"""Repeated operations on a session: every operation is in the cycle, and a trace of each is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lab_utils.checks.memory.interruptions import judge_interruptions
from lab_utils.checks.memory.sockets import Connection, Device, NotGreeted
from lab_utils.probes.live import count_now, drop_cancelled_timers
from lab_utils.runner import AnyTarget, run_check
from lab_utils.target import Capability, Handle, PlannedStep, Refusal, Refused, SupervisionReport, Target
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial
from lab_utils.values.verdict import Verdict
from registry import WebSocketManager
from tests.lab_utils.made import conducted


def judged(make: Callable[[], Target], cycles: int = 12) -> tuple[Trial, Verdict]:
    trial = Trial(make, {}, 7)
    return trial, conducted(trial, judge_interruptions(trial, cycles))


def anomalies(verdict: Verdict) -> set[str]:
    return {finding.anomaly for finding in verdict.findings}


def test_a_correct_target_is_flat() -> None:
    trial, verdict = judged(AgentRegistryTarget)
    # In a process of its own it passes, as the gallery's twins show; a test session does other things meanwhile.
    assert not verdict.findings
    assert "cycles measured: traced memory of interruptions " in verdict.reason
    assert trial.samples
    assert all(sample.series.startswith("cycles: ") for sample in trial.samples)
    cycles = {row.metric: row.value for row in trial.measurements}["cycles of interruptions"]
    assert 12 <= cycles <= 36


class CancelledCreateCounted(ReferenceTarget):
    given_up: tuple[tuple[str, int], ...] = ()

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        try:
            return await super().create(user, agent_type, **options)
        except asyncio.CancelledError:
            self.given_up = (*self.given_up, (user, 1_000 + len(self.given_up)))
            raise


@pytest.mark.parametrize("target", ["CancelledRunKept", CancelledCreateCounted])
def test_kept_memory_is_found_and_traced_to_the_culprits_line(target: AnyTarget) -> None:
    # In a process of its own: all objects of a test session would be searched.
    verdict = run_check("memory_usage_validation_during_concurrent_operations", target=target).verdict
    assert anomalies(verdict) == {"memory-growth"}
    # A tuple of plain values is no object that the collector knows.
    assert target is CancelledCreateCounted or "interruptions.py" in str(verdict.findings[0])


def test_a_cycle_has_every_operation() -> None:
    done: dict[str, int] = {}

    def count(what: str) -> None:
        done[what] = done.get(what, 0) + 1

    class Counting(AgentRegistryTarget):
        async def run(self, handle: Handle, command: Any) -> Any:
            try:
                return await super().run(handle, command)
            except asyncio.CancelledError:
                count("cancelled runs")
                raise

        async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
            try:
                return await super().create(user, agent_type, **options)
            except asyncio.CancelledError:
                count("cancelled creates")
                raise

        async def reset(self, user: str) -> int:
            count("resets")
            return await super().reset(user)

        async def attach(self, user: str) -> None:
            count(f"attached to {user}")
            await super().attach(user)

        async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
            count("plans")
            return await super().supervise(user, plan)

        def make_events_app(self, manager: Any, signer: Any) -> Any:
            app = super().make_events_app(manager, signer)

            async def counted(scope: Any, receive: Any, send: Any) -> None:
                count("sockets")
                await app(scope, receive, send)

            return counted

    trial, _ = judged(Counting)
    cycles = 5 + next(int(row.value) for row in trial.measurements if row.metric == "cycles of interruptions")
    # A plan attaches as well.
    assert done == {
        "cancelled runs": cycles,
        "cancelled creates": cycles,
        "resets": cycles,
        "attached to interrupted": 2 * cycles,
        "attached to passer-by": cycles,
        "plans": cycles,
        "sockets": 2 * cycles,
    }


def test_what_the_target_cannot_do_is_left_out() -> None:
    class Few(ReferenceTarget):
        capabilities = frozenset({Capability.CREATE_ANEW, Capability.REMOVE})

    trial, verdict = judged(Few)
    assert not verdict.findings
    assert "in each: a cancelled run, a cancelled create, a reset." in trial.notes[-1]


def test_without_what_sockets_need_the_rest_is_judged() -> None:
    class Bare(AgentRegistryTarget):
        def asgi_app(self) -> Any:
            raise ImportError("TokenSigner needs itsdangerous")

    trial, verdict = judged(Bare)
    assert not verdict.findings
    assert any("Without sockets" in note and "itsdangerous" in note for note in trial.notes)


def test_a_plan_that_fails_and_a_run_that_is_refused_are_findings() -> None:
    class Failing(AgentRegistryTarget):
        async def run(self, handle: Handle, command: Any) -> Any:
            if handle.agent_type == "held-in-a-run":
                raise Refused(Refusal.CAPACITY, "no more")
            return await super().run(handle, command)

        async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
            return SupervisionReport({"first": "completed", "second": "failed"}, {})

    _, verdict = judged(Failing)
    said = " ".join(map(str, verdict.findings))
    assert "failed-operation" in anomalies(verdict)
    assert "a plan of two steps failed" in said
    assert "no more" in said


# -- a connection without a server


async def until(holds: Callable[[], bool]) -> bool:
    for _ in range(50):
        if holds():
            return True
        await asyncio.sleep(0)
    return holds()


async def test_a_device_goes_on_where_it_was_and_says_what_it_has_heard() -> None:
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        start = json.loads((await receive())["text"])
        assert dict(scope["headers"])[b"authorization"] == b"Bearer good"
        seq = start.get("seq", 3)
        await send({"type": "websocket.send", "text": json.dumps({"type": "hello", "stream": "s", "seq": seq})})
        events = [json.dumps({"type": "agent_thinking", "seq": seq + more}) for more in (1, 2)]
        await send({"type": "websocket.send", "text": "\n".join(events)})
        heard.extend([start, json.loads((await receive())["text"]), (await receive())["type"]])

    device = Device("good")
    for _ in range(2):
        async with Connection(app, device, until) as connection:
            assert await until(lambda: connection.heard("agent_thinking"))
            assert not connection.heard("agent_completed")
    end = "websocket.disconnect"
    assert heard == [
        *[{"type": "start"}, {"type": "ack", "seq": 5}, end],
        *[{"type": "start", "stream": "s", "seq": 5}, {"type": "ack", "seq": 7}, end],
    ]


async def test_who_is_not_greeted_is_told_the_code() -> None:
    def refuse(_: str) -> str:
        raise RuntimeError("nobody is let in")

    with pytest.raises(NotGreeted, match="code=1011"):
        async with Connection(WebSocketManager().asgi_app(refuse), Device("any"), until):
            pass


async def test_what_the_app_raises_comes_through() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("of the app's own")

    with pytest.raises(ValueError, match="own"):
        async with Connection(app, Device("any"), until):
            pass


# -- timers that were cancelled


async def test_cancelled_timers_are_dropped_and_the_others_kept() -> None:
    loop = asyncio.get_running_loop()
    kept = [loop.call_later(3_600.0, loop.time) for _ in range(3)]
    for timer in [loop.call_later(3_600.0, loop.time) for _ in range(5)]:
        timer.cancel()
    assert (count_now().timers, count_now().cancelled_timers) == (3, 5)
    await drop_cancelled_timers()
    assert (count_now().timers, count_now().cancelled_timers) == (3, 0)
    for timer in kept:
        timer.cancel()
