"""Refused, late and failed calls, replaced types, sweeps, users who only connect: each is in the cycle, and those that a
target cannot have are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest

from lab_utils.checks.memory.incidents import judge_incidents
from lab_utils.target import Capability, Command, EndReport, Handle, PlannedStep, Recipe, Refused, SupervisionReport
from lab_utils.targets import make_target
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial
from lab_utils.values.verdict import Verdict
from tests.lab_utils.made import conducted

WARM_UPS = 12


def judged(make: Callable[[], Any], cycles: int = 12) -> tuple[Trial, Verdict]:
    trial = Trial(make, {}, 7)
    return trial, conducted(trial, judge_incidents(trial, cycles))


class Counting(AgentRegistryTarget):
    """Counts how the calls of each kind went."""

    done: ClassVar[Counter[str]] = Counter()

    def note(self, call: str, error: BaseException | None = None) -> None:
        how = error.kind if isinstance(error, Refused) else type(error).__name__ if error is not None else "done"
        self.done[f"{call}: {how}"] += 1

    async def noted(self, call: str, work: Any) -> Any:
        try:
            answer = await work
        except BaseException as error:
            self.note(call, error)
            raise
        self.note(call)
        return answer

    async def get_or_create(self, user: str, agent_type: str, *given: Any, **options: Any) -> Handle:
        made: Handle = await self.noted("get_or_create", super().get_or_create(user, agent_type, *given, **options))
        return made

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        made: Handle = await self.noted(f"create {agent_type}", super().create(user, agent_type, **options))
        return made

    async def run(self, handle: Handle, command: Command) -> Any:
        return await self.noted(f"run {command.action}", super().run(handle, command))

    async def end(self, user: str) -> EndReport:
        report: EndReport = await self.noted("end", super().end(user))
        if report.errors:
            self.note("an end with errors")
        return report

    async def end_all(self) -> EndReport:
        report: EndReport = await self.noted("end_all", super().end_all())
        return report

    async def use_part(self, part: str, held: Any) -> Any:
        return await self.noted(f"use_part {part}", super().use_part(part, held))

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        report: SupervisionReport = await self.noted("supervise", super().supervise(user, plan))
        if report.error:
            self.note("a plan with a failed step")
        return report

    async def orchestrate(self, user: str, request: str) -> SupervisionReport:
        report: SupervisionReport = await self.noted("orchestrate", super().orchestrate(user, request))
        assert report.statuses["reporting"] == "completed"
        return report

    async def adopt(self, user: str, handle: Handle) -> None:
        await self.noted("adopt", super().adopt(user, handle))

    async def create_strict(self, user: str, agent_type: str, data: Any) -> Handle:
        made: Handle = await self.noted("create_strict", super().create_strict(user, agent_type, data))
        return made

    async def sweep(self) -> Sequence[str]:
        ended: Sequence[str] = await super().sweep()
        self.note(f"a sweep that ends {len(ended)}")
        return ended

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        try:
            super().register(recipe, replace=replace)
        except Refused as refusal:
            self.note("register", refusal)
            raise
        if replace:
            self.note("replace")

    def subscribe(self, user: str) -> Any:
        self.note("subscribe")
        return super().subscribe(user)

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        app = super().make_events_app(manager, signer)

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self.note("a socket")
            await app(scope, receive, send)

        return counted


def test_a_cycle_has_every_incident() -> None:
    """Of the calls of each kind there are as many as there are cycles, or a multiple."""

    Counting.done.clear()
    trial, verdict = judged(Counting)
    assert not verdict.findings, verdict.findings
    assert not trial.left_out
    cycles = WARM_UPS + next(int(row.value) for row in trial.measurements if row.metric == "cycles of incidents")
    each = {call: count / cycles for call, count in Counting.done.items()}
    assert {call: count for call, count in each.items() if call not in ("create helper: done", "end: done")} == {
        "subscribe: done": 2,
        "run think: done": 2,
        "run tool: permission": 1,
        "run ask: done": 1,
        "end_all: done": 1,
        # After an end of all, and after a sweep; while the session grows old it is used twice, and one is held while
        # another is cancelled that waits for it.
        "run read: closed": 2,
        "run read: done": 3,
        "run read: CancelledError": 1,
        "use_part bridge: closed": 1,
        "use_part dispatcher: closed": 1,
        "use_part llm: closed": 1,
        "create untidy: done": 2,
        "an end with errors: done": 1,
        "create lingering: done": 1,
        "end: CancelledError": 1,
        "create helper: invalid_user": 1,
        "create helper: wrong_loop": 1,
        "end: invalid_user": 1,
        "create flaky: Planned": 1,
        "get_or_create: Planned": 1,
        "get_or_create: CancelledError": 1,
        "create guarded: permission": 1,
        "create_strict: done": 1,
        "run collect: not_plain": 1,
        "a socket: done": 4,
        "orchestrate: done": 1,
        "supervise: done": 1,
        "a plan with a failed step: done": 1,
        "supervise: CancelledError": 1,
        "register: duplicate": 1,
        "replace: done": 1,
        "create changing: done": 1,
        # By a user without a session, by one who has another's, twice, and when the session has ended.
        "adopt: boundary": 4,
        "adopt: done": 1,
        "adopt: capacity": 1,
        "create broken: done": 1,
        **{f"create helper-{number}: done": 1 for number in range(4)},
        "create held: done": 1,
        "create held: capacity": 1,
        "create helper: capacity": 1,
        "a sweep that ends 0: done": 1,
        "a sweep that ends 1: done": 2,
    }


def test_what_a_target_lacks_is_named() -> None:
    class Few(ReferenceTarget):
        capabilities = frozenset({Capability.END, Capability.CREATE_ANEW, Capability.EVENTS})

    trial, verdict = judged(Few)
    assert not verdict.findings
    (left_out,) = trial.left_out
    assert "types that are replaced" in left_out
    assert "sessions that end as idle" in left_out
    assert "runs on closed agents" not in left_out
    assert left_out.endswith("supervision, tools, type_changes, user_cap)")
    assert trial.notes[-1].endswith(
        "newcomers whose factory fails, runs that are cancelled in line, users who only connect, events that nobody "
        "receives."
    )


def test_without_what_sockets_need_the_rest_is_judged() -> None:
    class Bare(AgentRegistryTarget):
        def asgi_app(self) -> Any:
            raise ImportError("TokenSigner needs itsdangerous")

    trial, verdict = judged(Bare)
    assert not verdict.findings
    assert trial.left_out == [
        "growth over refused and idle sockets, which need a missing package: TokenSigner needs itsdangerous"
    ]


def test_a_client_that_outlives_its_token_is_another_checks_finding_and_is_named() -> None:
    trial, verdict = judged(lambda: make_target("ExpiryAtConnectOnly"))
    assert not verdict.findings
    assert trial.left_out == ["growth over sockets whose token expires, for they stay connected"]
    assert "sockets whose token expires" in trial.notes[-1]


async def test_users_who_only_connect_leave_nothing_with_the_reference() -> None:
    target = ReferenceTarget()
    await target.start([Recipe("helper")], {}, 5.0)
    gone, there = target.subscribe("ada"), target.subscribe("bob")
    await gone.close()
    assert set(target.clients) == {"bob"}
    await target.create("bob", "helper", connect=False)
    await there.close()
    await target.end("bob")
    assert not target.clients


async def test_a_refused_adoption_leaves_no_session_and_takes_none_away() -> None:
    target = AgentRegistryTarget()
    await target.start([Recipe("helper")], {}, 5.0)
    for users in ([], ["bob"]):
        for user in users:
            await target.create(user, "helper")
        before = target.population()
        with pytest.raises(Refused, match="ada"):
            await target.adopt("bob", target.make_apart("ada", "helper"))
        assert target.population() == before
    await target.stop()
