"""Shows a batch as it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lab_utils.batch import Ended, Event
from lab_utils.cli.checks_display import Progress, beating
from lab_utils.values.texts import shown

__all__ = ["line", "live", "summary"]

_STYLES = {
    "ok": "green",
    "failed": "red",
    "error": "red",
    "timeout": "red",
    "dead-kernel": "red",
    "cancelled": "yellow",
}


_MOST_LETTERS = 400


@dataclass(slots=True)
class _Row:
    began: float | None = None
    cell: int = 0
    cells: int = 0
    ended: Ended | None = None


@contextmanager
def live(
    names: Sequence[str],
    console: Console,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress | None = None,
) -> Iterator[Callable[[Event], None]]:
    """Yield a function that shows an event. On a terminal the rows are the checks, where `progress` knows of them, and
    else the notebooks."""
    if not console.is_terminal:
        with beating(progress, lambda text: line(shown(text, _MOST_LETTERS), console)) if progress else nullcontext():
            yield lambda event: _plain(event, console)
        return
    rows = {name: _Row() for name in names}

    def take(event: Event) -> None:
        row = rows[event.job]
        if event.ended is not None:
            row.ended = event.ended
        elif event.cells:
            row.cell, row.cells = event.cell, event.cells
        else:
            row.began = clock()

    def drawn() -> Table:
        if progress is None or not progress.has_begun:
            return _table(rows, clock())
        return progress.table(console.height - 1)

    with Live(console=console, get_renderable=drawn, refresh_per_second=4):
        yield take


def _plain(event: Event, console: Console) -> None:
    if event.ended is not None:
        ended = f"{event.job}: {event.ended.status} after {event.ended.seconds:.1f} s"
        line(shown(f"{ended}: {event.ended.message}" if event.ended.message else ended, _MOST_LETTERS), console)
    elif not event.cells:
        line(f"{event.job}: started", console)


def _table(rows: Mapping[str, _Row], now: float) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for name, row in rows.items():
        if row.ended is not None:
            state = Text(row.ended.status, style=_STYLES[row.ended.status])
            bar, seconds = ProgressBar(total=1, completed=1, width=24), row.ended.seconds
        elif row.began is not None:
            state, seconds = Text("running"), now - row.began
            bar = ProgressBar(total=max(row.cells, 1), completed=row.cell, width=24)
        else:
            state, bar, seconds = Text("waiting", style="dim"), ProgressBar(total=1, completed=0, width=24), 0.0
        table.add_row(Text(name), bar, state, Text(f"{seconds:.0f} s" if seconds else "", style="dim"))
    return table


def summary(rows: Sequence[tuple[str, str, str, str, str]], remarks: Sequence[str], console: Console) -> None:
    """Print one line a notebook, then one line for each thing that did not go well. Nothing is cut to fit a narrow
    terminal, which wraps long lines."""
    head = ("notebook", "ended", "passed", "caught", "seconds")
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    console.print()
    for row in (head, *rows):
        name, ended, *numbers = row
        text = Text(name.ljust(widths[0] + 2), style="bold" if row is head else "")
        text.append(ended.ljust(widths[1]), style=_STYLES.get(ended, ""))
        for number, width in zip(numbers, widths[2:], strict=True):
            text.append(f"  {number:>{width}}")
        console.print(text, soft_wrap=True)
    for remark in remarks:
        line(shown(remark, _MOST_LETTERS), console)


def line(text: str, console: Console) -> None:
    """Print text as it is: markup in it is not interpreted, and long lines are left to the terminal."""
    console.print(Text(text), soft_wrap=True)
