"""The body of enterprise_customer_data_protection: customers who watch, alone and beside others who act."""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from lab_utils.checks.golden_path.model_trouble import patiently_over_http
from lab_utils.interleavings.threads import OwnTime
from lab_utils.judges.interference import Observed, not_interfered
from lab_utils.judges.isolation import Seen, foreign_canaries
from lab_utils.judges.prompts import Sent, own_prompts
from lab_utils.target import Capability, Command, EndReport, Handle, Recipe, Refusal, Refused, Row, Subscription, Target
from lab_utils.trial import ASKED, LAB, Trial
from lab_utils.values.workload import canary, rows_for

__all__ = ["body"]

_TIERS: Mapping[str, frozenset[str]] = {
    "enterprise": frozenset({"enterprise", "business", "admin"}),
    "business": frozenset({"business"}),
    "free": frozenset(),
}
_LONGEST_S = 30.0
"""Seconds for customers alone: of a slow target fewer are watched."""
_RECIPES = (
    Recipe("desk"),
    Recipe("team", requires=frozenset({"business"})),
    Recipe("vault", requires=frozenset({"enterprise"})),
)
_LEFT_OUT = {
    Capability.EVENTS: "events",
    Capability.TOOLS: "answers of tools",
    Capability.PERMISSIONS: "permissions, and agents in another's name",
    Capability.CONTEXT_DATA: "context data",
    Capability.END: "the end of a session",
}
"""What a customer does not observe on a target that lacks the capability."""
_OF_A_STEP, _OF_LATER_STEPS = 0.2, 0.02
"""The parts of the time for one step that its last wait may take: at first, and when one was in vain."""


class _Customer:
    """One customer of one tier: goes through a script, and writes down everything that it is given."""

    def __init__(self, trial: Trial, target: Target, user: str, tier: str) -> None:
        self.user = user
        self._trial = trial
        self.observed: list[Observed] = []
        self.seen: list[Seen] = []
        self.steps: Sequence[Callable[[], Awaitable[None]]] = (
            self._arrive, self._context, self._remember, self._ask, self._count, self._rows, self._totals, self._admin,
            self._upgrade, self._find, self._fail, self._mistake, self._speak, self._give_back, self._leave,
        )  # fmt: skip
        self._client = trial.client(target, f"{tier} customer {user}", user)
        self._target = target
        self._permissions = _TIERS[tier]
        self._desk: Handle | None = None
        self._subscription: Subscription | None = None

    async def _see(self, step: str, work: Awaitable[Any]) -> Any:
        try:
            answer = await work
        except Refused as refusal:
            answer = None
            self._note(step, f"refused as {refusal.kind}: {refusal}")
        except Exception as error:
            answer = None
            self._note(step, f"{type(error).__name__}: {error}")
        else:
            self._note(step, answer)
        return answer

    def _note(self, step: str, given: Any, *ids: str) -> None:
        if isinstance(given, Handle):
            ids = (given.instance,)
            given = f"{given.agent_type} of {given.user!r} in {given.thread!r}"
        elif isinstance(given, EndReport):
            given = f"found={given.found} closed={given.closed} errors={given.errors}"
        self.seen.append(Seen(self.user, step, given))
        self.observed.append(Observed(step, given if isinstance(given, str) else _text(given), ids))

    async def _run(self, action: str, **arguments: Any) -> Any:
        if self._desk is None:
            return self._note(action, "nobody to ask")
        return await self._see(action, self._client.run(self._desk, Command(action, arguments)))

    def _can(self, capability: Capability) -> bool:
        return capability in self._target.capabilities

    async def _tool(self, name: str, **parameters: Any) -> None:
        if self._can(Capability.TOOLS):
            await self._run("tool", name=name, parameters=parameters)

    async def _arrive(self) -> None:
        if self._can(Capability.EVENTS):
            self._subscription = await self._trial.connect(self._target, self.user)
        data = self._client.nested("context")
        create = self._client.create("desk", data=data, permissions=self._permissions)
        self._desk = await self._see("create desk", create)

    async def _context(self) -> None:
        if self._can(Capability.CONTEXT_DATA):
            await self._run("context")

    async def _remember(self) -> None:
        await self._run("write", key="note", value=canary(self.user, "memory", 0))
        await self._run("recall")

    async def _ask(self) -> None:
        if self._can(Capability.MODEL):
            await self._run(
                "ask", text=f"Please word a note to our supplier:\n- note: {canary(self.user, 'prompt', 0)}"
            )

    async def _count(self) -> None:
        await self._run("add", key="visits", amount=1, pause_s=0)
        await self._run("add", key="visits", amount=1, pause_s=0)

    async def _rows(self) -> None:
        # Not through the recorded client: the history would keep every row of everybody.
        if self._desk is not None and self._can(Capability.TOOLS):
            await self._see("rows", self._target.run(self._desk, Command("tool", {"name": "rows"})))

    async def _totals(self) -> None:
        await self._tool("total", column="tokens_in")
        await self._tool("total", column="tokens_out")

    async def _admin(self) -> None:
        await self._tool("admin")

    async def _upgrade(self) -> None:
        for agent_type in ("team", "vault"):
            work = self._client.create(agent_type, permissions=self._permissions)
            await self._see(f"create {agent_type}", work)

    async def _find(self) -> None:
        await self._get("desk")
        await self._get("desk", "elsewhere")
        await self._get("vault")

    async def _get(self, agent_type: str, thread: str | None = None) -> None:
        if self._can(Capability.LOOKUP):
            where = "" if thread is None else " in another thread"
            await self._see(f"get {agent_type}{where}", self._client.get(agent_type, thread))

    async def _fail(self) -> None:
        await self._run("fail", message=canary(self.user, "failure", 0))

    async def _mistake(self) -> None:
        await self._see("create unknown", self._client.create("vaults", permissions=self._permissions))
        await self._tool("row")

    async def _speak(self) -> None:
        await self._run("think", thoughts=[canary(self.user, "thought", number) for number in range(3)])

    async def _give_back(self) -> None:
        if self._can(Capability.REMOVE):
            await self._see("remove desk", self._client.remove("desk"))
        await self._run("recall")
        await self._get("desk")

    async def _leave(self) -> None:
        if self._can(Capability.END):
            await self._see("end", self._client.end())
        await self._get("team")
        subscription = self._subscription
        if subscription is None:
            return
        # Over a socket the events already emitted, and then the end, come a little later: the delay must decide
        # nothing.
        waiting = self._trial.waiting
        share = _OF_LATER_STEPS if waiting.waited_in_vain else _OF_A_STEP
        await waiting.until(lambda: not subscription.is_open, share)
        await self._trial.flush()
        for event in subscription.received():
            given = f"number {event.seq} of {event.user!r}, {event.agent}: {event.type} {event.body}"
            self._note("event", given, event.run)
        self._note("connection", "open" if subscription.is_open else "closed")


async def body(trial: Trial) -> None:
    """Compare each watching customer's observations in a registry of their own with those beside all others."""
    users = trial.neighbours(int(trial.parameters["users"]))
    count = int(trial.parameters["records_per_user"])
    rows = {user: rows_for(user, count, trial.rng) for user in users}
    tiers = {user: list(_TIERS)[position % len(_TIERS)] for position, user in enumerate(users)}
    # Every other customer of each tier watches, and the rest act.
    watching = [user for position, user in enumerate(users) if (position // len(_TIERS)) % 2 == 0]
    alone: dict[str, list[Observed]] = {}
    took = OwnTime()
    for position, user in enumerate(watching):
        if took.seconds() > _LONGEST_S and position >= len(_TIERS):
            # They are there and act all the same.
            late, watching = len(watching) - position, watching[:position]
            trial.leave_out(f"what {late} of {late + position} customers observe, for want of time")
            break
        alone[user] = await _alone(trial, user, tiers[user], rows[user])
        trial.progress("customers alone", position / len(watching) / 2)
    target = await trial.target(_RECIPES, copy.deepcopy(rows))
    for lacking in sorted(_LEFT_OUT.keys() - target.capabilities):
        trial.leave_out(f"{_LEFT_OUT[lacking]} (the target lacks: {lacking})")
    attacked = Capability.PERMISSIONS in target.capabilities
    over_http = patiently_over_http(trial, target)
    customers = {user: _Customer(trial, target, user, tier) for user, tier in tiers.items()}
    watchers = [customers[user] for user in watching]
    actors = [customer for user, customer in customers.items() if user not in alone]
    for number in range(len(watchers[0].steps)):
        # The others have always been there before, and are at work meanwhile.
        await _all(trial, (actor.steps[number]() for actor in actors))
        pairs = [(actor.user, watching[n % len(watching)]) for n, actor in enumerate(actors)] if attacked else []
        attacks = (_attack(trial, target, attacker, victim) for attacker, victim in pairs)
        await _all(trial, [*(watcher.steps[number]() for watcher in watchers), *attacks])
        trial.progress("customers beside one another", 0.5 + number / len(watchers[0].steps) / 2)
    verdict = not_interfered(alone, {watcher.user: watcher.observed for watcher in watchers})
    trial.judge(verdict)
    seen = [item for customer in customers.values() for item in customer.seen]
    trial.judge(foreign_canaries(seen, users, len(users) * (count + 15)))
    if over_http:
        trial.judge(own_prompts((Sent(one.number, one.user, one.whole) for one in target.prompts()), users))
    touched = len(verdict.findings)
    clean = 100.0 * (len(watching) - touched) / len(watching)
    trial.measure("customers untouched by others", clean, "%", ASKED("==", 100), LAB("==", 100), anomaly="interference")
    trial.show("enterprise users at once", len(users), "users", ASKED(">=", 25))
    trial.measure("observations compared", sum(map(len, alone.values())), "observations")


async def _alone(trial: Trial, user: str, tier: str, rows: Sequence[Row]) -> list[Observed]:
    target = await trial.target(_RECIPES, {user: copy.deepcopy(rows)})
    patiently_over_http(trial, target)
    customer = _Customer(trial, target, user, tier)
    for step in customer.steps:
        await trial.waiting.ends(step(), f"a step of {user!r} alone")
    await trial.stop(target)
    return customer.observed


async def _all(trial: Trial, work: Iterable[Any]) -> None:
    for answer in await trial.waiting.together(work):
        if isinstance(answer, BaseException):
            # Steps catch a target's errors, so this is the check's own fault.
            raise answer


async def _attack(trial: Trial, target: Target, attacker: str, victim: str) -> None:
    """Try, as the attacker, to act in the victim's name."""
    client = trial.client(target, f"attacker {attacker}", attacker)
    for user, name in ((attacker, victim), (victim, attacker)):
        try:
            work = target.create(user, "desk", context_user=name, permissions=_TIERS["enterprise"])
            await client.call("create in another's name", work, "desk")
        except Refused as refusal:
            trial.require(refusal.kind is Refusal.BOUNDARY, "wrong-refusal", f"refused as {refusal.kind}", refusal)
        else:
            sentence = f"{attacker!r} received an agent of {user!r} with a context of {name!r}"
            trial.find("boundary-crossed", sentence, *trial.history[-1:])


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=lambda other: repr(sorted(other) if _is_set(other) else other))


def _is_set(value: Any) -> bool:
    return isinstance(value, (set, frozenset))
