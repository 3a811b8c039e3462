"""Parts of the defects over sockets: our own registry with another log, app or signer behind its sockets."""

from __future__ import annotations

from typing import Any, ClassVar

from lab_utils.targets.agent_registry import AgentRegistryTarget
from registry import SocketLimits, WebSocketManager
from registry.testing import Channel, ReplayLog, Subscription

__all__ = ["Hub", "LogWithHoles", "OverSockets", "orphan"]


class Hub(WebSocketManager):
    """A manager whose sockets read from logs of another class; connections in process do not notice."""

    def __init__(self, log: type[ReplayLog] = ReplayLog, limits: SocketLimits | None = None) -> None:
        super().__init__(limits=limits or SocketLimits())
        self._log = log

    def make_log(self, channel: Channel) -> ReplayLog:
        return self._log(channel.stream, channel.next_seq, self.limits.max_events, self.limits.max_bytes)


class LogWithHoles(ReplayLog):
    """A log in which an empty text is a number that no event has on the wire."""

    def batch(self, start: int) -> tuple[str | None, int]:
        text, following = super().batch(start)
        return "\n".join(line for line in (text or "").split("\n") if line) or None, following


class OverSockets(AgentRegistryTarget):
    """Our registry with a defect that only a client over a socket meets. `log`: the log that its sockets read from."""

    log: ClassVar[type[ReplayLog]] = ReplayLog

    def make_manager(self) -> Any:
        return Hub(self.log)


def orphan(log: ReplayLog, subscription: Subscription) -> None:
    """Leave a connection open, at the end of a log to which nothing is added any more."""
    log.leave(subscription)
    silent = ReplayLog(log.stream, subscription.next, 1, 1)
    # Its position, so that its later acknowledgements are found.
    silent._stand(subscription.acked)
    subscription.log = silent
