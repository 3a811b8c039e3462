"""Logs, reprs and errors: the records, their text, and their owners."""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab_utils.checks.isolation.logged import IN_THE_NAME_OF, recorded_logs, told_by
from lab_utils.judges.traces import KINDS, Trace, own_traces
from lab_utils.values.canaries import canary, typed
from lab_utils.values.verdict import Outcome

ADA, BOB = "tenant-ada", "tenant-bob"
OWN = [Trace(ADA, "log", "a record", canary(ADA, "log", 0)), Trace(ADA, "error", "an error", [f"of {ADA}"])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "value",
    [canary(BOB, "log", 0), f"asked by {BOB}", ["fine", f"{BOB} too"], {"extra": typed(BOB, 1)["int"]}],
)
def test_a_trace_of_another_is_a_finding_by_its_kind(kind: str, value: Any) -> None:
    verdict = own_traces([*OWN, Trace(ADA, kind, "a place", value)], [ADA, BOB])
    (finding,) = verdict.findings
    assert finding.anomaly == f"canary-in-{kind}"
    assert finding.sentence == f"a place of {ADA!r} holds data of {BOB!r}"
    assert finding.witness[0].startswith("a place: ")


def test_ones_own_traces_pass_and_are_counted() -> None:
    verdict = own_traces([*OWN, Trace(ADA, "repr", "the repr", "<object>")], [ADA, BOB])
    assert verdict.outcome is Outcome.PASS
    assert "1 in errors" in verdict.reason
    assert "0 in reprs" in verdict.reason


@pytest.mark.parametrize(
    ("traces", "word"),
    [([], "error"), (OWN[:1], "error"), ([OWN[1], Trace(ADA, "log", "a record", "no name")], "log")],
)
def test_traces_that_say_nothing_are_unknown(traces: list[Trace], word: str) -> None:
    verdict = own_traces(traces, [ADA, BOB])
    assert verdict.outcome is Outcome.UNKNOWN
    assert word in verdict.reason


def test_a_record_of_nobodys_work_is_a_finding_with_the_data_of_two() -> None:
    mixed = Trace("", "log", "a record", [canary(ADA, "log", 0), typed(BOB, 1)["int"]])
    (finding,) = own_traces([*OWN, mixed], [ADA, BOB]).findings
    assert finding.anomaly == "canary-in-log"
    assert finding.sentence == f"a record, logged in no user's work, holds data of {ADA!r} and {BOB!r}"
    assert len(finding.witness) == 2


@pytest.mark.parametrize("value", [canary(BOB, "log", 0), [canary(ADA, "log", 0)] * 2, f"open: {ADA}, {BOB}", "idle"])
def test_a_record_of_nobodys_work_is_none_with_the_data_of_one_or_names_alone(value: Any) -> None:
    verdict = own_traces([*OWN, Trace("", "log", "a record", value)], [ADA, BOB])
    assert verdict.outcome is Outcome.PASS
    assert "1 record without an owner, none with data of two users" in verdict.reason
    assert verdict.reason.startswith("2 traces")


def test_no_log_or_one_of_nobodys_alone_says_nothing_of_users() -> None:
    traces = [OWN[1], Trace("", "log", "a record", canary(BOB, "log", 0))]
    assert own_traces(traces, [ADA, BOB]).outcome is Outcome.PASS
    assert own_traces(traces[1:], [ADA, BOB]).outcome is Outcome.UNKNOWN
    assert own_traces(OWN[1:], [ADA]).outcome is Outcome.PASS


def test_the_witness_shows_the_place_in_a_long_text() -> None:
    (finding,) = own_traces([*OWN, Trace(ADA, "log", "a record", "x" * 5_000 + BOB)], [ADA, BOB]).findings
    assert BOB in finding.witness[0]
    assert len(finding.witness[0]) < 400


# -- records


def in_the_name_of(user: str, work: Any) -> list[Trace]:
    """The records of work done in the user's task, and in a task and a callback that it makes."""

    async def main() -> list[Trace]:
        async def task() -> None:
            IN_THE_NAME_OF.set(user)
            work()
            await asyncio.ensure_future(child())
            told = asyncio.Event()

            def callback() -> None:
                work()
                told.set()

            asyncio.get_running_loop().call_soon(callback)
            await told.wait()

        async def child() -> None:
            work()

        with recorded_logs() as logged:
            await asyncio.ensure_future(task())
            work()
            return list(logged)

    return asyncio.run(main())


LOG = logging.getLogger("tests.of.traces")


@pytest.mark.parametrize(
    "work",
    [
        lambda: LOG.debug(BOB),
        lambda: LOG.info("of %s", BOB),
        lambda: LOG.info("of %(who)s", {"who": BOB}),
        lambda: LOG.info("not said", extra={"tenant": BOB}),
        lambda: LOG.info("not said", {"who": [BOB]}),  # noqa: PLE1205
        lambda: LOG.info("one too many", BOB),  # noqa: PLE1205
        lambda: LOG.error("failed", exc_info=RuntimeError(BOB)),
        lambda: warnings.warn(BOB, UserWarning, stacklevel=1),
    ],
)
@pytest.mark.filterwarnings("always")
def test_a_record_belongs_to_the_user_in_whose_task_it_was_logged(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(warnings, "showwarning", lambda *what, **_: shown.append(what))
    logged = in_the_name_of(ADA, work)
    assert [trace.user for trace in logged] == [ADA] * 3 + [""], "the last was logged outside"
    assert all(BOB in repr(trace.value) for trace in logged)
    assert {trace.kind for trace in logged} == {"log"}
    # Who shows warnings is still asked: four times, in the task, its child, its callback, and outside.
    assert len(shown) in (0, 4)


async def test_what_a_task_gives_to_a_pool_of_threads_is_done_in_its_users_name() -> None:
    async def task() -> None:
        IN_THE_NAME_OF.set(ADA)
        await asyncio.get_running_loop().run_in_executor(None, LOG.info, f"{BOB} on the loop's executor")
        with ThreadPoolExecutor(1) as pool:
            await asyncio.wrap_future(pool.submit(LOG.info, "%s on an executor of its own", BOB))
        await asyncio.to_thread(LOG.info, f"{BOB} in a thread with its context")
        thread = threading.Thread(target=LOG.info, args=(f"{BOB} in a thread of its own",))
        thread.start()
        thread.join()

    with recorded_logs() as logged:
        await asyncio.ensure_future(task())
        users = [trace.user for trace in logged if BOB in repr(trace.value)]
    assert users == [ADA, ADA, ADA, ""]


def test_a_worker_thread_forgets_for_whom_it_worked() -> None:
    submit = ThreadPoolExecutor.submit
    called_back, may_end = threading.Event(), threading.Event()

    def fail() -> None:
        LOG.info("for somebody")
        may_end.wait(60)
        raise RuntimeError("mine")

    def called(_: object) -> None:
        LOG.info("by the worker itself, after its work")
        called_back.set()

    with ThreadPoolExecutor(1) as pool, recorded_logs() as logged:
        token = IN_THE_NAME_OF.set(ADA)
        failing = pool.submit(fail)
        IN_THE_NAME_OF.reset(token)
        failing.add_done_callback(called)
        may_end.set()
        assert called_back.wait(60)
        pool.submit(LOG.info, "for nobody").result()
        with pytest.raises(RuntimeError, match="mine"):
            failing.result()
    assert [trace.user for trace in logged if trace.place == f"a record of {LOG.name!r}"] == [ADA, "", ""]
    assert ThreadPoolExecutor.submit is submit


def test_the_log_is_as_it_was_afterwards() -> None:
    root = logging.getLogger()
    heard: list[str] = []
    other = logging.Handler()
    other.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    before = (root.level, warnings.showwarning)
    root.addHandler(other)
    try:
        handlers = list(root.handlers)
        with recorded_logs():
            LOG.debug("not for others")
            LOG.warning("for others")
        assert root.handlers == handlers
        assert other.level == logging.NOTSET
    finally:
        root.removeHandler(other)
    assert heard == ["for others"]
    assert (root.level, warnings.showwarning) == before


# -- the text of an error


def failed(raising: Any) -> BaseException:
    try:
        raising()
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def caused() -> None:
    raise RuntimeError("mine") from ValueError(BOB)


def hidden() -> None:
    try:
        raise ValueError(BOB)
    except ValueError:
        raise RuntimeError("mine") from None


def noted() -> None:
    error = RuntimeError("mine")
    error.add_note(BOB)
    raise error


def argued() -> None:
    class Quiet(RuntimeError):
        def __str__(self) -> str:
            return "mine"

    raise Quiet({"of": BOB})


def grouped() -> None:
    inner = failed(hidden)
    assert isinstance(inner, Exception)
    raise ExceptionGroup("mine", [inner])


@pytest.mark.parametrize("raising", [caused, hidden, noted, argued, grouped])
def test_an_error_tells_of_its_whole_chain(raising: Any) -> None:
    assert BOB in repr(told_by(failed(raising)))


def test_an_error_that_caused_itself_is_told_once() -> None:
    error, other = RuntimeError(ADA), ValueError(BOB)
    error.__context__, other.__context__ = other, error
    assert repr(told_by(error)[1:]).count(BOB) == 1
