"""Shared code of the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_utils.cli import running
from lab_utils.output import pages
from tests.lab_utils.cli.notebooks import Notebooks


@pytest.fixture
def notebooks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Notebooks:
    made = Notebooks()
    monkeypatch.setattr(running, "run_notebooks", made.run)
    # In this process, which has imported all that it takes; tests/lab_utils/batch has another one do it, as a run does.
    monkeypatch.setattr(running, "publish", pages.publish)
    monkeypatch.chdir(tmp_path)
    return made
