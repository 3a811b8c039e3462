"""The page of one executed notebook, and the page that lists all runs."""

from __future__ import annotations

import html
import itertools
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from lab_utils.output.frames import breakable
from lab_utils.output.pages.templating import moment, render, style
from lab_utils.output.store import PARTIAL, RunRecord, Summary

__all__ = ["notebook_page", "quicken_imports", "runs_page"]

_SECTION: Final = re.compile(r"<h2>(.*?)</h2>", flags=re.DOTALL)
_NAME: Final = re.compile(r"(<td>|<code>)([a-z]+(?:_[a-z]+){2,})(?=</)")


def quicken_imports() -> None:
    """To be called before nbformat, nbconvert or papermill is first imported: seconds less.

    An optional part of jsonschema builds whole parsers as it is imported, only to check addresses in metadata.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def notebook_page(notebook: Path, run_id: str) -> str:
    """Return the executed notebook as one page that needs no other file and no network."""
    quicken_imports()
    # nbconvert takes most of a second to import, and listing runs needs none of it.
    import nbformat
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic", exclude_anchor_links=True, embed_images=True
    )
    read = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(read)
    body = _NAME.sub(lambda found: found[1] + breakable(found[2]), body)
    sections = [html.unescape(re.sub(r"<[^>]*>", "", found)) for found in _SECTION.findall(body)]
    numbers = itertools.count(1)
    body = _SECTION.sub(lambda found: f'<h2 id="section-{next(numbers)}">{found[1]}</h2>', body)
    title = re.search(r"<h1[^>]*>(.*?)</h1>", body, flags=re.DOTALL)
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    code = f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n.highlight {{ background: none; }}"
    return render(
        "notebook.html.j2",
        title=html.unescape(re.sub(r"<[^>]*>", "", title[1])) if title else notebook.stem,
        css=f"{code}\n" + style("style.css", "notebook.css"),
        run_id=run_id,
        name=notebook.name,
        sections=sections,
        body=body,
    )


def runs_page(runs: Iterable[Summary]) -> str:
    """Return the page that lists runs, in the order given; unfinished and unreadable ones say so."""
    return render("runs.html.j2", title="Runs", css=style("style.css"), runs=[_line(run) for run in runs])


def _line(run: Summary) -> dict[str, Any]:
    line = {
        "run_id": run.run_id,
        "state": run.state,
        "unfinished": run.folder.endswith(PARTIAL),
        "link": f"{run.folder}/",
        "what": run.why,
        "counts": "",
        "code": "",
    }
    return line if run.about is None else line | _told(run.folder, run.about)


def _told(folder: str, about: RunRecord) -> dict[str, str]:
    counts = " ".join(f"{count} {word.replace('_', ' ')}" for word, count in about.get("outcomes", {}).items())
    if calibrated := about.get("calibrated"):
        counts += f", {calibrated['caught']} of {calibrated['planted']} planted caught"
    git = about["provenance"]["git"]
    notebooks = ", ".join(row["notebook"].removesuffix(".ipynb") for row in about["catalog"])
    what = (moment(about["started_at"]), about["target"], about["profile"], f"seed {about['seed']}", notebooks)
    return {
        # An interrupted run may have no report; its folder is still worth a look.
        "link": f"{folder}/index.html" if "outcomes" in about else f"{folder}/",
        "what": ", ".join(filter(None, what)),
        "counts": counts,
        "code": f"{git['commit'][:10]}{'' if git['clean'] else ', changed tree'}" if git and git["commit"] else "",
    }
