"""The edges alone, with two users: right registries pass, and what one does not promise is left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from lab_utils.checks.events.edges import at_the_edges
from lab_utils.target import Capability, Target
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.trial import Trial
from lab_utils.values.verdict import Outcome, Verdict
from registry import SocketLimits, WebSocketManager
from tests.lab_utils.made import conducted

USERS = ["ada", "grace"]


def judged(make: Callable[[], Target], *, is_hasty: bool = True) -> tuple[Trial, Verdict]:
    trial = Trial(make, {"transport": "websocket"}, 5, stuck_after=2.0 if is_hasty else 30.0, is_hasty=is_hasty)
    return trial, conducted(trial, at_the_edges(trial, USERS))


def test_a_correct_registry_is_at_every_edge_and_passes() -> None:
    trial, verdict = judged(AgentRegistryTarget, is_hasty=False)
    assert verdict.outcome is Outcome.PASS
    assert {one.metric: one.value for one in trial.measurements} == {"users at the edges": len(USERS)}
    assert trial.left_out == []


class FourSockets(AgentRegistryTarget):
    """A user may have four sockets at once, which is what the contract of a target asks for."""

    def make_manager(self) -> object:
        return WebSocketManager(limits=SocketLimits(max_connections_per_user=4))


def test_four_sockets_of_a_user_are_enough() -> None:
    assert judged(FourSockets, is_hasty=False)[1].outcome is Outcome.PASS


class NeverExpires(AgentRegistryTarget):
    capabilities = AgentRegistryTarget.capabilities - {Capability.EXPIRY}

    def pass_time(self, seconds: float) -> None:
        raise AssertionError("it does not say that it can")


def test_where_no_expiry_is_promised_that_edge_is_left_out() -> None:
    trial, verdict = judged(NeverExpires, is_hasty=False)
    assert verdict.outcome is Outcome.PASS
    assert trial.left_out == ["that a connection ends with its token, for the target does not say that it does"]


class EndsInAnotherWord(AgentRegistryTarget):
    """Closes a client whose session has ended with the code for an expired token."""

    def make_events_app(self, manager: object, signer: object) -> object:
        app = super().make_events_app(manager, signer)

        async def reworded(scope: dict[str, object], receive: object, send: Callable[..., object]) -> None:
            async def close(message: dict[str, object]) -> None:
                if message.get("code") == 4410:
                    message = {**message, "code": 4403}
                await send(message)  # type: ignore[misc]

            await app(scope, receive, close)

        return reworded


def test_a_wrong_close_code_is_found() -> None:
    found = judged(EndsInAnotherWord)[1].findings
    assert sorted(one.sentence for one in found) == [
        f"of {user!r}, the phone was disconnected with 4403, where 4410 was due" for user in USERS
    ]
    assert {one.anomaly for one in found} == {"wrong-close-code"}
