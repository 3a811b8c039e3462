"""How tests state a refusal, and values that are refused."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def refused(kind: type[BaseException], text: str) -> Iterator[None]:
    """The block raises just this kind of error with just this text."""
    with pytest.raises(kind, match=rf"\A{re.escape(text)}\Z") as caught:
        yield
    assert type(caught.value) is kind


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
