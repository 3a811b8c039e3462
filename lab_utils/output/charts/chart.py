"""A finished figure: a claim in words, its drawings side by side or below each other, and its numbers as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from lab_utils.output.charts.drawing import PALETTE, STYLE, Drawing
from lab_utils.values import texts

__all__ = ["Chart", "Key", "NoChart", "Part", "Table"]

_WIDE: Final = 760
_LINE: Final = "\n"
_MOST_LETTERS: Final = 300
_MOST_WORDS: Final = 1_500
_SOFT: Final = "opacity:.8;font-size:12.5px"


@dataclass(frozen=True, slots=True)
class Key:
    """The meaning of a colour: a filled patch, or with `dashes` ("dashed", "dotted", "solid") a line."""

    words: str
    colour: str
    dashes: str = ""
    opacity: float = 1.0

    def html(self) -> str:
        size = "display:inline-block;width:1.1em;margin-right:.4em"
        looks = f"vertical-align:middle;border-top:2px {self.dashes}" if self.dashes else "height:.8em;background:"
        faint = f";opacity:{self.opacity:g}" if self.opacity < 1 else ""
        swatch = f'<span style="{size};{looks} {self.colour}{faint}"></span>'
        return f'<span style="white-space:nowrap">{swatch}{escape(texts.shown(self.words, _MOST_LETTERS))}</span>'


@dataclass(frozen=True, slots=True)
class Part:
    """One drawing, with lines of text above it. Parts stand side by side while each is `wide` pixels wide. `value`
    stands at the right of the head, `foot` below the drawing: texts of a page, which are broken where they are long."""

    drawing: Drawing
    head: str = ""
    keys: tuple[Key, ...] = ()
    wide: int = _WIDE
    value: str = ""
    foot: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The numbers of a figure. Cells are texts; those of the columns `numbers` stand to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str = "the numbers"
    numbers: Sequence[int] = ()

    def html(self) -> str:
        def line(tag: str, cells: Sequence[str]) -> str:
            sides = ("right" if place in self.numbers else "left" for place in range(len(cells)))
            return "".join(
                f'<{tag} style="text-align:{side}">{escape(texts.shown(cell, _MOST_LETTERS))}</{tag}>'
                for side, cell in zip(sides, cells, strict=True)
            )

        body = "".join(f"<tr>{line('td', row)}</tr>" for row in self.rows)
        # The page's own style has borders for it.
        style = "border-collapse:collapse;font-size:.88em;margin:.4em 0;width:auto;table-layout:auto"
        head = f"<thead><tr>{line('th', self.head)}</tr></thead>"
        return (
            f'<details><summary style="cursor:pointer;{_SOFT}">{escape(self.summary)}</summary>'
            f'<div style="overflow-x:auto" tabindex="0"><table cellpadding="4" style="{style}">{head}'
            f"<tbody>{body}</tbody></table></div></details>"
        )


class Chart:
    """A finished figure. It shows itself as HTML with drawings in SVG, and elsewhere by its words."""

    def __init__(
        self,
        claim: str,
        words: str,
        parts: Iterable[Part],
        *,
        remark: str = "",
        keys: Sequence[Key] = (),
        table: Table | None = None,
    ) -> None:
        self.claim = texts.shown(claim, _MOST_LETTERS)
        self.words = texts.shown(words, _MOST_WORDS)
        self.remark = texts.shown(remark, _MOST_WORDS)
        self._parts = tuple(parts)
        self._keys = tuple(keys)
        self._table = table

    @property
    def html(self) -> str:
        """The figure as one element, which is well-formed XML and needs no style sheet and no script."""
        remark = f'<div style="{_SOFT}">{escape(self.remark)}</div>' if self.remark else ""
        table = self._table.html() if self._table else ""
        row = "display:flex;flex-wrap:wrap;gap:6px 20px"
        whole = f"margin:.8em 0;max-width:{_WIDE}px;overflow-wrap:break-word;print-color-adjust:exact;{PALETTE}"
        return (
            f'<figure class="lab-chart" style="{whole}">'
            f'<figcaption style="margin-bottom:.5em"><strong>{_escaped_name(self.claim)}</strong>{remark}</figcaption>'
            f'{_keys(self._keys)}<div style="{row};{STYLE}">{"".join(map(self._part, self._parts))}</div>'
            f"{table}</figure>"
        )

    def _part(self, part: Part) -> str:
        head = f'<div style="font-size:12.5px;white-space:pre-line">{_escaped(part.head)}</div>' if part.head else ""
        if part.value:
            sides = "display:flex;justify-content:space-between;align-items:end;gap:1em"
            value = escape(texts.shown(part.value, _MOST_LETTERS))
            head = f'<div style="{sides}">{head}<strong style="white-space:nowrap">{value}</strong></div>'
        foot = _escaped_name(texts.shown(part.foot, _MOST_LETTERS))
        foot = f'<div style="opacity:.8;font-size:11px;overflow-wrap:anywhere">{foot}</div>' if part.foot else ""
        title = texts.shown(
            f"{self.claim}: {part.head.partition(_LINE)[0]}" if part.head else self.claim, _MOST_LETTERS
        )
        words = self.words if len(self._parts) == 1 else ""
        basis = f"flex:1 1 {part.wide}px;min-width:0;max-width:{min(part.wide + 32, _WIDE)}px"
        return f'<div style="{basis}">{head}{_keys(part.keys)}{part.drawing.svg(title, words)}{foot}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<Chart {self.words}>"


class NoChart:
    """The placeholder of a figure without data: a sentence that gives the reason."""

    def __init__(self, title: str, why: str) -> None:
        self.words = texts.shown(f"{title}: nothing was recorded. {why}")

    @property
    def html(self) -> str:
        """The words, as one element."""
        style = "border-left:4px solid #6b7280;padding:.5em 1em;margin:.5em 0"
        return f'<p class="no-chart" style="{style}">{escape(self.words)}</p>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<NoChart {self.words}>"


def _keys(keys: Sequence[Key]) -> str:
    if not keys:
        return ""
    style = f"display:flex;flex-wrap:wrap;gap:.1em 1.2em;{_SOFT};margin-bottom:.3em"
    return f'<div style="{style}">{"".join(key.html() for key in keys)}</div>'


def _escaped_name(text: str) -> str:
    """The text, whose long names may be broken behind their underscores."""
    return escape(text).replace("_", "_<wbr/>")


def _escaped(lines: str) -> str:
    return _LINE.join(escape(texts.shown(line, _MOST_LETTERS)) for line in lines.split(_LINE))
