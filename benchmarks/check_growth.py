"""Seconds and memory of every check at more and more users: `python -m benchmarks.check_growth`.

Each check runs in a process of its own, with the default profile and its own number of users. Seconds are those of the
result, and of the processor in brackets. Memory is the peak of resident memory during the check (`VmHWM`, so Linux
only), less the resident memory when the lab had been imported. The exponents of processor time and memory are the
slopes between the two largest numbers of users, all in logarithms: 1 is a cost that grows with the users and no faster.
Exit code 1 if a check does not PASS, or at the largest number takes more than 15 s or 300 MB.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab_utils.checks import CHECKS
from lab_utils.runner import run_check
from lab_utils.values.verdict import Outcome

MOST_SECONDS = 15.0
MOST_BYTES = 300e6


@dataclass(frozen=True, slots=True)
class Cost:
    """The costs of one check at one number of users. `outcome` is a verdict's, or describes how the process ended."""

    outcome: str
    seconds: float
    worked: float
    bytes: float


def resident(which: str) -> int:
    """Bytes of this process: `VmRSS` resident now, `VmHWM` at most since its peak was last cleared."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{which}:"))


def run_here(check: str, users: int, target: str) -> Cost:
    """Run a check in this process."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, worked = resident("VmRSS"), time.process_time()
    result = run_check(check, target=target, parameters={"users": users}, in_process=True)
    if result.outcome is not Outcome.PASS:
        print(result.verdict.reason, result.traceback, file=sys.stderr)
    return Cost(result.outcome.value, result.duration_s, time.process_time() - worked, resident("VmHWM") - before)


def run_apart(check: str, users: int, target: str, limit: float) -> Cost:
    """Run a check in a process of its own, for `limit` seconds at most."""
    command = [sys.executable, "-m", "benchmarks.check_growth", "--here", check, str(users), "--target", target]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return Cost("TIMEOUT", limit, math.nan, math.nan)
    return Cost(*json.loads(done.stdout)) if done.returncode == 0 else Cost(f"EXIT {done.returncode}", *[math.nan] * 3)


def exponent(users: Sequence[int], costs: Sequence[float]) -> float:
    """The power of the number of users by which a cost grows, between the last two."""
    if len(costs) < 2 or not costs[-1] > 0 < costs[-2]:
        return math.nan
    return math.log(costs[-1] / costs[-2]) / math.log(users[-1] / users[-2])


def row(check: str, users: Sequence[int], costs: Sequence[Cost]) -> str:
    """One line of the table."""
    cells = [f"{cost.seconds:>8.2f} ({cost.worked:.2f}) s {cost.bytes / 1e6:>4.0f} MB".rjust(29) for cost in costs]
    grows = [exponent(users, [cost.worked for cost in costs]), exponent(users, [cost.bytes for cost in costs])]
    return f"{check:<56}{''.join(cells)}{grows[0]:>8.2f}{grows[1]:>8.2f}  {is_met(costs[-1])}"


def is_met(cost: Cost) -> str:
    """ "ok", or the fault."""
    if cost.outcome != Outcome.PASS:
        return cost.outcome
    return "ok" if cost.seconds <= MOST_SECONDS and cost.bytes <= MOST_BYTES else "MISSED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="check", help="parts of checks' names; all checks if none")
    parser.add_argument("--users", type=int, nargs="+", default=[8, 80, 800])
    parser.add_argument("--target", default="agent_registry")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a check is stopped")
    parser.add_argument("--here", nargs=2, metavar=("CHECK", "USERS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.here:
        cost = run_here(chosen.here[0], int(chosen.here[1]), chosen.target)
        print(json.dumps([cost.outcome, cost.seconds, cost.worked, cost.bytes]))
        return 0
    print(f"Python {sys.version.split()[0]}, {chosen.target}; limits {MOST_SECONDS:g} s and {MOST_BYTES / 1e6:g} MB")
    print(f"{'users':<56}{''.join(f'{users:>29,}' for users in chosen.users)}  time^  memory^")
    verdicts = []
    for check in CHECKS:
        if not chosen.checks or any(part in check for part in chosen.checks):
            costs = [run_apart(check, users, chosen.target, chosen.limit) for users in chosen.users]
            print(row(check, chosen.users, costs), flush=True)
            verdicts.append(is_met(costs[-1]))
    return 0 if all(verdict == "ok" for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
