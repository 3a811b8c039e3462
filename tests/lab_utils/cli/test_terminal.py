"""Text for a terminal is escaped and cut, and a terminal that goes away changes nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from lab_utils.batch import Ended, Status
from lab_utils.cli import main
from lab_utils.output.store import summaries
from lab_utils.values.verdict import Finding
from tests.lab_utils.cli.notebooks import NAMES, Notebooks
from tests.lab_utils.made import CATEGORY, HOSTILE, failed, result

ROOT = Path(__file__).resolve().parents[3]


def unread() -> TextIO:
    """A pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


Standard = Callable[[TextIO | None], None]


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standard]:
    """Let a stream be the standard output; it is closed afterwards."""
    streams: list[TextIO] = []

    def use(stream: TextIO | None) -> None:
        monkeypatch.setattr(sys, "stdout", stream)
        streams.extend([stream] if stream else [])

    yield use
    for stream in streams:
        # Raises, and so fails the test, if something is left that cannot be written.
        stream.close()


@pytest.mark.parametrize("stream", [unread, lambda: None], ids=["its reader has gone", "it is closed"])
def test_a_run_whose_output_nobody_reads_goes_on_and_its_exit_code_tells_the_result(
    notebooks: Notebooks,
    output: Standard,
    tmp_path: Path,
    stream: Callable[[], TextIO | None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    output(stream())
    assert main(["run", CATEGORY]) == 0
    notebooks.results[0] = result(NAMES[0], failed())
    assert main(["run", CATEGORY]) == 1
    assert sorted(run.state for run in summaries(tmp_path / "outputs")) == ["findings", "passed"]
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_an_output_on_a_full_disk_is_said_once_and_stops_nothing(
    notebooks: Notebooks, output: Standard, capsys: pytest.CaptureFixture[str]
) -> None:
    output(Path("/dev/full").open("w"))  # noqa: SIM115  # The fixture closes it.
    assert main(["run", CATEGORY]) == 0
    said = capsys.readouterr().err
    assert said == "registry-lab: output cannot be written: No space left on device; the rest of it is lost\n"


def test_odd_text_is_escaped_and_cut_where_only_ascii_is_known_and_the_terminal_is_narrow(
    notebooks: Notebooks,
    output: Standard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    odd = HOSTILE + "x" * 100_000
    notebooks.results[0] = result(NAMES[0], failed(Finding(odd, odd, (odd,))))
    notebooks.ended = Ended(Status.FAILED, 1.0, odd)
    output((tmp_path / "said").open("w", encoding="ascii"))
    assert main(["run", CATEGORY]) == 1
    assert capsys.readouterr().err == ""
    said = (tmp_path / "said").read_bytes().decode("ascii")
    assert said.replace("\n", "").isprintable()
    assert "\\x1b[31m" in said
    assert "\\ud800" in said
    assert re.search(r"^user_isolation +failed +4/5 +5/5 +1\.0$", said, re.MULTILINE)
    assert max(map(len, said.splitlines())) < 1_000
    assert "characters ..." in said


@pytest.mark.parametrize("before", ["", "exec >&- 2>&- <&-; "], ids=["its reader has gone", "it is closed"])
def test_nothing_is_said_of_it_when_the_process_ends(before: str) -> None:
    with unread() as pipe:
        code = "import sys; from lab_utils.cli import main; sys.exit(main(['list', 'parameters']))"
        ran = subprocess.run(
            ["sh", "-c", f'{before}exec "$0" -c "$1"', sys.executable, code],
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
            cwd=ROOT,
        )
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_closed_output_is_an_open_one_also_in_processes_that_are_started() -> None:
    child = "import os, sys; sys.exit(sum(os.fstat(number) is None for number in range(3)))"
    code = (
        "import subprocess, sys\nfrom lab_utils.cli.terminal import steady\n"
        "with steady():\n    ended = subprocess.call([sys.executable, '-c', sys.argv[1]])\nsys.exit(ended)"
    )
    closed = 'exec >&- 2>&- <&-; exec "$0" -c "$1" "$2"'
    assert subprocess.run(["sh", "-c", closed, sys.executable, code, child], check=False, cwd=ROOT).returncode == 0


def test_little_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom lab_utils.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'pandas', 'rich', 'IPython', 'papermill', 'uvicorn', 'lab_utils.checks'}"
        " & set(sys.modules)))"
    )

    def loaded(*words: str) -> str:
        ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=ROOT)
        return ran.stdout.splitlines()[-1]

    assert loaded("--help") == loaded("check", "--help") == loaded("list", "parameters") == "[]"
    assert loaded("list", "checks") == "['lab_utils.checks']"
    assert loaded("check", "per_user_agent_registry_isolation_validation") == "['lab_utils.checks']"
