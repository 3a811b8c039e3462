"""`registry-lab list`: prints the choices."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from lab_utils.cli.exits import Exit
from lab_utils.cli.plan import add_python, environment, python_of
from lab_utils.service import require_extra
from lab_utils.target import GRANTED_BY, Capability
from lab_utils.values.profiles import CATEGORIES, PROFILES, UsageError, unknown
from lab_utils.values.quantities import counted
from lab_utils.values.texts import shown

if TYPE_CHECKING:
    from lab_utils.trial import Check

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `list`."""
    parser.add_argument("what", nargs="?", default="", help=f"{', '.join(_LISTS)} (default: all)")
    add_python(parser)
    parser.add_argument(
        "--target", help="show which checks run on this registry, and the capabilities that would add more"
    )
    parser.add_argument("--service", metavar="FILE", help="show which checks run on the service of this file")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST", help="a host that the service file may name"
    )


def run(options: argparse.Namespace) -> int:
    """Print one list, or all of them. Raises `UsageError` for an unknown list, and for a target that cannot be made."""
    what, target = options.what, options.target
    if what and what not in _LISTS:
        raise UsageError(unknown("list", what, tuple(_LISTS)))
    if target is not None and what not in ("", "checks"):
        raise UsageError(f"--target {target} is for the list of checks: registry-lab list checks --target {target}")
    if options.service is not None:
        if target is not None or what not in ("", "checks"):
            raise UsageError(
                f"--service is for the list of checks: registry-lab list checks --service {options.service}"
            )
        _service_checks(options.service, options.allow_host)
        return Exit.PASSED
    with environment(**python_of(options)):
        for name in [what] if what else ["checks"] if target is not None else _LISTS:
            print(f"{name.upper()}\n")
            _LISTS[name](target)
            print()
    return Exit.PASSED


def _checks(target: str | None) -> None:
    from lab_utils.checks import CHECKS

    has: frozenset[Capability] | None = None
    if target is not None:
        from lab_utils.runner import capabilities_of

        has = capabilities_of(target)
    is_service = None if has is None else Capability.SERVICE in has
    listed: list[Check] = []
    for category in CATEGORIES.values():
        if is_service is not None and category.of_services != is_service:
            continue
        print(f"{category.name}: {category.question} ({category.notebook})")
        for check in CHECKS.values():
            if check.category == category.name:
                listed.append(check)
                if has is None:
                    print(f"  {check.name}")
                    _paragraph(check.claim)
                else:
                    _paragraph(f"{check.name}: {_applies(check, has)}", indent=2)
    if has is not None:
        _would_add(shown(target), listed, has)


def _service_checks(file: str, allow_hosts: Sequence[str]) -> None:
    """Print which checks run on a service, with which of its words, and why the others do not apply."""
    require_extra()
    from lab_utils.checks import CHECKS
    from lab_utils.checks.service.checks import act_of
    from lab_utils.service.file import read_service

    service = read_service(file, allowed_hosts=allow_hosts)
    checks = [check for check in CHECKS.values() if CATEGORIES[check.category].of_services]
    running = 0
    print("CHECKS\n")
    for check in checks:
        act = act_of(check)
        print(f"  {check.name}")
        _paragraph(check.claim)
        if reason := act.lacks(service):
            _paragraph(f"NOT APPLICABLE: {reason}")
            continue
        running += 1
        words = dict.fromkeys((*act.words, *act.uses))
        _paragraph(f"RUNS, with {', '.join(word for word in words if service.may(word))}")
        if absent := [word for word in words if not service.may(word)]:
            _paragraph(f"left out, for the file does not map it: {', '.join(absent)}")
        if left_out := act.without(service):
            _paragraph(f"left out: {left_out}")
    print(f"\n{running} of {len(checks)} checks run on {shown(service.name)}")


def _applies(check: Check, has: frozenset[Capability]) -> str:
    """Whether a check runs on a target with these capabilities, and what it then leaves out."""
    if lacks := check.lacking(has):
        return f"NOT APPLICABLE: lacks {_names(lacks)}"
    return f"RUNS, leaves out {_names(missing)}" if (missing := check.uses - has) else "RUNS"


def _would_add(target: str, checks: Collection[Check], has: frozenset[Capability]) -> None:
    """List the checks that each missing capability of the target would add."""
    running = [check for check in checks if not check.lacking(has)]
    print(f"\n{len(running)} of {len(checks)} checks run on {target}. The missing capabilities would add:")
    lacking = sorted({one for check in checks for one in (check.lacking(has) | check.uses) - has})
    for one in lacking:
        by = " and ".join(f"{method}()" for method in GRANTED_BY.get(one, ()))
        gains = [f"{_ADDS[one]} ({f'override {by}' if by else 'name it in `also`'})"]
        if alone := [check.name for check in checks if check.lacking(has) == {one}]:
            gains.append(f"runs {', '.join(alone)}")
        # More than three is not near; the list above names them all.
        if together := [each for each in checks if one in each.lacking(has) and 1 < len(each.lacking(has)) <= _NEAR]:
            each = (f"{check.name} (with {_names(check.lacking(has) - {one})})" for check in together)
            gains.append(f"runs, with others, {', '.join(each)}")
        # The list above has their names, where they leave it out.
        if more := sum(one in check.uses for check in running):
            gains.append(f"adds to {counted(more, 'check')} that {'runs' if more == 1 else 'run'}")
        elif not (alone or together):
            later = (check.name for check in checks if one in check.uses or one in check.lacking(has))
            gains.append(f"adds to these once they run: {', '.join(later)}")
        _paragraph(f"{one}: {'; '.join(gains)}", indent=2)


def _names(capabilities: Collection[Capability]) -> str:
    return ", ".join(sorted(capabilities))


def _paragraph(text: str, indent: int = 6) -> None:
    begin = " " * indent
    print(textwrap.fill(text, 112, initial_indent=begin, subsequent_indent="      ", break_on_hyphens=False))


_NEAR: Final = 3
_ADDS: Final[Mapping[Capability, str]] = {
    Capability.THREADS: "several agents of one user and type, each with a memory of its own",
    Capability.PERMISSIONS: "contexts and permissions: calls that they must refuse",
    Capability.CONTEXT_DATA: "data of a request: its owner, and the effect of a later change",
    Capability.ANY_VALUES: "values that JSON lacks, such as bytes, sets and dates",
    Capability.TOOLS: "tools: whose rows they answer from",
    Capability.EVENTS: "events: their receivers, their order, and the remains of clients",
    Capability.RUN_IDS: "the run that an event belongs to",
    Capability.AGENT_IDS: "the agent that an event comes from",
    Capability.CREATE_ANEW: "several agents of one type beside each other",
    Capability.LOOKUP: "a user's lookups, and the traces that they leave",
    Capability.GET_OR_CREATE: "races for one agent",
    Capability.REMOVE: "closing single agents",
    Capability.END: "ending a session: the remains, the old handles, and the memory of a new session",
    Capability.POPULATION: "exact counts of sessions and agents",
    Capability.PARTS: "live objects: shared ones, ones in reach, and ones not freed",
    Capability.PART_USE: "live objects after their agent has gone",
    Capability.SUPERVISION: "plans of several agents",
    Capability.ORCHESTRATION: "the flow from a question to the report",
    Capability.MODEL: "the same over a model's HTTP endpoint, whose prompts are read",
    Capability.SOCKETS: "the same over real WebSockets",
    Capability.EXPIRY: "connections whose token expires",
    Capability.AGENT_CAP: "a full house of one user's agents",
    Capability.USER_CAP: "a registry that is full of users",
    Capability.IDLE_END: "sessions that end because they are idle",
    Capability.AGE_END: "sessions that end because they are old",
    Capability.TYPE_CHANGES: "types that are registered again and replaced",
    Capability.ADOPTION: "agents that were made elsewhere",
    Capability.STRICT: "contexts that take plain data only",
    Capability.LOOP_GUARD: "calls from other threads and event loops",
    Capability.RUN_ORDER: "the order in which waiting runs of one agent are served",
}


def _profiles(_: str | None) -> None:
    sizes = {
        "smoke": "minutes at most on two cores, for every change",
        "standard": "the sizes that were asked for",
        "stress": "1,000 users and more",
    }
    _table([(name, sizes[name]) for name in PROFILES])


def _targets(_: str | None) -> None:
    from lab_utils.targets import FRAMEWORKS, PLANTED, TARGETS, installed

    _table([(name, " ".join((make.__doc__ or "").split()).split(". ")[0]) for name, make in TARGETS.items()])
    print("\n  public frameworks:")
    _table(
        [
            (name, one.summary + ("" if one.is_installed else f" (not installed: {one.remedy})"))
            for name, one in FRAMEWORKS.items()
        ]
    )
    if theirs := installed():
        print("\n  of installed packages:")
        _table(list(theirs.items()))
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
