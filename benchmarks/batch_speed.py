"""The lab's overhead beside the work: six near-empty notebooks against papermill's own command, and a whole run.

    python -m benchmarks.batch_speed [notebooks|report|all] [--rounds N] [--against CHECKOUT] [--json FILE] [-- WORDS]

`notebooks`: six notebooks of three cells in one batch, pages included, in turn with as many `papermill` commands one
after another, which make no pages. `report`: `registry-lab run` into a new folder, and again with nothing changed, also
beside the whole run of another checkout; the words after `--` are the run's. CPU seconds are those of all processes.
Exit 1 if the notebooks take more than their budget.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
COUNT = 6
BUDGET = 0.17
SECONDS_BETWEEN = 0.05
BATCH = """
import sys
from pathlib import Path
from lab_utils.batch import Job, Status, run_notebooks
from lab_utils.output.store import Store

jobs = [Job(path.stem, path, {"users": 3}) for path in sorted(Path(sys.argv[1]).glob("*.ipynb"))]
run = Store(Path(sys.argv[2])).begin({"checks": [], "categories": []})
ended = run_notebooks(jobs, run, at_once=6)
assert {one.status for one in ended.values()} == {Status.OK}, ended
assert len(list(run.folder.glob("notebooks/*.html"))) == len(jobs)
"""


@dataclass
class Spent:
    """Seconds of the wall clock and of processors, and the latter by the purpose of the processes."""

    wall: float
    cpu: float
    parts: dict[str, float] = field(default_factory=dict)


def spent(work: Callable[[], object]) -> Spent:
    """The seconds of the processes that `work` starts and waits for."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(time.perf_counter() - began, cpu)


def command(*words: str | Path, **environment: str) -> None:
    """Run a command of this Python's environment, its output unseen; fail if it does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [str(word) for word in words],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def notebooks(folder: Path) -> list[Path]:
    """Six notebooks with parameters and three more cells."""
    sources = ("users = 2  # users", "doubled = 2 * users", "print(doubled)", "doubled")
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for n, source in enumerate(sources)
    ]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = []
    for number in range(COUNT):
        title = {"cell_type": "markdown", "id": "t", "metadata": {}, "source": f"# Notebook {number}"}
        text = json.dumps({"cells": [title, *cells], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
        made.append(folder / f"{number}.ipynb")
        made[-1].write_text(text, encoding="utf-8")
    return made


def by_papermill(made: Sequence[Path], out: Path) -> None:
    """The command that a reader of papermill's documentation would use, once for each."""
    for notebook in made:
        command("papermill", notebook, out / notebook.name, "-p", "users", "3")


def measure_notebooks(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, "in"), Path(place, "out")
        folder.mkdir()
        out.mkdir()
        made = notebooks(folder)
        taken: list[tuple[Spent, Spent]] = []
        for number in range(rounds):
            papermill = spent(lambda: by_papermill(made, out))
            batch = spent(lambda: command(sys.executable, "-c", BATCH, folder, out / "runs"))
            taken.append((papermill, batch))
            print(f"round {number + 1}: papermill {show(papermill)}; batch {show(batch)}", flush=True)
    wall = statistics.median(batch.wall / papermill.wall for papermill, batch in taken)
    cpu = statistics.median(batch.cpu / papermill.cpu for papermill, batch in taken)
    print(
        f"{COUNT} notebooks and their pages in one batch take {wall:.3f} x of papermill's time, {cpu:.3f} x of its CPU"
    )
    return {"wall_ratio": wall, "cpu_ratio": cpu, "rounds": [[vars(one) for one in pair] for pair in taken]}


SERVER = "server, with the imports of all that is forked"
FORKED = "kernels, pages, report"


class Sampler:
    """Looks again and again at the processes below one, and remembers how much CPU each has had, and its place."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], tuple[str, float]] = {}
        self._importing: list[psutil.Process] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def parts(self) -> dict[str, float]:
        parts: dict[str, float] = {}
        for what, cpu in self._seen.values():
            parts[what] = parts.get(what, 0.0) + cpu
        return parts

    def _look(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN):
            for main in _below(psutil.Process()):
                self._note("main process", main)
                for server in _below(main):
                    forks = sorted(_below(server), key=lambda fork: fork.pid)
                    # The first two that it forks import for kernels and for pages; the others are checks.
                    self._importing = self._importing or (forks[:2] if len(forks) > 1 else [])
                    self._note(SERVER, server)
                    for fork in forks:
                        is_server = fork in self._importing
                        self._note(SERVER if is_server else "checks", fork)
                        self._note(FORKED if is_server else "checks", *_below(fork))

    def _note(self, what: str, *processes: psutil.Process) -> None:
        for process in processes:
            with suppress(psutil.Error):
                times = process.cpu_times()
                self._seen[process.pid, process.create_time()] = what, times.user + times.system


def _below(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return process.children()
    return []


def measure_report(against: Path | None, more: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        if against is not None:
            out = Path(place, "against")
            spent_there = spent(lambda: command("registry-lab", "run", "--out", out, *more, PYTHONPATH=str(against)))
            print(f"{against}: {show(spent_there)}", flush=True)
            found["against"] = vars(spent_there)
        for which in ("new folder", "nothing changed"):
            with Sampler() as sampler:
                run = spent(lambda: command("registry-lab", "run", "--out", Path(place, "outputs"), *more))
            run.parts = sampler.parts()
            found[which] = vars(run)
            ratio = f", {run.wall / spent_there.wall:.2f} x of that" if against is not None else ""
            print(f"{which}: {show(run)}{ratio}")
            for what, cpu in sorted(run.parts.items(), key=lambda part: -part[1]):
                print(f"    {cpu:6.1f} s of CPU {what}", flush=True)
    return found


def show(one: Spent) -> str:
    return f"{one.wall:.1f} s, {one.cpu:.1f} s of CPU"


def main() -> int:
    words, more = sys.argv[1:], []
    if "--" in words:
        words, more = words[: words.index("--")], words[words.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["notebooks", "report", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="a checkout whose whole run is measured first")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(words)
    found: dict[str, Any] = {}
    if options.what != "report":
        found["notebooks"] = measure_notebooks(options.rounds)
    if options.what != "notebooks":
        found["report"] = measure_report(options.against, more)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int("notebooks" in found and found["notebooks"]["wall_ratio"] > BUDGET)


if __name__ == "__main__":
    sys.exit(main())
