"""The few parts of a registry that a test or a planted registry may exchange, under public names.

| part | what it is; how to exchange it |
|---|---|
| `ReplayLog` | the end of a user's stream, which sockets read from; return another from `WebSocketManager.make_log` |
| `Subscription` | one socket's place in that log; returned by `ReplayLog.subscribe` |
| `Resumption` | how a subscription begins: from now, resumed, or why it cannot be |
| `BATCH_EVENTS` | the most events in one message of a log |
| `Channel` | one life of one user's stream: its number, its connections, its log; `make_log` gets it |
| `CLOSED_BY_SESSION` | the reason with which the end of a session closes the channel |
| `SilentBridge` | the bridge of a session without a manager; return one from `create_bridge` to send nothing |
| `EventsApp` | the ASGI app of the events; override `admit` (whose events) or `serve` (the whole connection) |
| `Admissions` | counts sockets in all and of each user; set another as `WebSocketManager.admissions` |
| `Scope`, `Receive`, `Send` | the three arguments of an ASGI app, a socket's conversation |

Names that are public anyway (agents, scopes, contexts, managers, bridges, signers, factories) come from `registry`.
"""

from registry.events.app import Admissions, EventsApp
from registry.events.bridge import CLOSED_BY_SESSION, Channel, SilentBridge
from registry.events.replay_log import BATCH_EVENTS, ReplayLog, Resumption, Subscription
from registry.events.socket import Receive, Scope, Send

__all__ = [
    "BATCH_EVENTS",
    "CLOSED_BY_SESSION",
    "Admissions",
    "Channel",
    "EventsApp",
    "Receive",
    "ReplayLog",
    "Resumption",
    "Scope",
    "Send",
    "SilentBridge",
    "Subscription",
]
