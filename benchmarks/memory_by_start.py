"""The measurements of the memory checks in a forked, in a spawned, and in this very process, side by side.

    python -m benchmarks.memory_by_start [CHECK ...]

Each memory check runs on the two clean registries and on every registry planted for it, begun in each way; "this" is a
fresh interpreter that runs the check in its own process, as a debugger does. A row is one run: its verdict, whether the
planted defect was caught by its name, and the figures that decide or are shown. A way of beginning is fit for use if
every row has the verdict that it has in the other ways.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from lab_utils.checks import CHECKS
from lab_utils.runner import run_check, was_caught, watch
from lab_utils.targets import PLANTED
from lab_utils.values.result import CheckResult, decode, encode

WAYS: Final = ("forked", "spawned", "this")
FIGURES: Final = (
    ("slope, of traced memory", "traced B/cycle"),
    ("slope, of the number of live objects", "objects/cycle"),
    ("slope, of anonymous memory", "anonymous B/cycle"),
    ("USS growth, after everybody left", "USS B left"),
    ("anonymous memory growth, after everybody left", "anonymous B left"),
)

_RESULT: Final = b"\nthe result:\n"
"""Comes after all that a target prints."""


def runs(checks: list[str]) -> Iterator[tuple[str, str]]:
    """Each check with each registry that it is to be run on."""
    for name in checks:
        for target in ("agent_registry", "reference", *CHECKS[name].planted):
            yield name, target


def measured(way: str, check: str, target: str) -> CheckResult:
    """Run the check in a process that began in this way."""
    code = f"import sys; from benchmarks.memory_by_start import one; one({way!r}, {check!r}, {target!r})"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return decode(done.stdout.rpartition(_RESULT)[2])


def one(way: str, check: str, target: str) -> None:
    """Run the check and print its result."""
    if way == "spawned":
        watch.is_available = lambda: False  # type: ignore[attr-defined]
    sys.stdout.buffer.write(_RESULT + encode(run_check(check, target=target, in_process=way == "this")))


def figure(result: CheckResult, metric: str) -> str:
    """The first measurement whose name begins so, or blank."""
    found = [one.value for one in result.measurements if one.metric.startswith(metric)]
    return f"{found[0]:,.0f}" if found else ""


def main(arguments: list[str]) -> int:
    checks = arguments or [check.name for check in CHECKS.values() if check.measures]
    differing = []
    for check, target in runs(checks):
        results = {way: measured(way, check, target) for way in WAYS}
        verdicts = {
            way: f"{result.outcome}{' by name' if target in PLANTED and was_caught(result) else ''}"
            for way, result in results.items()
        }
        print(f"\n{check} on {target}")
        print(f"  {'':<20}" + "".join(f"{way:>16}" for way in WAYS))
        print(f"  {'verdict':<20}" + "".join(f"{verdicts[way]:>16}" for way in WAYS))
        for metric, short in FIGURES:
            cells = [figure(results[way], metric) for way in WAYS]
            if any(cells):
                print(f"  {short:<20}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
        if len(set(verdicts.values())) > 1:
            differing.append(f"{check} on {target}: {json.dumps(verdicts)}")
    print(f"\n{len(differing)} of {len(list(runs(checks)))} differ", *differing, sep="\n  ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
