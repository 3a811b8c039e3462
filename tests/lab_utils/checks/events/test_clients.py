"""Clients who wait for their user's session are their user's alone."""

from __future__ import annotations

from lab_utils.runner import run_check
from lab_utils.targets.reference import Bridge, ReferenceTarget


class FirstTakesAllWhoWait(ReferenceTarget):
    """The bridge of a session that begins is given the clients of everybody who has no session yet."""

    def make_bridge(self, user: str) -> Bridge:
        bridge = super().make_bridge(user)
        for other, clients in self.clients.items():
            if other != user and self.key(other) not in self.sessions:
                bridge.clients |= clients
        return bridge


class SendsToNobody(ReferenceTarget):
    """Events go to the clients of a name that nobody has."""

    def make_bridge(self, user: str) -> Bridge:
        return Bridge(user, self.clients_of(f"queue of {user}"))


def test_a_session_that_takes_the_clients_who_wait_for_others_is_found() -> None:
    verdict = run_check(
        "event_delivery_isolation_between_users",
        target=FirstTakesAllWhoWait,
        parameters={"users": 3},
        stop_at=frozenset({"foreign-event"}),
    ).verdict
    assert "foreign-event" in {finding.anomaly for finding in verdict.findings}


def test_events_that_nobody_gets_are_lost_and_not_somebody_elses() -> None:
    verdict = run_check(
        "event_delivery_isolation_between_users", target=SendsToNobody, parameters={"users": 3}, stuck_after=1.0
    ).verdict
    assert {finding.anomaly for finding in verdict.findings} == {"lost-event"}
