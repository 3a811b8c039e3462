"""Time and memory of keeping and reporting a million operations: `python -m benchmarks.results_scale`.

As in a run, two processes: a kernel saves its results; the batch reads them, writes frames, page, summary and JUnit,
and reads the run again. Seconds are the processor's, those of the wall in brackets. Memory is the peak of each process
(`VmHWM`, so Linux only) with all that it holds: the interpreter, pandas, and in the kernel the operations themselves.
`--together` does all in one process that keeps the operations to the end. Exit code 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab_utils.output.store import CategoryResults, OpenRun, Run, Store, read_run, save_category
from lab_utils.values.history import Op, OpType
from lab_utils.values.profiles import CATEGORIES, parameters_for
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Verdict

MOST_SECONDS = 10.0
MOST_BYTES = 800e6
CATEGORY = "user_isolation"
CHECKS = 4
USERS = [f"user-{number:09d}" for number in range(1_000)]
CLIENTS = [f"client of {user}" for user in USERS]


def operations(count: int) -> tuple[Op, ...]:
    """Operations of a thousand users. Each has a value of its own, as updates and reads have."""
    actions = ("create", "get", "run:add", "run:read")
    return tuple(
        Op(
            *(index, CLIENTS[index % 1_000], USERS[index % 1_000], actions[index % 4], "helper", "main"),
            *(OpType.OK, 2 * index, 2 * index + 1, index / 1e4, index / 1e4 + 0.001, f"instance-{index}"),
        )
        for index in range(count)
    )


def results(count: int) -> tuple[CheckResult, ...]:
    """As many operations, of several checks that passed."""
    return tuple(
        CheckResult(
            *(f"check_{number}", CATEGORY, "a claim", "data", "agent_registry", "stress", 7),
            *(parameters_for(CATEGORY, "stress"), Verdict.passed("pairs compared"), 1.0, "2026-01-02T03:04:05+00:00"),
            operations=operations(count // CHECKS),
        )
        for number in range(CHECKS)
    )


def about() -> dict[str, object]:
    """The requests of the report of a run."""
    known = CATEGORIES[CATEGORY]
    rows = [
        {"check": f"check_{number}", "category": CATEGORY, "claim": "a claim", "looks_like": "", "protects": "data"}
        for number in range(CHECKS)
    ]
    machine = {"system": "", "release": "", "architecture": "", "processor": "", "cpus": 0, "memory_bytes": 0}
    return {
        "command": "",
        "target": "agent_registry",
        "profile": "stress",
        "seed": 7,
        "categories": [CATEGORY],
        "parameters": {CATEGORY: parameters_for(CATEGORY, "stress")},
        "catalog": [{"name": CATEGORY, "question": known.question, "notebook": known.notebook}],
        "checks": rows,
        "files": {CATEGORY: known.notebook},
        "kernel_mode": "spawned",
        "provenance": {"git": None, "python": "", "implementation": "", "packages": {}, "machine": machine},
    }


def peak() -> int:
    """The most bytes that were ever resident in this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@contextmanager
def part(name: str, *, counts: bool = True) -> Iterator[None]:
    """Time a part and print it; one that `counts` is held against the limit."""
    began, worked = time.perf_counter(), time.process_time()
    yield
    seconds = time.process_time() - worked
    wall = time.perf_counter() - began
    print(f"{name:<48}{seconds:>8.2f} s ({wall:.2f} s){peak() / 1e6:>8,.0f} MB at most so far", flush=True)
    if counts:
        SPENT.append(seconds)


SPENT: list[float] = []


def save(outputs: Path, count: int) -> tuple[CheckResult, ...]:
    """The work of a kernel."""
    with part("make the operations", counts=False):
        made = results(count)
    run = Store(outputs).begin(about())
    with part("save them to results/*.json"):
        save_category(run.folder, CategoryResults(CATEGORY, True, made, ()))
    return made


def report(outputs: Path, count: int) -> None:
    """The work of the batch."""
    (folder,) = outputs.glob("*.partial")
    with part("import what reports", counts=False):
        from lab_utils.output.pages.run import publish
    run = OpenRun(Store(outputs), folder.name.removesuffix(".partial"), about())
    with part("read, write frames, page, summary, JUnit"):
        publish(run, "passed")
    with part("read the run back"):
        back: Run = read_run(folder)
    assert sum(len(result.operations) for result in back.results) == count // CHECKS * CHECKS


def apart(stage: str, outputs: Path, count: int) -> tuple[float, float]:
    """One stage in a process of its own: its seconds and its peak."""
    command = [sys.executable, "-m", "benchmarks.results_scale", "--stage", stage, str(outputs), "--count", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    print("\n".join(lines))
    seconds, most = last.split()
    return float(seconds), float(most)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="operations")
    parser.add_argument("--together", action="store_true", help="all in one process")
    parser.add_argument("--stage", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    stages: dict[str, Callable[[Path, int], object]] = {"save": save, "report": report}
    if chosen.stage:
        stages[chosen.stage[0]](Path(chosen.stage[1]), chosen.count)
        print(sum(SPENT), peak())
        return 0
    print(f"Python {sys.version.split()[0]}, {chosen.count:,} operations")
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        if chosen.together:
            kept = save(outputs, chosen.count)
            report(outputs, chosen.count)
            seconds, most = sum(SPENT), float(peak())
            del kept
        else:
            both = [apart(stage, outputs, chosen.count) for stage in stages]
            seconds, most = sum(spent for spent, _ in both), max(each for _, each in both)
        for path in sorted(outputs.rglob("*")):
            if path.is_file() and path.stat().st_size > 1e6:
                print(f"{path.relative_to(outputs)}: {path.stat().st_size / 1e6:,.0f} MB")
    print(f"{seconds:.1f} s (limit {MOST_SECONDS:g}), {most / 1e6:,.0f} MB (limit {MOST_BYTES / 1e6:g})")
    return 0 if seconds <= MOST_SECONDS and most <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
