"""One user's agents and clients in a check: the agents' utterances, and the events due to each client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from lab_utils.judges.delivery import Received
from lab_utils.judges.envelope import unnamed
from lab_utils.judges.speech import Ran, Said, said_by
from lab_utils.sockets.transport import SocketSubscription
from lab_utils.target import Capability, Command, Delivered, Handle, Subscription, Target
from lab_utils.trial import Trial
from lab_utils.values.profiles import UsageError
from lab_utils.values.verdict import Outcome
from lab_utils.values.workload import canary

__all__ = [
    "Listener",
    "Talk",
    "all_arrived",
    "bridges_of",
    "each",
    "heard",
    "patiently",
    "require_of",
    "some_of",
    "thought",
]

_SOME = 100
"""Users for steps that are expensive for each of them and show faults with a few: the cost of a check grows no faster
than its users, and with a thousand stays within a person's patience."""


_SILENT_S = 8.0
_STEP_S = 0.1


def thought(user: str, number: int) -> str:
    """A text that only this user's agents think, once for each number."""
    return canary(user, "thought", number)


class Listener:
    """One client of one user; it must receive all events from its connection until it drops."""

    def __init__(self, name: str, talk: Talk, subscription: Subscription, had: int = 0) -> None:
        self.name = name
        self.reads = True
        self.subscription = subscription
        self._talk = talk
        self._had = had
        self._since = len(talk.said)
        self._until: int | None = None
        self._cut_off_at: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the client still has its connection."""
        return self.subscription.is_open

    @property
    def user(self) -> str:
        """Whose client it is."""
        return self._talk.user

    @property
    def texts(self) -> Sequence[object]:
        """Everything that has arrived so far, as it came: over a socket the text of each event."""
        if isinstance(self.subscription, SocketSubscription):
            return self.subscription.texts
        return self.subscription.received()

    @property
    def due(self) -> Sequence[Said]:
        """The events that it must receive."""
        return self._talk.said[self._since : self._until]

    def caught_up(self) -> bool:
        """Whether at least as many events have arrived as are due."""
        said = len(self._talk.said) if self._until is None else self._until
        return len(self.subscription.received()) - self._had >= said - self._since

    def read(self) -> Sequence[Delivered]:
        """Everything that has arrived so far."""
        return self.subscription.received()[self._had : self._cut_off_at]

    async def drop(self) -> None:
        """Go away; events from now on must not arrive."""
        self._until = len(self._talk.said)
        await self.subscription.close()

    def left_behind(self) -> None:
        """Note that the target has disconnected it for good: nothing that is said from now on is due."""
        if self._until is None:
            self._until = len(self._talk.said)

    def cut_off_at(self, had: int) -> None:
        """Note that the target disconnected it after so many events, and warned it that it missed the rest."""
        self._cut_off_at = had
        self.left_behind()

    def received(self) -> Received:
        """The events that it received, and those due."""
        # Only a client that does not read may be disconnected for it.
        cut_off = self._cut_off_at is not None or (not self.reads and not self.is_open)
        gaps = self.subscription.gaps if isinstance(self.subscription, SocketSubscription) else 0
        return Received(self.name, self._talk.user, self.read(), self.due, self._since + 1, cut_off, gaps)


class Talk:
    """One session of one user: everything said in it, in the order of each agent's runs, and the clients.

    Clients connect and drop only while none of the user's agents runs: then each client's due events are certain. No
    agent is spoken to in two of these.
    """

    def __init__(self, trial: Trial, target: Target, user: str) -> None:
        self.user = user
        self.client = trial.client(target, f"client of {user}", user)
        self.said: list[Said] = []
        self.listeners: list[Listener] = []
        self._trial = trial
        self._target = target
        self._ran: set[str] = set()  # Names of agents: a handle would keep the agent alive.
        self._calls: Counter[str] = Counter()

    async def connect(self, name: str, *, reads: bool = True) -> Listener:
        """Connect a client, which receives all events from now on."""
        return self.join(name, await self._trial.connect(self._target, self.user), reads=reads)

    def join(self, name: str, subscription: Subscription, *, reads: bool = True, had: int = 0) -> Listener:
        """Add a client that is connected and has had so many events, which this session does not count."""
        listener = Listener(name, self, subscription, had)
        listener.reads = reads
        self.listeners.append(listener)
        return listener

    async def run(self, handle: Handle, action: str, run: str = "", **arguments: Any) -> Any:
        """Make an agent say something, and return its answer. `fail` is meant to fail. `run`: the run's id, where the
        target takes one."""
        ran = self._asked(handle)
        if run and ran.run:
            ran = replace(ran, run=run)
        self._calls[handle.instance] += action == "tool"
        self.said += said_by(handle.agent_type, action, arguments, ran, self._calls[handle.instance])
        try:
            return await self.client.run(handle, Command(action, arguments, ran.run))
        except RuntimeError:
            if action != "fail":
                raise
            return None

    async def run_unheard(self, handle: Handle, *thoughts: str) -> None:
        """Run an agent that has no event manager: nothing of it is due, and nothing may fail."""
        await self.client.run(handle, Command("think", {"thoughts": list(thoughts)}, self._asked(handle).run))

    async def run_cancelled(self, handle: Handle, inside: asyncio.Event) -> None:
        """Start a run, wait until it is `inside`, and cancel its caller. One that ends before is a finding."""
        ran = self._asked(handle)
        started, *_ = said_by(handle.agent_type, "recall", {}, ran)
        ended = {"error": "CancelledError", "message": ""}
        self.said += [started, Said.of(handle.agent_type, "agent_error", ended, ran)]
        task = asyncio.ensure_future(self.client.run(handle, Command("recall", run=ran.run)))
        is_inside = await self._trial.waiting.reached(inside, task)
        task.cancel()
        await asyncio.wait({task})
        if not is_inside and not task.cancelled():
            sentence = f"a run of {self.user!r} answered {task.result()!r:.80}, and its agent never began"
            self._trial.find("failed-operation", sentence)

    def _asked(self, handle: Handle) -> Ran:
        """The next run of an agent, with the ids that its events must bear. The first of each agent is left to the
        target to name, every other is asked for under an id of its own."""
        can = self._target.capabilities
        is_named = handle.instance in self._ran and Capability.RUN_IDS in can
        self._ran.add(handle.instance)
        return Ran(
            handle.instance,
            run=self._trial.run_id() if is_named else "",
            thread=handle.thread if Capability.THREADS in can else "",
            agent_id=self._target.agent_id(handle) if Capability.AGENT_IDS in can else "",
        )

    def untold(self) -> list[str]:
        """The ids of events that no caller receives beforehand."""
        needed = {"run": Capability.RUN_IDS, "thread": Capability.THREADS, "agent": Capability.AGENT_IDS}
        return [name for name, capability in needed.items() if capability not in self._target.capabilities]

    def received(self) -> list[Received]:
        """The events that every client of this session received, and those due."""
        return [listener.received() for listener in self.listeners]


async def all_arrived(trial: Trial, talks: Iterable[Talk]) -> list[Received]:
    """Wait for the due events, then for any that should not come; return the events that every client received."""
    every = list(talks)
    reading = [listener for talk in every for listener in talk.listeners if listener.reads]
    await heard(trial, *reading)
    await trial.flush()
    arrived = [received for talk in every for received in talk.received()]
    _note_unjudged(trial, every, arrived)
    return arrived


def _note_unjudged(trial: Trial, talks: Iterable[Talk], arrived: Iterable[Received]) -> None:
    silent = unnamed(arrived)
    untold = dict.fromkeys(name for talk in talks for name in talk.untold() if name not in silent)
    for names, why in (
        (silent, "No event names its {}: not judged."),
        (
            untold,
            "Callers do not receive the {} of an event: judged only for being one user's, and the same throughout.",
        ),
    ):
        text = why.format(", ".join(names))
        if names and text not in trial.notes:
            trial.note(text)


async def patiently(trial: Trial, holds: Callable[[], bool], share: float = 1.0) -> None:
    """Wait for a condition, for this share of the trial's patience, as long as nothing has been found or waited for in
    vain; after that, only until everything sent has arrived: more patience would cost time and change nothing."""
    await trial.waiting.settle()
    if holds():
        return
    if trial.waiting.waited_in_vain or any(verdict.outcome is Outcome.FAIL for verdict in trial.verdicts):
        await trial.flush()
    else:
        await trial.waiting.until(holds, share)


async def heard(trial: Trial, *listeners: Listener) -> None:
    """Wait patiently until every client has all that is due to it. Where no client has a socket, in which an event
    could be on its way, wait no longer than until `_SILENT_S` seconds have brought nothing."""
    has_socket = any(isinstance(listener.subscription, SocketSubscription) for listener in listeners)
    came, looked_at, silent_s = -1, trial.now(), 0.0

    def is_over() -> bool:
        nonlocal came, looked_at, silent_s
        if has_socket or all(listener.caught_up() for listener in listeners):
            return all(listener.caught_up() for listener in listeners)
        had, before = came, looked_at
        came, looked_at = sum(len(listener.subscription.received()) for listener in listeners), trial.now()
        # A process that was stopped meanwhile has had no time to send anything.
        silent_s = 0.0 if came != had else silent_s + min(looked_at - before, _STEP_S)
        return silent_s >= _SILENT_S

    await patiently(trial, is_over)
    if not all(listener.caught_up() for listener in listeners):
        trial.waiting.waited_in_vain = True


def require_of(trial: Trial, holds: bool, anomaly: str, sentence: str, user: str, last: int = 1) -> None:
    """Like `Trial.require`, with the user's last operations as the witness, looked up only if needed:
    the history of a thousand users is long."""
    witness = () if holds else trial.history.where(user=user)[-last:]
    trial.require(holds, anomaly, sentence, *witness)


async def each(trial: Trial, talks: Sequence[Talk], work: Callable[[int, Talk], Any]) -> None:
    """Do the work for every user at once; a failure is a finding, with the user's last operations as its witness."""
    answers = await trial.waiting.together(work(position, talk) for position, talk in enumerate(talks))
    for talk, answer in zip(talks, answers, strict=True):
        if isinstance(answer, UsageError):
            raise answer  # An error of the machine that the trial runs on, not of the target.
        if isinstance(answer, BaseException):
            sentence = f"an operation of {talk.user!r} failed with {type(answer).__name__}: {answer}"
            trial.find("failed-operation", sentence, repr(answer), *trial.history.where(user=talk.user)[-3:])
        else:
            trial.expectations += 1


def some_of(trial: Trial, users: Sequence[str], what: str) -> Sequence[str]:
    """The users, or if there are many the first hundred: the result then states that `what` is not about the others."""
    if len(users) > _SOME:
        trial.leave_out(f"that {what} with more than {_SOME} of the {len(users)} users")
    return users[:_SOME]


async def bridges_of(target: Target, handles: Iterable[Handle]) -> list[Any]:
    """Each agent's bridge, where it has one and the target shows its parts."""
    if Capability.PARTS not in target.capabilities:
        return []
    found = [(await target.parts(handle)).get("bridge") for handle in handles]
    return [bridge for bridge in found if bridge is not None]
