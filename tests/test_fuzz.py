"""The fuzzer finds nothing in the registry, and finds each fault that is planted in it."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from registry import agent, errors
from registry._sessions.attempts import OwnCreate
from registry._sessions.directory import Directory
from registry._sessions.session import UserAgentSession
from registry._sessions.shared import Runtime
from registry.agent import BaseAgent
from registry.errors import CapacityExceeded
from tools.fuzz import LOOPS, main, run_round

MISSING = {
    "eager": not hasattr(asyncio, "eager_task_factory"),
    "uvloop": importlib.util.find_spec("uvloop") is None,
}
Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize(
    "loop",
    [pytest.param(loop, marks=pytest.mark.skipif(MISSING.get(loop, False), reason="not here")) for loop in LOOPS],
)
def test_a_short_run_finds_nothing(loop: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--loop", loop, "--rounds", "6"])
    printed = capsys.readouterr().out
    assert (status, "6 rounds" in printed, "0 rounds with faults" in printed) == (0, True, True), printed


def closes_again(patch: pytest.MonkeyPatch) -> None:
    """An agent that was removed stays in the session, and is closed with it again."""
    patch.setattr(UserAgentSession, "_detach", lambda *_: None)


def forgets(patch: pytest.MonkeyPatch) -> None:
    """An agent that came too late is never closed."""
    patch.setattr(UserAgentSession, "_throw_away", lambda *_: None)


def miscounts(patch: pytest.MonkeyPatch) -> None:
    """The health does not know of agents that were removed."""

    def detach(self: Any, gone: BaseAgent) -> None:
        self._agents = [known for known in self._agents if known is not gone]

    patch.setattr(UserAgentSession, "_detach", detach)


def leaves_cancelling(patch: pytest.MonkeyPatch) -> None:
    """The cancellation by which a session's end refuses a create is never taken back."""

    def take_back(self: Any) -> int:
        return 0 if self._task is None else int(self._task.cancelling()) - (self._refusal is not None)

    patch.setattr(OwnCreate, "_take_back", take_back)


def cancels_callers(patch: pytest.MonkeyPatch) -> None:
    """The closing of an agent cancels callers that wait for its run."""

    def refuse(self: Any) -> None:
        if not self.is_refused:
            self.is_refused = self.task.cancel()
            self.answer.cancel()

    patch.setattr(agent._PendingRun, "refuse", refuse)


def runs_at_once(patch: pytest.MonkeyPatch) -> None:
    """Runs of one agent do not wait for each other."""
    patch.setattr("registry.agent.asyncio.Lock", nullcontext)


def has_no_cap(patch: pytest.MonkeyPatch) -> None:
    """One user may have any number of agents."""
    patch.setattr(UserAgentSession, "_make_room", lambda *_: None)


def makes_cycles(patch: pytest.MonkeyPatch) -> None:
    """An agent refers to itself, so that only the collector frees it."""
    install = UserAgentSession._install

    def install_in_cycle(self: Any, made: Any) -> None:
        made.itself = made
        install(self, made)

    patch.setattr(UserAgentSession, "_install", install_in_cycle)


def keeps_grudges(patch: pytest.MonkeyPatch) -> None:
    """Once something of one user ignored its cancellation, all users are refused."""
    abandon, find, spoilt = Runtime.abandon, Directory.find_or_add_checked, list[Runtime]()

    def remember(self: Runtime, work: Any, user_id: str) -> None:
        spoilt.append(self)
        abandon(self, work, user_id)

    def find_unless_spoilt(self: Directory, user_id: str) -> UserAgentSession:
        if self._runtime in spoilt:
            raise CapacityExceeded("too much ignores its cancellation")
        return find(self, user_id)

    patch.setattr(Runtime, "abandon", remember)
    patch.setattr(Directory, "find_or_add_checked", find_unless_spoilt)


def lets_exits_out(patch: pytest.MonkeyPatch) -> None:
    """An error that user code raises to end the process leaves a task."""
    patch.setattr(errors.Containment, "__exit__", lambda *_: None)


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (closes_again, "closed more than once"),
        (forgets, "never closed"),
        (miscounts, "counts of users and agents differ"),
        (leaves_cancelling, "cancellations of"),
        (cancels_callers, "nobody cancelled got CancelledError"),
        (runs_at_once, "two runs of agent"),
        (has_no_cap, "a limit was passed"),
        (makes_cycles, "alive without the collector"),
        (keeps_grudges, "a user who came afterwards"),
        (lets_exits_out, "the loop was ended by"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
# A loop that was ended leaves a registry that was never closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_planted_fault_is_found(plant: Plant, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.fuzz.MOST_SECONDS", 0.3)
    plant(monkeypatch)
    found: list[str] = []
    for seed in range(1, 30):
        found += run_round(seed).faults
        if any(words in fault for fault in found):
            return
    pytest.fail(f"not found in 29 rounds: {found[:5]}")
