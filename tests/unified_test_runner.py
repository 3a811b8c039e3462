"""Runs a category of the tests with pytest, and fails where pytest collected nothing.

    python tests/unified_test_runner.py --category integration --include-path tests/integration/agents
    python tests/unified_test_runner.py --golden-path-validation
    python tests/unified_test_runner.py --category unit -- -k session -x

Arguments after `--` go to pytest. The exit code is pytest's (5: nothing was collected), 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CATEGORIES = {
    "all": ("tests",),
    "integration": ("tests/integration",),
    "meta": ("tests/meta",),
    "unit": ("tests/registry", "tests/lab_utils"),
}

WRONG_USAGE = 2
NOTHING_COLLECTED = 5


def command(arguments: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Pytest's arguments; leaves by the parser's exit code 2 for an unknown or missing one."""
    ours, theirs = list(arguments), []
    if "--" in ours:
        cut = ours.index("--")
        ours, theirs = ours[:cut], ours[cut + 1 :]
    parser.add_argument("--category", default="all", help=f"one of {', '.join(CATEGORIES)} (default: all)")
    parser.add_argument(
        "--include-path", action="append", default=[], metavar="PATH", help="only tests below PATH; may be repeated"
    )
    parser.add_argument("--golden-path-validation", action="store_true", help="only the tests marked golden_path")
    options = parser.parse_args(ours)

    if options.category not in CATEGORIES:
        near = difflib.get_close_matches(options.category, CATEGORIES, n=1, cutoff=0.0)[0]
        parser.error(f"unknown category {options.category!r}; did you mean {near!r}? Known: {', '.join(CATEGORIES)}")
    folders = [ROOT / folder for folder in CATEGORIES[options.category]]
    paths = [(ROOT / path).resolve() for path in options.include_path] or folders
    for path in paths:
        if not path.exists():
            parser.error(f"there is no {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
        if not any(path.is_relative_to(folder) for folder in folders):
            held = ", ".join(CATEGORIES[options.category])
            parser.error(f"{path} is outside the category {options.category}, which is {held}")
    golden = ["-m", "golden_path"] if options.golden_path_validation else []
    return [*(str(path.relative_to(ROOT)) for path in paths), *golden, *theirs]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a category of the tests.", epilog="After --: pytest's arguments.")
    chosen = command(sys.argv[1:] if arguments is None else arguments, parser)
    python = Path(sys.executable)
    if importlib.util.find_spec("pytest") is None:
        python = ROOT / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        if not python.exists():
            parser.error("pytest is not installed here and there is no .venv; run `make test` once, it makes one")
    code = subprocess.run([str(python), "-m", "pytest", *chosen], cwd=ROOT, check=False).returncode
    if code == NOTHING_COLLECTED:
        print("no test was collected, and so nothing was shown: this is a failure", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
