"""A grid of short runs on a Dask cluster of this machine: how well it keeps two workers busy.

    python -m benchmarks.grid_scale [--runs N] [--workers N] [--threads N] [--check NAME] [--json FILE]

It starts a scheduler and the workers, makes a grid of one check over seeds, without calibrations, and prints the wall
time over the CPU time of the runs divided by the number of workers. CPU seconds are those of the workers and of all
processes below them, wall seconds those of the whole command, with its start and its page. Exit 1 above the goal. Only
a quiet machine with as many cores as workers gives a figure.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOAL = 1.15
CHECK = "shared_state_contamination_detection"
DASK = (sys.executable, "-m", "dask")
LAB = (sys.executable, "-c", "import sys; from lab_utils.cli import main; sys.exit(main(sys.argv[1:]))")


@contextmanager
def running(*words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """While inside, a program runs, which afterwards is ended and waited for."""
    with log.open("wb") as stream:
        process = subprocess.Popen(words, cwd=log.parent, env=environment(), stdout=stream, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def measure(runs: int, workers: int, threads: int, check: str) -> tuple[float, float]:
    """Seconds of the wall clock, and CPU seconds of the workers with all below them."""
    with tempfile.TemporaryDirectory() as place:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        folder, address = Path(place), f"tcp://127.0.0.1:{port}"
        begin = ("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        join = ("worker", address, "--nthreads", str(threads), "--no-dashboard", "--no-nanny")
        with running(*DASK, *begin, log=folder / "scheduler"):
            with ExitStack() as joined:
                for number in range(workers):
                    log = folder / f"worker-{number}"
                    wait_for(joined.enter_context(running(*DASK, *join, log=log)), log, "Registered to")
                words = ("run", "--sweep", f"seed=1..{runs}", "--check", check, "--calibrate", "never", "--on", address)
                began = time.perf_counter()
                ended = subprocess.run([*LAB, *words, "--out", place], env=environment(), check=False)
                wall = time.perf_counter() - began
                client = resource.getrusage(resource.RUSAGE_CHILDREN)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if ended.returncode not in (0, 1):
            raise SystemExit(f"the grid ended with exit code {ended.returncode}")
    return wall, after.ru_utime + after.ru_stime - client.ru_utime - client.ru_stime


def wait_for(process: subprocess.Popen[bytes], log: Path, text: str) -> None:
    while text not in (said := log.read_text(encoding="utf-8")):
        if process.poll() is not None:
            raise SystemExit(f"a worker ended: {said}")
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="runs at once on each worker (default: %(default)s)")
    parser.add_argument("--check", default=CHECK)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wall, cpu = measure(options.runs, options.workers, options.threads, options.check)
    ratio = wall / (cpu / options.workers)
    print(
        f"{options.runs} runs on {options.workers} workers: {wall:.1f} s, {cpu:.1f} s of CPU "
        f"({cpu / options.runs:.2f} s a run), {ratio:.3f} x of CPU / {options.workers} (goal: {GOAL}); "
        f"load of the machine {os.getloadavg()[0]:.1f}"
    )
    if options.json:
        found = {"wall_s": wall, "cpu_s": cpu, "ratio": ratio, "load": os.getloadavg()[0]}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(ratio > GOAL)


if __name__ == "__main__":
    sys.exit(main())
