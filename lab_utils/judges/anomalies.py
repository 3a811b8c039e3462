"""Explains each anomaly in one sentence for people, and names the anomalies that usually follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["FOLLOWS", "SENTENCES", "sentence_for", "severity"]

SENTENCES: Final[Mapping[str, str]] = {
    # One user's data reaches another.
    "cross-user-data": "One user received data of another user.",
    "wrong-answer-after-abandoned": "After requests were abandoned, a user received the answer to another request.",
    "foreign-session-listed": "A list of one user's sessions named a session of another user.",
    "foreign-rows": "One user's tool returned rows of another user.",
    "foreign-memory": "One user's agent remembered data that another user had stored.",
    "cross-user-prompt": "A prompt sent for one user contained data of another user.",
    "foreign-cookie": "A request of one user carried the cookie that a server had set for another user.",
    "foreign-event": "A client received events of another user.",
    "cross-user-event": "A client received events of another user.",
    "cross-user-answer": "Two users received the same agent.",
    "cross-user-update": "One user's update began with another user's number.",
    "merged-identity": "Two users with similar ids were treated as one.",
    "ids-collide": "Two sessions with ids that look alike are one.",
    "merged-types": "Two agent types with similar names were treated as one.",
    "joined-key": "Two different keys were treated as one, because they are the same text when joined.",
    "shared-run-id": "Two users chose the same id for a run, and one received the other's answer or events.",
    "shared-object": "Two users share an object that either of them can change.",
    "shared-state": "A class or module that all users' code can read holds one user's data.",
    "canary-in-log": "A log record of one user contains data of another user.",
    "canary-in-error": "The error of one user contains data of another user.",
    "canary-in-repr": "The printed form of one user's object contains data of another user.",
    "result-leak": "The result of one user contains data of another user.",
    "registries-mixed": "One registry of the process shares data, counts or an ending with another one.",
    "interference": "One user's observations depended on another user's actions.",
    "cross-thread-data": "One conversation received data of another conversation of the same user.",
    "cross-session-data": "A session held data that was written to another session of the same user.",
    "aliased-input": "Changing an object after passing it in changed the agent's data.",
    "wrong-context": "An agent's context held the data of another agent, and none of its own.",
    "aliased-output": "Changing an answer after receiving it changed the agent's data.",
    # Access that should have been refused.
    "not-refused": "A request that had to be refused was carried out.",
    "read-by-another": "Somebody who is not the owner read from a session.",
    "changed-by-another": "Somebody who is not the owner changed a session.",
    "ended-by-another": "Somebody who is not the owner ended a session.",
    "boundary-crossed": "A request with another user's context was carried out.",
    "bad-token-accepted": "A client with an invalid token was let in.",
    "no-token-accepted": "A request without a token was answered with a user's data.",
    "expired-token-accepted": "A request with an expired token was answered with a user's data.",
    "forged-token-accepted": "A request with a forged token was answered with a user's data.",
    "token-not-bound": "A client received another user's events by naming that user.",
    "guessable-ids": "Session ids can be guessed, and nothing else keeps users apart.",
    "expired-token-used": "A client kept receiving events after its token had expired.",
    "token-echoed": "The server sent a client's token back, where logs may keep it.",
    "adopted-twice": "An agent that belongs to a session was adopted by a session again.",
    "wrong-loop-accepted": "A call from another thread or event loop was carried out.",
    "old-permission-works": "A permission that was taken away still worked.",
    "old-handle-works": "An agent of an ended session still worked for code that kept a reference to it.",
    "old-life-read": "A new session read data of the ended session before it.",
    "inherited-data": "A session opened with the id of an ended one held another user's values.",
    "session-adopted": "A session was opened for an id that was never issued, or only before a restart.",
    "old-life-wrote": "An ended session wrote into the session that followed it.",
    "old-life-event": "A new session received events of the ended session before it.",
    "old-agent-found": "A new session found an agent of the ended session before it.",
    "use-after-close": "A closed agent still answered.",
    "used-after-end": "An agent still answered after its session had ended.",
    "run-id-reused": "Two runs had the same id.",
    # The process, the loop, and calls that never end.
    "process-died": "The process of the check ended in the middle of its work.",
    "loop-blocked": "The event loop was held up, so that nothing else could run.",
    "never-ends": "A call never ended.",
    "no-answer": "A request was not answered.",
    "left-waiting": "Callers were left waiting after the target had stopped.",
    "waits-for-other": "One client's run waited for another client.",
    "delayed-by-neighbour": "One user had to wait for another user's slow work.",
    "no-overlap": "Work that could have gone on at the same time was done one piece after another.",
    "limit-ignored": "A limit was ignored.",
    # Limits and time.
    "over-limit": "More agents or users were let in than the limit allows.",
    "limit-shared": "One user's limit also counts what other users hold.",
    "limit-too-early": "A request was refused as over the limit while there was room.",
    "insider-refused": "A user who already has a session was refused because the registry is full.",
    "place-lost": "A place in a limit was taken and never freed.",
    "busy-ended": "An agent was closed while it was at work.",
    "evicted-live": "An agent was closed to make room although another one should have been chosen.",
    "ended-early": "A session was ended by age or idleness before it was due.",
    "overdue": "A session that was idle or old for too long was not ended.",
    "wrong-recipe": "An agent was made, run or closed by another recipe than its own.",
    # Agents: made, found, closed.
    "double-activation": "Callers who asked for one agent at the same time received different agents.",
    "lost-write": "A successful write was lost, such as through another user's call or an earlier session.",
    "session-lost": "A session that was opened could not be read.",
    "lost-at-restart": "A user's data did not survive a restart, though that is promised.",
    "capacity-lost": "Interrupted calls never free their part of a capacity that all users share.",
    "no-answer-after-abandoned": "After requests were abandoned, another user's request was not answered.",
    "cached-failure": "A call was answered with the failure of an earlier call.",
    "cancelled-others": "Cancelling one caller cancelled other callers.",
    "cancellation-lost": "A cancelled call went on as if nothing had been cancelled.",
    "cancellation-left": "A caller's task still counts a cancellation that was already handled.",
    "context-left": "An interrupted call left a context variable of its caller changed.",
    "teardown-order": "Agents were not closed newest first.",
    "deadline-grows": "Ending a session takes longer the more of its agents hang.",
    "torn-down-early": "Something that a cleanup needs was closed before the cleanup had ended.",
    "stale-part-works": "A part of a closed agent still works for code that kept a reference to it.",
    "no-end-event": "A run was reported neither as completed nor as failed.",
    "false-end-event": "A run that had failed was reported as completed, or one that had succeeded as failed.",
    "two-end-events": "A run was reported as completed and as failed.",
    "next-call-fails": "After a failed or cancelled call, the next call failed too.",
    "not-sequential": "Concurrent calls returned results that are impossible in any order of the calls.",
    "lookup-created": "Looking something up created an entry.",
    "lost-agent": "An agent that exists was not found.",
    "phantom-agent": "A lookup returned an agent that nobody had created.",
    "stale-agent": "A lookup returned an older agent instead of the current one.",
    "closed-agent-found": "A lookup returned an agent that had been closed.",
    "wrong-agent-removed": "Removing one agent removed another one.",
    "orphaned-agent": "A caller holds an agent that the registry no longer finds.",
    "left-behind": "A failed, refused or cancelled call left something behind.",
    "session-left": "A session that should have ended is still there.",
    "kept-after-end": "Data that an end should have erased is still there.",
    "never-closed": "Some agents were never closed.",
    "closed-twice": "Some agents were closed more than once.",
    "agent-not-closed": "An agent was not closed when its session ended.",
    "bridge-left": "An event bridge that should have ended is still there.",
    "connection-left": "A connection that should have ended is still counted.",
    "neighbour-touched": "Ending one user's session touched another user's agents.",
    "bystander-harmed": "One user's actions made another user's calls fail.",
    "neighbour-disconnected": "Ending one user's session disconnected another user.",
    "wrong-count": "The registry's counts contradict its answers.",
    "wrong-answer": "A call returned a wrong result.",
    "failed-operation": "A call that should have succeeded failed.",
    "wrong-refusal": "A request was refused for the wrong reason, or its refusal was not recognisable.",
    # Updates of one user.
    "lost-update": "Updates made at the same time were lost.",
    "phantom-update": "A counter contains an update that nobody made.",
    "run-order": "Waiting runs of one agent were not served in the order of their calls.",
    "stale-update": "An update did not see an earlier one that had already ended.",
    # Events.
    "lost-event": "Clients never received some of their events.",
    "doubled-event": "A stream delivered an event more than once.",
    "missed-untold": "A client that came back missed events and got no signal to resync.",
    "needless-resync": "A client that had missed nothing got a signal to resync.",
    "undetected-restart": "A client could not see that the server had restarted.",
    "duplicate-event": "Clients received some events more than once.",
    "unexpected-event": "Clients received events that no run had sent.",
    "reordered-events": "Clients received events in the wrong order.",
    "repeated-seq": "Two different events had the same number.",
    "gap-in-seq": "Event numbers had gaps although nothing was lost.",
    "altered-payload": "Events arrived with changed content.",
    "malformed-field": "Events arrived without a required field, or with one of the wrong type.",
    "extra-field": "Events arrived with a field that nobody had sent.",
    "repeated-name": "Events contained the same name twice in one object.",
    "wrong-stream": "Events named the wrong stream.",
    "wrong-thread": "The wrong conversation was found or named.",
    "wrong-run": "Events named a run that had not sent them.",
    "wrong-agent": "Events named an agent that had not sent them.",
    "wrong-type": "A lookup returned an agent of another type.",
    "late-event": "Events arrived only after the next run had begun.",
    "devices-differ": "Two devices of one user received different events.",
    "connection-lost": "A connection was lost without a reason that the client could see.",
    "wrong-close-code": "A connection was closed with the wrong code.",
    "unbounded-buffer": "A client that reads nothing makes the server's buffer grow without bound.",
    "several-bridges": "One user had more than one event bridge.",
    # The whole flow.
    "wrong-figure": "A report contains a wrong figure.",
    "wrong-rows": "A tool answered with the wrong rows.",
    "lost-rows": "A tool left out rows of its own user.",
    "wrong-status": "A step was reported with the wrong status.",
    "wrong-report": "The end of a session was reported wrongly.",
    "event-order": "The events of a flow came in an order that its steps do not allow.",
    "step-order": "The steps of a plan ran in the wrong order.",
    "step-limit": "A plan exceeded its limit of steps.",
    "time-limit": "A plan exceeded its time limit.",
    "plan-failed": "A plan that should have succeeded failed.",
    "orphaned-step": "A step of a plan went on after the plan had ended.",
    "sibling-not-cancelled": "When one step failed, its siblings went on.",
    "failure-hidden": "A failure was reported as success.",
    "error-lost": "An error was lost.",
    "error-not-reported": "An error of a cleanup was not reported.",
    "error-of-others": "A caller received the error of another user's cleanup.",
    "differs-by-model": "The report depends on which model was asked.",
    "not-asked-again": "A request that the model had refused was not sent again.",
    # Resources that are given back.
    "retained-object": "Objects of users who left are still in memory.",
    "reference-cycle": "Objects of users who left wait for the garbage collector.",
    "leaked-task": "Tasks of users who left are still running.",
    "leaked-timer": "Timers of users who left are still scheduled.",
    "leaked-handle": "Callbacks of users who left are still registered.",
    "leaked-thread": "Threads of users who left are still running.",
    "leaked-descriptor": "Files of users who left are still open.",
    "leaked-socket": "Sockets of users who left are still open.",
    "leaked-connection": "Connections of users who left are still open.",
    "object-growth": "The number of live objects grows with every cycle of users.",
    "memory-growth": "Memory grows with every cycle of users who come and go.",
    "memory-kept": "The memory of the server's processes grows with users who come and leave.",
    "descriptors-kept": "Open descriptors of the server's processes grow with users who come and leave.",
    "threads-kept": "Threads of the server's processes grow with users who come and leave.",
    "connections-kept": "Connections of the server's processes grow with users who come and leave.",
    "cost-grows": "One user's work costs more the more users there are.",
    "budget-exceeded": "A measurement exceeded its budget.",
    "task-left": "Tasks were left that ignore their cancellation.",
    "unhandled-error": "The event loop reported errors that nobody had handled.",
    "unobserved-exception": "A task failed, and nobody looked at its error.",
    "callback-error": "A callback raised an error.",
    "stop-failed": "The target could not be stopped.",
    "ended-with-another": "Ending one session also ended another one.",
}
"""Anomaly -> one sentence on it, for somebody who does not know the lab. The most serious come first."""

_EVENTS: Final = frozenset(
    ("lost-event", "duplicate-event", "unexpected-event", "reordered-events", "repeated-seq", "gap-in-seq")
) | {"altered-payload", "wrong-stream", "wrong-run", "wrong-agent", "wrong-thread", "late-event", "devices-differ"}
_KEPT: Final = frozenset(("retained-object", "reference-cycle", "object-growth", "memory-growth", "budget-exceeded"))

FOLLOWS: Final[Mapping[str, frozenset[str]]] = {
    "process-died": frozenset(("never-ends", "loop-blocked", "task-left", "unhandled-error", "stop-failed")),
    "loop-blocked": frozenset(
        ("never-ends", "waits-for-other", "delayed-by-neighbour", "no-overlap", "budget-exceeded")
    ),
    "cross-user-answer": _EVENTS | {"cross-user-data", "shared-object", "foreign-event", "wrong-count", "never-closed"},
    "merged-identity": frozenset(
        ("cross-user-answer", "cross-user-data", "lookup-created", "wrong-count", "connection-left")
    ),
    "shared-object": frozenset(
        ("cross-user-data", "shared-state", "aliased-output", "cross-user-update", "wrong-answer")
    ),
    "cross-user-data": frozenset(("aliased-input", "aliased-output", "interference", "wrong-answer", "wrong-context")),
    "foreign-event": _EVENTS | {"failed-operation"},
    "wrong-stream": frozenset(("repeated-seq", "reordered-events", "gap-in-seq", "missed-untold")),
    "duplicate-event": frozenset(("reordered-events", "unexpected-event", "repeated-seq")),
    "lost-event": frozenset(("gap-in-seq", "reordered-events", "missed-untold")),
    "double-activation": _KEPT
    | {"wrong-count", "never-closed", "closed-twice", "left-behind", "orphaned-agent", "not-sequential"}
    | {"lost-agent", "stale-agent", "wrong-answer", "session-left"},
    "failed-operation": frozenset(
        ("wrong-count", "lost-agent", "lost-event", "never-closed", "next-call-fails", "budget-exceeded")
    ),
    "cached-failure": frozenset(("next-call-fails", "failed-operation", "left-behind")),
    "lookup-created": _KEPT | {"wrong-count", "session-left"},
    "over-limit": frozenset(("wrong-count", "evicted-live", "never-closed")),
    "place-lost": frozenset(("limit-too-early",)),
    "registries-mixed": frozenset(("limit-shared", "wrong-count", "failed-operation")),
    "left-behind": _KEPT | {"wrong-count", "session-left", "next-call-fails", "never-closed"},
    "session-left": _KEPT | {"wrong-count", "agent-not-closed"},
    "wrong-thread": frozenset(("cross-thread-data", "lost-agent", "stale-agent", "closed-agent-found")),
    "stale-agent": frozenset(("lost-agent", "closed-agent-found")),
    "capacity-lost": frozenset(("next-call-fails", "interference", "never-ends")),
    "lost-write": frozenset(("interference",)),
    "joined-key": frozenset(("cross-thread-data", "wrong-thread", "cross-user-data")),
    "lost-update": frozenset(("stale-update", "phantom-update")),
    "wrong-figure": frozenset(("budget-exceeded",)),
    "never-closed": _KEPT,
    "retained-object": frozenset(("object-growth", "memory-growth", "budget-exceeded", "cost-grows")),
    "object-growth": frozenset(("memory-growth", "budget-exceeded")),
    "memory-growth": frozenset(("budget-exceeded",)),
}
"""Anomaly -> the anomalies that it usually causes in the same check. A finding that follows is shown below the one
before it, never left out."""

_PLACES: Final = {anomaly: place for place, anomaly in enumerate(SENTENCES)}


def sentence_for(anomaly: str) -> str:
    """The sentence for people; "" for an anomaly that is not known, as of a check of somebody's own."""
    return SENTENCES.get(anomaly, "")


def severity(anomaly: str) -> int:
    """A place in the order of seriousness: the least is the most serious, one that is not known comes last."""
    return _PLACES.get(anomaly, len(_PLACES))
