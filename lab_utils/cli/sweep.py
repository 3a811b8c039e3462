"""Reads `--sweep`, `--repeat` and `--on`: the axes of a grid, and where its runs are made."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from typing import Final

from lab_utils.cli.plan import overrides_of
from lab_utils.values.grid import MOST_RUNS, SEED, Axis, count_of, spelled
from lab_utils.values.profiles import UsageError, Value, parameters_for

__all__ = ["LOCAL", "add_sweep", "read_place", "read_sweep"]

LOCAL: Final = "local"
_RANGE: Final = re.compile(r"(0|-?[1-9][0-9]{0,18})\.\.(0|-?[1-9][0-9]{0,18})")
_EXAMPLES: Final = "write NAME=VALUE,VALUE, as users=10,100 or seed=1..20"


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that make a grid of runs."""
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a run for each of these values of a parameter or of the seed, such as users=10,100 or seed=1..20; "
        "repeated, a run for each combination",
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="make each run N times")
    parser.add_argument(
        "--on",
        metavar="PLACE",
        help="where the runs of a grid are made: local (default), or a Dask cluster by the address of its scheduler, "
        "as tcp://scheduler:8786",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the runs that would be made, and make none")


def read_place(text: str | None) -> str:
    """The place of `--on`. Raises `UsageError` for any other word."""
    if (
        text is None
        or text == LOCAL
        or re.fullmatch(r"(tcp|tls)://[^\s/:]+:\d{1,5}|(tcp|tls)://\[[^\s/]+\]:\d{1,5}", text)
    ):
        return text or LOCAL
    raise UsageError(f"--on {text!r}: write local, or the address of a Dask scheduler, as tcp://scheduler:8786")


def read_sweep(
    options: argparse.Namespace, categories: Sequence[str], given: Sequence[str]
) -> tuple[tuple[Axis, ...], int]:
    """The axes, and how often each run is made. `given`: the parameters with one value.

    Raises `UsageError`, before anything runs, for an unknown name, a value that is not one, a value or a name that
    stands twice, and more runs than `MOST_RUNS`.
    """
    repeats = 1 if options.repeat is None else options.repeat
    if repeats < 1:
        raise UsageError(f"--repeat {repeats}: give the number of times, from 1 on")
    axes: list[Axis] = []
    fixed = [text.partition("=")[0] for text in given] + [SEED] * (options.seed is not None)
    for text in options.sweep:
        axis = _axis(text, categories, options.profile)
        for other in fixed:
            if _is_same(axis.name, other):
                option = "--seed" if other == SEED else f"--param {other}"
                raise UsageError(f"--sweep {text}: {option} gives {other} one value; leave one of the two out")
        for one in axes:
            if _is_same(axis.name, one.name):
                raise UsageError(f"--sweep {text}: {one.name} is swept already; write all of its values in one --sweep")
        axes.append(axis)
    _bounded(count_of(axes, repeats))
    return tuple(axes), repeats


def _axis(text: str, categories: Sequence[str], profile: str) -> Axis:
    name, equals, rest = text.partition("=")
    if not (name and equals and rest):
        raise UsageError(f"--sweep {text!r}: {_EXAMPLES}")
    if name.rpartition(".")[2] == "usage_csv":
        raise UsageError(f"--sweep {text}: usage records are not swept; make a run for each file with --usage-csv")
    values: dict[Value, str] = {}
    for word in _words(text, rest):
        value = _seed(text, word) if name == SEED else _value(name, word, categories, profile)
        if value in values:
            raise UsageError(f"--sweep {text}: {spelled(value)} stands twice; --repeat 2 makes each run twice")
        values[value] = word
    return Axis(name, tuple(values))


def _words(text: str, rest: str) -> Iterator[str]:
    for word in rest.split(","):
        if not word:
            raise UsageError(f"--sweep {text}: a value is empty; {_EXAMPLES}")
        if found := _RANGE.fullmatch(word):
            first, last = int(found[1]), int(found[2])
            if first > last:
                raise UsageError(f"--sweep {text}: {word} goes down; write {last}..{first}")
            _bounded(last - first + 1)
            yield from map(str, range(first, last + 1))
        else:
            yield word


def _value(name: str, word: str, categories: Sequence[str], profile: str) -> Value:
    """The value of a parameter, which each category that has the parameter allows."""
    found: list[Value] = []
    for category, values in overrides_of([f"{name}={word}"], categories, "--sweep").items():
        parameters_for(category, profile, values)
        found += values.values()
    return found[0]


def _seed(text: str, word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", word) or int(word) >= 2**63:
        raise UsageError(f"--sweep {text}: seed {word} is not a whole number between 0 and 2**63 - 1")
    return int(word)


def _is_same(name: str, other: str) -> bool:
    """Whether both set the same parameter, in one category at least."""
    (category, _, one), (second, _, two) = name.rpartition("."), other.rpartition(".")
    return one == two and (not category or not second or category == second)


def _bounded(runs: int) -> None:
    if runs > MOST_RUNS:
        raise UsageError(
            f"the grid has {runs:,} runs, more than {MOST_RUNS:,}; sweep fewer values, or make several grids"
        )
