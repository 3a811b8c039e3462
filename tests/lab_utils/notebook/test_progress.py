"""Progress in a kernel: shown at most five times a second, gone when the work is done, silent in a headless run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lab_utils.notebook import progress
from lab_utils.notebook.progress import Report, with_progress


class Kernel:
    """A notebook's front end, and a clock that a test moves."""

    kernel = object()

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.cleared = 0
        self.now = 0.0

    def display(self, bar: Any, display_id: bool) -> Kernel:
        self.shown.append(bar.data)
        return self

    def update(self, bar: Any) -> None:
        self.shown.append(bar.data)

    def clear(self, wait: bool) -> None:
        self.cleared += 1


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.delenv("REGISTRY_LAB_HEADLESS", raising=False)
    monkeypatch.setattr(progress, "get_ipython", lambda: made)
    monkeypatch.setattr(progress, "display", made.display)
    monkeypatch.setattr(progress, "clear_output", made.clear)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_a_step_is_shown_and_goes_when_the_work_is_done(kernel: Kernel) -> None:
    def work(report: Report) -> str:
        report("too soon", 0.1)
        kernel.now = 1.0
        report("<racing>", 0.5)
        report("too soon", 0.6)
        return "answer"

    assert with_progress("first", work) == "answer"
    begun, moved = kernel.shown
    assert "value=" not in begun
    assert 'value="0.500"' in moved
    assert "first, &lt;racing&gt;" in moved
    assert kernel.cleared == 1


def test_an_error_of_the_work_is_the_cells_own(kernel: Kernel) -> None:
    with pytest.raises(ZeroDivisionError):
        with_progress("first", lambda report: 1 / 0)
    assert kernel.cleared == 1


def test_a_headless_run_sends_nothing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_LAB_HEADLESS", "1")
    kernel.now = 1.0
    with_progress("first", lambda report: report("step", 0.5))
    assert kernel.shown == []
