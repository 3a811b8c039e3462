"""A run as one file: readable without a script, its notebooks and data inside, and nothing asked of anybody."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from lab_utils.cli import main
from lab_utils.output import pages
from lab_utils.output.pages import bundle as bundling
from lab_utils.output.pages.bundle import bundle
from lab_utils.output.store import CategoryResults, Store, save_category
from lab_utils.values.profiles import CATEGORIES
from tests.browser import browsing, chromium
from tests.lab_utils.made import CATEGORY, HOSTILE, about, calibration, failed, result

NOTEBOOK = CATEGORIES[CATEGORY].notebook.removesuffix(".ipynb")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    opened = Store(tmp_path_factory.mktemp("outputs")).begin(about("first"))
    found = result("first", failed(), claim=HOSTILE)
    save_category(opened.folder, CategoryResults(CATEGORY, True, (found,), (calibration(),)))
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "# What a notebook says", "id": "a"}]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    opened.path(f"notebooks/{NOTEBOOK}.ipynb").write_text(json.dumps(notebook))
    opened.note(notebooks={CATEGORY: {"status": "ok", "seconds": 1.5, "message": ""}})
    pages.write_notebook_page(opened, f"notebooks/{NOTEBOOK}.ipynb")
    pages.publish(opened, "findings")
    return opened.finish("findings", pages.runs_page)


def held(page: str) -> dict[str, bytes]:
    found = re.findall(r'<script type="text/plain" data-file="([^"]+)">([^<]*)</script>', page)
    return {name: gzip.decompress(base64.b64decode(coded)) for name, coded in found}


def test_all_of_a_run_is_inside_once(run: Path, tmp_path: Path) -> None:
    page = bundle(run).page
    files = held(page)
    names = {
        f"notebooks/{NOTEBOOK}.ipynb",
        f"notebooks/{NOTEBOOK}.html",
        "data.html",
        "summary.md",
        "junit.xml",
        "run.json",
    }
    assert names <= set(files)
    assert files["summary.md"] == (run / "summary.md").read_bytes()
    (tmp_path / "findings.parquet").write_bytes(files["frames/findings.parquet"])
    assert pd.read_parquet(tmp_path / "findings.parquet")["key"].tolist() == ["F1"]
    assert "bo read what ada wrote" in page
    assert f'href="#file=notebooks/{NOTEBOOK}.html"' in page
    assert bundle(run).page == page


def test_nothing_in_it_leads_out_of_it(run: Path) -> None:
    page = bundle(run).page
    for text in (page, *(content.decode() for name, content in held(page).items() if name.endswith(".html"))):
        assert not re.findall(r'(?:href|src)="(?!#)[^"]*"', text)
        # A name of XML, which nobody asks for.
        assert "://" not in text.replace("http://www.w3.org/", "")
        assert "<script>alert" not in text


def test_the_largest_data_are_left_out_where_there_is_no_room(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    to_read = [content for name, content in held(bundle(run).page).items() if not name.startswith("frames/")]
    room = sum(len(base64.b64encode(gzip.compress(content, 9, mtime=0))) for content in to_read)
    monkeypatch.setattr(bundling, "_LARGEST", room)
    made = bundle(run)
    assert made.left_out
    assert all(name.startswith("frames/") for name in made.left_out)
    assert f"notebooks/{NOTEBOOK}.html" in held(made.page)
    assert main(["bundle", str(run), "--file", str(tmp_path / "b.html")]) == 0
    assert "is left out" in capsys.readouterr().err


def test_an_archive_holds_the_whole_folder(run: Path, tmp_path: Path) -> None:
    assert main(["export", "latest", "--out", str(run.parent), "--zip", str(tmp_path / "run.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        assert sorted(archive.namelist()) == sorted(
            f"{run.name}/{path.relative_to(run).as_posix()}" for path in run.rglob("*") if path.is_file()
        )


def test_without_a_browser_printing_says_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert main(["bundle", str(run), "--pdf"]) == 2
    assert "no Chromium or Chrome is on the path" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="needs Chromium")
def test_a_browser_opens_what_is_inside_and_prints_the_report(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "bundle.html"
    file.write_text(bundle(run).page)
    with browsing(tmp_path / "profile") as page:
        page.open(f"{file.as_uri()}#file=notebooks/{NOTEBOOK}.html")
        # A page that is being loaded has no body yet.
        text = "(document.getElementById('shown-page').contentDocument?.body?.innerText ?? '')"
        page.evaluate(
            "new Promise(go => { const frame = document.getElementById('shown-page');"
            f" const look = () => {text}.includes('What a notebook says') ? go() : setTimeout(look, 20); look(); }})"
        )
        assert page.evaluate("document.getElementById('shown').open")
        page.evaluate("document.querySelector('#shown button').click()")
        page.until("!document.getElementById('shown').open")
        assert "bo read what ada wrote" in page.evaluate("document.body.innerText")
    assert main(["bundle", str(run), "--pdf", "--file", str(tmp_path / "run.pdf")]) == 0
    assert (tmp_path / "run.pdf").read_bytes().startswith(b"%PDF-")
