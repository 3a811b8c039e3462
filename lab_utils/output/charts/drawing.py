"""Draws SVG that is as wide as its page: places across are shares of the width, places down are pixels.

Text keeps its size on a phone. Colours are CSS variables; ink and background are those of the page around, so that one
markup reads in JupyterLab, in the report and in print, light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from lab_utils.output.charts.scale import Scale, brief
from lab_utils.output.charts.text import NARROW, fitted, titled, width
from lab_utils.values import texts

__all__ = ["BACKGROUND", "BAD", "COLOURS", "GOOD", "INK", "PALETTE", "STYLE", "Drawing", "Point"]

# Distinguishable with any kind of colour vision (after Okabe and Ito); each has a contrast of 3 to 1 on white and on
# black.
_COLOURS: Final = {"1": "#1f7fc4", "2": "#d55e00", "3": "#009e73", "4": "#c2679b", "5": "#a87d00", "6": "#8b70d6"}
COLOURS: Final = tuple(f"var(--c{name})" for name in _COLOURS)
GOOD, BAD = COLOURS[2], COLOURS[1]
INK: Final = "currentColor"
BACKGROUND: Final = "var(--jp-layout-color0,var(--paper,var(--vscode-editor-background,Canvas)))"
PALETTE: Final = ";".join(f"--c{name}:var(--lab-c{name},{colour})" for name, colour in _COLOURS.items())
"""Sets the colours, in the style of the figure's element; a page may choose others, as `--lab-c1` and so on."""

STYLE: Final = (
    f"font:12px/1.4 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','DejaVu Sans',sans-serif;fill:{INK}"
)
"""The style of the element around all drawings of a figure."""
_TICKS: Final = 34
_TITLE: Final = 16
_ACROSS: Final = 1000
_MOST_LETTERS: Final = 300

Point = tuple[float, float]
"""A share of the width from the left, 0 to 1, and pixels from the top."""


class Drawing:
    """One SVG: an area of `height` pixels with margins around it. Later elements lie above."""

    def __init__(self, height: float, left: float = 8, right: float = 8, top: float = 8, bottom: float = 8) -> None:
        self.height = height
        self._left, self._right, self._top, self._bottom = left, right, top, bottom
        self._shapes: list[str] = []
        self._marks: list[str] = []

    @property
    def room(self) -> float:
        """The width of the area in pixels on a phone."""
        return NARROW - self._left - self._right

    # ----------------------------------------------------------------------------------------------------- the shapes

    def line(self, points: Iterable[Point], colour: str, thick: float = 1.5, dashes: str = "") -> None:
        """A line through the points."""
        self._stroke(_path(points), colour, thick, f' stroke-dasharray="{dashes}"' if dashes else "")

    def lines(self, ends: Iterable[tuple[Point, Point]], colour: str, thick: float = 1.0, opacity: float = 1.0) -> None:
        """Lines of their own, as one element."""
        more = f' opacity="{_n(opacity)}"' if opacity < 1 else ""
        self._stroke("".join(_path(pair) for pair in ends), colour, thick, more)

    def dots(self, points: Iterable[Point], colour: str, size: float = 5, opacity: float = 1.0) -> None:
        """Round dots, as one element."""
        # A line without length and with round ends is a dot, which does not stretch with the drawing.
        more = ' stroke-linecap="round"' + (f' opacity="{_n(opacity)}"' if opacity < 1 else "")
        self._stroke("".join(f"M{_x(x)} {_n(y)}h0" for x, y in points), colour, size, more)

    def boxes(self, corners: Iterable[tuple[Point, Point]], colour: str, opacity: float = 1.0) -> None:
        """Boxes, each by its upper left and its lower right corner, as one element."""
        path = "".join(
            f"M{_x(left)} {_n(top)}h{_x(right - left)}v{_n(bottom - top)}h{_x(left - right)}z"
            for (left, top), (right, bottom) in corners
        )
        self._fill(path, colour, opacity)

    def area(self, points: Iterable[Point], colour: str, opacity: float) -> None:
        """The area that a line around encloses."""
        self._fill(f"{_path(points)}z", colour, opacity)

    def _stroke(self, path: str, colour: str, thick: float, more: str) -> None:
        if path:
            self._shapes.append(
                f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{_n(thick)}" '
                f'vector-effect="non-scaling-stroke"{more}/>'
            )

    def _fill(self, path: str, colour: str, opacity: float) -> None:
        if path:
            more = f' fill-opacity="{_n(opacity)}"' if opacity < 1 else ""
            self._shapes.append(f'<path d="{path}" fill="{colour}"{more}/>')

    # ------------------------------------------------------------------------------------------------------- the text

    def text(
        self,
        at: Point,
        words: str,
        *,
        anchor: str = "start",
        aside: float = 0,
        size: float = 12,
        soft: bool = False,
        bold: bool = False,
        colour: str = "",
        full: str = "",
        within: float = 0,
    ) -> None:
        """A line of text, `aside` pixels to the right of a place; `full` is its tooltip.

        With `within`, a share of the width, nothing of it is drawn beyond that. A text that has no room in a narrow
        figure is there a second time, shortened; the style sheet of a page shows the one that fits.
        """
        looks = "".join((
            f' text-anchor="{anchor}"' if anchor != "start" else "",
            f' dx="{_n(aside)}"' if aside else "",
            f' font-size="{_n(size)}"' if size != 12 else "",
            ' opacity=".75"' if soft else "",
            ' font-weight="600"' if bold else "",
            f' fill="{colour}"' if colour else "",
        ))  # fmt: skip
        content = titled(texts.shown(words), texts.shown(full or words, _MOST_LETTERS))
        place = f'x="{_n(at[0] * 100)}%"'
        if within:
            clip = f'{place} y="{_n(at[1] - size)}" width="{_n(within * 100)}%" height="{_n(size * 1.4)}"'
            short = fitted(texts.shown(words), within * NARROW, size + bold)
            kinds = [("", content)]
            if short != texts.shown(words):
                narrow = titled(short, texts.shown(full or words, _MOST_LETTERS))
                kinds = [(' class="lab-wide"', content), (' class="lab-narrow" display="none"', narrow)]
            both = "".join(f'<text y="{_n(size)}"{kind}{looks}>{words}</text>' for kind, words in kinds)
            self._marks.append(f"<svg {clip}>{both}</svg>")
        else:
            self._marks.append(f'<text {place} y="{_n(at[1])}"{looks}>{content}</text>')

    def cross(self, at: Point, size: float, colour: str, full: str) -> None:
        """A cross of so many pixels, with a tooltip."""
        arms = f"M{_n(-size)} {_n(-size)}L{_n(size)} {_n(size)}M{_n(-size)} {_n(size)}L{_n(size)} {_n(-size)}"
        title = f"<title>{escape(texts.shown(full, _MOST_LETTERS))}</title>"
        self._marks.append(
            f'<svg x="{_n(at[0] * 100)}%" y="{_n(at[1])}" width="1" height="1" overflow="visible">'
            f'<path d="{arms}" fill="none" stroke="{colour}" stroke-width="2">{title}</path></svg>'
        )

    # ------------------------------------------------------------------------------------------------------- the axes

    def x_axis(self, scale: Scale, title: str, *, whole: bool = False) -> None:
        """Ticks, their values and a title below the area, and a faint line up from each tick."""
        ticks = self._apart(scale, whole)
        self.lines((((scale.at(tick), 0.0), (scale.at(tick), self.height)) for tick in ticks), INK, opacity=0.14)
        self.lines([((0, self.height), (1, self.height))], INK, opacity=0.5)
        self._values("middle", ((f"{_n(scale.at(tick) * 100)}%", self.height + 15, tick) for tick in ticks))
        end = (1.0, self.height + _TICKS - 3)
        self.text(end, fitted(title, NARROW, 11), anchor="end", size=11, soft=True)
        self._bottom = max(self._bottom, _TICKS + 2)

    def y_axis(self, scale: Scale, title: str = "", *, whole: bool = False) -> None:
        """Ticks and their values left of the area, and a title above it."""
        ticks = scale.ticks(max(2, int(self.height / 26)), whole=whole)
        ends = [self.up(scale, tick) for tick in ticks]
        self.lines((((0, y), (1, y)) for y in ends), INK, opacity=0.14)
        self._values("end", (("-6", y + 4, tick) for tick, y in zip(ticks, ends, strict=True)))
        self._left = max(self._left, 10 + max((width(brief(tick), 11) for tick in ticks), default=0))
        if title:
            self.text((0, -7), title, size=11, soft=True)
            self._top = max(self._top, _TITLE + 4)

    def _values(self, anchor: str, ticks: Iterable[tuple[str, float, float]]) -> None:
        lines = "".join(f'<text x="{x}" y="{_n(y)}">{brief(tick)}</text>' for x, y, tick in ticks)
        self._marks.append(f'<g text-anchor="{anchor}" font-size="11" opacity=".75">{lines}</g>')

    def up(self, scale: Scale, value: float) -> float:
        """The place of a value from the top, in pixels, where the axis goes up."""
        return self.height * (1 - scale.at(value))

    def rows(self, names: Sequence[str], tall: float, *, most: float = 140, size: float = 11.5) -> None:
        """Names left of rows that are so many pixels tall; long ones are shortened, with the full name as tooltip."""
        full = [texts.shown(name, _MOST_LETTERS) for name in names]
        shown = [fitted(texts.shown(name), most, size) for name in names]
        self.indent(10 + max((width(name, size) for name in shown), default=0))
        lines = "".join(
            f'<text x="-6" y="{_n((place + 0.5) * tall + size / 3)}">{titled(name, whole)}</text>'
            for place, (name, whole) in enumerate(zip(shown, full, strict=True))
        )
        self._marks.append(f'<g text-anchor="end" font-size="{_n(size)}">{lines}</g>')

    def indent(self, pixels: float) -> None:
        """Let the area begin no farther left than that."""
        self._left = max(self._left, pixels)

    def below(self, pixels: float) -> None:
        """Leave at least so much room below the area."""
        self._bottom = max(self._bottom, pixels)

    @property
    def left(self) -> float:
        """Where the area begins, in pixels."""
        return self._left

    def _apart(self, scale: Scale, whole: bool) -> list[float]:
        """As many ticks as have room for their values on a phone."""
        for most in range(8, 1, -1):
            ticks = scale.ticks(most, whole=whole)
            if sum(width(brief(tick), 11) + 12 for tick in ticks) <= self.room:
                return ticks
        return scale.ticks(1, whole=whole)

    # ----------------------------------------------------------------------------------------------------- the result

    def svg(self, title: str, description: str = "") -> str:
        """The drawing as markup, which is well-formed XML; the title and the description, whose characters can all be
        seen, are read aloud."""
        # The margins are the element's own, and their content overflows: only so is the area as wide as the room that
        # is left.
        margins = " ".join(f"{_n(side)}px" for side in (self._top, self._right, self._bottom, self._left))
        looks = f"width:calc(100% - {_n(self._left + self._right)}px);margin:{margins}"
        tall = _n(self.height)
        more = f"<desc>{escape(description)}</desc>" if description else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="100%" height="{tall}" '
            f'style="display:block;overflow:visible;{looks}"><title>{escape(title)}</title>{more}'
            f'<svg width="100%" height="{tall}" viewBox="0 0 {_ACROSS} {tall}" preserveAspectRatio="none" '
            f'overflow="visible">{"".join(self._shapes)}</svg>{"".join(self._marks)}</svg>'
        )


def _n(value: float) -> str:
    text = f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _x(share: float) -> str:
    return _n(share * _ACROSS)


def _path(points: Iterable[Point]) -> str:
    path, last = "", ("", "")
    for x, y in points:
        here = _x(x), _n(y)
        if not path:
            path = f"M{here[0]} {here[1]}"
        elif here[1] == last[1]:
            path += f"H{here[0]}"
        elif here[0] == last[0]:
            path += f"V{here[1]}"
        else:
            path += f"L{here[0]} {here[1]}"
        last = here
    return path
