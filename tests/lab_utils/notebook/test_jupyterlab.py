"""A notebook's form in JupyterLab itself, in a browser: Run, what is shown meanwhile, the table that follows."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.browser import browsing, chromium
from tests.lab_utils.made import notebook

ROOT = Path(__file__).resolve().parents[3]
CELLS = ("from lab_utils import Lab", 'lab = Lab("user_isolation", target="SharedDispatcher")\nlab', "lab.form()")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a notebook in a JupyterLab that `registry-lab lab` has started."""
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "form.ipynb").write_text(notebook(*CELLS))
    code = "import sys; from lab_utils.cli import main; sys.exit(main())"
    options = (
        "--allow-root",
        "--no-browser",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        "--expose-app-in-browser",
    )
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", code, "lab", "--folder", "copies", *options, "--IdentityProvider.token="],
            cwd=tmp_path,
            env={**os.environ, **own, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert server.stderr is not None
    port = next(found[1] for line in server.stderr if (found := re.search(r"http://127.0.0.1:(\d+)/lab", line)))
    # Nobody reads on, and a full pipe would stop the server.
    rest = threading.Thread(target=server.stderr.read)
    rest.start()
    try:
        yield f"http://127.0.0.1:{port}/lab/tree/form.ipynb"
    finally:
        # With its kernels, each of which is in a group of its own.
        for one in psutil.Process(server.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        server.wait()
        rest.join()
        server.stderr.close()


BUTTON = "[...document.querySelectorAll('.jupyter-widgets button')].find(one => one.innerText.trim() === 'Run')"
TABLE = "document.querySelector('.jupyter-widgets table')"


@pytest.mark.skipif(chromium() is None, reason="needs Chromium")
def test_the_form_runs_checks_shows_them_and_its_table_sorts_and_filters(address: str, tmp_path: Path) -> None:
    with browsing(tmp_path / "profile") as page:
        page.open(address)
        # A cell that is run before its kernel answers is not run at all.
        book = "[...jupyterapp.shell.widgets('main')].find(one => one.sessionContext)"
        page.until(f"!!(window.jupyterapp && {book})")
        context = f"{book}.sessionContext"
        page.evaluate(f"{context}.ready.then(() => {context}.session.kernel.info).then(() => true)")
        page.evaluate(f"jupyterapp.shell.activateById({book}.id)")
        page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
        page.until(f"!!{BUTTON}")
        # Two checks; the second lasts for seconds.
        page.evaluate("document.querySelectorAll('.jupyter-widgets input[type=checkbox]').forEach("
                      "(box, at) => at < 2 || box.click())")  # fmt: skip
        page.evaluate(f"{BUTTON}.click()")
        # In one look: between two checks there is no figure.
        live = "document.querySelector('.lab-live:has(svg)')"
        page.until(f"/ of memory /.test({live}?.innerText)")
        page.until("/2 of 2 checks ran/.test(document.querySelector('[role=status]')?.innerText)")
        page.until(f"{TABLE}?.tBodies[0].rows.length === 2")
        shown = f"[...{TABLE}.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[1].textContent)"
        first, second = page.evaluate(shown)
        by_check = f"{TABLE}.tHead.rows[0].cells[1].querySelector('button').click()"
        page.evaluate(f"{by_check}, {by_check}")
        assert page.evaluate(shown) == sorted((first, second), reverse=True)
        filter_by = f"{TABLE}.previousElementSibling.querySelector('input')"
        words = f"-{first} shareddispatcher"
        page.evaluate(f"{filter_by}.value = '{words}', {filter_by}.dispatchEvent(new Event('input'))")
        assert page.evaluate(shown) == [second]
        # JupyterLab's question about its news would cover the output.
        assert "news" not in page.evaluate("document.body.innerText")
