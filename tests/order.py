"""The order of tests, so that processes which run them at once are all at work until the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["dealt"]

T = TypeVar("T")


def dealt(longest: Sequence[T], long: Sequence[T], others: Sequence[T], processes: int) -> list[T]:
    """Put tests in an order of which each process takes an equal part, one after another, and begins with its share of
    those that take long.

    The short ones are left for the end, when processes take them from each other. The long ones begin at another place
    in each process: neighbours are alike, and those that wait for servers would else wait at once, and the machine with
    them.
    """
    order: list[T] = []
    left, rest = len(longest) + len(long) + len(others), list(others)
    for number in range(processes):
        size = left // (processes - number)
        left -= size
        own = list(long[number::processes])
        begin = len(own) * number // processes
        first = [*longest[number::processes], *own[begin:], *own[:begin]]
        more = max(0, size - len(first))
        order += [*first, *rest[:more]]
        rest = rest[more:]
    return [*order, *rest]
