"""Rare events on right targets that let a user have a few clients: nothing is found."""

from __future__ import annotations

import pytest

from lab_utils.checks.events.rare import HISTORIES
from lab_utils.checks.histories import live_all
from lab_utils.target import Refusal, Refused, Subscription
from lab_utils.targets.reference import Client, ReferenceTarget


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
    assert live_all(kind, lambda _: None, HISTORIES) == ([], [], len(HISTORIES))
