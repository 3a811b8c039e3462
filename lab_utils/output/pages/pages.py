"""The page of one executed notebook."""

from __future__ import annotations

import html
import itertools
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from lab_utils.judges.anomalies import sentence_for, severity
from lab_utils.output.frames import breakable
from lab_utils.output.pages.templating import printable, render, style
from lab_utils.output.store import OpenRun
from lab_utils.values.texts import cut, plain_output, without_folders

__all__ = [
    "fit_output",
    "notebook_page",
    "quick_imports",
    "reported_output",
    "warm_up",
    "write_notebook_page",
]

_SECTION: Final = re.compile(r"<h2>(.*?)</h2>", flags=re.DOTALL)
_CONVERTING: Final = threading.Lock()
_MOST_TEXT: Final = 20_000
_MOST_DATA: Final = 4_000_000
_MOST_OUTPUTS: Final = 200
_FRAMES: Final = 60
_MOST_PROBLEMS: Final = 12
_TEXTS: Final = ("text/plain", "text/html", "text/markdown")
_NAME: Final = re.compile(r"(<td>|<code>)([a-z]+(?:_[a-z]+){2,})(?=</)")


@contextmanager
def quick_imports(*others: str) -> Iterator[None]:
    """While inside, an import of nbformat, nbconvert or papermill takes seconds less.

    Optional parts of jsonschema build whole parsers, only to check addresses and durations in metadata: they count as
    not installed, and so do the `others`.
    """
    left_out = [
        name for name in ("rfc3987_syntax", "rfc3986_validator", "isoduration", *others) if name not in sys.modules
    ]
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]


def notebook_page(notebook: Path, run_id: str) -> str:
    """Return the executed notebook as one page that needs no other file and no network."""
    with quick_imports():
        # nbconvert takes most of a second to import, and listing runs needs none of it.
        import nbformat
    read = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    verdict = _verdict(read)
    title, sections, body = _converted(read)
    return render(
        "notebook.html.j2",
        title=title or notebook.stem,
        css=f"{_code_style()}\n" + style("style.css", "notebook.css"),
        run_id=run_id,
        name=notebook.name,
        verdict=verdict,
        sections=sections,
        body=printable(body),
    )


_GATE: Final = re.compile(r"^\d+ checks? passed, and .*$", flags=re.MULTILINE)
_PROBLEM: Final = re.compile(r"; (?=\w+ (?:is [A-Z]+\b|was not |did not ))")
_FOUND: Final = re.compile(r" is FAIL: [\d,]+ findings?: ([a-z-]+(?:, [a-z-]+)*)")
_CODE: Final = re.compile(
    r'<div class="input_area">\s*(<div class="highlight.*?</pre></div>)\s*</div>', flags=re.DOTALL
)
_FOLDED: Final = r'<details class="code kept"><summary>code</summary><div class="input_area">\1</div></details>'
_AT_THE_CELL: Final = '<span id="papermill-error-cell"></span>**This cell ended the notebook:**'


def _verdict(notebook: Any) -> dict[str, Any] | None:
    """How the notebook ended, by its own last cells: by an error, or by the word of its gate; None without either."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    for output in reversed(outputs):
        if output.output_type == "error":
            is_gate = output.ename == "GateFailed"
            said = reported_output(output.evalue if is_gate else f"{output.ename}: {output.evalue}")
            problems = _PROBLEM.split(said) if is_gate else [said]
            lines = problems[:_MOST_PROBLEMS]
            return {"state": "findings", "word": "Not passed", "lead": _lead(said) if is_gate else "", "lines": lines}
        text = output.get("data", {}).get("text/markdown") or output.get("data", {}).get("text/plain") or ""
        if found := _GATE.search("".join(text)):
            return {"state": "passed", "word": "Passed", "lead": "", "lines": [found[0]]}
    return None


def _lead(problems: str) -> str:
    """The sentence for people of the most serious anomaly that the gate names; "" without one."""
    named = [name for found in _FOUND.findall(problems) for name in found.split(", ")]
    return sentence_for(min(named, key=severity)) if named else ""


def _bounded(notebook: Any) -> Any:
    """Bound the outputs of the cells of any notebook: nbconvert takes quadratic time for coloured ones. papermill's two
    remarks on a cell that failed are put into words of the report."""
    for cell in notebook.cells:
        if "papermill-error-cell-tag" in cell.metadata.get("tags", ()):
            # The first of the two stands at the top, where the verdict is.
            cell.source = "" if "href=" in cell.source else _AT_THE_CELL
        kept: list[Any] = []
        streams: dict[str, tuple[Any, list[str]]] = {}
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                first, texts = streams.setdefault(output.name, (output, []))
                texts.append("".join(output.text))
                kept += [output] if first is output else []
            elif len(kept) < _MOST_OUTPUTS:
                if output.output_type == "error":
                    output.traceback = [cut(plain_output(part), _MOST_TEXT) for part in output.traceback[-_FRAMES:]]
                else:
                    output.data = {name: fit_output(name, value) for name, value in output.data.items()}
                kept.append(output)
        for first, texts in streams.values():
            first.text = reported_output("".join(texts))
        if "outputs" in cell:
            cell.outputs = kept
    return notebook


def reported_output(text: str) -> str:
    """A program's output, without sequences that steer a terminal and without names of folders; of a long one head and
    tail."""
    return without_folders(plain_output(cut(text, _MOST_TEXT)))


def fit_output(kind: str, value: Any) -> Any:
    """A cell's output of this media type: a text without folders, or a remark where it is too large to be shown."""
    if not isinstance(value, str):
        return value
    if len(value) > _MOST_DATA:
        return f"{len(value):,} characters of {kind} are left out here"
    return without_folders(plain_output(value)) if kind in _TEXTS else value


def warm_up() -> None:
    """Convert a notebook that has a little of everything, so that in forks of this process the first page is as quick
    as a later one."""
    with quick_imports():
        from nbformat import v4
    code = v4.new_code_cell("1 + 1", outputs=[v4.new_output("display_data", {"text/html": "<p>2</p>"})])  # type: ignore[no-untyped-call]
    made = v4.new_notebook(cells=[v4.new_markdown_cell("# A *title*"), code])  # type: ignore[no-untyped-call]
    _converted(made)
    _code_style()


def _converted(notebook: Any) -> tuple[str, list[str], str]:
    """The title of a notebook, its sections, and itself as HTML."""
    # Threads share the exporter, which keeps the notebook that it is at.
    with _CONVERTING:
        body, _ = _exporter().from_notebook_node(_bounded(notebook))
    body = _NAME.sub(lambda found: found[1] + breakable(found[2]), body)
    # What may scroll sideways is reached by keyboard.
    body = _CODE.sub(_FOLDED, body).replace('<div class="output_area">', '<div class="output_area" tabindex="0">')
    sections = [html.unescape(re.sub(r"<[^>]*>", "", found)) for found in _SECTION.findall(body)]
    numbers = itertools.count(1)
    body = _SECTION.sub(lambda found: f'<h2 id="section-{next(numbers)}">{found[1]}</h2>', body)
    title = re.search(r"<h1[^>]*>(.*?)</h1>", body, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", "", title[1])) if title else "", sections, body


@cache
def _exporter() -> Any:
    with quick_imports():
        from nbconvert import HTMLExporter
    return HTMLExporter(template_name="basic", exclude_anchor_links=True, embed_images=True)  # type: ignore[no-untyped-call]


@cache
def _code_style() -> str:
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n.highlight {{ background: none; }}"


def write_notebook_page(run: OpenRun, notebook: str) -> None:
    """Write the page of an executed notebook of the run, beside it."""
    run.write(notebook.removesuffix(".ipynb") + ".html", notebook_page(run.path(notebook), run.run_id))
