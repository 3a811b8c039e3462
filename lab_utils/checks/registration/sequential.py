"""Judges the answers to two callers at once: as if one had come after the other, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from lab_utils.values.quantities import counted

__all__ = ["CLOSINGS", "ENDINGS", "MAKINGS", "MODELLED", "Asked", "Held", "Judged", "State", "judged"]

MAKINGS = ("create", "get_or_create")
CLOSINGS = ("remove", "reset", "end", "end_all")
ENDINGS = ("end", "end_all")
_SOMEBODY = "an agent that nobody was given"
MODELLED = (*MAKINGS, *CLOSINGS, "get", "run", "nothing")


@dataclass(frozen=True, slots=True)
class Asked:
    """One call and its answer: an instance's name, a number or a truth. `began`, `ended`: places in the order of time.

    `subject`: the agent that a run was asked of.
    `is_refused`: as closed, certainly without effect. `is_unknown`: its caller was cancelled; `may_have_made`: when a
    factory had already ended.
    """

    operation: str
    value: str | int | bool | None
    began: int
    ended: int
    is_refused: bool = False
    is_unknown: bool = False
    may_have_made: bool = True
    subject: str = ""

    def __str__(self) -> str:
        answer = "refused as closed" if self.is_refused else "cancelled" if self.is_unknown else repr(self.value)
        return f"{self.operation} -> {answer}"


@dataclass(frozen=True, slots=True)
class State:
    """The state of one user: agents of one type, oldest first, and a session or none."""

    agents: tuple[str, ...] = ()
    has_session: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A target's report of one user, and the agent it finds."""

    sessions: int
    agents: int
    newest: str | None


@dataclass(frozen=True, slots=True)
class Judged:
    """An anomaly and a sentence, both empty if all is well; and the agents that must work now, None if nobody knows."""

    anomaly: str = ""
    sentence: str = ""
    working: frozenset[str] | None = None


def judged(before: State, calls: Sequence[Asked], held: Held | None) -> Judged:
    """Judge calls that were made at once.

    All is well if the calls, one after another in some order that agrees with time, would have had these answers and
    left the target's state (`held`; None if it does not report it: then only the answers are judged).

    A call refused as closed must overlap an ending; a run, any closing, or be of an agent that is closed. An ending
    that overlaps another may join it, and report its closings. A cancelled create must leave nothing, and so must a
    cancelled get-or-create whose factory had not ended; another cancelled call took effect or not, nothing between.
    A session may end with its last agent, or stay.
    """
    ends = [state for order in _orders(calls) for state in _after(before, order, calls)]
    said = "; ".join(map(str, calls))
    if not ends:
        made = {call.value for call in calls if call.operation == "get_or_create" and isinstance(call.value, str)}
        if len(made) > 1 and not any(call.operation in CLOSINGS for call in calls):
            return Judged("double-activation", f"two callers of one agent received two: {said}")
        sentence = f"no order of the calls answers so, from {counted(len(before.agents), 'agent')}: {said}"
        return Judged("not-sequential", sentence)
    if held is None:
        return Judged()
    for state in ends:
        if _fits(held, state):
            return Judged(working=frozenset(state.agents))
    expected = " or ".join(dict.fromkeys(str(_held(state)) for state in ends))
    sentence = f"after {said} the target holds {held}, and should hold {expected}"
    most = max(len(state.agents) for state in ends)
    if held.agents > most or held.sessions > max(state.has_session for state in ends):
        return Judged("left-behind", sentence)
    if held.newest is None and all(state.agents for state in ends):
        return Judged("orphaned-agent", sentence)
    if any(_fits(replace(held, newest=_newest(state)), state) for state in ends):
        return Judged("not-sequential", sentence)
    return Judged("wrong-count", sentence)


def _orders(calls: Sequence[Asked]) -> Iterator[tuple[Asked, ...]]:
    for order in permutations(calls):
        if not any(later.ended < earlier.began for index, earlier in enumerate(order) for later in order[index + 1 :]):
            yield order


def _after(before: State, order: Sequence[Asked], calls: Sequence[Asked]) -> list[State]:
    states = [before]
    for call in order:
        others = [one for one in calls if one is not call and one.began < call.ended and call.began < one.ended]
        states = [after for state in states for after in _next(state, call, others)]
    return states


def _next(state: State, call: Asked, others: Sequence[Asked]) -> Iterator[State]:
    """The possible states after this call, given its answer; nothing if that answer is impossible."""
    if call.is_refused:
        is_run = call.operation == "run"
        closings = CLOSINGS if is_run else ENDINGS
        if any(other.operation in closings for other in others) or (is_run and call.subject not in state.agents):
            yield state
        return
    if call.is_unknown:
        yield state
        if call.operation == "create" or (call.operation == "get_or_create" and not call.may_have_made):
            return
    newest = _newest(state)
    match call.operation:
        case "create":
            if isinstance(call.value, str) and call.value not in state.agents:
                yield State((*state.agents, call.value), True)
        case "get_or_create" if call.is_unknown:
            yield state if newest is not None else State((_SOMEBODY,), True)
        case "get_or_create" if newest is not None:
            if call.value == newest:
                yield state
            elif newest == _SOMEBODY and isinstance(call.value, str):
                yield State((*state.agents[:-1], call.value), True)
        case "get_or_create":
            if isinstance(call.value, str):
                yield State((call.value,), True)
        case "get":
            if call.is_unknown or call.value == newest:
                yield state
        case "run":
            if call.is_unknown or call.subject in state.agents:
                yield state
        case "remove":
            if call.is_unknown or call.value is (newest is not None):
                yield State(state.agents[:-1], state.has_session)
        case "reset":
            if call.is_unknown or call.value == len(state.agents):
                yield State((), state.has_session)
        case "end" | "end_all":
            joined = {other.value for other in others if other.operation in ENDINGS}
            if call.is_unknown or call.value == len(state.agents) or (not state.agents and call.value in joined):
                yield State()
        case _:
            yield state


def _newest(state: State) -> str | None:
    return state.agents[-1] if state.agents else None


def _fits(held: Held, state: State) -> bool:
    expected = _held(state)
    if not held.agents and not held.sessions:
        # A session may end with its last agent.
        expected = replace(expected, sessions=0)
    if expected.newest == _SOMEBODY and held.newest is not None:
        expected = replace(expected, newest=held.newest)
    return held == expected


def _held(state: State) -> Held:
    return Held(int(state.has_session), len(state.agents), _newest(state))
