"""The sample in docs/ equals the command's output now, is small, and names nothing of the machine that made it."""

from __future__ import annotations

import base64
import getpass
import gzip
import json
import re

import pytest

from lab_utils.runner.again import read_token
from tools import sample

REPORT = sample.SAMPLE / "report.html"


def test_the_sample_is_not_older_than_what_it_depends_on() -> None:
    made = json.loads((sample.SAMPLE / "made.json").read_text(encoding="utf-8"))
    assert made == sample.inputs(), "run `make sample`"


def test_the_sample_is_one_failing_report_that_can_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # A schedule is run again under the Python that found it alone.
    monkeypatch.setattr("lab_utils.interleavings.token._PYTHON", "py3.11")
    page = REPORT.read_text(encoding="utf-8")
    assert len(page.encode()) <= sample.MOST_BYTES
    assert '<div class="banner findings">' in page
    tokens = re.findall(r"registry-lab replay (r[^<\s]+)</pre>", page)
    assert {read_token(token).target for token in tokens} == {sample.TARGET}
    held = {name: gzip.decompress(base64.b64decode(coded)) for name, coded in _held(page)}
    notebook = (sample.SAMPLE / "01_user_isolation.ipynb").read_bytes()
    assert held["notebooks/01_user_isolation.ipynb"] == notebook
    assert any(cell.get("outputs") for cell in json.loads(notebook)["cells"])
    texts = [page, *(text.decode() for name, text in held.items() if not name.endswith(".parquet"))]
    places = rf"/(?:home|root|tmp|Users|private)/|\b{re.escape(getpass.getuser())}@|papermill\": \{{"
    assert [found for text in texts for found in re.findall(places, text)] == []


def _held(page: str) -> list[tuple[str, str]]:
    return re.findall(r'<script type="text/plain" data-file="([^"]+)">([^<]*)</script>', page)
