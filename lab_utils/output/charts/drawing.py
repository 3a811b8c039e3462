"""What all figures share: one size, colours that everyone can tell apart, and a picture that needs no backend."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cached_property, wraps
from html import escape
from typing import Any, Final

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

__all__ = [
    "COLOURS",
    "GREY",
    "INK",
    "WIDTH",
    "Chart",
    "NoChart",
    "busiest",
    "figure",
    "scaled",
    "sheet",
    "styled",
    "titled",
]

# Okabe and Ito's colours, told apart with any kind of colour vision; yellow is left out, as it fades on white.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK: Final = "#22272e"
GREY: Final = "#6b7280"
WIDTH: Final = 760
_DPI: Final = 100
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa3ad",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


class Chart:
    """A finished figure. It shows itself as a PNG picture in a notebook, with its words as the alternative text."""

    def __init__(self, drawn: Figure, words: str) -> None:
        self.figure = drawn
        self.words = words

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        about = {"width": WIDTH, "alt": self.words}
        return {"image/png": self.png, "text/plain": repr(self)}, {"image/png": about}

    @cached_property
    def png(self) -> bytes:
        """The picture, twice as fine as it is shown."""
        return _png(self.figure)

    def __repr__(self) -> str:
        return f"<Chart {self.words}>"


class NoChart:
    """What stands in a figure's place when there is nothing to draw: it says so in words."""

    def __init__(self, title: str, why: str) -> None:
        self.words = f"{title}: nothing was recorded. {why}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        style = "border-left:4px solid #6b7280;padding:.5em 1em;margin:.5em 0"
        html = f'<p class="no-chart" style="{style}">{escape(self.words)}</p>'
        return {"text/html": html, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<NoChart {self.words}>"


def figure(height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, list[list[Axes]]]:
    """A figure of the common width with its axes, row by row; `height` in inches."""
    # Not by pyplot: it keeps every figure alive, and its backend depends on who imported it first.
    drawn = Figure(figsize=(WIDTH / _DPI, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.subplots(rows, columns, squeeze=False, **grid).tolist()


def sheet(height: float) -> Figure:
    """An empty figure of the common width whose parts are placed by hand; `height` in pixels as it is shown."""
    drawn = Figure(figsize=(WIDTH / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(drawn)
    return drawn


def titled(drawn: Figure, claim: str, remark: str = "") -> None:
    """Head a figure with what it is about, and below it, small, what it shows of it."""
    drawn.suptitle(f"{claim}\n" if remark else claim, x=0.008, ha="left", fontsize=11.5, fontweight="bold")
    if remark:
        inches = drawn.get_size_inches()[1]
        drawn.text(0.008, 1 - 0.36 / inches, remark, ha="left", va="center", fontsize=8.5, color=GREY)


def styled(draw: Callable[[pd.DataFrame], Chart | NoChart]) -> Callable[[pd.DataFrame], Chart | NoChart]:
    """Draw in the lab's own style, whatever the notebook has set; afterwards its settings are as they were."""

    @wraps(draw)
    def drawn(frame: pd.DataFrame) -> Chart | NoChart:
        with rc_context(_STYLE):
            return draw(frame)

    return drawn


def _png(drawn: Figure) -> bytes:
    drawn.set_dpi(2 * _DPI)
    drawn.set_facecolor("white")
    # Drawn once: `savefig` would lay it out by drawing it a first time, and pack a picture that is unpacked here.
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), pixels).convert("RGB")
    # 64 colours are enough for lines and text, and a third of the bytes. By coverage: a rare mark keeps its colour.
    small = picture.quantize(64, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    small.save(packed, format="PNG")
    return packed.getvalue()


def busiest(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows of one check, the one with the most of them, and a remark where others were left out."""
    counts = frame["check"].value_counts()
    if len(counts) <= 1:
        return frame, ""
    check = str(counts.index[0])
    return frame[frame["check"] == check], f"{check}; {len(counts) - 1} other check(s) not shown"


def scaled(seconds: float) -> tuple[float, str]:
    """The factor and the unit in which a duration reads well."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return factor, unit
    return 1.0, "s"
