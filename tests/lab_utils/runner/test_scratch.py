"""Folders for a time are removed by the next process, where their owner was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lab_utils.runner import run_check
from lab_utils.runner import scratch as module
from lab_utils.runner.scratch import make_scratch, remove_scratch, scratch
from lab_utils.targets.reference import ReferenceTarget

if sys.platform != "win32":
    import fcntl

MAKES = "import sys; from lab_utils.runner.scratch import make_scratch; print(make_scratch('x'), flush=True); "


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "_swept_by", [])
    monkeypatch.setattr(module, "_held", {})
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_what_a_killed_process_left_goes_and_what_is_in_use_stays(temporary: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", f"{MAKES}import os; os.kill(os.getpid(), 9)"],
        capture_output=True,
        text=True,
        check=False,
    )
    left = Path(killed.stdout.strip())
    (left / "below").mkdir()
    (left / "below" / "file").touch()
    user = subprocess.Popen(
        [sys.executable, "-c", f"{MAKES}sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None
    used = Path(user.stdout.readline().strip())
    others = [temporary / "registry-lab-of-somebody", temporary / "something"]
    for other in others:
        other.mkdir()
    (temporary / "registry-lab-link").symlink_to(others[1], target_is_directory=True)
    try:
        assert not left.exists()
        with scratch("y") as mine, scratch("z") as second:
            assert sorted(path for path in temporary.iterdir() if path.is_dir() and not path.is_symlink()) == sorted(
                [mine, second, used, *others]
            )
    finally:
        user.communicate()
    assert used.exists()
    assert not mine.exists()
    # Once it has ended in whatever way.
    module._swept_by.clear()
    remove_scratch(make_scratch("y"))
    assert not used.exists()
    assert all(other.exists() for other in others)


def test_a_fork_does_not_hold_what_its_parent_held(temporary: Path) -> None:
    folder = make_scratch("x")
    assert folder.stat().st_mode & 0o077 == 0
    assert os.get_inheritable(module._held[folder]) is False if folder in module._held else True
    remove_scratch(folder)
    assert not folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_a_folder_that_is_being_made_is_not_taken_for_a_left_one(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process looks for left folders at each step of the making of this one."""
    sweep = f"from pathlib import Path; from lab_utils.runner.scratch import _sweep; _sweep(Path({str(temporary)!r}))"

    def swept_before(step: object) -> object:
        def call(*values: object, **named: object) -> object:
            subprocess.run([sys.executable, "-c", sweep], check=True)
            return step(*values, **named)  # type: ignore[operator]

        return call

    for of, name in ((os, "open"), (fcntl, "lockf"), (os, "replace")):
        monkeypatch.setattr(of, name, swept_before(getattr(of, name)))
    folder = make_scratch("x")
    monkeypatch.undo()
    assert folder.exists()
    remove_scratch(folder)


def test_a_folder_that_a_target_leaves_goes_with_the_process_of_its_check(tmp_path: Path) -> None:
    noted = tmp_path / "noted"

    class LeavesAFolder(ReferenceTarget):
        async def start(self, *given: Any) -> None:
            noted.write_text(tempfile.mkdtemp())
            await super().start(*given)

    run_check("strict_context_enforcement", target=LeavesAFolder)
    assert not Path(noted.read_text()).exists()
