"""Judges one mutant: runs the tests that reach its line, in a process forked for it."""

from __future__ import annotations

import gc
import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import signal
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Judge", "Verdict"]

JUDGES = ("tests/registry", "tests/integration")
OURS = ("registry", "lab_utils", "tests", "tools")
FIRST = 25
"""Tests in the first round: a mutant that some quick test kills needs no more imports than theirs."""
BROKEN = 99
"""The exit code of a process in which not the mutant but the judging failed."""
SLACK, FACTOR = 15, 10
"""A test that takes longer than `SLACK` seconds and `FACTOR` times its own time hangs."""


class Verdict(NamedTuple):
    """The fate of a mutant: "killed" or "timeout" by a test, "survived", or "void" if it is not a mutant."""

    name: str
    outcome: str
    by: str
    change: str


class JudgingFailed(Exception):
    """The tests could not be run, or fail without any mutant."""


class Judge:
    """Knows which tests run which line, and forks a process for each mutant. `most`: how many tests judge one."""

    def __init__(self, root: Path, most: int | None = None) -> None:
        self._root = root
        self._most = most
        self._folder = root / "build" / "mutation"
        self._killers: Counter[str] = Counter()
        baseline = self._baseline()
        self._times: dict[str, float] = baseline["times"]
        self._tests: dict[str, dict[int, list[str]]] = _lines(self._folder / "coverage", root, set(self._times))
        reaching = {test for by_line in self._tests.values() for tests in by_line.values() for test in tests}
        # They run no line of the package and may yet read the results of its import: constants, classes, signatures.
        self._readers = sorted(set(self._times) - reaching)
        for module in baseline["third_parties"]:
            # Imported once, here, and had by every process that is forked.
            importlib.import_module(module)
        gc.collect()
        gc.freeze()

    def judge(self, path: Path, line: int, source: str) -> tuple[str, str]:
        """The outcome, and the test that decided it."""
        by_line = self._tests.get(path.as_posix(), {})
        own = f"/test_{path.stem}"
        tests = by_line.get(line, [])
        if not tests and by_line:
            # A line that no test runs is run at import, or not at all. Every test of the module may find it, and so may
            # the tests that only read, and those of a file with a like name.
            named = {test for test in self._times if own in test}
            tests = sorted(named.union(self._readers, *by_line.values()))
        elif not tests:
            # The module does all of its work at import: every test there may find a change.
            tests = [*self._times]
        tests = sorted(tests, key=lambda test: (-self._killers[test], own not in test, self._times[test]))[: self._most]
        for part in (tests[:FIRST], tests[FIRST:]):
            outcome, by = self._run(path, source, part) if part else ("survived", "")
            if by and outcome != "survived":
                self._check_killer(path, by)
            if outcome != "survived":
                self._killers[by] += 1
                return outcome, by
        return "survived", ""

    def _check_killer(self, path: Path, test: str) -> None:
        """Raise `JudgingFailed` if the test fails without any mutant too, when it is the first to run."""
        if self._killers[test] == 0:
            outcome, _ = self._run(path, (self._root / path).read_text(encoding="utf-8"), [test])
            if outcome != "survived":
                raise JudgingFailed(f"{test} fails as the first of a process; see {self._folder / 'last.log'}")

    def control(self, path: Path, source: str) -> None:
        """Raise `JudgingFailed` unless the module as it is survives, loaded as its mutants are."""
        tests = sorted({test for tests in self._tests.get(path.as_posix(), {}).values() for test in tests})
        tests = sorted(tests, key=lambda test: self._times[test])[:FIRST]
        if tests:
            outcome, by = self._run(path, source, tests)
            if outcome != "survived":
                raise JudgingFailed(f"{path} is {outcome} as it is, by {by}; see {self._folder / 'last.log'}")

    def _run(self, path: Path, source: str, tests: list[str]) -> tuple[str, str]:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            code = BROKEN
            try:
                self._in_child(path, source, tests, writing)
            except* Warning:
                # A resource that nobody closed or awaited is an error here, also when pytest meets it after the last
                # test.
                code = 1
            except* BaseException:
                (self._folder / "last.log").write_text(traceback.format_exc(), encoding="utf-8")
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read().decode().split("\n")
        _, status = os.waitpid(child, 0)
        started = [line.removeprefix("start ") for line in told if line.startswith("start ")]
        last = started[-1] if started else ""
        if os.WIFSIGNALED(status):
            return ("timeout" if os.WTERMSIG(status) == signal.SIGALRM else "killed"), last
        code = os.WEXITSTATUS(status)
        # 1: a test failed; 2: a test module could not be imported. Anything else is not a verdict on the mutant.
        if code not in (0, 1, 2):
            raise JudgingFailed(f"pytest ended with {code} for {path}; see {self._folder / 'last.log'}")
        return ("killed" if code else "survived"), last

    def _in_child(self, path: Path, source: str, tests: list[str], writing: int) -> None:
        import pytest

        os.setsid()
        os.chdir(self._root)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(self._folder / "last.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.path.insert(0, str(self._root))
        sys.meta_path.insert(0, _Mutated(self._root, path, source))
        signal.alarm(2 * SLACK)
        watch = _Watch(tests, self._times, writing)
        files = sorted({test.partition("::")[0] for test in tests})
        # Plugins are imported already, and pytest warns that it cannot rewrite them.
        options = [
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:cov",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
        ]
        os._exit(int(pytest.main([*options, *files], plugins=[watch])))

    def _baseline(self) -> dict[str, Any]:
        """Which tests there are, how long each takes and which lines it runs, measured once for each state of them."""
        files = [*(self._root / "registry").rglob("*.py"), *(self._root / "lab_utils").rglob("*.py")]
        for folder in JUDGES:
            files += (self._root / folder).rglob("*.py")
        state = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()
        kept = self._folder / "baseline.json"
        if kept.exists():
            baseline: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
            if baseline["state"] == state:
                return baseline
        self._folder.mkdir(parents=True, exist_ok=True)
        print("measuring which tests run which lines", flush=True)
        subprocess.run([sys.executable, "-m", "tools.judging", str(self._folder)], cwd=self._root, check=True)
        baseline = json.loads(kept.read_text(encoding="utf-8")) | {"state": state}
        kept.write_text(json.dumps(baseline), encoding="utf-8")
        return baseline


class _Mutated(importlib.machinery.SourceFileLoader):
    """Finds and loads one module from a text instead of its file."""

    def __init__(self, root: Path, path: Path, source: str) -> None:
        parts = path.with_suffix("").parts
        self._is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if self._is_package else parts)
        super().__init__(name, str(root / path))
        self._source = source

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, name: str) -> Any:
        return compile(self._source, self.path, "exec", dont_inherit=True)


class _Watch:
    """Keeps the requested tests, in their order, reports which begins, and ends the process if one hangs."""

    def __init__(self, tests: list[str], times: dict[str, float], writing: int) -> None:
        self._order = {test: place for place, test in enumerate(tests)}
        self._times = times
        self._writing = writing

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self._order), key=lambda item: self._order[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        os.write(self._writing, f"start {nodeid}\n".encode())
        signal.alarm(int(SLACK + FACTOR * self._times.get(nodeid, 0.0)))


class _Times:
    """The seconds of each test that passed."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.times[report.nodeid] += report.duration
        if report.outcome != "passed":
            self.failed.add(report.nodeid)


def _lines(data: Path, root: Path, tests: set[str]) -> dict[str, dict[int, list[str]]]:
    """For each module and line the tests that run it."""
    from coverage import CoverageData

    coverage = CoverageData(str(data))
    coverage.read()
    found: dict[str, dict[int, list[str]]] = {}
    for file in coverage.measured_files():
        lines = {
            line: sorted({context.partition("|")[0] for context in contexts} & tests)
            for line, contexts in coverage.contexts_by_lineno(file).items()
        }
        found[Path(file).relative_to(root).as_posix()] = {line: names for line, names in lines.items() if names}
    return found


def measure(folder: Path) -> None:
    """Run all judging tests once, under coverage; tests that do not pass judge nothing."""
    import pytest

    settings = folder / "coveragerc"
    settings.write_text(f"[run]\nsource = registry\ndata_file = {folder / 'coverage'}\n", encoding="utf-8")
    seen = _Times()
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--cov",
        f"--cov-config={settings}",
        "--cov-context=test",
        "--cov-report=",
    ]
    pytest.main([*options, *JUDGES], plugins=[seen])
    times = {test: round(seen.times[test], 4) for test in seen.times if test not in seen.failed}
    third = sorted(
        name
        for name, module in list(sys.modules.items())
        if "site-packages" in str(getattr(module, "__file__", "")) and name.partition(".")[0] not in OURS
    )
    importable = [name for name in third if not name.startswith("_") and "." not in name]
    result = {"times": times, "not passed": sorted(seen.failed), "third_parties": importable}
    (folder / "baseline.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
