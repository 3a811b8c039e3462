"""Fills templates. Everything is escaped unless it is HTML already."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup, escape

from lab_utils.output.frames import breakable
from lab_utils.values.quantities import counted

__all__ = ["TEMPLATES", "printable", "render", "style"]

TEMPLATES: Final = Path(__file__).resolve().parent / "templates"
_UNPRINTABLE: Final = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
    "|[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)
_GAP: Final = {"mark": "", "text": "..."}


def printable(text: str) -> str:
    """The text with every character that XML cannot hold, that nobody sees, or that turns the reading order as its
    escape."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(("html.j2",), default=False),
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = _markdown
    environment.filters["breakable"] = breakable
    environment.filters["coded"] = _coded
    environment.filters["counted"] = counted
    environment.filters["headed"] = _headed
    environment.filters["telling"] = _telling
    return environment


def _finalized(value: Any) -> Any:
    """A value in a page, of any kind: also one read from a folder that somebody else has written."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value) if is_text else value


def render(template: str, **values: Any) -> str:
    """Fill a template; a name that it asks for and is not given is an error."""
    return _templates().get_template(template).render(**values)


@cache
def style(*names: str) -> str:
    """The text of style sheets, to stand inside a page."""
    return "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)


def _coded(text: str) -> Markup:
    """The text as HTML, with the parts between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(printable(text)))))


def _headed(text: str) -> str:
    """The text as a heading: with a capital, unless it begins with a name of code."""
    return text if "_" in text.partition(" ")[0] else f"{text[:1].upper()}{text[1:]}"


def _telling(lines: Sequence[Mapping[str, str]], most: int) -> list[Mapping[str, str]]:
    """At most so many of a witness's lines, in their order: those that differ before those beside them, and the first
    always, which names the two sides of a difference. A line of three dots stands where lines between two are left
    out."""
    changed = [number for number, line in enumerate(lines) if line["mark"] in ("+", "-")]
    first = [0, *changed] if changed else []
    kept = sorted(list(dict.fromkeys([*first, *range(len(lines))]))[:most])
    shown: list[Mapping[str, str]] = []
    for before, number in zip([-1, *kept], kept, strict=False):
        if number > before + 1 and _GAP["text"] not in (shown[-1]["text"], lines[number]["text"]):
            shown.append(_GAP)
        shown.append(lines[number])
    return shown


def _markdown(text: str) -> str:
    """One line of Markdown in which nothing is markup but the command at its end that is to be copied as it is."""
    line = " ".join(printable(str(text)).split())
    said, command, token = line.partition("registry-lab replay ")
    if command and re.fullmatch(r"[^\s`]+", token):
        return f"{_markdown(said)} `{command}{token}`"
    return re.sub(r"([\\`*_~<>\[\]|#])", r"\\\1", line)
