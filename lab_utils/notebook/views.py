"""Shows results in a notebook's cell, as HTML and as Markdown; judges nothing.

Styles are inline and leave text and background to the page, so that the same output reads well in JupyterLab, in a
code host's preview and in the report, light or dark.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from lab_utils.judges.difference import Line, witness_lines
from lab_utils.output import charts
from lab_utils.output.frames import breakable, budget_of, by_value
from lab_utils.output.store import Calibration
from lab_utils.values.quantities import counted, moment
from lab_utils.values.result import CheckResult, Measurement
from lab_utils.values.verdict import Finding

__all__ = [
    "CalibrationView",
    "CheckView",
    "FindingsView",
    "GalleryView",
    "ResultsView",
    "View",
    "WitnessView",
    "anchor_of",
    "badge",
    "budget_rows",
    "markdown_table",
    "sortable",
    "table",
    "with_picture",
    "witness_html",
]

# White on each of these has a contrast of at least 5 to 1.
_COLOURS: Final = {
    "PASS": "#1a7f37",
    "FAIL": "#b42318",
    "UNKNOWN": "#8a5a00",
    "NOT_APPLICABLE": "#57606a",
    "CAUGHT": "#1a7f37",
    "NOT CAUGHT": "#b42318",
}
_LINE: Final = (
    "border-bottom:1px solid rgba(128,128,128,.35);padding:.3em .7em .3em 0;text-align:left;vertical-align:top;"
    "overflow-wrap:break-word"
)
_SIDES: Final = {"-": "rgba(180,35,24,.16)", "+": "rgba(26,127,55,.16)"}
_SORTED: Final = (
    ".sift{display:flex;flex-wrap:wrap;align-items:center;gap:.3em 1em}"
    "#TABLE th button{all:unset;cursor:pointer;text-decoration:underline dotted}"
    "#TABLE th button:focus-visible{outline:auto}"
    '#TABLE [aria-sort="ascending"] button::after{content:" ↑"}'
    '#TABLE [aria-sort="descending"] button::after{content:" ↓"}'
    "@media print{#TABLE tr[hidden]{display:table-row}.no-print{display:none}}"
)
_MOST_FINDINGS: Final = 5
_MOST_ALIKE: Final = 3
_MOST_LETTERS: Final = 240
# By its place: what fills templates is not imported in a kernel.
_SCRIPT: Final = Path(charts.__file__).parents[1] / "pages" / "templates" / "table.js"


class View:
    """Something that shows itself: HTML where there is a browser, Markdown elsewhere."""

    def __init__(self, html: str, markdown: str, width: str = "62em") -> None:
        self._html = f'<div class="lab-view" style="max-width:{width};line-height:1.45">{html}</div>'
        self._markdown = markdown

    def _repr_html_(self) -> str:
        return self._html

    def _repr_markdown_(self) -> str:
        return self._markdown

    def __repr__(self) -> str:
        return self._markdown


def badge(word: str) -> str:
    """A verdict's word on its colour."""
    style = "color:#fff;border-radius:.3em;padding:.1em .55em;font-weight:600;font-size:.92em;white-space:nowrap"
    return f'<span style="background:{_COLOURS.get(word, "#57606a")};{style}">{escape(word.replace("_", " "))}</span>'


def anchor_of(check: str) -> str:
    """The id of the place of a check in a notebook."""
    return f"check-{check}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of cells that are HTML already."""
    top = "".join(f'<th style="{_LINE};overflow-wrap:normal">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f'<td style="{_LINE}">{cell}</td>' for cell in row) + "</tr>" for row in rows)
    # JupyterLab would give every column the same width.
    style = f"border-collapse:collapse;width:100%;min-width:{8 * len(head)}em;background:transparent;table-layout:auto"
    return (
        f'<div style="overflow-x:auto" tabindex="0"><table style="{style}"><thead><tr style="background:transparent">'
        f"{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def sortable(head: Sequence[str], rows: Sequence[Sequence[str | tuple[str, float]]]) -> str:
    """A table whose heads sort it and that a box above filters: all of its words, and none that begins with `-`.

    Cells are HTML; one with a number is sorted by that. Without scripts it is a table.
    """
    heads = "".join(f'<th style="{_LINE};overflow-wrap:normal">{escape(name)}</th>' for name in head)
    lines = []
    for row in rows:
        cells = [(f' data-value="{one[1]!r}"', one[0]) if isinstance(one, tuple) else ("", one) for one in row]
        lines.append("<tr>" + "".join(f'<td style="{_LINE}"{by}>{text}</td>' for by, text in cells) + "</tr>")
    body = "".join(lines)
    name = f"lab-{zlib.crc32((heads + body).encode('utf-8', 'backslashreplace')):08x}"
    style = f"border-collapse:collapse;width:100%;min-width:{6 * len(head)}em;background:transparent;table-layout:auto"
    return (
        f'<div style="overflow-x:auto"><table id="{name}" style="{style}"><thead><tr style="background:transparent">'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div><style>{_SORTED.replace('TABLE', name)}</style>"
        f"<script>document.querySelectorAll('#{name}').forEach({_SCRIPT.read_text(encoding='utf-8')});</script>"
    )


class ResultsView(View):
    """Runs of checks, one row each: what was found, with which sizes, and the keys of the findings."""

    def __init__(self, results: Sequence[CheckResult], usual: Mapping[str, object]) -> None:
        head = ("verdict", "check", "findings", "reason", "target", "seed", "profile and sizes", "seconds")
        rows: list[list[str | tuple[str, float]]] = []
        markdown, keys = [], 0
        for result in results:
            findings = len(result.verdict.findings)
            found = f"F{keys + 1}" + (f" to F{keys + findings}" if findings > 1 else "") if findings else ""
            keys += findings
            other = {name: value for name, value in result.parameters.items() if value != usual.get(name)}
            sizes = ", ".join([result.profile, *(f"{name}={value}" for name, value in other.items())])
            reason, seconds = result.verdict.reason, f"{result.duration_s:.2f}"
            about = (result.target, str(result.seed), sizes)
            markdown.append((result.outcome, result.check, found, reason, *about, seconds))
            words: list[str | tuple[str, float]] = [escape(_abridged(reason)), *map(escape, about)]
            by_number = (found, float(findings)), (seconds, result.duration_s)
            rows.append([badge(result.outcome), breakable(result.check), by_number[0], *words, by_number[1]])
        none = "No check has run yet."
        html = sortable(head, rows) if rows else f"<p>{none}</p>"
        super().__init__(html, markdown_table(head, markdown) if rows else none, "none")


def budget_rows(measurements: Iterable[Measurement]) -> list[tuple[str, str, str, str]]:
    """Metric, value with unit, budget asked for, the lab's own: one row a value, its budgets with their verdicts."""
    rows = []
    for (metric, value), each in by_value(measurements).items():
        budgets: dict[str, str] = {}
        for one in each:
            if one.budget is not None:
                text = f"{budget_of(one.budget, one.unit)}: {one.outcome}"
                budgets[one.budget.source] = text if one.decides else f"{text} (shown, does not decide)"
        rows.append((metric, value, budgets.get("asked", ""), budgets.get("lab", "")))
    return rows


class CheckView(View):
    """One run of one check: its verdict, the reason, the findings with their witnesses, and the measurements. Of
    several findings of one anomaly all but the first are folded up.

    `anchor` is the place in the page that links lead to; `earlier`, the number of findings that the notebook has made
    before.
    """

    def __init__(self, result: CheckResult, anchor: str = "", earlier: int = 0) -> None:
        self.result = result
        findings = result.verdict.findings
        rows = budget_rows(result.measurements)
        head = ("measured", "value", "asked for", "the lab's own budget")
        operations = f"{len(result.operations):,} operations in " if result.operations else ""
        amount = f"{operations}{result.duration_s:.2f} s on {result.target}"
        title = f"{badge(result.outcome)} <strong>{breakable(result.check)}</strong><br>{escape(result.verdict.reason)}"
        about = f"{escape(amount)}, seed {result.seed}. Protects: {escape(result.protects)}"
        anchored = f' id="{anchor}"' if anchor else ""
        html = [
            f"<p{anchored}>{title}<br><small>{about}</small></p>",
            *(_finding(findings[place], f"F{earlier + place + 1}", is_folded) for place, is_folded in _shown(findings)),
            _more(len(findings)),
            table(head, map(_measured, rows)) if rows else "",
            *(f"<p><small>{escape(note)}</small></p>" for note in result.notes),
            f"<details><summary>traceback</summary><pre>{escape(result.traceback)}</pre></details>"
            if result.traceback
            else "",
            f"<details><summary>printed by the target</summary><pre>{escape(result.printed)}</pre></details>"
            if result.printed
            else "",
        ]
        markdown = [
            f"**{result.outcome}** {result.check}: {result.verdict.reason} ({amount}, seed {result.seed})",
            *(_bullet(findings[place]) for place, _ in _shown(findings)),
            _more(len(findings)),
            markdown_table(head, rows) if rows else "",
            *result.notes,
            f"```text\n{result.traceback}\n```" if result.traceback else "",
            f"Printed by the target:\n\n```text\n{result.printed}\n```" if result.printed else "",
        ]
        super().__init__("".join(html), "\n\n".join(filter(None, markdown)))


def _measured(row: Sequence[str]) -> list[str]:
    metric, value, *budgets = map(escape, row)
    return [metric, f'<span style="white-space:nowrap">{value}</span>', *budgets]


def _shown(findings: Sequence[Finding]) -> list[tuple[int, bool]]:
    """The places of the few that are shown, the first of each anomaly before any other: a hundred alike must not hide
    the one that is not. With each, whether one of its anomaly stands before it."""
    first = {finding.anomaly: place for place, finding in reversed(list(enumerate(findings)))}
    places = [*sorted(first.values()), *(place for place in range(len(findings)) if place not in first.values())]
    return [(place, place not in first.values()) for place in places[:_MOST_FINDINGS]]


def _finding(finding: Finding, key: str = "", is_folded: bool = False) -> str:
    title = f"<strong>{escape(finding.anomaly)}</strong>: {escape(finding.sentence)}"
    title += f' <code>lab.finding("{key}")</code>' if key else ""
    witness = with_picture(finding, witness_html(witness_lines(finding.witness)))
    folded = f'<details><summary style="cursor:pointer">{title}</summary>{witness}</details>'
    style = "border-left:4px solid #b42318;padding:.2em 0 .2em .9em;margin:.7em 0"
    return f'<div style="{style}">{folded if is_folded else title + witness}</div>'


def _bullet(finding: Finding) -> str:
    return f"- **{finding.anomaly}**: {finding.sentence}{_indented(finding.witness)}"


def witness_html(lines: Sequence[Line]) -> str:
    """The lines of a witness; of two values that differ, each side has its sign and its colour."""
    shown = []
    for mark, text in lines:
        line = escape(f"{mark} {text}" if mark else text)
        shown.append(f'<span style="background:{_SIDES[mark]}">{line}</span>' if mark in _SIDES else line)
    style = "white-space:pre-wrap;overflow-wrap:anywhere;background:transparent;max-height:26em;overflow:auto"
    return f'<pre tabindex="0" style="{style}">{chr(10).join(shown)}</pre>'


def with_picture(finding: Finding, witness: str) -> str:
    """A witness that is HTML already; where there is a picture of it, below that and folded up."""
    drawn = charts.picture(finding.sentence, "\n".join(finding.witness))
    if drawn is None:
        return witness
    return f'{drawn.html}<details><summary style="cursor:pointer">the whole witness</summary>{witness}</details>'


def _more(findings: int) -> str:
    left_out = findings - _MOST_FINDINGS
    return f"and {counted(left_out, 'more finding')}, all of them in lab.findings()" if left_out > 0 else ""


def _indented(witness: Sequence[str]) -> str:
    return "".join(f"\n    - `{line}`" for line in witness)


class FindingsView(View):
    """The findings, check by check: the first few of each anomaly with their witnesses, and how many more."""

    def __init__(self, results: Iterable[CheckResult]) -> None:
        html, markdown = [], []
        for result in results:
            groups: dict[str, list[Finding]] = {}
            for finding in result.verdict.findings:
                groups.setdefault(finding.anomaly, []).append(finding)
            if groups:
                html.append(f"<p><strong>{breakable(result.check)}</strong></p>")
                markdown.append(f"**{result.check}**")
            for anomaly, alike in groups.items():
                more = f"and {len(alike) - _MOST_ALIKE} more {anomaly}" if len(alike) > _MOST_ALIKE else ""
                html += [*map(_finding, alike[:_MOST_ALIKE]), f"<p>{escape(more)}</p>" if more else ""]
                markdown += [*map(_bullet, alike[:_MOST_ALIKE]), more] if more else map(_bullet, alike)
        super().__init__("".join(html) or "<p>Nothing was found.</p>", "\n\n".join(markdown) or "Nothing was found.")


class CalibrationView(View):
    """The same check on its planted registries: each must be caught, with the anomaly that was planted. Where all were,
    their table is folded up. `why` there are none, where there are none; `planted`: how many the check has in all."""

    def __init__(
        self, check: str, calibrations: Sequence[Calibration], why: str = "nobody has seen it fail", planted: int = 0
    ) -> None:
        self.calibrations = tuple(calibrations)
        missed = [one for one in calibrations if not one.caught]
        if not calibrations:
            sentence = f"NOT CALIBRATED: {check}: {why}."
        elif missed:
            names = ", ".join(one.planted for one in missed)
            sentence = f"NOT CAUGHT: {names}. A pass of {check} means nothing until it catches the planted defects."
        else:
            sentence = f"All {len(calibrations)} planted registries were caught: this check can fail."
            if len(calibrations) < planted:
                sentence += f" There is one for each anomaly; --calibrate all runs all {planted}."
            sentence += _made(calibrations[0])
        colour = _COLOURS["PASS"] if calibrations and not missed else _COLOURS["FAIL"]
        side, said = f"border-left:4px solid {colour};padding-left:.9em", f"<strong>{escape(sentence)}</strong>"
        if calibrations and not missed:
            html = _folded(said, calibrations, f"{side};margin:.8em 0")
        else:
            html = f'<p style="{side}">{said}</p>' + (_calibration_table(calibrations) if calibrations else "")
        super().__init__(
            html,
            f"{sentence}\n\n{_calibration_markdown(calibrations)}",
        )


class GalleryView(View):
    """Checks with the registries planted for each, folded up; one that missed something is open."""

    def __init__(self, calibrations: Sequence[Calibration]) -> None:
        html, markdown = [], []
        for check in dict.fromkeys(one.result.check for one in calibrations):
            planted = [one for one in calibrations if one.result.check == check]
            caught = sum(one.caught for one in planted)
            word = "CAUGHT" if caught == len(planted) else "NOT CAUGHT"
            summary = f"{badge(word)} {caught} of {len(planted)} by {breakable(check)}"
            html.append(_folded(summary, planted, "margin:.5em 0", is_open=word != "CAUGHT"))
            markdown.append(f"**{word}** {caught} of {len(planted)} by {check}\n\n{_calibration_markdown(planted)}")
        super().__init__("".join(html), "\n\n".join(markdown))


def _folded(summary: str, calibrations: Sequence[Calibration], style: str, *, is_open: bool = False) -> str:
    """The planted registries below a summary; a page prints them where they are open."""
    return (
        f'<details class="kept"{" open" if is_open else ""} style="{style}">'
        f'<summary style="cursor:pointer">{summary}</summary>{_calibration_table(calibrations)}</details>'
    )


def _made(calibration: Calibration) -> str:
    """When and by which run a calibration was made."""
    by = f" by run {calibration.made_by}" if calibration.made_by else ""
    return f" Seen {moment(calibration.made_at)}{by}." if calibration.made_at else ""


def _calibration_table(calibrations: Sequence[Calibration]) -> str:
    rows = []
    for one in calibrations:
        anomaly, sentence, witness = _seen(one)
        word = badge("CAUGHT" if one.caught else "NOT CAUGHT")
        found = f"{escape(_abridged(sentence))}<br>" if sentence else ""
        # Where a finding's witness says no more than its sentence, once is enough.
        evidence = "" if witness == sentence else f"<small>{escape(_abridged(witness))}</small>"
        name, defect = f"<code>{breakable(one.planted)}</code>", f"<strong>{escape(one.defect)}</strong>"
        rows.append(
            (
                f'<div style="min-width:9em">{word}<br>{name}<br>{escape(anomaly)}</div>',
                f'<div style="min-width:11em;overflow-wrap:anywhere">{defect}<br>{found}{evidence}</div>',
            )
        )
    return table(("planted registry, and the anomaly found", "its one defect; the finding, and its witness"), rows)


def _calibration_markdown(calibrations: Sequence[Calibration]) -> str:
    head = ("planted registry", "its one defect", "verdict", "anomaly found", "the finding, and its first witness")
    rows = []
    for one in calibrations:
        anomaly, sentence, witness = _seen(one)
        word = "CAUGHT" if one.caught else "NOT CAUGHT"
        rows.append((one.planted, one.defect, word, anomaly, f"{_abridged(sentence)} ({_abridged(witness)})"))
    return markdown_table(head, rows)


def _abridged(text: str) -> str:
    """The text, or its beginning and how long it is: `Lab.witness` and the findings frame have all of it."""
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}… ({len(text):,} characters)"


class WitnessView(View):
    """The finding with which a planted registry was caught, with all of its witness."""

    def __init__(self, one: Calibration) -> None:
        found = [finding for finding in one.result.verdict.findings if finding.anomaly in one.expected]
        title = f"{one.planted}: {one.defect}"
        text = f"{found[0].anomaly}: {found[0].sentence}" if found else "NOT CAUGHT"
        lines = "\n".join(found[0].witness) if found else ""
        html = _finding(found[0]) if found else badge("NOT CAUGHT")
        super().__init__(f"<p>{escape(title)}</p>{html}", f"{title}\n\n{text}\n\n```text\n{lines}\n```")


def _seen(one: Calibration) -> tuple[str, str, str]:
    """The anomaly, its sentence, its first witness; or the findings in place of the planted anomaly."""
    findings = one.result.verdict.findings
    if one.caught:
        finding = next(finding for finding in findings if finding.anomaly in one.expected)
        return finding.anomaly, finding.sentence, finding.witness[0]
    names = ", ".join(dict.fromkeys(finding.anomaly for finding in findings)) or "none"
    planted = " or ".join(one.expected)
    return f"{names}; planted was {planted}", f"{one.result.outcome}: {one.result.verdict.reason}", ""
