"""`check-target` finds the faults of an adapter, method by method, and nothing in right ones."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lab_utils.checks import CONTRACT, contract
from lab_utils.runner import run_check
from lab_utils.target import (
    BaseTarget,
    Capability,
    Command,
    Delivered,
    EndReport,
    Handle,
    Population,
    Recipe,
    Refusal,
    Refused,
    Target,
)
from lab_utils.targets import TARGETS
from lab_utils.targets.lab_agent import obey
from lab_utils.targets.reference import Bridge, Origin, ReferenceTarget
from lab_utils.targets.skeleton import Agent, MyTarget, Registry
from lab_utils.values.limits import SLICES
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome
from tests.running import skip, turns


@pytest.fixture(autouse=True)
def shorter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most targets here are right but for one method, and each would be waited for at its end."""
    monkeypatch.setattr(contract, "_CLOSE_S", 0.1)


def tried(make: Callable[[], Target]) -> CheckResult:
    # Those that never end are not waited for: a false finding beside theirs does no harm.
    hangs = make in (
        *(RunsNeverEnd, WaitsForHangingCleanups, EventsAreTexts, ClientsOutliveTheEnd, NeverEndsOnceClosed),
        QuietWhenLeft,
    )
    return run_check(CONTRACT.name, target=make, in_process=True, stuck_after=0.3 if hangs else None)


class WithoutAnEnd(BaseTarget):
    """The skeleton without its optional methods."""

    __init__ = MyTarget.__init__
    create, run, _current = MyTarget.create, MyTarget.run, MyTarget._current
    _work, _is_caller_cancelled = MyTarget._work, MyTarget._is_caller_cancelled


@pytest.mark.parametrize("make", [TARGETS["agent_registry"], TARGETS["reference"], MyTarget, WithoutAnEnd])
def test_a_right_adapter_has_no_problem(make: Callable[[], Target]) -> None:
    result = tried(make)
    assert result.outcome is Outcome.PASS, result.verdict


@pytest.mark.parametrize("planted", CONTRACT.planted)
def test_it_fails_on_the_registries_that_were_planted_for_it(planted: str) -> None:
    assert run_check(CONTRACT.name, target=planted, in_process=True).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    "name",
    [
        "user_context_boundary_enforcement",
        "shared_state_contamination_detection",
        "agent_registration_with_user_context_isolation",
        "agent_lifecycle_management_per_user",
        "concurrent_agent_registration_safety",
        "concurrent_user_operations_isolation",
        "enterprise_customer_data_protection",
        "user_session_cleanup_and_isolation",
        "teardown_across_layers",
        "memory_usage_validation_during_concurrent_operations",
        "resource_cleanup_after_user_session_termination",
    ],
)
def test_the_skeleton_passes_the_checks_that_apply_to_it(name: str) -> None:
    # In a process of its own: the memory of a test session's million objects would be looked at with every cycle.
    result = run_check(name, target=MyTarget)
    assert result.outcome is Outcome.PASS, result.verdict


def test_an_id_that_a_target_cannot_take_is_refused_and_named() -> None:
    class ShortAlone(MyTarget):
        def user_id(self, user: object) -> str:
            if len(super().user_id(user)) > 255:
                raise Refused(Refusal.INVALID_USER, "too long")
            return str(user)

    result = run_check("user_context_boundary_enforcement", target=ShortAlone, in_process=True)
    assert result.outcome is Outcome.PASS, result.verdict
    assert "ids are refused as invalid" in result.verdict.reason


class AnswersTheAgent(MyTarget):
    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        return self.registry.open(user, agent_type)  # type: ignore[return-value]


class CallsNoFactoryHook(MyTarget):
    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        self.recipe(agent_type)
        return self.handle(user, agent_type, self.registry.open(user, agent_type))


class TakesEveryType(MyTarget):
    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        return self.handle(user, agent_type, self.registry.open(user, agent_type))


class TakesAnyUser(MyTarget):
    def user_id(self, user: Any) -> str:
        return str(user)


class RefusesIdsInItsOwnWords(MyTarget):
    def user_id(self, user: Any) -> str:
        try:
            return super().user_id(user)
        except Refused as error:
            raise ValueError("bad user") from error


class LosesErrorsOfFactories(MyTarget):
    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        try:
            return await super().create(user, agent_type)
        except Exception as error:
            if type(error).__name__ != "Planned":
                raise
        raise ValueError("could not create")


class NewInstanceEachTime(MyTarget):
    count = 0

    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        made = await super().create(user, agent_type)
        self.count += 1
        return self.handle(user, agent_type, made.native, instance=str(self.count))


class ForgetsTheName(MyTarget):
    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        made = await super().create(user, agent_type)
        return Handle("", agent_type, "main", made.instance, made.native)


class DropsRunHook(MyTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        from lab_utils.targets.lab_agent import obey

        return await obey(command.action, command.arguments, self._current(handle).memory)


class AnswersText(MyTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        return str(await super().run(handle, command))


class SwallowsFailures(MyTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except RuntimeError:
            return None


class RunsNeverEnd(MyTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        await asyncio.Event().wait()


class OneMemoryForAll(MyTarget):
    def __init__(self) -> None:
        super().__init__()
        self.shared: dict[str, Any] = {}

    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        made = await super().create(user, agent_type)
        made.native.memory = self.shared
        return made


class LookupMakes(MyTarget):
    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        return self.handle(user, agent_type, self.registry.open(user, agent_type))


class CountsUsersTwice(MyTarget):
    def population(self) -> Population:
        right = super().population()
        return Population(2 * right.sessions, right.agents)


class ReportsNothing(MyTarget):
    async def end(self, user: str) -> EndReport:
        await super().end(user)
        return None  # type: ignore[return-value]


class SkipsCleanups(MyTarget):
    async def end(self, user: str) -> EndReport:
        self.user_id(user)
        closed = self.registry.close(user)
        return EndReport(bool(closed), len(closed))


class CleansUpTwice(MyTarget):
    async def end(self, user: str) -> EndReport:
        hook = self.recipe("helper").on_cleanup
        if hook is not None:
            await hook(user)
        return await super().end(user)


class WaitsForHangingCleanups(MyTarget):
    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, 3600.0)


class WaitsForStubbornCleanups(MyTarget):
    async def _clean_up(self, user: str, agent_type: str) -> str:
        on_cleanup = self.recipe(agent_type).on_cleanup
        try:
            async with asyncio.timeout(self.close_timeout):
                if on_cleanup is not None:
                    await on_cleanup(user)
        except Exception as error:
            return str(error) or type(error).__name__
        return ""


class HidesCleanupErrors(MyTarget):
    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        return EndReport(report.found, report.closed)


class ForgivesOldHandles(MyTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        fresh = self.handle(handle.user, handle.agent_type, self.registry.open(handle.user, handle.agent_type))
        return await super().run(fresh, command)


_GLOBAL = Registry()


class OneGlobalRegistry(MyTarget):
    def __init__(self) -> None:
        self.registry = _GLOBAL

    async def stop(self) -> None:
        pass


class CannotStart(MyTarget):
    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        raise ConnectionError("no database")


class NamesToolsItLacks(MyTarget):
    also = frozenset({Capability.TOOLS})


class NamesContextItLacks(MyTarget):
    also = frozenset({Capability.CONTEXT_DATA})


class NamesPermissionsItLacks(MyTarget):
    also = frozenset({Capability.PERMISSIONS})


class NamesThreadsItLacks(MyTarget):
    also = frozenset({Capability.THREADS})

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        made = await super().create(user, agent_type)
        return self.handle(user, agent_type, made.native, thread=thread)


class FindsAnyThread(ReferenceTarget):
    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        found = await super().get(user, agent_type, "main" if thread else None)
        return found and Handle(user, agent_type, thread or found.thread, found.instance, found.native)


class PopulationRaises(MyTarget):
    def population(self) -> Population:
        raise KeyError("sessions")


class EventsAreTexts(ReferenceTarget):
    def subscribe(self, user: str) -> Any:
        client = super().subscribe(user)
        client.received = lambda: ("an event",)  # type: ignore[method-assign, assignment, return-value]
        return client


class RemovesNothing(ReferenceTarget):
    async def remove(self, user: str, agent_type: str) -> bool:
        return True


class ResetCountsNothing(ReferenceTarget):
    async def reset(self, user: str) -> int:
        await super().reset(user)
        return 0


class CountsNoConnections(ReferenceTarget):
    def connections(self, user: str | None = None) -> int:
        return 0


class PartsAreAList(ReferenceTarget):
    async def parts(self, handle: Handle) -> Any:
        return [handle.native]


class MakesAnother(ReferenceTarget):
    async def get_or_create(self, user: str, agent_type: str, thread: str = "main", permissions: Any = ()) -> Handle:
        return await self.create(user, agent_type, thread=thread, permissions=frozenset(permissions))


class ForgetsToAwaitARun(MyTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        return super().run(handle, command)


class ForgetsToAwaitACreate(MyTarget):
    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        return super().create(user, agent_type, **options)  # type: ignore[return-value]


class EndsTheProcess(MyTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        if command.action == "fail":
            raise SystemExit("bad request")
        return await super().run(handle, command)


class WrapsErrors(MyTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except RuntimeError as error:
            raise ValueError("the run failed") from error


class KeepsABook(MyTarget):
    def __init__(self) -> None:
        super().__init__()
        self.book: dict[tuple[str, str], Handle] = {}

    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        self.user_id(user)
        if (user, agent_type) not in self.book:
            self.book[user, agent_type] = await super().create(user, agent_type)
        return self.book[user, agent_type]


class OneSessionForAllTypes(MyTarget):
    class Sessions(Registry):
        def open(self, user: str, agent_type: str) -> Agent:
            return super().open(user, "helper")

        def find(self, user: str, agent_type: str) -> Agent | None:
            return super().find(user, "helper")

    def __init__(self) -> None:
        self.registry = self.Sessions()


class StoresByName(MyTarget):
    """As an adapter of a store does: load, work, store under the name that it had."""

    async def run(self, handle: Handle, command: Command) -> Any:
        agent = self._current(handle)
        memory = copy.deepcopy(agent.memory)
        on_run = self.recipe(handle.agent_type).on_run
        if on_run is not None:
            await on_run(handle.user)
        answer = await obey(command.action, command.arguments, memory)
        self.registry.open(handle.user, handle.agent_type).memory = memory
        return answer


class TurnsBytesToText(MyTarget):
    also = frozenset({Capability.ANY_VALUES})

    async def run(self, handle: Handle, command: Command) -> Any:
        answer = await super().run(handle, command)
        return str(answer) if isinstance(answer, bytes) else answer


class BoundsNothing(MyTarget):
    also = frozenset({Capability.AGENT_CAP, Capability.USER_CAP, Capability.IDLE_END, Capability.AGE_END})

    def limit(self, bounds: Any) -> None:
        pass

    def move_clock(self, seconds: float) -> None:
        pass

    async def sweep(self) -> Sequence[str]:
        return ()


class RegistersNothing(MyTarget):
    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        pass


class AdoptsAnybodys(ReferenceTarget):
    async def adopt(self, user: str, handle: Handle) -> None:
        pass


class TakesAnyData(ReferenceTarget):
    async def create_strict(self, user: str, agent_type: str, data: Any) -> Handle:
        return await self.create(user, agent_type, data=data)


class FindsInMainAlone(ReferenceTarget):
    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        return await super().get(user, agent_type, thread or "main")


class ClientsWithoutAState(ReferenceTarget):
    def subscribe(self, user: str) -> Any:
        client = super().subscribe(user)
        return SimpleNamespace(received=client.received, close=client.close)


class EventsWithMore(ReferenceTarget):
    def subscribe(self, user: str) -> Any:
        client = super().subscribe(user)
        right = client.received

        def received() -> Sequence[Delivered]:
            return [replace(event, body=event.body.replace("{", '{"host": 1, ', 1)) for event in right()]

        client.received = received  # type: ignore[method-assign]
        return client


class ClientsOutliveTheEnd(ReferenceTarget):
    def close_clients(self, session: Any) -> None:
        pass


class NeverEndsOnceClosed(ReferenceTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except Refused as refusal:
            if refusal.kind is Refusal.CLOSED and handle.agent_type == "held":
                await asyncio.get_running_loop().create_future()
            raise

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        # Meanwhile the run waits, too: it is given up before anybody has waited for it that long.
        for _ in range(SLICES):
            skip(0.1 / SLICES)
            await turns(2)
        return report


class _QuietWhenLeft(Bridge):
    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        if payload.get("error") != "CancelledError":
            super().emit(kind, payload, origin)


class QuietWhenLeft(ReferenceTarget):
    def make_bridge(self, user: str) -> Bridge:
        return _QuietWhenLeft(user, self.clients_of(user))


class NoRunIds(ReferenceTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        return await super().run(handle, Command(command.action, command.arguments))


@pytest.mark.parametrize(
    ("make", "call", "words"),
    [
        (
            ForgetsToAwaitARun,
            "run() of 'write'",
            "it returned a coroutine that nobody awaits; write `return await ...`",
        ),
        (ForgetsToAwaitACreate, "create()", "it returned a coroutine that nobody awaits; write `return await ...`"),
        (EndsTheProcess, "run() of 'fail'", "SystemExit('bad request'), which ends the process"),
        (WrapsErrors, "run() of 'fail'", "raise its cause: `raise error.__cause__`"),
        (KeepsABook, "end()", "ask your registry, and keep no records in the adapter"),
        (OneSessionForAllTypes, "create()", "agents of two types are one"),
        (StoresByName, "run()", "compare the present session with handle.native"),
        (TurnsBytesToText, "run() of 'read'", "it names any_values, and b'"),
        (BoundsNothing, "limit()", "where one agent of a user is allowed, 2 live; hand bounds.agents_per_user on"),
        (BoundsNothing, "limit()", "for a second user where one is allowed, it returned Handle"),
        (BoundsNothing, "sweep()", "for idle_end of 60 s, 61 s later it returned ()"),
        (BoundsNothing, "sweep()", "for age_end of 60 s, 61 s later it returned ()"),
        (RegistersNothing, "create()", "no agent type 'later'"),
        (AdoptsAnybodys, "adopt()", "raise Refused(Refusal.BOUNDARY, message)"),
        (TakesAnyData, "create_strict()", "raise Refused(Refusal.NOT_PLAIN, message)"),
        (FindsInMainAlone, "get()", "it finds the newest in any thread"),
        (ClientsWithoutAState, "subscribe()", "(it has no is_open)"),
        (EventsWithMore, "subscribe()", "drop other fields in the adapter"),
        (QuietWhenLeft, "subscribe()", "send the last event also where CancelledError ends a run"),
        (ClientsOutliveTheEnd, "end()", "close a user's clients at the end"),
        (NeverEndsOnceClosed, "run()", "a run whose session ended never ends"),
        (NoRunIds, "run()", "it names run_ids, and the events of run 'run-of-ada' bear"),
        (AnswersTheAgent, "create()", "return self.handle(user, agent_type, native)"),
        (CallsNoFactoryHook, "create()", "await recipe.on_create(user) where the agent is made"),
        (TakesEveryType, "create()", "raise Refused(Refusal.UNKNOWN_TYPE, message)"),
        (TakesAnyUser, "create()", "it took what is not a user id: None, 0, False"),
        (RefusesIdsInItsOwnWords, "get()", "raise Refused(Refusal.INVALID_USER, message)"),
        (LosesErrorsOfFactories, "create()", "let a factory's error come through, or raise your own from it"),
        (NewInstanceEachTime, "create()", "an object that is there must keep its instance"),
        (ForgetsTheName, "create()", "it must name the agent that was asked for"),
        (DropsRunHook, "run()", "await recipe.on_run(user) once in each"),
        (AnswersText, "run() of 'read'", "return the answer of `lab_utils.targets.lab_agent.obey`"),
        (SwallowsFailures, "run() of 'fail'", "RuntimeError('as told') must come through"),
        (RunsNeverEnd, "run() of 'write'", "it must answer or raise"),
        (OneMemoryForAll, "run() of 'recall'", "a new agent of another user remembers something"),
        (LookupMakes, "get()", "not None: it finds, and never creates"),
        (CountsUsersTwice, "population()", "ask your registry, and keep no records in the adapter"),
        (ReportsNothing, "end()", "for a user without a session it returned None"),
        (CleansUpTwice, "end()", "on_cleanup was called 2 times, not once"),
        (WaitsForHangingCleanups, "end()", "with a cleanup that hangs it took more than"),
        (WaitsForStubbornCleanups, "end()", "with a cleanup that ignores its cancellation it took"),
        (HidesCleanupErrors, "end()", "a cleanup was cut off, and errors are empty"),
        (ForgivesOldHandles, "run()", "raise Refused(Refusal.CLOSED, message)"),
        (OneGlobalRegistry, "start()", "open the registry in start() or __init__, empty: no global one"),
        (CannotStart, "start()", "ConnectionError: no database (at test_contract.py:"),
        (NamesToolsItLacks, "run() of 'tool'", "it must succeed, and raised Refused: no tool 'rows'"),
        (NamesContextItLacks, "run() of 'context'", "hand `data` to your registry"),
        (NamesPermissionsItLacks, "create()", "raise Refused(Refusal.PERMISSION, message)"),
        (NamesPermissionsItLacks, "create()", "raise Refused(Refusal.BOUNDARY, message)"),
        (NamesThreadsItLacks, "create()", "leave threads out"),
        (FindsAnyThread, "get()", "asked for a thread it found another"),
        (PopulationRaises, "population()", "it must succeed, and raised KeyError: 'sessions' (at test_contract.py:"),
        (EventsAreTexts, "subscribe()", "received() must hold `Delivered`"),
        (RemovesNothing, "remove()", "with no agent there it returned True, not False"),
        (ResetCountsNothing, "reset()", "with one agent there it returned 0, not 1"),
        (CountsNoConnections, "connections()", "with one client it returned 0, not 1"),
        (PartsAreAList, "parts()", "it must map names, such as agent and context, to live objects"),
        (MakesAnother, "get_or_create()", "it did not find the agent that is there"),
    ],
)
def test_a_wrong_method_is_named_with_the_remedy(
    make: Callable[[], Target], call: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if make in (WaitsForHangingCleanups, WaitsForStubbornCleanups):
        # They are late however long they are waited for.
        monkeypatch.setattr(contract, "_SLACK_S", 0.1)
    found = [(finding.anomaly, finding.sentence) for finding in tried(make).verdict.findings]
    assert any(one == call and words in sentence for one, sentence in found), found


def test_calls_that_hold_the_event_loop_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    now, held_s = time.perf_counter, 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now() + held_s)

    class Blocks(MyTarget):
        async def run(self, handle: Handle, command: Command) -> Any:
            nonlocal held_s
            held_s += 0.06
            return await super().run(handle, command)

    result = tried(Blocks)
    assert result.outcome == "PASS"
    assert [note for note in result.notes if "await asyncio.to_thread(...)" in note]
    assert not [note for note in tried(MyTarget).notes if "to_thread" in note]


@pytest.mark.parametrize(("times", "seconds", "is_late"), [(1, 60.0, False), (40, 0.6, True)])
def test_an_end_is_late_by_its_own_time_and_not_by_that_of_a_stopped_process(
    times: int, seconds: float, is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, stopped_s = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now() + stopped_s)

    class CutsOff(ReferenceTarget):
        async def end(self, user: str) -> EndReport:
            nonlocal stopped_s
            report = await super().end(user)
            for _ in range(times if report.errors else 0):
                stopped_s += seconds
                await asyncio.sleep(0)
            return report

    found = [finding.sentence for finding in tried(CutsOff).verdict.findings]
    assert [sentence for sentence in found if "it took more than 5.1 s" in sentence] == found
    assert bool(found) is is_late


def test_what_outlives_a_trial_hides_no_other_problem() -> None:
    """Nothing else is tried: every further problem would follow from it."""
    assert [finding.anomaly for finding in tried(OneGlobalRegistry).verdict.findings] == ["start()"]


class Misspelt(MyTarget):
    async def get_or_creat(self, user: str, agent_type: str) -> Handle:
        return await self.create(user, agent_type)

    async def work(self) -> None:
        """No method of the contract has a name like this one's."""


class Spelt(MyTarget):
    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        return await self.create(user, agent_type)


def test_a_method_that_nobody_calls_and_a_race_that_nobody_judges_are_notes() -> None:
    wrong = "the lab never calls get_or_creat(), which is no method of the contract; did you mean get_or_create()?"
    assert [note for note in tried(Misspelt).notes if "the lab never calls" in note] == [wrong]
    assert [note for note in tried(MyTarget).notes if "override get_or_create() as well" in note]
    assert not [note for note in tried(Spelt).notes if "override get_or_create()" in note or "never calls" in note]


def test_cleanups_are_optional() -> None:
    """A registry without cleanups has nothing to mend; a note names the hook."""
    result = tried(SkipsCleanups)
    assert result.outcome == "PASS"
    assert [note for note in result.notes if "await recipe.on_cleanup(user) where the agent is closed" in note]
    assert not [note for note in tried(MyTarget).notes if "on_cleanup" in note]


def test_a_problem_is_listed_once_however_many_parts_meet_it() -> None:
    sentences = [finding.sentence for finding in tried(AnswersTheAgent).verdict.findings]
    assert len(sentences) == len(set(sentences))


def test_every_problem_is_listed_in_one_go() -> None:
    class Several(ReportsNothing, CountsUsersTwice, LookupMakes):
        pass

    assert {finding.anomaly for finding in tried(Several).verdict.findings} >= {"end()", "population()", "get()"}
