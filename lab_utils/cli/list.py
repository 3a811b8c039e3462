"""`registry-lab list`: prints what there is to choose from."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from lab_utils.cli.exits import Exit
from lab_utils.values.profiles import CATEGORIES, PROFILES, UsageError, unknown
from lab_utils.values.texts import shown

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `list`."""
    parser.add_argument("what", nargs="?", default="", help=f"{', '.join(_LISTS)} (default: all)")
    parser.add_argument("--target", help="say of each check whether it applies to this registry")


def run(options: argparse.Namespace) -> int:
    """Print one list, or all of them. Raises `UsageError` for an unknown list, and for a target that cannot be made."""
    what, target = options.what, options.target
    if what and what not in _LISTS:
        raise UsageError(unknown("list", what, tuple(_LISTS)))
    if target is not None and what not in ("", "checks"):
        raise UsageError(f"--target {target} is for the list of checks: registry-lab list checks --target {target}")
    for name in [what] if what else ["checks"] if target is not None else _LISTS:
        print(f"{name.upper()}\n")
        _LISTS[name](target)
        print()
    return Exit.PASSED


def _checks(target: str | None) -> None:
    from lab_utils.checks import CHECKS

    lacking: dict[str, str] = {}
    if target is not None:
        from lab_utils.runner import capabilities_of

        capabilities = capabilities_of(target)
        lacking = {name: ", ".join(sorted(check.needs - capabilities)) for name, check in CHECKS.items()}
    for category in CATEGORIES.values():
        print(f"{category.name}: {category.question} ({category.notebook})")
        for check in CHECKS.values():
            if check.category == category.name:
                print(f"  {check.name}")
                print(textwrap.fill(check.claim, 112, initial_indent="      ", subsequent_indent="      "))
                if lacks := lacking.get(check.name):
                    print(f"      not applicable to {shown(target)}, which lacks: {lacks}")


def _profiles(_: str | None) -> None:
    sizes = {
        "smoke": "minutes at most on two cores, for every change",
        "standard": "the sizes that were asked for",
        "stress": "1,000 users and more",
    }
    _table([(name, sizes[name]) for name in PROFILES])


def _targets(_: str | None) -> None:
    from lab_utils.targets import FRAMEWORKS, PLANTED, TARGETS

    _table([(name, " ".join((make.__doc__ or "").split()).split(". ")[0]) for name, make in TARGETS.items()])
    print("\n  public frameworks:")
    _table(
        [
            (name, one.summary + ("" if one.is_installed else f" (not installed: {one.remedy})"))
            for name, one in FRAMEWORKS.items()
        ]
    )
    print("  any other: --target package.module:Class")
    print(f"\n  planted, each wrong in one way ({len(PLANTED)}):")
    _table([(name, planted.defect) for name, planted in PLANTED.items()])


def _parameters(_: str | None) -> None:
    for category in CATEGORIES.values():
        print(category.name)
        rows: list[tuple[str, ...]] = [("", *PROFILES, "unit", "meaning")]
        for parameter in category.parameters:
            values = (str(parameter.value(profile)) for profile in PROFILES)
            rows.append((parameter.name, *values, parameter.unit, parameter.meaning))
        _table(rows)


_LISTS: Final[Mapping[str, Callable[[str | None], None]]] = {
    "checks": _checks,
    "profiles": _profiles,
    "targets": _targets,
    "parameters": _parameters,
}


def _table(rows: Iterable[Sequence[str]]) -> None:
    kept = list(rows)
    widths = [max(len(row[place]) for row in kept) for place in range(len(kept[0]))]
    for row in kept:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
