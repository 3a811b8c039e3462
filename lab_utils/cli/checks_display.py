"""Shows the checks of a run as they go: a row each on a terminal; elsewhere a line as each ends, and a heartbeat."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table
from rich.text import Text

__all__ = ["HEARTBEAT_S", "Progress", "beating"]

HEARTBEAT_S: Final = 10.0
_LOOK_EACH_S: Final = 0.5
_NAMED: Final = 2
_STYLES: Final = {"PASS": "green", "FAIL": "red", "UNKNOWN": "yellow", "NOT_APPLICABLE": "dim"}


@dataclass(slots=True)
class _Row:
    state: str = "waiting"
    verdict: str = ""
    began: float = 0.0
    seconds: float = 0.0


class Progress:
    """How far the checks of a run are, as their kernels have said in `file`. `usual`: how many seconds each took in an
    earlier run, where that is known."""

    def __init__(
        self, checks: Sequence[str], file: Path, clock: Callable[[], float], usual: Mapping[str, float] | None = None
    ) -> None:
        self._rows = {check: _Row() for check in checks}
        self._file, self._clock, self._usual = file, clock, usual or {}
        self._read = 0
        self._began = clock()
        self._remark, self._is_remark_said = "", False

    def news(self) -> list[str]:
        """A line for each check that ended since this was asked last, and the first remark on the target."""
        lines = []
        for check, state, verdict, seconds, remark in self._added():
            self._remark = self._remark or remark
            row = self._rows.setdefault(check, _Row())
            row.state, row.verdict, row.seconds = state, verdict, seconds
            row.began = self._clock() if state != "ended" else row.began
            if state == "ended":
                count = f"{self._ended} of {len(self._rows)}"
                lines.append(f"{count}: {verdict.replace('_', ' ')} {check}, {seconds:.1f} s")
        if self._remark and not self._is_remark_said:
            self._is_remark_said = True
            lines.append(self._remark)
        return lines

    def heartbeat(self) -> str:
        """The work going on, in one line: the checks that have run longest by name, the others as a number."""
        longest = sorted(self._busy, key=lambda busy: busy[1].began)
        busy = [f"{row.state} {name} ({self._clock() - row.began:.0f} s)" for name, row in longest[:_NAMED]]
        more = f", and {len(longest) - _NAMED} more" if len(longest) > _NAMED else ""
        words = ", ".join(busy) + more if busy else "notebooks are starting or ending"
        left = f", about {self._left:.0f} s left" if self._left else ""
        return f"{self._clock() - self._began:.0f} s: {self._ended} of {len(self._rows)} checks done; {words}{left}"

    @property
    def has_begun(self) -> bool:
        """Whether a check is at work, or was."""
        self.news()
        return any(row.state != "waiting" for row in self._rows.values())

    def table(self, height: int) -> Table:
        """A row a check; where `height` rows are too few, without those that passed."""
        self.news()
        is_long = len(self._rows) >= height
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for name, row in self._rows.items():
            if is_long and row.verdict == "PASS":
                continue
            seconds = row.seconds if row.state == "ended" else self._clock() - row.began if row.began else 0.0
            word = row.verdict.replace("_", " ") if row.state == "ended" else row.state
            style = _STYLES.get(row.verdict, "dim" if row.state == "waiting" else "bold")
            table.add_row(Text(name), Text(word, style=style), Text(f"{seconds:.0f} s" if seconds else "", style="dim"))
        left = f", about {self._left:.0f} s left" if self._left else ""
        if self._remark:
            table.caption = Text(self._remark, style="yellow", justify="left")
        table.add_row(Text(f"{self._ended} of {len(self._rows)} checks done{left}", style="dim"), Text(), Text())
        return table

    @property
    def _busy(self) -> list[tuple[str, _Row]]:
        return [(name, row) for name, row in self._rows.items() if row.state not in ("waiting", "ended")]

    @property
    def _ended(self) -> int:
        return sum(row.state == "ended" for row in self._rows.values())

    @property
    def _left(self) -> float:
        """Seconds that the rest usually takes at the pace so far; 0 where that is not known."""
        done = sum(self._usual.get(name, 0.0) for name, row in self._rows.items() if row.state == "ended")
        rest = [name for name, row in self._rows.items() if row.state != "ended"]
        if not done or not all(name in self._usual for name in rest):
            return 0.0
        return sum(self._usual[name] for name in rest) * (self._clock() - self._began) / done

    def _added(self) -> Iterator[tuple[str, str, str, float, str]]:
        try:
            with self._file.open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            one = json.loads(line)
            yield one["check"], one["state"], one["verdict"], one["seconds"], one["remark"]


@contextmanager
def beating(progress: Progress, say: Callable[[str], None]) -> Iterator[None]:
    """While inside, say a line as each check ends, and a heartbeat whenever `HEARTBEAT_S` passed without one."""
    done = threading.Event()

    def watch() -> None:
        silent = 0.0
        while not done.wait(_LOOK_EACH_S):
            silent = _said(progress.news(), say, silent + _LOOK_EACH_S)
            if silent >= HEARTBEAT_S:
                silent = _said([progress.heartbeat()], say, silent)

    thread = threading.Thread(target=watch, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _said(progress.news(), say, 0.0)


def _said(lines: Sequence[str], say: Callable[[str], None], silent: float) -> float:
    for line in lines:
        say(line)
    return 0.0 if lines else silent
