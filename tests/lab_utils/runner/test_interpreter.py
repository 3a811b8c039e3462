"""A target is run by the interpreter of another environment, with the lab's own code and few packages."""

from __future__ import annotations

import stat
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from lab_utils.checks import CONTRACT
from lab_utils.cli import main
from lab_utils.runner import capabilities_of, run_check
from lab_utils.runner.forkserver import is_available
from lab_utils.runner.interpreter import PYTHON_VARIABLE, interpreter
from lab_utils.runner.server import OTHER_SERVER_VARIABLE, SERVER_VARIABLE, _begun, server
from lab_utils.target import Capability
from lab_utils.targets.skeleton import MyTarget
from lab_utils.values.profiles import UsageError

_TARGET = """
import sys
from pathlib import Path
from lab_utils.targets.skeleton import MyTarget
import only_there

class T(MyTarget):
    async def start(self, recipes, rows, close_timeout):
        lab = Path(sys.modules["lab_utils"].__file__).parents[1]
        raise RuntimeError(f"prefix {Path(sys.prefix).name}, lab {lab.name}")
"""


@pytest.fixture
def other(tmp_path: Path) -> str:
    """An environment with the packages that the lab needs there, and a package that is nowhere else."""
    home = tmp_path / "other"
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "theirs.pth").write_text(sysconfig.get_path("purelib"))
    (site / "only_there.py").write_text("")
    return str(home / "bin" / "python")


@pytest.mark.skipif(sys.platform == "win32", reason="the test makes an environment as POSIX has it")
def test_a_target_runs_where_its_packages_are(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"there_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(_TARGET)
    monkeypatch.chdir(tmp_path)
    assert main(["check-target", f"{name}:T"]) == 2
    assert "No module named 'only_there'" in capsys.readouterr().err
    assert main(["check-target", f"{name}:T", "--python", other]) == 1
    out = capsys.readouterr().out
    assert "prefix other, lab registry-lab-code-" in out
    monkeypatch.setenv(PYTHON_VARIABLE, other)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Capability.END in capabilities_of(f"{name}:T")
    result = run_check(CONTRACT.name, target=f"{name}:T")
    version = ".".join(map(str, sys.version_info[:3]))
    assert f"The target ran in another interpreter than the lab: Python {version}." in result.notes
    # Calibrations, and our own registry, stay where the lab is.
    assert not run_check(CONTRACT.name, target="reference").notes
    with pytest.raises(UsageError, match="name it by its import path"):
        run_check(CONTRACT.name, target=MyTarget)


def test_the_lab_comes_from_here_and_nothing_else_of_this_environment(other: str) -> None:
    found = interpreter(other)
    assert sorted(entry.name for entry in Path(found.path[0]).iterdir() if entry.is_symlink()) == [
        "lab_utils",
        "registry",
    ]
    assert sysconfig.get_path("stdlib") in found.path


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nexit 3\n", "is not a Python that answers: CalledProcessError"),
        ("#!/bin/sh\necho hello\n", "is not a Python that answers: JSONDecodeError"),
        (
            '#!/bin/sh\necho \'{"version": [3, 9, 1], "path": [], "missing": []}\'\n',
            "is Python 3.9.1; the lab needs 3.11 or newer",
        ),
        (
            '#!/bin/sh\necho \'{"version": [3, 12, 1], "path": [], "missing": ["msgspec", "psutil"]}\'\n',
            "lacks msgspec, psutil: {python} -m pip install msgspec psutil",
        ),
    ],
    ids=["fails", "is none", "is too old", "lacks packages"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="no shell")
def test_what_cannot_run_the_lab_is_told_with_the_remedy(
    script: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text(script)
    python.chmod(stat.S_IRWXU)
    assert main(["check", CONTRACT.planted[0], "--python", str(python)]) == 2
    assert f"--python {python} {words.format(python=python)}" in capsys.readouterr().err


def test_what_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "checks", "--python", "/nowhere/python"]) == 2
    assert "no such program" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="the test makes an environment as POSIX has it")
def test_a_path_is_seen_from_the_working_directory(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(other).parent.parent)
    assert interpreter("bin/python").executable == other


_COUNTED = """
from pathlib import Path
from lab_utils.targets.reference import ReferenceTarget as T
with open({file!r}, "a") as file:
    file.write("imported\\n")
"""


@pytest.mark.skipif(not is_available(), reason="without a fork server each process imports for itself")
def test_a_batch_imports_a_target_once_also_in_another_environment(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports = tmp_path / "imports.txt"
    name = f"counted_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(_COUNTED.format(file=str(imports)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(PYTHON_VARIABLE, other)
    monkeypatch.setenv(SERVER_VARIABLE, server().address)
    shared = server(other)
    monkeypatch.setenv(OTHER_SERVER_VARIABLE, f"{shared.address}:{other}")
    assert [run_check(CONTRACT.name, target=f"{name}:T").outcome for _ in range(2)] == ["PASS", "PASS"]
    assert imports.read_text().splitlines() == ["imported"]
    # A process below this one has the same server, and one for yet another interpreter none of it.
    assert _begun(other).address == shared.address
