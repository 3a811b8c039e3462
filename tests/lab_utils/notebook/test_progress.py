"""Progress in a kernel: shown at most five times a second, gone when the work is done, silent in a headless run."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from lab_utils.notebook import progress
from lab_utils.notebook.progress import Live, is_watched, with_progress
from lab_utils.runner import Look


class Kernel:
    """A notebook's front end, and a clock that a test moves."""

    kernel = object()
    user_ns: Mapping[str, object] = {}

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
    def work(live: Live) -> str:
        live.report("too soon", 0.1)
        kernel.now = 1.0
        live.report("<racing>", 0.5)
        live.report("too soon", 0.6)
        return "answer"

    assert with_progress("first", work) == "answer"
    begun, moved = kernel.shown
    assert "value=" not in begun
    assert 'value="0.500"' in moved
    assert "first, &lt;racing&gt;" in moved
    assert kernel.cleared == 1


def test_an_error_of_the_work_is_the_cells_own(kernel: Kernel) -> None:
    with pytest.raises(ZeroDivisionError):
        with_progress("first", lambda live: 1 / 0)
    assert kernel.cleared == 1


def test_an_interruption_is_shown_in_a_line(kernel: Kernel) -> None:
    def work(live: Live) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        with_progress("calibrating first", work)
    # IPython asks for this in place of a traceback.
    shown = caught.value._render_traceback_()  # type: ignore[attr-defined]
    assert shown == ["Interrupted: calibrating first. Run the cell again to make it."]


def test_a_headless_run_sends_nothing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_LAB_HEADLESS", "1")
    kernel.now = 1.0
    with_progress("first", lambda live: live.report("step", 0.5))
    assert kernel.shown == []


def test_memory_and_events_are_shown_as_they_were_seen_last_and_the_line_stays_short() -> None:
    live = Live("2 of 7: first")
    assert "svg" not in live.html()
    for number in range(2_000):
        live.look(Look(number / 4, 50_000_000 + 1_000 * number, 3 * number))
    shown = live.html()
    assert "<strong>52 MB</strong>" in shown
    assert "+1.999 MB since it began" in shown
    assert "5,997" in shown
    assert "499.8 s" in shown
    assert 200 < shown.count(",") < 700
    assert live.html().count('points="0.0,') == 1


@pytest.mark.parametrize(
    ("environment", "names", "expected"),
    [
        ({"JPY_SESSION_NAME": "a.ipynb"}, {}, True),
        ({}, {"__vsc_ipynb_file__": "a.ipynb"}, True),
        ({}, {}, False),
        ({"JPY_SESSION_NAME": "a.ipynb", "REGISTRY_LAB_HEADLESS": "1"}, {}, False),
    ],
)
def test_a_kernel_of_papermill_is_not_watched(
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    names: dict[str, object],
    expected: bool,
) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    kernel.user_ns = names
    assert is_watched() is expected
