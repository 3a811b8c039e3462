"""Runs every check on the two clean registries with many seeds, two at once, and counts every result that is not a
PASS.

    python -m benchmarks.false_alarms [--services] [RUNS] [FIRST_SEED]

With `--services` it is every check of services on the right service.

A finding on a registry that is right, or an unknown, is a false alarm: its sentence and witness are printed, and the
exit code is 1. Load the machine with other work beside it: results that depend on timing luck show then.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from lab_utils.checks import CHECKS
from lab_utils.cli.plan import of_target
from lab_utils.runner import run_check
from lab_utils.targets import RIGHT
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome

_SHOWN: Final = 90
TARGETS: Final = ("agent_registry", "reference")


def runs(first_seed: int, targets: Sequence[str] = TARGETS) -> Iterator[tuple[str, str, int]]:
    """Check, target and seed, without end."""
    for seed in itertools.count(first_seed):
        for target in targets:
            for category in of_target(target):
                for check in (name for name, one in CHECKS.items() if one.category == category):
                    yield check, target, seed


def main(arguments: list[str]) -> int:
    targets = (RIGHT,) if "--services" in arguments else TARGETS
    arguments = [word for word in arguments if word != "--services"]
    count, first_seed, *_ = [*map(int, arguments), *(500, 1)[len(arguments) :]]
    outcomes: Counter[Outcome] = Counter()
    alarms = 0

    def one(asked: tuple[str, str, int]) -> CheckResult:
        check, target, seed = asked
        return run_check(check, target=target, seed=seed)

    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(one, itertools.islice(runs(first_seed, targets), count)):
            outcomes[result.outcome] += 1
            if (done := outcomes.total()) % _SHOWN == 0:
                print(f"{done} of {count} check runs, {alarms} false alarms", flush=True)
            if result.outcome in (Outcome.FAIL, Outcome.UNKNOWN):
                alarms += 1
                print(
                    f"{result.outcome} {result.check} on {result.target}, seed {result.seed}: {result.verdict.reason}"
                )
                print(*result.verdict.findings[:2], result.traceback, sep="\n", flush=True)
    counted = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    print(f"{alarms} false alarms in {count} check runs: {counted}")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
