"""Defects through which one user's objects or data reach another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab_utils.targets.planted.base import Planted
from lab_utils.targets.reference import Bridge, Context, Dispatcher, ReferenceTarget

__all__ = ["PLANTED"]


class SharedDispatcher(ReferenceTarget):
    """The first dispatcher made is kept and given to everybody."""

    _kept: Dispatcher | None = None

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        if self._kept is None:
            self._kept = super().make_dispatcher(context, bridge)
        return self._kept


class CaseFoldedKeys(ReferenceTarget):
    """Sessions are found by the user id in lower case."""

    def key(self, user: str) -> str:
        return user.lower()


class AliasedContext(ReferenceTarget):
    """The context keeps the very objects that the caller handed in."""

    def make_context(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> Context:
        context = super().make_context(user, thread, {}, permissions)
        context.data = dict(data)
        return context


def _planted(make: type[ReferenceTarget], *anomalies: str) -> Planted:
    return Planted(make.__name__, (make.__doc__ or "").strip(), frozenset(anomalies), make, "reference")


PLANTED = (
    _planted(SharedDispatcher, "shared-object"),
    _planted(CaseFoldedKeys, "shared-object", "cross-user-answer"),
    _planted(AliasedContext, "aliased-input"),
)
