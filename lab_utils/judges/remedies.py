"""The usual cause of each anomaly, and the remedy; runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from lab_utils.judges.anomalies import SENTENCES

__all__ = ["REMEDIES", "Remedy", "remedy_for", "table"]


class Remedy(NamedTuple):
    """The usual cause of an anomaly, and the remedy."""

    cause: str
    action: str


REMEDIES: Final[Mapping[str, Remedy]] = {
    "cross-user-data": Remedy(
        "A cache, default argument, closure or module variable that is not keyed by user.",
        "Follow the witness to the writer of the canary; hold that state in the user's session, or key it "
        "by the whole user id.",
    ),
    "foreign-rows": Remedy(
        "The tool takes its user from a parameter, a process-wide variable or a filter by prefix.",
        "Bind a tool to its user when it is made, and compare ids whole.",
    ),
    "foreign-memory": Remedy(
        "Agents of one type share a mutable default or an attribute of the class.",
        "Make the memory in `__init__` of each agent.",
    ),
    "cross-user-prompt": Remedy(
        "A prompt's history or metadata is kept by type, or without a key.",
        "Build each prompt from the agent's own context alone.",
    ),
    "foreign-cookie": Remedy(
        "One HTTP client with a cookie jar serves all users.",
        "Send without a cookie jar, or give each user a client of their own.",
    ),
    "foreign-event": Remedy(
        "Clients are found by a name that two users share, or events go to all clients.",
        "Look clients up by the whole user id, and bind each bridge to one user.",
    ),
    "cross-user-event": Remedy(
        "Clients are found by a name that two users share, or events go to all clients.",
        "Look clients up by the whole user id, and bind each bridge to one user.",
    ),
    "cross-user-answer": Remedy(
        "The key of an agent is folded, joined or truncated.",
        "Key agents by the tuple (user, type, thread), code point for code point.",
    ),
    "cross-user-update": Remedy(
        "A counter is kept by type, or read from a process-wide variable.",
        "Keep it in the agent's own memory.",
    ),
    "merged-identity": Remedy(
        "Ids are folded, stripped, normalised, truncated or compared by `==` of a subclass.",
        "Accept a plain `str` and compare it whole; refuse everything else.",
    ),
    "merged-types": Remedy(
        "Type names are compared without regard to case, as a pattern, or only in part.",
        "Compare type names code point for code point.",
    ),
    "joined-key": Remedy(
        "Keys are made by joining texts with a separator that the texts may contain.",
        "Use a tuple as the key.",
    ),
    "shared-run-id": Remedy("Runs are kept under the caller's id alone.", "Key runs by user and id."),
    "shared-object": Remedy(
        "An object is made once and handed to every user.",
        "Make it for each session; name it in `trusted` only if it has no state.",
    ),
    "shared-state": Remedy(
        "A class attribute or module variable holds data of one user.",
        "Move it into the session.",
    ),
    "canary-in-log": Remedy(
        "A logger, a batch or a pool logs in the context of another user.",
        "Log ids instead of data, and set the context for each task.",
    ),
    "canary-in-error": Remedy(
        "A message contains more than the user's own values, or an error is kept and raised again for another user.",
        "Raise a new error for each caller, with that caller's values only.",
    ),
    "canary-in-repr": Remedy("`__repr__` shows neighbours or contents.", "Show counts and ids in a repr."),
    "result-leak": Remedy(
        "A result is cached and returned to the next caller.",
        "Keep no results beyond their caller, or key them by user and request.",
    ),
    "registries-mixed": Remedy(
        "Sessions, types or counts are attributes of the class or variables of the module.",
        "Hold them in the registry object.",
    ),
    "interference": Remedy(
        "A number, quota, order or failure is counted for all users together, or under a part of the id.",
        "Count it for each user, by the whole id.",
    ),
    "cross-thread-data": Remedy(
        "Agents are found by type, and the thread is ignored.",
        "Make the thread a part of the key.",
    ),
    "aliased-input": Remedy(
        "The registry keeps the caller's own object, not a copy.",
        "Make a deep copy of each value that a caller passes in.",
    ),
    "wrong-context": Remedy(
        "A context is kept by user or type, and given to later agents.",
        "Make a context for each agent from the data of its own create.",
    ),
    "aliased-output": Remedy("A call returns the agent's own object, not a copy.", "Return a deep copy."),
    "not-refused": Remedy(
        "The check is missing in this call, or covers the top level only.",
        "Check in one place that every call passes.",
    ),
    "boundary-crossed": Remedy(
        "The owner of the context or agent is not compared with the user asked for.",
        "Compare both ids before anything is done.",
    ),
    "bad-token-accepted": Remedy(
        "The token is decoded without its signature being checked.",
        "Verify signature, audience and age before the socket is accepted.",
    ),
    "token-not-bound": Remedy("The user is taken from the path or query.", "Take the user from the verified token."),
    "expired-token-used": Remedy(
        "The age of a token is checked when the socket opens, and never again.",
        "End the connection when its token expires.",
    ),
    "token-echoed": Remedy("The request is quoted in an answer or an error.", "Never quote credentials."),
    "adopted-twice": Remedy(
        "The owner of an agent is not recorded, or not checked.",
        "Record the owner in the agent, and refuse an agent that has one.",
    ),
    "wrong-loop-accepted": Remedy(
        "The loop is checked in some calls only.",
        "Compare the running loop in every public call, before any effect.",
    ),
    "old-permission-works": Remedy(
        "A permission is cached by user or type.",
        "Check the permissions of each request.",
    ),
    "old-handle-works": Remedy(
        "A handle looks its session up by name.",
        "Bind a handle to its session object, and refuse it once that has ended.",
    ),
    "old-life-read": Remedy(
        "State outlives the session in a store that is keyed by name.",
        "Delete it with the session, or key it by session.",
    ),
    "old-life-wrote": Remedy(
        "Work that outlives its session, in the registry or the adapter, stores by the user's name.",
        "Store into the object that the work began with, or compare it with the present one before storing.",
    ),
    "old-life-event": Remedy(
        "A bridge or number is kept by name.",
        "Make a bridge for each session, and close it at the end.",
    ),
    "old-agent-found": Remedy(
        "The end forgets one of several tables.",
        "Keep agents in the session alone, and drop that.",
    ),
    "use-after-close": Remedy(
        "Closing calls the cleanup and sets no flag.",
        "Set a flag first, and check it in every call.",
    ),
    "used-after-end": Remedy("Runs check the agent and not its session.", "Check both."),
    "run-id-reused": Remedy(
        "Runs are numbered within a session.",
        "Draw ids that stay unique across restarts of the process.",
    ),
    "agent-id-reused": Remedy(
        "An id is an address, a clock's reading or a number that is given again.",
        "Draw ids that are never given again.",
    ),
    "process-died": Remedy(
        "`sys.exit`, a signal, a crash in C, or memory that ran out.",
        "Read the stacks in the witness; raise an error instead of ending the process.",
    ),
    "loop-blocked": Remedy(
        "Work without an await: a blocking call, a long loop, a thread lock.",
        "Move it to a thread, or await in between; the witness names the line.",
    ),
    "never-ends": Remedy(
        "A lock, queue or future that nobody releases after an error or a cancellation.",
        "Release it in `finally`; the witness names the line where the call waits.",
    ),
    "left-waiting": Remedy(
        "The stop ignores calls that are queued.",
        "End each call that is under way before the stop returns, if only with an error.",
    ),
    "waits-for-other": Remedy(
        "A lock or queue that all users share is held while user code runs, or a loop over users awaits each in turn.",
        "Lock for one user at most, hold no lock while you await user code, and await several users at the same time.",
    ),
    "delayed-by-neighbour": Remedy(
        "A cleanup or call of one user is awaited under a lock that all users share.",
        "Close sessions concurrently, each with its own deadline.",
    ),
    "no-overlap": Remedy(
        "Steps run one at a time, or in waves that wait for their slowest.",
        "Begin each step as soon as those that it comes after have ended.",
    ),
    "limit-ignored": Remedy("The limit is read and not enforced.", "Check it where the agent or user is admitted."),
    "over-limit": Remedy(
        "The limit is checked before an await, or only in some of the calls that add an agent or user.",
        "Check the limit and take the place without an await in between, in every such call.",
    ),
    "limit-shared": Remedy(
        "Places are counted for a bucket, a class or the process.",
        "Count them for each user of each registry.",
    ),
    "limit-too-early": Remedy("Places are reserved by attempts that did not succeed.", "Count the live objects."),
    "insider-refused": Remedy(
        "While the registry is full, every create is refused.",
        "Look for the user's session before counting users.",
    ),
    "place-lost": Remedy(
        "A counter kept beside the data is not decremented after a refusal, a failure or a cancellation.",
        "Count the data itself, or take the place back in `finally`.",
    ),
    "busy-ended": Remedy("Idleness is judged by times alone.", "Never end or evict a running or unfinished agent."),
    "evicted-live": Remedy(
        "The wrong agent is evicted.",
        "Evict the idle agent that was used least recently, and never the newest of its kind.",
    ),
    "ended-early": Remedy(
        "Not every use renews the time, or a run counts from its beginning.",
        "Record a use at the beginning and the end of each run, and whenever an agent is made or handed out.",
    ),
    "overdue": Remedy(
        "The sweep stops at an error, or a use renews the age.",
        "Continue after errors, and keep age and last use apart.",
    ),
    "wrong-recipe": Remedy(
        "A recipe is looked up by type when it is needed.",
        "Keep the recipe with the agent that it made.",
    ),
    "double-activation": Remedy(
        "Something is awaited between looking for an agent and storing the new one.",
        "Insert a future before the first await, and let the others wait for it.",
    ),
    "lost-write": Remedy(
        "A call that was interrupted, or outlived its session, rolls back, overwrites or erases shared state; or a "
        "memory keeps its newest changes alone.",
        "Give each call a transaction of its own, erase under the session's own key, not the user's name, and fold old "
        "changes into a snapshot before they are dropped.",
    ),
    "capacity-lost": Remedy(
        "A slot, connection or lock is not given back when its call is interrupted.",
        "Give it back in `finally`, whatever was raised.",
    ),
    "cached-failure": Remedy("The future of a failed attempt is kept.", "Forget an attempt that failed."),
    "cancelled-others": Remedy(
        "Several callers await one task directly.",
        "Shield the task, and cancel it only when its last caller is cancelled.",
    ),
    "cancellation-lost": Remedy(
        "`except BaseException`, a `CancelledError` that is swallowed, or `asyncio.wait_for` before Python 3.12.",
        "Let `CancelledError` propagate, or raise it again; limit time by `asyncio.timeout`.",
    ),
    "cancellation-left": Remedy(
        "A cancellation was swallowed without `uncancel`.",
        "Let it propagate, or call `uncancel` where you suppress it on purpose.",
    ),
    "context-left": Remedy(
        "A context variable is set and not reset when the call is interrupted.",
        "Reset it in `finally`, or set it in a task of its own.",
    ),
    "teardown-order": Remedy("Agents are closed in the order of their creation.", "Close in reverse order."),
    "deadline-grows": Remedy(
        "Each agent has a time limit of its own, one after another.",
        "Set one deadline for the whole ending.",
    ),
    "torn-down-early": Remedy(
        "Shared resources are closed before the cleanups have ended.",
        "Close users of a resource before the resource.",
    ),
    "stale-part-works": Remedy(
        "Parts check no flag when they are used.",
        "Have each part check the flag of its session.",
    ),
    "no-end-event": Remedy(
        "The end event is sent on the way out, where a failure skips it.",
        "Send exactly one end event of each run in `finally`.",
    ),
    "false-end-event": Remedy("The end event is sent before work that may still fail.", "Send it last."),
    "two-end-events": Remedy(
        "A failure while the end event is sent is reported as an error of the run.",
        "Decide the end once, then send its event.",
    ),
    "next-call-fails": Remedy(
        "Something that the failed call took is never given back.",
        "Undo in `finally`; start the next attempt afresh.",
    ),
    "not-sequential": Remedy(
        "Something is awaited between reading shared state and writing it.",
        "Await nothing between reading and writing.",
    ),
    "lookup-created": Remedy(
        'A lookup goes through "get or create".',
        "Look up with `.get`, and insert only in calls that create.",
    ),
    "lost-agent": Remedy(
        "An index is updated after an await, or under another key than lookups use.",
        "Insert at once, under the key that lookups use.",
    ),
    "phantom-agent": Remedy(
        "A lookup falls back to another user, type or a prefix.",
        "Return nothing unless the whole key matches.",
    ),
    "stale-agent": Remedy("The oldest agent is found, or an index is out of date.", "Return the newest open agent."),
    "closed-agent-found": Remedy("Closing does not remove the entry.", "Remove it before the cleanup is awaited."),
    "wrong-agent-removed": Remedy("The agent is chosen by type in the wrong order.", "Remove the newest, by identity."),
    "orphaned-agent": Remedy(
        "A later insert overwrites the first one.",
        "Insert only while the key is free; else close the agent that was just made.",
    ),
    "left-behind": Remedy(
        "A table is filled before the call has succeeded, or a plan's agents are never closed.",
        "Undo on every error, cancellation included; close a plan's agents with it, or use them again.",
    ),
    "session-left": Remedy("An error in the ending keeps the entry.", "Drop the entry first, then close."),
    "never-closed": Remedy(
        "A path skips the cleanup: eviction, replacement, a lost race.",
        "Close through one function, in every path.",
    ),
    "closed-twice": Remedy("Two paths close the same agent.", "Mark it closed before its cleanup is awaited."),
    "agent-not-closed": Remedy(
        "The ending stops at an error or a time limit.",
        "Continue after errors, and cancel cleanups that hang.",
    ),
    "bridge-left": Remedy("The bridge is held by a client or a task.", "Close it with its session."),
    "connection-left": Remedy(
        "A dropped connection is noticed only at the next send, or its end frees no place in a limit.",
        "Stop counting a connection as soon as it has closed; close a user's connections when the session ends.",
    ),
    "neighbour-touched": Remedy("Sessions are found by prefix or without case.", "Compare ids whole."),
    "bystander-harmed": Remedy(
        "One user's error is raised where another's work goes on.",
        "Contain errors where they are raised.",
    ),
    "neighbour-disconnected": Remedy(
        "Clients are closed by prefix, or all together.",
        "Close the clients of the session's own bridge.",
    ),
    "wrong-count": Remedy(
        "A counter is kept beside the data, or the end of a session reports another number of agents than it closed.",
        "Count the live sessions and agents, and in each ending the agents that it closes itself.",
    ),
    "wrong-answer": Remedy(
        "The answer belongs to another call, is stale, or has another type.",
        "Compare the witness with the call, and answer from the agent asked.",
    ),
    "failed-operation": Remedy(
        "The target raised an error where it should not.",
        "Read the error and its line in the witness; run `registry-lab check-target` first.",
    ),
    "wrong-refusal": Remedy(
        "The adapter does not translate an error, or the wrong check comes first.",
        "Raise `Refused` with the kind that the sentence expects.",
    ),
    "lost-update": Remedy(
        "State is read before an await and written after it, without a lock.",
        "Serialise the runs of one agent, or refuse as CONFLICT and let the caller try again.",
    ),
    "phantom-update": Remedy(
        "An update is retried after it took effect.",
        "Retry only calls that certainly had no effect.",
    ),
    "ran-again": Remedy(
        "A run that failed is repeated, though it may have sent or paid something before.",
        "Report the failure and let the caller decide; repeat only calls that certainly had no effect.",
    ),
    "run-order": Remedy(
        "Waiting callers are kept in a stack or a set, or race for the lock whenever it is free.",
        "Keep them in a queue, and hand the agent on to the first.",
    ),
    "stale-update": Remedy("A replica or cache is read.", "Read the value of the last write."),
    "lost-event": Remedy(
        "Events are dropped while a queue is full or a client is not connected, or the end of an old connection "
        "removes the subscriber of a newer one.",
        "Keep a log that clients read from by number, and key subscribers by connection, so that an old one's end "
        "removes itself alone.",
    ),
    "missed-untold": Remedy(
        "The log is truncated without a check that every client has read it.",
        "Compare the client's number with the oldest kept, and ask for a resync.",
    ),
    "needless-resync": Remedy(
        "A comparison of numbers is off by one, or the stream changes at each connection.",
        "Resume from the next number of the same stream.",
    ),
    "undetected-restart": Remedy(
        "The stream has the same name after a restart.",
        "Draw a new name for each life of the server.",
    ),
    "duplicate-event": Remedy(
        "A client is registered twice, or resumes from too early a number.",
        "Register once, and resume after the last number seen.",
    ),
    "unexpected-event": Remedy(
        "The framework emits events of its own beside those of the run.",
        "Drop every event that no run emitted.",
    ),
    "reordered-events": Remedy("Events are sent in tasks of their own.", "Send in one task for each user."),
    "repeated-seq": Remedy("Two bridges number one stream.", "Assign numbers in one place."),
    "gap-in-seq": Remedy(
        "A number is assigned before the event is certain to be sent.", "Assign the number as the last step."
    ),
    "altered-payload": Remedy(
        "A payload is kept by reference, or changed on the way.",
        "Serialise it when it is emitted.",
    ),
    "malformed-field": Remedy(
        "The adapter leaves out a field, or sends another type.",
        "Send every field of the protocol.",
    ),
    "extra-field": Remedy("Fields are merged from elsewhere.", "Send only the fields of the protocol."),
    "repeated-name": Remedy("JSON is put together from parts.", "Serialise one dict."),
    "wrong-stream": Remedy(
        "The name of the stream is shared, or changes within a life.",
        "Give each user's life one stream.",
    ),
    "wrong-thread": Remedy("The thread is ignored, folded or defaulted.", "Pass the thread on unchanged."),
    "wrong-run": Remedy(
        "The run is held in a variable that others overwrite.", "Bind events to their run when it begins."
    ),
    "wrong-agent": Remedy("The agent is held in a variable that others overwrite.", "Bind events to their agent."),
    "wrong-type": Remedy(
        "The type is missing from the key, or compared loosely.", "Make the whole type part of the key."
    ),
    "late-event": Remedy("Events are sent in the background.", "Send a run's events before the run ends."),
    "devices-differ": Remedy("Each device has a queue of its own that may fill.", "Let all devices read one log."),
    "connection-lost": Remedy(
        "The server drops a slow connection silently, or a call that ends no session closes its clients.",
        "Close it with its session, or with a code and a reason.",
    ),
    "wrong-close-code": Remedy("The code is the server's default.", "Use the codes in `docs/events.md`."),
    "unbounded-buffer": Remedy(
        "Sends are queued without a limit.",
        "Bound the queue, and disconnect a client that falls behind.",
    ),
    "several-bridges": Remedy("Each create makes a bridge.", "Make one for each session."),
    "wrong-figure": Remedy(
        "Rows are left out, doubled, rounded or somebody else's.",
        "Recompute from the rows in the witness.",
    ),
    "wrong-rows": Remedy("The tool filters wrongly.", "Filter by the whole user id."),
    "lost-rows": Remedy("A limit, a page or a filter leaves rows out.", "Read all of the user's rows."),
    "wrong-status": Remedy(
        "A step's status is recorded before the step has ended.",
        "Record the status that the step ended with.",
    ),
    "wrong-report": Remedy(
        "The report's counts are taken before the work, or kept apart from it, or it names an error of work that the "
        "end should have cancelled.",
        "Count the agents that were closed, and report the cleanups that failed; cancel all that is being made.",
    ),
    "event-order": Remedy(
        "Steps emit without waiting for those they depend on.",
        "Emit where the step begins and ends.",
    ),
    "step-order": Remedy("Dependencies are not awaited.", "Begin a step when all those before it are completed."),
    "step-limit": Remedy("A plan's size is not checked.", "Refuse it before it begins."),
    "time-limit": Remedy(
        "The time limit is set around the wrong await.",
        "Set it around the whole step, and cancel the step when it is reached.",
    ),
    "plan-failed": Remedy("A step raised, or a dependency was not found.", "Read the step's error in the witness."),
    "orphaned-step": Remedy("Steps are tasks that nobody owns.", "Run them in a `TaskGroup`."),
    "sibling-not-cancelled": Remedy("Steps are tasks that nobody owns.", "Run them in a `TaskGroup`."),
    "failure-hidden": Remedy(
        "An exception is caught and the step is reported as completed.",
        "Let the error decide the status.",
    ),
    "error-lost": Remedy(
        "Only the first of several errors is kept, or its text is replaced.",
        "Keep every error, with the step's name.",
    ),
    "error-not-reported": Remedy(
        "An error of a cleanup is logged and not returned.",
        "Name it in the report of the session's end.",
    ),
    "error-of-others": Remedy("Errors of all endings are collected together.", "Collect them for each session."),
    "differs-by-model": Remedy(
        "Figures are read from the model's words.",
        "Compute figures in tools, and let the model only word them.",
    ),
    "not-asked-again": Remedy(
        "A refusal by the model's server is treated as final.",
        "Try again after 429 and 5xx, with growing pauses.",
    ),
    "retained-object": Remedy(
        "A cache, a registry of callbacks, a closure or an exception holds it.",
        "Follow the path in the witness to its holder, and drop the entry at the end.",
    ),
    "reference-cycle": Remedy(
        "An object refers to its owner, or an error is kept in its own frame.",
        "Break the cycle at the end, or use a weak reference.",
    ),
    "leaked-task": Remedy(
        "A task is made and never awaited or cancelled.",
        "Own it: cancel and await it when its session ends.",
    ),
    "leaked-timer": Remedy("A timer is never cancelled.", "Cancel it when the thing it waits for is over."),
    "leaked-handle": Remedy("A callback stays registered.", "Remove it at the end."),
    "leaked-thread": Remedy(
        "A thread or pool of each session is not shut down.",
        "Share a pool, or shut it down at the end.",
    ),
    "leaked-descriptor": Remedy("A file is opened for each session and not closed.", "Close it in the cleanup."),
    "leaked-socket": Remedy("A client of each session is not closed.", "Close it in the cleanup, or share one."),
    "leaked-connection": Remedy("A pool does not get its connection back.", "Give it back in `finally`."),
    "object-growth": Remedy(
        "Something is appended for each cycle and never removed.",
        "Look at the types and lines in the witness, and bound the list.",
    ),
    "memory-growth": Remedy(
        "A cache without a limit, or histories that grow.",
        "Bound it; the witness names the lines of code.",
    ),
    "cost-grows": Remedy("An ending or lookup walks all users.", "Index by user."),
    "budget-exceeded": Remedy(
        "Work takes more than its budget.",
        "Compare with the budget in the witness; profile the operation named.",
    ),
    "task-left": Remedy("A task catches its cancellation and goes on.", "Let `CancelledError` end it."),
    "unhandled-error": Remedy(
        "A task fails and nobody awaits it, or is dropped while it still waits.",
        "Await each task, or look at its error when it is done; cancel a session's tasks at its end.",
    ),
    "unobserved-exception": Remedy(
        "A task fails and nobody awaits it.",
        "Await each task, or look at its error when it is done.",
    ),
    "callback-error": Remedy("A callback raises in the loop.", "Catch a callback's own errors inside the callback."),
    "connections-kept": Remedy(
        "Connections of ended sessions are not closed.",
        "Close them at the session's end.",
    ),
    "threads-kept": Remedy(
        "A thread is begun for each session and never ends.",
        "End the thread with its session, or use a pool.",
    ),
    "descriptors-kept": Remedy(
        "Connections or files of ended sessions are not closed.",
        "Close them at the session's end.",
    ),
    "memory-kept": Remedy(
        "A cache or a log keeps users' data after their sessions have ended.",
        "Bound it, or erase it at the session's end; a heap profile of the server shows which it is.",
    ),
    "kept-after-end": Remedy(
        "Ending a session marks it as closed, but leaves its values or its entry in a list.",
        "Erase the values, the entries of lists and the caches at the end, and make the deletion durable before you "
        "answer.",
    ),
    "doubled-event": Remedy(
        "A resumed stream begins before the last event that was received.",
        "Begin after the id that the client names.",
    ),
    "ended-with-another": Remedy(
        "An end removes by a prefix or by the user.",
        "Remove by the session's whole key.",
    ),
    "lost-at-restart": Remedy(
        "Values are kept in memory, or written later.",
        "Write before you answer, or promise less in the service file.",
    ),
    "session-lost": Remedy(
        "Sessions are kept in the memory of one of several workers.",
        "Keep sessions where all workers reach them, or send each session to one worker.",
    ),
    "no-answer": Remedy(
        "The server failed, or waits for something that does not come.",
        "Read what the server wrote, in the run's folder: `service/*.log`, beside its requests.",
    ),
    "no-answer-after-abandoned": Remedy(
        "An abandoned request keeps its place in a pool, or a lock.",
        "Give places back in `finally`, where a cancelled request passes too.",
    ),
    "cross-session-data": Remedy(
        "Values are kept by user, and the session's id is ignored.",
        "Make the session part of the key.",
    ),
    "ids-collide": Remedy(
        "Ids are folded, trimmed, or joined without a separator.",
        "Compare ids byte by byte, and keep user and session as two parts of the key.",
    ),
    "guessable-ids": Remedy(
        "Ids are counters, or made from the time.",
        "Draw ids at random from at least 122 bits, and compare the owner as well.",
    ),
    "forged-token-accepted": Remedy(
        "The token is decoded and its signature is not verified, or the algorithm is taken from the token.",
        "Verify the signature with a fixed algorithm before the token is read.",
    ),
    "expired-token-accepted": Remedy(
        "The token's time is not checked, or only when the session is opened.",
        "Check the expiry with each request.",
    ),
    "no-token-accepted": Remedy(
        "A request without a token is treated as one of a default user, or of the last user.",
        "Refuse a request without a token before any user is chosen.",
    ),
    "ended-by-another": Remedy(
        "The owner is compared after the request has been carried out, or not at all.",
        "Compare the owner before anything is done.",
    ),
    "changed-by-another": Remedy(
        "The owner is compared after the request has been carried out, or not at all.",
        "Compare the owner before anything is done.",
    ),
    "read-by-another": Remedy(
        "The session's id is looked up without the user.",
        "Look up by user and id, and answer as for an id that does not exist.",
    ),
    "listed-for-another": Remedy(
        "The list, or a cache of it, has the sessions of all users, or of a user whom the request names.",
        "Filter by the user that the token proves, in the query itself, and make that user part of the cache's key.",
    ),
    "session-adopted": Remedy(
        "Ids are counted from the start of the process, or taken from clients.",
        "Draw ids at random, from at least 122 bits, and refuse an id that was never issued.",
    ),
    "inherited-data": Remedy(
        "An end leaves the values under the session's id, and the next user of that id receives them.",
        "Erase by the whole key at the end, and make the user part of the key.",
    ),
    "foreign-session-listed": Remedy(
        "The list, or a cache of it, is not keyed by the user.",
        "Filter by the user that the token proves, and make the user part of the cache's key.",
    ),
    "wrong-answer-after-abandoned": Remedy(
        "A connection or a queue of replies is used again while an abandoned answer is still on its way.",
        "Close a connection whose request was abandoned, or match each reply to its request by id.",
    ),
    "stop-failed": Remedy(
        "An error during the stop is passed on before everything is closed.",
        "Close everything, then report the failures.",
    ),
}
"""Anomaly -> its usual cause, and the remedy that is printed with a finding of it."""


def remedy_for(anomaly: str) -> str:
    """The remedy; "" for an unknown anomaly, as of somebody's own check."""
    remedy = REMEDIES.get(anomaly)
    return "" if remedy is None else remedy.action


def table() -> str:
    """All anomalies in Markdown, the most serious first: `docs/anomalies.md` holds it."""
    rows = (
        f"| `{name}` | {meaning} | {REMEDIES[name].cause} | {REMEDIES[name].action} |"
        for name, meaning in SENTENCES.items()
    )
    head = ("| anomaly | meaning | usual cause | remedy |", "|---|---|---|---|")
    return "\n".join([*head, *rows]) + "\n"
