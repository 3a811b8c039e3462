"""ReplayLog: numbered without a gap, bounded in count and bytes, resumed exactly once or not at all."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.events.replay_log import (
    BATCH_BYTES,
    BATCH_EVENTS,
    LEFT_AS_SLOW,
    LINGER_TURNS,
    MOST_REMEMBERED,
    STREAMS_FROM,
    ReplayLog,
    Resumption,
)
from registry.events.replay_log import Subscription as Reader
from tests.running import turns


def log(max_events: int = 100, max_bytes: int = 10_000, next_seq: int = 1) -> ReplayLog:
    return ReplayLog("stream", next_seq, max_events, max_bytes)


def say(to: ReplayLog, *texts: str) -> None:
    for text in texts:
        if to.is_wanted:
            to.append(text)
        else:
            to.skip()


def read(reader: Reader) -> list[str]:
    found: list[str] = []
    while (text := reader.take()) is not None:
        found += text.split("\n")
    return found


def test_without_a_client_nothing_is_kept_and_the_numbers_go_on() -> None:
    kept = log()
    say(kept, "a", "b")
    assert (kept.texts, kept.last) == ([], 2)
    reader, _ = kept.subscribe()
    say(kept, "c")
    assert (read(reader), reader.next) == (["c"], 4)


@pytest.mark.parametrize("bounds", [{"max_events": 3}, {"max_bytes": 30}])
def test_a_bound_cuts_off_the_one_who_lags_and_nobody_else(bounds: dict[str, int]) -> None:
    kept = log(**bounds)
    fast, _ = kept.subscribe()
    slow, _ = kept.subscribe()
    told: list[str] = []
    slow.on_end = told.append
    got = []
    for n in range(10):
        say(kept, f"{n:010d}")
        got += read(fast)
        assert len(kept.texts) <= 3
        assert kept.size <= 30
        assert kept.size == sum(map(len, kept.texts))
    assert got == [f"{n:010d}" for n in range(10)]
    assert told == [LEFT_AS_SLOW]
    assert slow.take() is None
    assert fast.ended_reason is None


def test_bytes_are_counted_as_they_are_sent() -> None:
    kept = log()
    kept.subscribe()[0].keeps = keeper = kept.subscribe()[0]
    say(kept, "é", "abc", "語")
    assert kept.size == 2 + 3 + 3
    assert keeper.lag == 3


def test_one_event_above_the_bound_still_arrives() -> None:
    kept = log(max_bytes=10)
    reader, _ = kept.subscribe()
    say(kept, "x" * 50)
    assert read(reader) == ["x" * 50]
    say(kept, "y")
    assert (kept.texts, kept.size) == (["y"], 1)


def test_what_all_have_acknowledged_is_dropped_and_a_dropped_client_still_counts() -> None:
    kept = log()
    one, two = kept.subscribe()[0], kept.subscribe()[0]
    say(kept, "a", "b", "c")
    read(one), read(two)
    assert one.acknowledge(3)
    assert len(kept.texts) == 3
    assert two.acknowledge(1)
    assert kept.texts == ["b", "c"]
    two.close()
    say(kept, "d")
    read(one)
    one.acknowledge(4)
    assert kept.texts == ["b", "c", "d"]
    back, how = kept.subscribe("stream", 2)
    assert (how, read(back)) == (Resumption.RESUMED, ["c", "d"])
    back.acknowledge(4)
    assert kept.texts == []
    assert kept.size == 0


def test_an_acknowledgement_of_what_was_not_sent_is_refused_and_an_old_one_ignored() -> None:
    kept = log()
    reader, _ = kept.subscribe()
    say(kept, "a", "b")
    assert not reader.acknowledge(1)
    read(reader)
    assert not reader.acknowledge(3)
    assert reader.acknowledge(2)
    assert reader.acknowledge(1)
    assert reader.acked == 2


def test_only_so_many_clients_are_remembered() -> None:
    kept = log()
    keeper, _ = kept.subscribe()
    gone, _ = kept.subscribe()
    gone.close()
    say(kept, "a")
    read(keeper)
    keeper.acknowledge(1)
    assert kept.texts == ["a"]
    for _ in range(MOST_REMEMBERED):
        kept.subscribe()[0].close()
    assert kept.texts == []
    assert len(kept._acked) <= 2


def test_the_end_lets_what_there_is_be_read() -> None:
    kept = log()
    reader, _ = kept.subscribe()
    told: list[str] = []
    reader.on_end = told.append
    say(kept, "a")
    kept.close("session_ended")
    kept.close("again")
    assert told == ["session_ended"]
    assert read(reader) == ["a"]
    reader.close()
    reader.close()
    assert kept.open_subscriptions() == []
    assert "last=1" in repr(kept)
    assert "session_ended" in repr(reader)


def test_events_go_out_together_up_to_a_bound_and_the_same_text_to_all() -> None:
    kept = log(max_events=1_000, max_bytes=10_000_000)
    one, two = kept.subscribe()[0], kept.subscribe()[0]
    say(kept, *(f"{n}" for n in range(BATCH_EVENTS + 5)))
    first = one.take()
    assert first is not None
    assert len(first.split("\n")) == BATCH_EVENTS
    assert two.take() is first
    assert read(one) == read(two)
    say(kept, *("x" * (BATCH_BYTES // 2 + 1) for _ in range(3)))
    assert [len(text) for text in iter(one.take, None)] == [BATCH_BYTES // 2 + 1] * 3


async def test_a_reader_sleeps_until_there_is_something() -> None:
    kept = log()
    reader, _ = kept.subscribe()
    waiting = asyncio.ensure_future(reader.wait())
    await turns(5)
    assert not waiting.done()
    say(kept, "a", "b")
    await waiting
    assert reader.take() == "a\nb"
    waiting = asyncio.ensure_future(reader.wait())
    await turns(2)
    reader.wake()
    await waiting
    waiting = asyncio.ensure_future(reader.wait())
    await turns(2)
    kept.close("session_ended")
    await waiting
    await reader.wait()


async def read_all(reader: Reader, messages: list[str]) -> None:
    """The work of a connection's own task."""
    while True:
        while (text := reader.take()) is not None:
            messages.append(text)
        await reader.wait()


async def test_an_event_now_and_then_goes_out_in_the_next_turn_and_many_in_a_row_go_out_together() -> None:
    kept = log(max_events=1_000)
    reader, _ = kept.subscribe()
    messages: list[str] = []
    reading = asyncio.ensure_future(read_all(reader, messages))
    await turns()
    for number in range(3):
        say(kept, f"alone {number}")
        await turns(2)
        assert messages[-1] == f"alone {number}"
        await turns(5 * LINGER_TURNS)
    messages.clear()
    texts = [f"{number}" for number in range(10 * STREAMS_FROM)]
    for text in texts:
        say(kept, text)
        await turns()
    await turns(2 * LINGER_TURNS)
    assert [one for message in messages for one in message.split("\n")] == texts
    at_once = texts[: STREAMS_FROM + 1]
    assert messages[: len(at_once) + 1] != texts[: len(at_once) + 1]
    assert messages[: len(at_once)] == at_once
    assert {message.count("\n") + 1 for message in messages[STREAMS_FROM + 2 : -1]} == {LINGER_TURNS}
    await turns(5 * LINGER_TURNS)
    messages.clear()
    for number in range(3):
        say(kept, f"in a row {number}")
        await turns()
    assert messages == ["in a row 0", "in a row 1", "in a row 2"], "how many came in a row before is forgotten"
    reading.cancel()


def test_a_log_that_rested_in_a_loop_which_has_ended_wakes_its_readers_in_the_next() -> None:
    kept = log()

    async def leave_resting() -> None:
        asyncio.get_running_loop().stop()
        for _ in range(STREAMS_FROM + 2):
            kept.append("a")

    async def main() -> None:
        reader, _ = kept.subscribe("stream", STREAMS_FROM + 2)
        waiting = asyncio.ensure_future(reader.wait())
        await turns()
        kept.append("b")
        await turns(2)
        assert (waiting.done(), reader.take()) == (True, "b")

    kept.subscribe()
    first = asyncio.new_event_loop()
    resting = first.create_task(leave_resting())
    first.run_forever()
    assert resting.done()
    first.close()
    asyncio.run(main())


def test_one_who_resumes_far_back_after_the_others_were_looked_at_is_cut_off_too() -> None:
    kept = log(max_events=4)
    quick, _ = kept.subscribe()
    say(kept, *"abcde")
    assert read(quick) == [], "it was cut off"
    quick, _ = kept.subscribe()
    say(kept, "f")
    assert read(quick) == ["f"]
    slow, how = kept.subscribe("stream", 2)
    assert (how, slow.ended_reason) == (Resumption.RESUMED, None)
    say(kept, "g")
    assert (slow.ended_reason, quick.ended_reason) == (LEFT_AS_SLOW, None)


async def test_a_cancelled_reader_loses_nothing() -> None:
    kept = log()
    reader, _ = kept.subscribe()
    waiting = asyncio.ensure_future(reader.wait())
    await turns(2)
    waiting.cancel()
    say(kept, "a")
    await turns(5)
    assert waiting.cancelled()
    await reader.wait()
    assert reader.take() == "a"


ACTIONS = st.lists(st.tuples(st.sampled_from(["say", "read", "ack", "drop", "come"]), st.integers(0, 2)), max_size=60)


@given(ACTIONS, st.integers(1, 6))
def test_whatever_happens_a_client_has_all_once_or_is_told(actions: list[tuple[str, int]], max_events: int) -> None:
    kept = log(max_events=max_events)
    readers: list[Reader | None] = [None] * 3
    had: list[list[int]] = [[] for _ in readers]
    seqs = [0] * 3
    said = 0
    for action, which in actions:
        reader = readers[which]
        if action == "say":
            said += 1
            say(kept, f"{said}")
        elif action == "come" and reader is None:
            reader, how = kept.subscribe("stream", seqs[which])
            readers[which] = reader
            if how.is_resync:
                had[which] = []
                seqs[which] = reader.next - 1
            assert how in (Resumption.RESUMED, Resumption.NO_LONGER_KEPT)
            assert reader.next == seqs[which] + 1
        elif reader is not None and action == "drop":
            reader.close()
            readers[which] = None
        elif reader is not None and action == "ack":
            assert reader.acknowledge(seqs[which])
        elif reader is not None and action == "read":
            got = [int(text) for text in read(reader)]
            assert got == list(range(seqs[which] + 1, seqs[which] + 1 + len(got)))
            seqs[which] += len(got)
            assert reader.ended_reason == LEFT_AS_SLOW or seqs[which] == said
        assert len(kept.texts) <= max_events
        assert kept.size == sum(map(len, kept.texts))
        assert kept.last == said
