"""Asks a target for the least that every check needs, before a check judges it by more."""

from __future__ import annotations

import asyncio
import cProfile
import gc
import inspect
import statistics
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

from lab_utils.interleavings.threads import OwnTime
from lab_utils.target import Capability, Command, Handle, NotSupported, Recipe, Refusal, Target
from lab_utils.targets.loading import is_theirs, place, why
from lab_utils.trial import Stuck, Trial
from lab_utils.trial.allowance import Allowance
from lab_utils.trial.faults import WrongAnswer, is_targets_own
from lab_utils.values.workload import LONG_IDS, PLAIN, TRICKY, hostile_pairs

__all__ = ["IS_SLOW", "is_usable", "raised_by"]

_USERS: Final = ("first-user", "second-user", "third-user")
_TIMED: Final = ("fourth-user", "fifth-user", "sixth-user")
_SLOW_S: Final = 0.05
IS_SLOW: Final = "The target is slow"
"""How the note begins that says so."""
_LABS_TARGETS: Final = "/lab_utils/targets/"
_LABS_OWN: Final = (f"{_LABS_TARGETS}lab_agent.py", f"{_LABS_TARGETS}loading.py")
"""The agent that the lab hands over; and what the thread that watches the loop calls, which may have begun only now."""
_SENT: Final = "sent to a run"
_SHOWN: Final = 4
_TRIES: Final = 3
_IDS_S: Final = 20.0
_CLOSE_TIMEOUT_S: Final = 5.0


async def is_usable(trial: Trial, needs: Collection[Capability]) -> bool:
    """True if the target starts, makes an agent, runs it, and does at least once what the check `needs` of lookups,
    events, removals and ends. Where it never does, one finding names the error.

    A target whose own module is all that was called is named in the result, and so is a package that it names for this
    and does not call: an adapter that keeps a book of its own would pass with any framework behind it. Raises `Stuck`.
    """
    try:
        with trial.starting():
            target = trial.make_target()
            await trial.waiting.ends(target.start([Recipe("helper")], {}, _CLOSE_TIMEOUT_S), "starting the target")
    except Stuck:
        raise
    except Exception as error:
        return _not_usable(trial, "the target cannot be started", {"start": error})
    try:
        with _files_called() as files:
            failed = await _failed(trial, target, needs)
        if failed is None:
            await _name_refused_ids(trial, target)
            await _name_slowness(trial, target)
    finally:
        await _stop(trial, target)
    if failed is not None:
        return _not_usable(trial, *failed)
    _name_own_book(trial, target, files)
    return True


async def _name_refused_ids(trial: Trial, target: Target) -> None:
    """Try the ids that workloads draw, beside plain ones. Those refused as invalid are left out; those that fail
    otherwise are one finding, and left out as well."""
    ids = dict.fromkeys((*TRICKY, *(user for pair in (*hostile_pairs(), LONG_IDS) for user in pair)))
    failed: dict[str, BaseException] = {}
    allowance = Allowance(_IDS_S)
    for user in ids:
        if allowance.is_over():
            # A slow target: the check itself meets what is left.
            break
        answers = [await _attempt(trial, target.create(user, "helper"), f"a create for {user!r}")]
        while isinstance(answers[-1], BaseException) and len(answers) < _TRIES:
            answers.append(await _attempt(trial, target.create(user, "helper"), f"a create for {user!r}"))
        if isinstance(answers[-1], BaseException) and len({type(answer) for answer in answers}) == 1:
            failed[user] = answers[-1]
        else:
            _note(trial, {f"create of {user!r}": answer for answer in answers if isinstance(answer, BaseException)})
    if failed.keys() >= PLAIN:
        # Not for their letters: the check meets the failure itself.
        return
    refused = {user for user, error in failed.items() if getattr(error, "kind", None) is Refusal.INVALID_USER}
    trial.refused_ids = frozenset(failed)
    if refused:
        trial.leave_out(
            f"users such as {min(refused, key=len)!r:.40}: {len(refused)} of {len(ids)} ids are refused as invalid"
        )
    if others := {user: error for user, error in failed.items() if user not in refused}:
        such_as = f"{min(others, key=len)!r:.40}"
        sentence = (
            f"{len(others)} of {len(ids)} ordinary user ids fail, such as {such_as}; others were judged. If your"
            " registry refuses them, let the adapter raise Refused(Refusal.INVALID_USER, message)"
        )
        witness = (f"create for {user!r:.40} ({len(user)} letters): {why(error)}" for user, error in others.items())
        trial.find("failed-operation", sentence, *witness)


async def _name_slowness(trial: Trial, target: Target) -> None:
    """Note how long a create and a run take, where that is so long that checks cannot do all of their work."""
    own, took_s = OwnTime(1.0), dict[str, list[float]]()
    for user in _TIMED:
        for name, call in list(_calls(target, user, ()).items()):
            began_s = own.seconds()
            if isinstance(await _attempt(trial, call(), f"{name} for {user!r}"), BaseException):
                return
            took_s.setdefault(name, []).append(own.seconds() - began_s)
    # The first may import, and one may be slow by chance.
    usual_s = {name: statistics.median(seconds) for name, seconds in took_s.items()}
    slowest = max(usual_s, key=usual_s.__getitem__)
    if usual_s[slowest] >= _SLOW_S:
        trial.note(
            f"{IS_SLOW}: a {slowest} takes {1_000 * usual_s[slowest]:,.0f} ms of its own time, and checks make "
            "thousands of calls. Parts of them will be left out for want of time, and one that is not done at its "
            "limit is UNKNOWN: name fewer checks, or allow more by --check-timeout."
        )


def _note(trial: Trial, errors: Mapping[str, BaseException]) -> None:
    """Note calls that fail now and then, with errors of the target's own."""
    for call, error in errors.items():
        if is_targets_own(error):
            trial.has_failed(f"{call}: {why(error)}")


async def _stop(trial: Trial, target: Target) -> None:
    """Stop it. A stop that fails or hangs is found on the targets of the check; one that fails only here is noted."""
    stopping = asyncio.ensure_future(target.stop())
    if not await trial.waiting.ended(stopping):
        stopping.cancel()
    elif not stopping.cancelled() and (error := stopping.exception()) is not None:
        _note(trial, {"stop": error})


async def _failed(
    trial: Trial, target: Target, needs: Collection[Capability]
) -> tuple[str, dict[str, BaseException]] | None:
    """The operation that never succeeds, and its errors; None if each does, for one user or another."""
    errors: dict[str, dict[str, BaseException]] = {}
    succeeded: set[str] = set()
    asked = target.capabilities.intersection(needs)
    for user in _USERS:
        for name, call in _calls(target, user, asked).items():
            if name in succeeded and name != "create":
                continue
            answer = await _attempt(trial, call(), f"{name} for {user!r}")
            if not isinstance(answer, BaseException) or isinstance(answer, NotSupported):
                succeeded.add(name)
                continue
            errors.setdefault(name, {})[f"{name} for {user!r}"] = answer
            if name == "create":
                break
        if succeeded.issuperset(_calls(target, user, asked)):
            for sometimes in errors.values():
                _note(trial, sometimes)
            return None
    never = next(name for name in _calls(target, _USERS[0], asked) if name not in succeeded)
    return f"every {never} fails", errors[never]


def _calls(target: Target, user: str, asked: Collection[Capability]) -> dict[str, Callable[[], Awaitable[Any]]]:
    """The calls that a check may need, by name, in the order of a user's life."""
    made: list[Handle] = []

    async def create() -> None:
        made.append(await target.create(user, "helper"))

    async def run() -> None:
        answer = await target.run(made[0], Command("collect", {"text": _SENT}))
        if _SENT not in repr(answer):
            raise TypeError(f"run returned {answer!r:.80} for the command collect, which returns its arguments")

    async def subscribe() -> None:
        await target.subscribe(user).close()

    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "create": create,
        "run": run,
    }
    if Capability.LOOKUP in asked:
        calls["lookup"] = lambda: target.get(user, "helper")
    if Capability.GET_OR_CREATE in asked:
        calls["get_or_create"] = lambda: target.get_or_create(user, "helper")
    if Capability.EVENTS in asked:
        calls["subscription"] = subscribe
    if Capability.REMOVE in asked:
        calls |= {"remove": lambda: target.remove(user, "helper"), "reset": lambda: target.reset(user)}
    if Capability.END in asked:
        calls["end"] = lambda: target.end(user)
    return calls


async def _attempt(trial: Trial, work: Awaitable[Any], what: str) -> Any:
    if trial.journal is not None:
        # Should the process end in it, this is how it is known.
        trial.journal(f"first of all, {what} began")
    try:
        return await trial.waiting.ends(work, what)
    except Stuck:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            # The check's own task is to end; this is not an answer of the target.
            raise
        return error


def _not_usable(trial: Trial, what: str, errors: dict[str, BaseException]) -> bool:
    first = next(iter(errors.values()))
    sentence = f"{what}, with {why(first)}; nothing else was judged"
    trial.find("failed-operation", sentence, *(f"{call}: {why(error)}" for call, error in errors.items()))
    return False


def raised_by(kind: type[Target] | None, error: BaseException) -> list[str]:
    """The last calls on the way to an error that a method of a target of this kind raised, or an event of a wrong kind;
    none for other errors."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for one in error.exceptions if (found := raised_by(kind, one))), [])
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if kind is None or not any(isinstance(frame.f_locals.get("self"), kind) for frame in frames):
        # Events are not read from the target itself.
        return [str(error)] if isinstance(error, WrongAnswer) else []
    lines = traceback.extract_tb(error.__traceback__)
    return [f"raised in {line.name}, {line.filename.rpartition('/')[2]}:{line.lineno}" for line in lines[-_SHOWN:]]


@contextmanager
def _files_called() -> Iterator[set[str]]:
    """The files of all Python functions that are called meanwhile, and of the modules of others."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)
        elif event == "c_call":
            module = sys.modules.get(getattr(argument, "__module__", None) or "")
            files.add(getattr(module, "__file__", None) or "<built-in>")

    before: Any = sys.getprofile()
    # Objects that are garbage by now would call code of others when they are collected.
    gc.collect()
    is_collecting = gc.isenabled()
    gc.disable()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield files
    finally:
        if is_collecting:
            gc.enable()
        sys.setprofile(before if callable(before) else None)
        threading.setprofile(None)
        if isinstance(before, cProfile.Profile):
            # Before Python 3.12 it stands in the place of the function, and no function brings it back.
            before.enable()


def _name_own_book(trial: Trial, target: Target, files: set[str]) -> None:
    own = getattr(sys.modules.get(type(target).__module__), "__file__", None) or ""
    others = {file for file in files if (_LABS_TARGETS in file and not file.endswith(_LABS_OWN)) or is_theirs(file)}
    if not own or not is_theirs(own):
        return
    if not others - {own}:
        trial.leave_out(f"any code but that of {place(own)}, which made an agent and ran it without calling other code")
        return
    # Not any library will do: a framework that the adapter names for its work, and does not call, was not judged.
    uncalled = [name for name, files in _named_in(type(target)) if not any(file.startswith(files) for file in others)]
    if uncalled:
        names = ", ".join(sorted(uncalled))
        trial.leave_out(
            f"any code of {names}, which {place(own)} names: it made an agent and ran it without a call of it"
        )


def _named_in(kind: type[Target]) -> Iterator[tuple[str, str]]:
    """The packages that the methods for making and running an agent name, each with the beginning of its files."""
    found: dict[str, str] = {}
    for method in ("__init__", "start", "create", "run"):
        function = inspect.unwrap(getattr(kind, method))
        codes = [code] if (code := getattr(function, "__code__", None)) is not None else []
        while codes:
            code = codes.pop()
            codes += (constant for constant in code.co_consts if isinstance(constant, CodeType))
            for value in (function.__globals__.get(name) for name in code.co_names):
                module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
                name = str(module or "").partition(".")[0]
                file = getattr(sys.modules.get(name), "__file__", None)
                if file is not None and is_theirs(file) and name != kind.__module__.partition(".")[0]:
                    found[name] = file.removesuffix("__init__.py")
    yield from found.items()
