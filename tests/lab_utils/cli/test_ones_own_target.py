"""`new-target` and `check-target`: from nothing to a target that runs, and the faults of one that does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lab_utils.cli import main


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of its own, which no path of Python's names."""
    monkeypatch.chdir(tmp_path)


def test_the_skeleton_runs_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = f"pkg_{tmp_path.name}"
    assert main(["new-target", f"{package}/lab.py", "--name", "Mine"]) == 0
    spec = f"{package}.lab:Mine"
    assert f"registry-lab check-target {spec}" in capsys.readouterr().out
    assert "class Mine(BaseTarget)" in Path(package, "lab.py").read_text()
    assert main(["check-target", spec]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{spec} has: end, lookup, population\n")
    assert "no problem: " in out
    assert str(tmp_path) not in sys.path


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("lab.py").write_text("precious")
    assert main(["new-target", "lab.py"]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert Path("lab.py").read_text() == "precious"


@pytest.mark.parametrize("file", ["/tmp/lab.py", "my-app/lab.py", "../lab.py", "lab", "lab.txt"])
def test_a_file_that_cannot_be_imported_by_its_name_is_refused(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-target", file]) == 2
    assert "cannot be imported by its name" in capsys.readouterr().err


TARGET = """
import asyncio, os
from lab_utils.target import BaseTarget
from lab_utils.targets.skeleton import MyTarget
class T({base}):
    async def create(self, user, agent_type, **options):
        {create}
    async def run(self, handle, command):
        return await super().run(handle, command)
"""


@pytest.mark.parametrize(
    ("base", "create", "words"),
    [
        (
            "BaseTarget",
            "return object()",
            [
                ":T has: create and run, no capability beside them\n",
                "\ncreate()\n  it returned <object object",
                "return self.handle(user, agent_type, native)\n",
            ],
        ),
        ("BaseTarget", "os._exit(3)", ["it exited with code 3"]),
        (
            "MyTarget",
            "asyncio.get_running_loop().call_soon(int, 'no number'); return await super().create(user, agent_type)",
            ["\nunhandled-error\n", "invalid literal for int() with base 10: 'no number'"],
        ),
    ],
    ids=["no handle", "ends its process", "an error that nobody handles"],
)
def test_a_problem_is_printed_under_its_method_with_its_words(
    base: str, create: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"theirs_{tmp_path.name}"
    Path(f"{name}.py").write_text(TARGET.format(base=base, create=create))
    assert main(["check-target", f"{name}:T"]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{name}:T has: ")
    assert all(each in out for each in words), out
