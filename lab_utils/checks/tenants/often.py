"""A part of enterprise_customer_data_protection: some customers call or fail again and again, and no other one observes
it."""

from __future__ import annotations

import asyncio
import itertools
import random
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from lab_utils.checks.isolation.exploration import seconds_a_call
from lab_utils.checks.isolation.scene import users_of
from lab_utils.checks.tenants.comparing import judge_compared
from lab_utils.interleavings import Missing, NotExplorable, Stage, run_schedule, virtual_clocks
from lab_utils.interleavings.threads import OwnTime
from lab_utils.judges.interference import Observed, not_interfered
from lab_utils.standin import Asked, Fault, Misbehaviour
from lab_utils.target import Capability, Command, Handle, NotSupported, Recipe, Refusal, Subscription, Target
from lab_utils.trial import Trial
from lab_utils.trial.faults import UNKNOWN_TOOL, Planned, is_checks_own
from lab_utils.values.limits import limited
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import Finding
from lab_utils.values.workload import rows_for

__all__ = ["alike_to", "judge_often"]

_FAULTS: Final = (Fault.RATE_LIMITED, Fault.SERVER_ERROR, Fault.CUT_OFF, Fault.SILENT, Fault.MALFORMED)
_TIMES: Final = (60, 61)
"""How often a customer fails in a row: more than opens any plausible circuit breaker. Two numbers, for one that is open
may let every second call in."""
_OFTEN: Final = 120
"""How often a customer makes calls that succeed."""
_CALLS: Final = ("read", "create", "total", "ask", "get", "listen")
"""The calls of which each observer makes one, those that need another capability last."""
_ONE: Final = "\ufb01na.b-c_d+e@f:g/h|i#J\u00e9,k  l"
"""An id that many careless comparisons shorten or change: `alike_to` returns those that they take for it."""
_BUSY: Final = (_ONE, "0042")
_PLAIN_BUSY: Final = ("Fina-b-c", "k0042")
"""Those who call instead, where the target refuses an odd id."""
_CROWD: Final = tuple(f"one-of-a-crowd-{number}" for number in range(8))
"""Customers who all fail: more than any plausible circuit breaker takes for somebody else's fault."""
_BEGINS_S: Final = 0.1
"""Virtual seconds in which a call comes to its customer's code, or into the line behind an earlier one."""
_EACH: Final = 6
"""How often each of the crowd fails with each call."""
_OWN_FAULTS: Final[Mapping[str, str]] = {
    "read": "run",
    "create": "create",
    "fail": "",
    "unknown type": "",
    "wrong column": "",
    "unknown tool": "",
}
"""Calls that fail by a customer's own fault: where the customer's code raises; "" where the call is wrong itself."""
_SIGNS: Final = ":@.-_+/|#, "
_LATER_S: Final = (11.0, 20.0, 30.0, 240.0)
"""Virtual seconds, each after the last, after which those who failed call again: a breaker lets them in on trial."""
_MUCH_LATER_S: Final = 3_600.0
"""Virtual seconds, after all these, after which a model that failed for a crowd must be open again."""
_TRIALS: Final = 10
"""Questions that each of a crowd may ask on trial then: a breaker may let in one at a time, and want a few answers
before it lets in everybody."""
_ARRIVES_S: Final = 1.0
"""Virtual seconds in which a client receives what was sent to it."""
_FEW, _MANY = 4, 70
"""Customers with ids that are not alike; and customers in all where a limit may count in buckets."""
_LATE_S, _ENOUGH_S = 5.0, 60.0
"""Virtual seconds beyond which an answer is late, and beyond which it is not waited for."""
_OWN_S: Final = 20.0
"""Seconds of its own that this may take on a slow target."""
_AT_MOST: Final = 2_000
"""Calls of the longest history, with the one that it is compared with."""
_ENOUGH: Final = 3
"""Findings after which nothing more is tried."""
_FOREVER_S: Final = 1e6
_STEPS: Final = 200_000
"""Steps of the loop after which a history counts as one that never ends."""


def alike_to(user: str, signs: str) -> list[str]:
    """Ids that a careless comparison takes for this one: one that looks at the part before or after one of these signs,
    folds letters, or decodes them."""
    decomposed = unicodedata.normalize("NFD", user)
    places = [place for place, letter in enumerate(user) if letter in signs]
    found = [f"{user[: place + 1]}x" for place in places] + [f"x{user[place:]}" for place in places]
    found += [user.lower(), user.upper(), decomposed, unicodedata.normalize("NFKC", user)]
    found += ["".join(letter for letter in decomposed if not unicodedata.combining(letter))]
    found += [user.replace("_", "-"), user.replace(".", ""), user.replace("+", " "), " ".join(user.split())]
    found += [f"{user[:3]}\u200b{user[3:]}", quote(user, safe=""), f"{user}/", f"{user}2", f"2{user}"]
    return [one for one in dict.fromkeys(found) if one != user]


@dataclass(frozen=True, slots=True)
class _Way:
    """How customers call again and again. `told`: in words that go on from a number. `times`: how often, each in a
    history of its own. `place`, `hook`: what their own code does meanwhile, and where the target calls it.
    `is_in_line`: behind a call of the same kind that goes on until the last of them has left."""

    told: str
    calls: tuple[str, ...]
    times: tuple[int, ...] = _TIMES[:1]
    place: str = ""
    hook: str = ""
    needs: frozenset[Capability] = frozenset()
    is_of_crowd: bool = False
    is_in_line: bool = False
    ones: tuple[str, str] = _BUSY

    @property
    def who(self) -> str:
        """Those who call, in words."""
        return f"each of {len(_CROWD)} customers" if self.is_of_crowd else repr(self.busy[0])

    @property
    def described(self) -> str:
        """Their calls, in words."""
        return f"{self.told} of {self.who}" if self.is_of_crowd else self.told

    @property
    def succeeds(self) -> bool:
        """Whether the calls are answered: a limit counts them then, perhaps in one of some buckets."""
        return self.calls == _CALLS

    @property
    def asked(self) -> tuple[str, ...]:
        """The calls of those who are asked afterwards. A model that fails for a crowd may be closed to everybody for a
        while, and nothing else may: they ask it last (`asked_last`)."""
        if self.is_of_crowd:
            return ("read", "create", "total")
        if self.place == "model":
            return ("read", "create", "ask")
        return _CALLS if self.succeeds else _CALLS[: 3 if self.needs else 2]

    @property
    def asked_last(self) -> tuple[str, ...]:
        """Their calls when much time has passed."""
        return ("ask",) if self.is_of_crowd else ()

    def place_of(self, call: str) -> str:
        """Where the customer's code does something while they make this call."""
        return _OWN_FAULTS[call] if self.is_of_crowd and self.place != "model" else self.place

    @property
    def busy(self) -> Sequence[str]:
        """Those who call. A model that fails for one customer alone is not at fault; one that fails for several may
        be, and is perhaps closed to all."""
        if self.is_of_crowd:
            return _CROWD
        return self.ones[:1] if self.succeeds or self.is_in_line or self.place == "model" else self.ones


_TOOLS, _MODEL = frozenset({Capability.TOOLS}), frozenset({Capability.MODEL})
_WAYS: Final = (
    _Way("calls of each kind", _CALLS, (_OFTEN,)),
    _Way("runs that failed in the customer's code", ("read",), _TIMES, "run", "raises"),
    _Way("runs that failed", ("fail",)),
    _Way("runs that were cancelled", ("read",), _TIMES[:1], "run", "hangs"),
    _Way("creates whose factory failed", ("create",), _TIMES[:1], "create", "raises"),
    _Way("creates that were cancelled", ("create",), _TIMES[:1], "create", "hangs"),
    _Way("creates that were cancelled in line", ("create",), (_OFTEN,), "create", "hangs", is_in_line=True),
    _Way("runs that were cancelled in line", ("read",), (_OFTEN,), "run", "hangs", is_in_line=True),
    _Way("creates that were refused", ("unknown type",)),
    _Way("calls of a tool that failed", ("wrong column",), needs=_TOOLS),
    _Way("calls of an unknown tool", ("unknown tool",), needs=_TOOLS),
    _Way("questions that the model failed", ("ask",), place="model", needs=_MODEL),
    _Way("questions that were cancelled", ("ask",), _TIMES[:1], "model", "hangs", needs=_MODEL),
    _Way(
        *("ends in which a cleanup ignored its cancellation", ("leave",), _TIMES[:1], "cleanup", "ignores"),
        needs=frozenset({Capability.END}),
    ),
    _Way("failures of each kind", tuple(_OWN_FAULTS), (_EACH,), hook="raises", is_of_crowd=True),
    _Way("questions that the model failed", ("ask",), (_EACH,), place="model", needs=_MODEL, is_of_crowd=True),
)


class _History:
    """One history of a fresh target, in which these customers call so often. `observed` holds the answers to everybody
    but the first of the way's `ones`."""

    def __init__(self, make_target: Callable[[], Target], way: _Way, often: Mapping[str, int]) -> None:
        self.observed: dict[str, list[Observed]] = {}
        self._make, self._way, self._often = make_target, way, often
        self._target: Target
        one, padded = way.ones
        self._others = [*alike_to(one, _SIGNS if way.succeeds else _SIGNS[:2]), padded.replace("0", "")]
        many = max(_FEW, _MANY - len(self._others)) if way.succeeds else _FEW
        if way.is_of_crowd:
            # Whose ids are alike has been asked, and the crowd's are not.
            self._others = []
        self._others += [f"one-of-many-{number}" for number in range(many)]
        self._handles: dict[str, Handle] = {}
        self._clients: list[Subscription] = []
        self._is_at_it = False
        self._place = ""
        self._faults = itertools.cycle(_FAULTS)
        self._let_go = asyncio.Event()
        self.failed = 0
        self.refuses_odd = False
        self.still_refused: Finding | None = None

    async def whole(self, stage: Stage) -> None:
        """Let everybody come, some call again and again, and then all others call at once, and those some later."""
        self._explorable = stage.require_explorable
        try:
            await self._live()
        except NotSupported:
            raise
        except Exception as error:
            self._explorable(error)
            if is_checks_own(error):
                raise
            raise NotExplorable(f"{type(error).__name__}: {error}") from error

    async def _live(self) -> None:
        target = self._target = self._make()
        if Capability.MODEL in target.capabilities:
            target.choose_model("scripted", self._trouble if self._way.place == "model" else None)
        # Most have no cleanup, as most agents do.
        cleanup = self._hook("cleanup") if self._way.place == "cleanup" else None
        recipes = [Recipe(name, self._hook("create"), self._hook("run"), cleanup) for name in ("helper", "second")]
        rng = random.Random(0)
        there = dict.fromkeys((*self._way.ones, *self._way.busy))
        await target.start(recipes, {user: rows_for(user, 1, rng) for user in (*there, *self._others)}, 5.0)
        # Every second one is there from the beginning.
        for user in (*there, *self._others[::2]):
            try:
                self._handles[user] = await target.create(user, "helper")
            except Exception as error:
                self._explorable(error)
                self.refuses_odd |= user in _BUSY and getattr(error, "kind", None) is Refusal.INVALID_USER
        self._is_at_it = True
        held: list[asyncio.Future[Any]] = []
        for user, times in self._often.items():
            for call in self._way.calls:
                self._place = self._way.place_of(call)
                if self._way.is_in_line:
                    held.append(asyncio.ensure_future(self._call(user, call)))
                for _ in range(times):
                    await self._call_in_vain(user, call)
        self._is_at_it = False
        if self._way.is_in_line:
            # Also while a call goes on that the others do not wait for.
            await self._at_once(self._others, self._way.asked)
        for one in held:
            await _leave(one)
        await self._at_once(self._others, self._way.asked)
        for seconds in _LATER_S if not self._way.succeeds else ():
            await asyncio.sleep(seconds)
            # In this order: the first takes a place on trial, if there is one for all.
            await self._at_once(self._way.busy, self._way.asked_last or self._way.asked)
        if self._way.asked_last:
            await asyncio.sleep(_MUCH_LATER_S)
            for _ in range(_TRIALS):
                await self._at_once(self._way.busy, self._way.asked_last)
            await self._at_once(self._others, self._way.asked_last)
        # Whether these are refused for failures of their own is their own affair.
        for user in _CROWD if self._way.is_of_crowd else self._way.ones[:1]:
            self.observed.pop(user, None)
        self._let_go.set()
        if self._way.place == "cleanup":
            await asyncio.sleep(_MUCH_LATER_S)
            await self._come_back()
        await target.stop()

    async def _come_back(self) -> None:
        """Let those come back whose cleanups had ignored their cancellation and ended an hour ago; not those who were
        refused an agent to begin with, as for an id that the target takes for no user's."""
        for user in (one for one in self._often if one in self._handles):
            try:
                await self._call(user, "create")
            except Exception as error:
                self._explorable(error)
                ended = f"{self._often[user]} cleanups that had ignored their cancellation ended"
                sentence = f"{user!r} gets no agent an hour after the user's {ended}"
                witness = f"create of {user!r}: {type(error).__name__}: {error}"
                self.still_refused = Finding("place-lost", sentence, (witness,))

    def _trouble(self, asked: Asked) -> Misbehaviour | None:
        if not self._is_at_it or asked.user not in self._often:
            return None
        if self._way.hook == "hangs":
            self.failed += 1
            return Misbehaviour(Fault.SLOW, pause_s=_FOREVER_S)
        return Misbehaviour(next(self._faults))

    def _hook(self, place: str) -> Callable[[str], Awaitable[None]]:
        async def work(user: str) -> None:
            # All who call at once are in here together.
            await asyncio.sleep(0)
            if self._is_at_it and place == self._place and user in self._often:
                if self._way.hook == "raises":
                    raise Planned("planted in the code of a customer")
                if self._way.hook == "hangs":
                    await asyncio.sleep(_FOREVER_S)
                while not self._let_go.is_set():
                    with suppress(asyncio.CancelledError):
                        await self._let_go.wait()
                if self._way.place == "cleanup":
                    # Ended is ended, however it ends.
                    raise Planned("a cleanup ended with an error, long after it had been given up")

        return work

    async def _call_in_vain(self, user: str, call: str) -> None:
        """The call, with any outcome; one that hangs is cancelled."""
        if self._way.hook != "hangs":
            try:
                await self._call(user, call)
            except (Exception, asyncio.CancelledError):
                self.failed += 1
            return
        work = asyncio.ensure_future(self._call(user, call))
        await asyncio.wait({work}, timeout=_BEGINS_S if self._way.is_in_line else _LATE_S)
        await _leave(work)

    async def _call(self, user: str, call: str) -> Any:
        able = self._target.capabilities
        match call:
            case "create" | "unknown type":
                return await self._target.create(user, "second" if call == "create" else "nothing-of-the-kind")
            case "leave":
                await self._target.create(user, "second")
                return await self._target.end(user)
            case "fail":
                return await self._run(user, "fail", message="as it was asked to")
            case "ask" if Capability.MODEL in able:
                return await self._run(user, "ask", text="a question")
            case "total" | "wrong column" if Capability.TOOLS in able:
                column = "tokens_in" if call == "total" else "no such column"
                return await self._run(user, "tool", name="total", parameters={"column": column})
            case "unknown tool" if Capability.TOOLS in able:
                return await self._run(user, "tool", name=UNKNOWN_TOOL)
            case "read":
                return await self._run(user, "read", key="a key that nobody writes")
            case "get" if Capability.LOOKUP in able:
                return await self._target.get(user, "helper")
            case "listen" if Capability.EVENTS in able:
                return await self._listen(user)
        return None

    async def _listen(self, user: str) -> Any:
        """Connect, and stay; return the events of a run that the new client receives. Who calls again and again has all
        thoughts in the first run: with as many clients as calls they would take long."""
        client = self._target.subscribe(user)
        self._clients.append(client)
        if not self._is_at_it:
            await self._run(user, "think", thoughts=["a thought"])
            await asyncio.sleep(_ARRIVES_S)
        elif len(self._clients) == 1:
            await self._run(user, "think", thoughts=["a thought"] * _OFTEN)
        return [(event.user, event.type) for event in client.received()]

    async def _run(self, user: str, action: str, /, **arguments: Any) -> Any:
        if user not in self._handles:
            self._handles[user] = await self._target.create(user, "helper")
        return await self._target.run(self._handles[user], Command(action, arguments))

    async def _at_once(self, users: Sequence[str], calls: Sequence[str]) -> None:
        await asyncio.gather(*(self._ask(user, calls) for user in users))

    async def _ask(self, user: str, calls: Sequence[str]) -> None:
        observed = self.observed.setdefault(user, [])
        for call in calls:
            began = asyncio.get_running_loop().time()
            ids: tuple[str, ...] = ()
            try:
                async with limited(_ENOUGH_S):
                    answer = await self._call(user, call)
            except NotSupported:
                raise
            except (Exception, asyncio.CancelledError) as error:
                self._explorable(error)
                told = f"error {type(error).__name__}: {error}"
            else:
                told = f"{answer.agent_type} of {answer.user!r}" if isinstance(answer, Handle) else repr(answer)
                ids = (answer.instance,) if isinstance(answer, Handle) else ()
            late = asyncio.get_running_loop().time() - began > _LATE_S
            observed.append(Observed(call, f"after more than {_LATE_S:g} s: {told}" if late else told, ids))


async def _leave(work: asyncio.Future[Any]) -> None:
    """Cancel a call, whatever it then ends with."""
    work.cancel()
    await asyncio.wait({work}, timeout=_ENOUGH_S)
    if work.done() and not work.cancelled():
        # Nobody awaits it: without this, asyncio logs its error.
        work.exception()


class _Comparison:
    """Lives each way's histories, and compares them with those in which nobody had called before, or not all of them.

    `findings`: one of each way; `left_out`: what was not tried."""

    def __init__(self, make_target: Callable[[], Target], progress: Callable[[float], None]) -> None:
        self.findings: list[Finding] = []
        self.left_out: list[str] = []
        self.histories = self.observations = 0
        self._make, self._progress = make_target, progress
        self._refuses_odd = False
        self._quiet: dict[tuple[object, ...], Mapping[str, Sequence[Observed]]] = {}

    def whole(self) -> str:
        """Return the name of a missing package, or ""."""
        able, own = self._make().capabilities, OwnTime()
        ways = [way for way in _WAYS if able.issuperset(way.needs)]
        try:
            if (seconds := seconds_a_call(self._make, users_of(0))) * _AT_MOST > _OWN_S:
                self.left_out.append(
                    f"others beside customers who call again and again, for want of time: a call takes {seconds:.2g} s"
                )
                return ""
            if self._refuses_odd_ids(ways[0]):
                self.left_out.append("others beside one who calls again and again and has an odd id, which is refused")
                ways = [replace(way, ones=_PLAIN_BUSY) for way in ways]
            for number, way in enumerate(ways):
                if own.seconds() > _OWN_S or len(self.findings) >= _ENOUGH:
                    why = "after enough findings" if self.findings else "for want of time"
                    self.left_out.append(f"others beside {', '.join(one.described for one in ways[number:])}, {why}")
                    break
                if way.is_of_crowd and self.findings:
                    self.left_out.append(f"{way.described}, for those of one or two are enough for a finding")
                else:
                    self._compare(way)
                self._progress((number + 1) / len(ways))
        except (NotExplorable, NotSupported) as impossible:
            self.left_out.append(f"others beside customers who call again and again: {impossible}")
        except Missing as missing:
            return str(missing)
        return ""

    def _refuses_odd_ids(self, way: _Way) -> bool:
        self._alone(way)
        if self._refuses_odd:
            self._quiet.clear()
        return self._refuses_odd

    def _alone(self, way: _Way) -> Mapping[str, Sequence[Observed]]:
        key = way.asked, way.asked_last, way.is_in_line
        if key not in self._quiet:
            self._quiet[key] = self._lived(way, {})
        return self._quiet[key]

    def _compare(self, way: _Way) -> None:
        one, *rest = way.busy
        often = dict.fromkeys(rest, way.times[0])
        alone = dict(self._alone(way))
        if not way.succeeds and not way.is_of_crowd:
            # Whether these are refused for failures of their own is their own affair, and is the same alone.
            alone |= {user: self._lived(way, often)[user] for user in rest}
        for times in way.times:
            beside = self._lived(way, {one: times, **often})
            self.observations += sum(map(len, beside.values()))
            found = not_interfered(alone, beside, f"after {times} {way.told} of {way.who}").findings
            if found and not self._differs_anyway(way):
                more = (f"and so is one of {counted(len(found) - 1, 'other')}",) if len(found) > 1 else ()
                self.findings.append(Finding(found[0].anomaly, found[0].sentence, (*found[0].witness, *more)))
                return

    def _differs_anyway(self, way: _Way) -> bool:
        """Whether the target does not do the same twice; then it is not blamed."""
        differs = bool(not_interfered(self._alone(way), self._lived(way, {})).findings)
        if differs:
            self.left_out.append(f"others beside {way.described}: answers differ from one history to the next")
        return differs

    def _lived(self, way: _Way, often: Mapping[str, int]) -> Mapping[str, Sequence[Observed]]:
        history = _History(self._make, way, often)
        with virtual_clocks():
            outcome = run_schedule(history.whole, most_steps=_STEPS)
        self.histories += 1
        self._refuses_odd = history.refuses_odd
        if often and way.place == "model" and not history.failed:
            self.left_out.append(f"others beside {way.described}: no model in the process failed")
        if history.still_refused is not None and not self.findings:
            self.findings.append(history.still_refused)
        if never := [problem.sentence for problem in outcome.problems if problem.anomaly == "never-ends"]:
            raise NotExplorable(never[0])
        return history.observed


async def judge_often(trial: Trial) -> None:
    """Let customers call or fail again and again, and require that all others are answered as if they had not: those
    with ids alike, those who failed as well, and those who come later."""
    await judge_compared(trial, _Comparison, "customers who call again and again")
