"""A fault of bridge_communication: a device that stays connected and reads nothing, and later reads again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lab_utils.checks.events.talking import Listener, Talk, all_arrived, each, heard, patiently, thought
from lab_utils.judges.delivery import exactly_its_own
from lab_utils.sockets.transport import SocketSubscription, SocketTransport
from lab_utils.target import Handle
from lab_utils.trial import LAB, Trial

__all__ = ["stalled_reader"]

_LARGE_RUNS, _LARGE, _LARGE_CHARACTERS = 26, 8, 64_000
"""Runs, thoughts in each and their size: 13 MB; the kernel takes at most 4 for a client that does not read. All of one
run may wait for a client that does."""
_SMALL_RUNS, _SMALL = 3, 250
"""Before and after the large ones: many events that a client which does not read leaves unacknowledged, and many for
which there is no room any more."""
_MOST_BYTES = 8 * 2**20
"""The memory that may be kept for a client that reads nothing, the kernel's buffers included. Any bound would do, below
the size of the events emitted meanwhile."""
_MOST_OTHERS = 24


async def stalled_reader(trial: Trial) -> None:
    """While the device stalls, its user's runs and everybody else's end and arrive; the memory kept for it is bounded;
    and when it reads again it receives everything, or a warning of a loss."""
    users = trial.neighbours(min(int(trial.parameters["users"]), _MOST_OTHERS + 1))
    target = await trial.target()
    sockets = trial.sockets(target)
    assert sockets is not None
    talks = [Talk(trial, target, user) for user in users]
    agents: dict[str, Handle] = {}

    async def settle_in(_: int, talk: Talk) -> None:
        await talk.connect("phone")
        agents[talk.user] = await talk.client.create("helper")

    await each(trial, talks, settle_in)
    own, *others = talks
    if len(agents) < len(talks):
        return  # Found already: nobody to stall, or nobody to be delayed.
    phone = own.listeners[0]
    stalled = await sockets.connect(own.user, receive_buffer=4_096)
    stalling = own.join("stalled reader", stalled, reads=False)
    await stalled.stall()
    speaking = asyncio.ensure_future(_speak_much(trial, own, agents[own.user], phone))
    working = asyncio.ensure_future(each(trial, others, lambda _, talk: _work(trial, talk, agents[talk.user])))
    late = await _late(trial, own, others, speaking, working)
    all_was_said = speaking.done()
    await stalled.resume_reading()
    await trial.waiting.ends(asyncio.wait({speaking, working}), "a run after a stalled client had begun to read again")
    await heard(trial, *late)
    # An event that has not come even now is lost, which is another anomaly.
    delayed = [f"{listener.name} of {listener.user!r}" for listener in late if listener.caught_up()]
    sentence = f"clients got their events only when a client of {own.user!r} read again: {', '.join(delayed[:5])}"
    trial.require(not delayed, "waits-for-other", sentence)
    await patiently(trial, lambda: stalled.is_over or stalling.caught_up())
    if all_was_said:
        kept = sum(len(text) for text in stalled.texts)
        trial.measure("bytes kept for a client that reads nothing", kept, "bytes", LAB("<=", _MOST_BYTES),
                      anomaly="unbounded-buffer")  # fmt: skip
    await _replay_is_bounded(trial, sockets, own.user, phone)
    if stalled.is_over:
        await _comes_back(trial, own, stalling, stalled)
    await own.run(agents[own.user], "think", thoughts=[thought(own.user, 90_000)])
    # A client that is still connected, or came back without a warning, must have received everything.
    trial.judge(exactly_its_own(await all_arrived(trial, talks)))
    await trial.stop(target)


async def _speak_much(trial: Trial, talk: Talk, handle: Handle, phone: Listener) -> None:
    small, large = (_SMALL, ""), (_LARGE, "x" * _LARGE_CHARACTERS)
    for run, (count, filling) in enumerate([*_SMALL_RUNS * [small], *_LARGE_RUNS * [large], *_SMALL_RUNS * [small]]):
        thoughts = [f"{thought(talk.user, 1_000 * (run + 1) + number)}{filling}" for number in range(count)]
        await talk.run(handle, "think", thoughts=thoughts)
        await heard(trial, phone)


async def _work(trial: Trial, talk: Talk, handle: Handle) -> None:
    for number in range(int(trial.parameters["runs_per_user"])):
        await talk.run(handle, "think", thoughts=[thought(talk.user, number)])


async def _late(
    trial: Trial,
    own: Talk,
    others: Sequence[Talk],
    speaking: asyncio.Future[None],
    working: asyncio.Future[None],
) -> list[Listener]:
    """Require that all runs end while the client stalls; return the clients that have not got all their events."""
    what = f"while a client of {own.user!r} read nothing"
    trial.require(await trial.waiting.ended(working), "waits-for-other", f"runs of other users did not end {what}",
                  *trial.history[-2:])  # fmt: skip
    trial.require(await trial.waiting.ended(speaking), "waits-for-other", f"a run of {own.user!r} did not end {what}",
                  *trial.history[-2:])  # fmt: skip
    listeners = [own.listeners[0], *(listener for talk in others for listener in talk.listeners)]
    await heard(trial, *listeners)
    return [listener for listener in listeners if not listener.caught_up()]


async def _replay_is_bounded(trial: Trial, sockets: SocketTransport, user: str, phone: Listener) -> None:
    """Ask for a stream from its beginning, as a client that was away for long."""
    assert isinstance(phone.subscription, SocketSubscription)
    await phone.subscription.acknowledge()
    await trial.flush()
    asking = await sockets.attempt(user, stream=phone.subscription.stream)
    last = phone.read()[-1].seq if phone.read() else 0
    # It receives either all of that, or a warning that some was lost.
    await patiently(trial, lambda: asking.is_over or asking.client.seq >= last)
    given = sum(len(text) for text in asking.texts)
    trial.measure("bytes kept for a client that may come back", given, "bytes", LAB("<=", _MOST_BYTES),
                  anomaly="unbounded-buffer")  # fmt: skip
    await asking.close()


async def _comes_back(trial: Trial, own: Talk, stalling: Listener, stalled: SocketSubscription) -> None:
    """Resume after having been disconnected: without a gap, or with a warning."""
    had, resyncs = len(stalled.received()), stalled.resyncs
    await stalled.resume()
    told = stalled.resyncs > resyncs
    if told:
        stalling.cut_off_at(had)
        own.join("stalled reader, come back", stalled, had=had)
    else:
        stalling.reads = True
        await heard(trial, stalling)
    trial.note(
        f"A client that did not read was disconnected with {stalled.close_code} after {had} events; it came back and "
        f"{'was warned that some were missed' if told else 'got the rest'}."
    )
