"""Rare events: a defect has one name, and targets that let a user have a few clients are right."""

from __future__ import annotations

import pytest

from lab_utils.checks.events.rare import HISTORIES
from lab_utils.checks.histories import live_all
from lab_utils.target import Capability, Refusal, Refused, Subscription
from lab_utils.targets import PLANTED, make_target
from lab_utils.targets.planted.events import rare
from lab_utils.targets.reference import Client, ReferenceTarget

WITHOUT_SOCKETS = ["a socket that has gone leaves its place (the target lacks: sockets)"], len(HISTORIES) - 1
"""What is left out of a target without sockets, and how many histories are lived."""


@pytest.mark.parametrize("name", [one.name for one in rare.PLANTED])
def test_an_event_that_is_wrong_in_one_way_is_found_by_that_name_alone(name: str) -> None:
    findings, left_out, done = live_all(lambda: make_target(name), lambda _: None, HISTORIES)
    assert {finding.anomaly for finding in findings} == PLANTED[name].anomalies
    assert (left_out, done) == WITHOUT_SOCKETS


class FourRefusesMore(ReferenceTarget):
    """A user may have four clients; one more is refused."""

    def subscribe(self, user: str) -> Subscription:
        if self.connections(user) >= 4:
            raise Refused(Refusal.CAPACITY, f"{user!r} has four clients")
        return super().subscribe(user)


class FourOldestGoes(ReferenceTarget):
    """A user may have four clients; one more takes the place of the oldest."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[str, list[Client]] = {}

    def subscribe(self, user: str) -> Subscription:
        client = super().subscribe(user)
        assert isinstance(client, Client)
        there = self.there.setdefault(user, [])
        there.append(client)
        if len(there) > 4:
            there.pop(0).open = False
        return client


@pytest.mark.parametrize("kind", [FourRefusesMore, FourOldestGoes])
def test_a_user_may_have_a_few_clients_and_no_more(kind: type[ReferenceTarget]) -> None:
    assert live_all(kind, lambda _: None, HISTORIES) == ([], *WITHOUT_SOCKETS)


def test_places_of_sockets_are_asked_of_our_own_registry_and_found_to_be_kept() -> None:
    sockets = tuple(one for one in HISTORIES if Capability.SOCKETS in one[1])
    for name, found in (("agent_registry", []), ("RefusedSocketsCounted", ["connection-left"])):
        findings, left_out, done = live_all(lambda name=name: make_target(name), lambda _: None, sockets)  # type: ignore[misc]
        assert ([finding.anomaly for finding in findings], left_out, done) == (found, [], 1)
