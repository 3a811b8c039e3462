"""How tests look at refusals, and values that are refused."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest


class Refusals:
    """Collects the texts with which calls are refused; each must raise just the kind of error that it is said to."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def by(self, kind: type[BaseException], *calls: Callable[[], object]) -> None:
        for call in calls:
            with pytest.raises(kind) as caught:
                call()
            self._keep(kind, caught.value)

    async def awaited(self, kind: type[BaseException], *calls: Awaitable[object]) -> None:
        for call in calls:
            with pytest.raises(kind) as caught:
                await call
            self._keep(kind, caught.value)

    def of(self, kind: type[BaseException], call: Callable[[Any], object], values: Iterable[Any]) -> None:
        """Calls it with each value, which the text must name, by its first 30 characters at least."""
        for value in values:
            self.by(kind, functools.partial(call, value))
            assert repr(value)[:30] in self.texts[-1]

    def _keep(self, kind: type[BaseException], error: BaseException) -> None:
        assert type(error) is kind
        self.texts.append(str(error))


class Text(str):
    """A text that is not a plain str."""

    __slots__ = ()


class Uncopied:
    """Cannot be copied deep."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise OSError("no paper")


class Zone(datetime.tzinfo):
    """A time zone that may carry state."""

    def utcoffset(self, when: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(0)

    def dst(self, when: datetime.datetime | None) -> None:
        return None

    def tzname(self, when: datetime.datetime | None) -> None:
        return None
