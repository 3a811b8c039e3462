"""The parts of checks that look at a target's borders, each alone; the gallery has the registries planted for them."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lab_utils.checks.isolation.aliasing import judge_aliasing, spoil
from lab_utils.checks.isolation.identities import Impostor, judge_identities
from lab_utils.checks.isolation.traces import judge_traces
from lab_utils.checks.registration import absent
from lab_utils.checks.registration import keys as pairs_of_keys
from lab_utils.checks.registration.absent import judge_absent
from lab_utils.checks.registration.keys import FOLDS, alike, folded, judge_keys
from lab_utils.checks.tenants.counted_cost import bytecodes, judge_cost_of_ending
from lab_utils.checks.tenants.succession import judge_succession, judge_successors
from lab_utils.interleavings import threads
from lab_utils.runner import run_check, runner
from lab_utils.target import Capability, Command, EndReport, Handle, Recipe, Subscription
from lab_utils.targets import PLANTED, make_target
from lab_utils.targets.reference import Agent, Bridge, Client, Context, Dispatcher, ReferenceTarget, Session
from lab_utils.trial import Trial
from lab_utils.values.verdict import Outcome, Verdict
from lab_utils.values.workload import nested
from tests.lab_utils.made import conducted

Part = Callable[[Trial], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def fewer_absent_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough that blocks of memory are judged too; a collection of all that a test session holds takes long."""
    monkeypatch.setattr(absent, "_OFTEN", 250)
    monkeypatch.setattr(gc, "unfreeze", lambda: None)


async def _absent(trial: Trial) -> None:
    await judge_absent(trial, await trial.target())


PARTS: tuple[Part, ...] = (
    judge_aliasing,
    judge_traces,
    judge_identities,
    judge_keys,
    _absent,
    judge_succession,
    judge_successors,
    judge_cost_of_ending,
)


def judged(part: Part, name: str | Callable[[], Any]) -> Verdict:
    """The findings of this part alone."""
    make = name if callable(name) else (lambda: make_target(name))
    trial = Trial(make, {}, 5, stuck_after=10.0, is_hasty=name in PLANTED)
    return conducted(trial, part(trial))


class MissesInALimitedCache(ReferenceTarget):
    """The last 128 lookups in vain are remembered, and of all calls the user of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.misses: dict[tuple[str, str, str | None], None] = {}
        self.last_user = ""

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        self.last_user = user
        found = await super().get(user, agent_type, thread)
        if found is None:
            self.misses[user, agent_type, thread] = None
            if len(self.misses) > 128:
                del self.misses[next(iter(self.misses))]
        return found


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each request seem to take 20 ms."""
    ticks = itertools.count()
    clocks = SimpleNamespace(perf_counter=lambda: 0.02 * next(ticks), thread_time=lambda: 0.0)
    monkeypatch.setattr(threads, "time", clocks)
    monkeypatch.setattr(threads, "_in_line_s", lambda: 0.0)


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_cache_of_misses_that_has_a_bound_is_no_entry_for_each(
    is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_slow:
        slow(monkeypatch)
    verdict = judged(_absent, MissesInALimitedCache)
    assert verdict.outcome is Outcome.PASS, verdict.findings[:3]


def test_entries_for_all_who_are_absent_are_found_in_a_slow_target(monkeypatch: pytest.MonkeyPatch) -> None:
    slow(monkeypatch)
    (finding,) = judged(_absent, "ThreadLookupMakesEntry").findings
    assert "50 of 50 unknown ids are still held after 450 others were asked for" in finding.sentence


def test_keys_that_are_alike_are_two_and_one_text_when_they_are_joined() -> None:
    pairs = list(alike(random.Random(3)))
    for pair in pairs:
        assert pair.first != pair.second
        for one in (pair, replace(pair, order=pair.order[::-1])):
            assert one.joined(one.first) == one.joined(one.second)
    assert {pair.separators for pair in pairs} >= {(one,) for one in (":", "/", "|", "-", "_", ".", "")}
    assert {pair.separators for pair in pairs} >= {(":", "/"), ("/", ":"), ("|", "#"), (":", "::")}
    assert {pair.order for pair in pairs if pair.separators[0] == "-"} >= {
        ("user", "agent_type", "thread"),
        ("user", "thread", "agent_type"),
        ("user", "thread"),
        ("agent_type", "thread"),
    }


def test_users_who_are_mixed_up_anyhow_are_no_matter_of_keys() -> None:
    (finding,) = judged(judge_keys, "SharedMemory").findings
    assert finding.anomaly == "cross-user-data"


def test_keys_that_a_comparison_folds_are_two_in_one_part() -> None:
    pairs = list(folded(random.Random(3)))
    for pair in pairs:
        differ = [part for part in ("user", "agent_type", "thread")
                  if getattr(pair.first, part) != getattr(pair.second, part)]  # fmt: skip
        assert tuple(differ) == pair.order
    assert {pair.folds for pair in pairs} == set(FOLDS)
    assert {pair.anomaly("") for pair in pairs} == {"merged-identity", "merged-types", "wrong-thread"}


class FindsTheLastAgain(ReferenceTarget):
    """An end leaves the user's last agent where a lookup finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, Handle] = {}

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        made = self.last[user] = await super().create(user, agent_type, **options)
        return made

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        return await super().get(user, agent_type, thread) or self.last.get(user)


def test_an_agent_of_the_same_user_s_last_session_is_no_matter_of_identities() -> None:
    findings = judged(judge_identities, FindsTheLastAgain).findings
    assert {finding.anomaly for finding in findings} == {"old-agent-found"}
    assert "whose session has ended" in findings[0].sentence


class Deaf(ReferenceTarget):
    """Clients are there, and nothing is sent to them."""

    def subscribe(self, user: str) -> Subscription:
        return Client(user)


class FirstEndFails(ReferenceTarget):
    """Calls that fail once, before the check begins to count."""

    has_failed = False

    async def end(self, user: str) -> EndReport:
        if not self.has_failed:
            self.has_failed = True
            raise ValueError("the first end of all fails")
        return await super().end(user)


def test_a_check_whose_clients_hear_nothing_is_unknown() -> None:
    verdict = runner.run_check("shared_state_contamination_detection", target=Deaf, stuck_after=10.0).verdict
    assert verdict.outcome is Outcome.UNKNOWN
    assert "no canary came back to its own writer" in verdict.reason


def test_a_call_that_fails_before_the_check_begins_to_count_is_found() -> None:
    check = "resource_cleanup_after_user_session_termination"
    verdict = runner.run_check(check, target=FirstEndFails, stuck_after=10.0).verdict
    assert verdict.outcome is Outcome.FAIL
    assert "witness=('ValueError: the first end of all fails',)" in f"{verdict.findings}"


class Fewer(ReferenceTarget):
    """The reference without the capabilities that a part may do without."""

    capabilities = frozenset({Capability.EVENTS, Capability.END, Capability.POPULATION, Capability.LOOKUP})


class Fewest(ReferenceTarget):
    capabilities: frozenset[Capability] = frozenset()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_does_without_what_a_target_lacks(part: Part) -> None:
    assert judged(part, Fewer).outcome is Outcome.PASS


@pytest.mark.parametrize("part", [judge_aliasing, judge_traces])
def test_two_parts_need_nothing(part: Part) -> None:
    assert judged(part, Fewest).outcome is Outcome.PASS


# -- findings that only one of several looks shows


def _folded(user: str) -> str:
    return user.casefold()


class MemoryEmptied(ReferenceTarget):
    """A new agent empties the memory that is kept under its user's name, whatever its case."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = super().make_agent(recipe, context, dispatcher, session)
        memories: dict[str, dict[str, Any]] = self.__dict__.setdefault("memories", {})
        agent.memory = memories.setdefault(_folded(context.user), {})
        agent.memory.clear()
        return agent


class OneMemoryAndSession(ReferenceTarget):
    """Sessions and memories are both found without case: a user who gets another's agent reads the same there."""

    def key(self, user: str) -> str:
        return _folded(user)

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = super().make_agent(recipe, context, dispatcher, session)
        memories: dict[str, dict[str, Any]] = self.__dict__.setdefault("memories", {})
        agent.memory = memories.setdefault(_folded(context.user), {})
        return agent


@pytest.mark.parametrize("make", [MemoryEmptied, OneMemoryAndSession])
def test_an_owner_looks_for_the_very_agent_and_its_memory(make: type[ReferenceTarget]) -> None:
    found = [finding.sentence for finding in judged(judge_identities, make).findings]
    assert "after create of 'ACME', 'acme' does not find their agent as it was" in found


class OneTableOfClients(ReferenceTarget):
    """Connections are found without case."""

    def clients_of(self, user: str) -> Any:
        return super().clients_of(_folded(user))

    def connections(self, user: Any = None) -> int:
        return super().connections(_folded(user) if isinstance(user, str) else user)


def test_an_owner_counts_their_connections() -> None:
    found = [finding.sentence for finding in judged(judge_identities, OneTableOfClients).findings]
    assert "after subscribe of 'ACME', 'acme' has 2 connections, not the one" in found


def test_what_is_no_id_must_be_refused_by_whatever_makes_something() -> None:
    found = [f.sentence for f in judged(judge_identities, "StrippedUserIds").findings if f.anomaly == "not-refused"]
    assert {"attach of ' ada' was not refused", "create of None was not refused"} <= set(found)


class BlanksAccepted(ReferenceTarget):
    """Ids with blanks around them are users of their own, whom nobody merges."""

    def check_user(self, user: object) -> None:
        super().check_user(user.strip() if type(user) is str else user)


def test_a_value_that_is_accepted_and_kept_apart_is_not_called_merged() -> None:
    found = judged(judge_identities, BlanksAccepted).findings
    assert {finding.anomaly for finding in found} == {"not-refused"}
    assert "create of ' ada' was not refused" in [finding.sentence for finding in found]


class TellsOfAll(ReferenceTarget):
    """The report of an end lists the errors of all of them; a dispatcher names the owners."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []
        self.owners: list[str] = []

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        self.errors += report.errors
        return EndReport(report.found, report.closed, tuple(self.errors))

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        self.owners.append(context.user)
        owners = self.owners

        class Telling(Dispatcher):
            def __repr__(self) -> str:
                return f"<one of {owners}>"

        return Telling(context, (), bridge)


@pytest.mark.parametrize(("anomaly", "place"), [("error", "the report of an end"), ("repr", "the repr of the disp")])
def test_reports_and_parts_are_traces_too(anomaly: str, place: str) -> None:
    found = judged(judge_traces, TellsOfAll).findings
    assert any(one.anomaly == f"canary-in-{anomaly}" and one.sentence.startswith(place) for one in found)


class KeepsWhatIsWritten(ReferenceTarget):
    """Values that are written are kept as they were handed in; every answer is a copy."""

    async def run(self, handle: Handle, command: Command) -> Any:
        answer = await super().run(handle, command)
        if command.action == "write":
            handle.native.memory[command.arguments["key"]] = command.arguments["value"]
        return answer


class LendsWhatIsWritten(KeepsWhatIsWritten):
    """Every answer is the kept value itself."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        class Lending(Agent):
            def copy_out(self, answer: Any) -> Any:
                return answer

        return Lending(recipe, context, dispatcher, session)


@pytest.mark.parametrize(
    ("make", "expected"),
    [(KeepsWhatIsWritten, {"aliased-input"}), (LendsWhatIsWritten, {"aliased-input", "aliased-output"})],
)
def test_answers_that_are_copies_are_not_blamed_for_what_was_handed_in(
    make: type[ReferenceTarget], expected: set[str]
) -> None:
    found = run_check("shared_state_contamination_detection", target=make).verdict.findings
    assert {one.anomaly for one in found} == expected


class LendsOnce(ReferenceTarget):
    """The first answer of a tool is the source's own rows, every later one a copy made when the agent was."""

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        own = self.rows.get(context.user, ())

        class Lending(Dispatcher):
            lent = False

            def answer(self, name: str, parameters: Mapping[str, Any]) -> Any:
                first, self.lent = not self.lent, True
                return list(own) if first else super().answer(name, parameters)

        return Lending(context, own, bridge)

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        class Lending(Agent):
            def copy_out(self, answer: Any) -> Any:
                is_rows = isinstance(answer, list) and all(isinstance(row, Mapping) for row in answer)
                return answer if is_rows else super().copy_out(answer)

        return Lending(recipe, context, dispatcher, session)


def test_the_source_of_the_rows_is_looked_at_too() -> None:
    (finding,) = judged(judge_aliasing, LendsOnce).findings
    assert finding.anomaly == "aliased-output"
    assert "the rows at their source" in finding.sentence


def test_what_an_interrupted_create_leaves_is_counted() -> None:
    assert "wrong-count" in {finding.anomaly for finding in judged(judge_succession, LeavesAnother).findings}


class LeavesAnother(ReferenceTarget):
    """A create whose session ended while it was made puts its agent into the next one, and refuses its caller."""

    async def install(self, session: Session, agent: Agent) -> Handle:
        if session.closed:
            following, _ = self.session_for_create(session.user)
            following.agents.append(agent)
        return await super().install(session, agent)


# -- their parts


def test_an_impostor_is_taken_for_another_by_whoever_asks_it() -> None:
    impostor = Impostor("mallory", "acme")
    assert {"acme": 1}.get(impostor) == 1
    assert impostor == "acme"
    assert not impostor != "acme"  # noqa: SIM202
    assert "".join(impostor) == "mallory"


def test_what_is_spoiled_is_spoiled_at_every_depth() -> None:
    value = {**nested("ada", "context"), "bytearray": bytearray(b"x"), "none": None}
    before = nested("ada", "context")
    spoil(value)
    for key, kept in before.items():
        # Of these nothing can be changed.
        assert (value[key] == kept) == (key in ("flat", "bytes"))
    assert value["list"][1][-1] == value["tuple"][1]["deep"][-1] == "spoiled"
    assert value["typed"]["flags"][-1] == [*value["typed"]["keys"].values()][-1] == "spoiled"
    assert value["bytearray"] == bytearray(b"xspoiled")


async def test_bytecodes_count_work() -> None:
    async def work(turns: int) -> None:
        for _ in range(turns):
            pass
        await asyncio.sleep(0)

    await bytecodes(work(1))

    few, again, many = [await bytecodes(work(turns)) for turns in (10, 10, 1_010)]
    # Python 3.13 may miss one or two where it begins to count in a function.
    assert abs(few - again) < 10
    assert many - again >= 1_000


async def _counted(work: Coroutine[Any, Any, None]) -> int:
    return await bytecodes(work)


async def test_work_that_ends_the_trace_is_not_taken_for_cheap() -> None:
    async def work() -> None:
        sys.settrace(None)

    assert await bytecodes(work()) == 0


async def test_a_tracer_that_was_there_is_there_afterwards() -> None:
    async def nothing() -> None:
        return None

    def tracer(*_: object) -> None:
        return None

    before = sys.gettrace()
    try:
        sys.settrace(tracer)
        await _counted(nothing())
        found = sys.gettrace()
    finally:
        sys.settrace(before)
    assert found is tracer


def test_a_cost_that_is_the_same_is_no_finding_and_one_more_bytecode_each_is() -> None:
    class Growing(ReferenceTarget):
        """Does so many steps more for each session that there is."""

        steps = 0.0

        async def end(self, user: str) -> Any:
            for _ in range(int(self.steps * len(self.sessions))):
                pass
            return await super().end(user)

    def growing(steps: float) -> Verdict:
        return judged(judge_cost_of_ending, type("Some", (Growing,), {"steps": steps}))

    assert growing(0.1).outcome is Outcome.PASS
    assert {finding.anomaly for finding in growing(1.0).findings} == {"cost-grows"}


@pytest.mark.parametrize(
    ("part", "module", "questions", "left_out"),
    [
        (judge_keys, pairs_of_keys, 100, "506 of 511 pairs of keys, for want of time"),
        (_absent, absent, 600, "whether connections of the user leaves anything, for want of time"),
    ],
)
def test_a_slow_target_is_asked_less_and_told_so(
    part: Part, module: ModuleType, questions: int, left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Questions:
        """An allowance of so many, however long each takes."""

        def __init__(self, _: float) -> None:
            self.left = questions

        def is_over(self) -> bool:
            self.left -= 1
            return self.left < 0

    monkeypatch.setattr(module, "Allowance", Questions)
    trial = Trial(ReferenceTarget, {}, 5)
    assert conducted(trial, part(trial)).outcome is Outcome.PASS
    assert left_out in trial.left_out
