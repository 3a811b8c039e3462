"""A run as one HTML file that opens offline: the report, and inside it its notebooks, its data as tables, its files."""

from __future__ import annotations

import base64
import gzip
import html
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from lab_utils.output.pages.templating import TEMPLATES, printable, render, style
from lab_utils.output.store import StoreError
from lab_utils.output.store.files import read

__all__ = ["Bundle", "bundle"]

_MOST_ROWS: Final = 500
_LARGEST: Final = 4_600_000
"""Bytes of all files inside, as they are written; the report itself comes on top."""
_TABLES: Final = ("findings", "measurements", "verdicts", "calibrations")
_LINK: Final = re.compile(r'href="(notebooks/[^"#]+|summary\.md|junit\.xml)"')
_NOTEBOOK: Final = re.compile(r'<a href="[^"#:]*\.ipynb">(.*?)</a>', flags=re.DOTALL)
_UP: Final = re.compile(r'<a href="\.\./[^"]*">(.*?)</a>', flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bundle:
    """The page, and the names of the files for which it had no room."""

    page: str
    left_out: tuple[str, ...]


def bundle(folder: Path) -> Bundle:
    """Make the page of a run's folder. Raises `StoreError` where it has no report.

    The report stands in it as it is, readable and printable without a script. Each other file is in it once and
    compressed; a small script shows a page beside the report, and saves files of other kinds. The largest data are left
    out where the page would be too large to be sent.
    """
    try:
        report = read(folder / "index.html").decode("utf-8")
    except OSError as error:
        raise StoreError(f"{folder.name} has no report: {error.strerror}; only a run that ended has one") from error
    texts = dict(_files(folder))
    kept, left_out, size = {}, [], 0
    # Files for reading come before files for computing.
    for name, content in sorted(texts.items(), key=lambda one: (one[0].startswith("frames/"), len(one[1]))):
        coded = base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
        if size + len(coded) > _LARGEST:
            left_out.append(name)
        else:
            kept[name] = coded
            size += len(coded)
    parts = render(
        "bundle.html.j2",
        files=[
            {"name": name, "coded": coded, "is_page": name.endswith(".html")} for name, coded in sorted(kept.items())
        ],
        left_out=left_out,
        script=(TEMPLATES / "bundle.js").read_text(encoding="utf-8"),
        css=(TEMPLATES / "bundle.css").read_text(encoding="utf-8"),
    )
    page = _LINK.sub(lambda found: f'href="#file={found[1]}"' if found[1] in kept else found[0], _UP.sub("", report))
    body, end, rest = page.rpartition("</body>")
    if not end:
        body, rest = page, ""
    return Bundle(f"{body}{parts}{end}{rest}", tuple(left_out))


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in filter(Path.is_file, sorted(folder.glob("notebooks/*"))):
        if path.suffix == ".html":
            # Inside the bundle there is nothing above a page, or beside it.
            page = _UP.sub(r"\1", read(path).decode("utf-8"))
            yield f"notebooks/{path.name}", _NOTEBOOK.sub(r"\1", page).encode()
        elif path.suffix == ".ipynb":
            yield f"notebooks/{path.name}", read(path)
    for name in ("summary.md", "junit.xml", "run.json"):
        if (folder / name).is_file():
            yield name, read(folder / name)
    for path in filter(Path.is_file, sorted(folder.glob("frames/*.parquet"))):
        yield f"frames/{path.name}", read(path)
    if (tables := _tables(folder)) is not None:
        yield "data.html", tables.encode()


def _tables(folder: Path) -> str | None:
    """The data as one page of tables; None where there are none."""
    shown: list[dict[str, Any]] = []
    for name in _TABLES:
        path = folder / "frames" / f"{name}.parquet"
        if not path.is_file():
            continue
        # Any version may have written it: the columns are taken as they are.
        frame = pd.read_parquet(io.BytesIO(read(path)))
        rows = [[_cell(value) for value in row] for row in frame.head(_MOST_ROWS).itertuples(index=False)]
        shown.append({"name": name, "columns": list(frame.columns), "rows": rows, "all": len(frame)})
    if not shown:
        return None
    return render("data.html.j2", title="Data", css=style("style.css"), tables=shown, most=_MOST_ROWS)


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = printable(text if len(text) <= 400 else f"{text[:400]}…")
    return html.escape(text)
