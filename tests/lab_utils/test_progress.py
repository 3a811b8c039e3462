"""Progress in a kernel: shown when a check has something to say, silent otherwise, as each message leaves a trace."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lab_utils.notebook import progress
from lab_utils.notebook.progress import Report, with_progress


class Kernel:
    """A notebook's front end: what was shown, and how often the one that shows looked."""

    kernel = object()

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.cleared = 0
        self.looked = 0
        self.moved = threading.Event()
        self.looked_often = threading.Event()

    def display(self, bar: Any, display_id: bool) -> Kernel:
        self.shown.append(bar.data)
        return self

    def update(self, bar: Any) -> None:
        self.shown.append(bar.data)
        self.moved.set()

    def clear(self, wait: bool) -> None:
        self.cleared += 1

    def event(self) -> threading.Event:
        kernel = self

        class Watched(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                kernel.looked += 1
                if kernel.looked >= 5:
                    kernel.looked_often.set()
                return super().wait(0.001)

        return Watched()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.delenv("REGISTRY_LAB_HEADLESS", raising=False)
    monkeypatch.setattr(progress, "get_ipython", lambda: made)
    monkeypatch.setattr(progress, "display", made.display)
    monkeypatch.setattr(progress, "clear_output", made.clear)
    monkeypatch.setattr(progress, "Event", made.event)
    return made


def test_what_the_check_says_is_shown_and_goes_when_it_is_done(kernel: Kernel) -> None:
    def work(report: Report) -> str:
        report("<racing>", 0.5)
        assert kernel.moved.wait()
        return "answer"

    assert with_progress("first", work) == "answer"
    begun, moved = kernel.shown
    assert "value=" not in begun
    assert 'value="0.500"' in moved
    assert "first, &lt;racing&gt;" in moved
    assert kernel.cleared == 1


def test_while_the_check_is_silent_nothing_is_sent(kernel: Kernel) -> None:
    with_progress("first", lambda report: kernel.looked_often.wait())
    assert kernel.looked >= 5
    assert len(kernel.shown) == 1


def test_an_error_of_the_work_is_the_cells_own(kernel: Kernel) -> None:
    with pytest.raises(ZeroDivisionError):
        with_progress("first", lambda report: 1 / 0)
    assert kernel.cleared == 1


def test_the_work_runs_beside_the_thread_that_shows(kernel: Kernel) -> None:
    assert with_progress("first", lambda report: threading.current_thread()) is not threading.current_thread()


def test_run_headless_nothing_is_sent_at_all(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_LAB_HEADLESS", "1")
    assert with_progress("first", lambda report: threading.current_thread()) is threading.current_thread()
    assert kernel.shown == []
