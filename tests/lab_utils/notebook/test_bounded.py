"""A cell that prints without end fills no memory."""

from __future__ import annotations

import io
import sys

import pytest

from lab_utils.notebook import bounded


class Shell:
    """Runs the registered callbacks as a kernel does before a cell."""

    def __init__(self) -> None:
        self.events = self
        self.kept: list[str] = []

    def register(self, event: str, call: object) -> None:
        assert event == "pre_run_cell"
        assert callable(call)
        self.begin = call

    def run_cell(self, *texts: str) -> None:
        """As IPython does: for the time of a cell another `write` keeps the text."""
        write = sys.stdout.write

        def keep(text: str) -> int:
            self.kept.append(text)
            return write(text)

        sys.stdout.write = keep  # type: ignore[method-assign]
        self.begin()
        for text in texts:
            print(text)
        sys.stdout.write = write  # type: ignore[method-assign]


def test_what_is_too_much_is_dropped_and_said_and_the_next_cell_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    shell, out, err = Shell(), io.StringIO(), io.StringIO()
    monkeypatch.setattr(bounded, "get_ipython", lambda: shell)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    bounded.bound_output(10)
    shell.run_cell(*1_000 * ["four"])
    print("else", file=sys.stderr)
    said = "\n... output of this cell beyond 10 characters is dropped ...\n"
    assert out.getvalue() == f"four\nfour\n{said}"
    assert err.getvalue() == "else\n"
    assert "".join(shell.kept) == out.getvalue()
    for _ in range(2):
        # As in a cell that awaits, where nothing is replaced.
        shell.begin()
        print("anew")
    assert out.getvalue() == f"four\nfour\n{said}anew\nanew\n"
