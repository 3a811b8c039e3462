"""`registry-lab bundle`: writes a run as one HTML file that opens offline, or prints its report to PDF."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from lab_utils.cli.exits import LAB, Exit, missing
from lab_utils.cli.terminal import say
from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

__all__ = ["arguments", "run"]

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_PRINT_S: Final = 180.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `bundle`."""
    parser.add_argument("run", metavar="RUN", help="its name, its folder, or latest")
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="where runs are (default: %(default)s)")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="the file to write (default: RUN.html or RUN.pdf here)"
    )
    parser.add_argument(
        "--pdf", action="store_true", help="print the report to PDF, by the Chromium or Chrome that is on the path"
    )


def run(options: argparse.Namespace) -> int:
    if absent := missing(LAB):
        say(absent)
        return Exit.LAB_FAILED
    from lab_utils.output.pages.bundle import bundle
    from lab_utils.output.store import StoreError, open_run
    from lab_utils.output.store.files import write

    browser = _browser() if options.pdf else ""
    try:
        found = open_run(Path(options.out), options.run)
        file: Path = options.file or Path(f"{found.run_id}{'.pdf' if options.pdf else '.html'}")
        if options.pdf:
            _print(browser, found.folder / "index.html", file.absolute())
        else:
            made = bundle(found.folder)
            write(file.absolute(), made.page)
            for name in made.left_out:
                say(f"{name} is left out, for the file would be too large; `registry-lab export` has it")
    except StoreError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{shown(options.file)}: {error.strerror}; name another file") from error
    print(f"{shown(file)}: {file.stat().st_size / 1e6:.1f} MB")
    return Exit.PASSED


def _browser() -> str:
    for name in filter(None, (os.environ.get("CHROME"), *_BROWSERS)):
        if path := shutil.which(name):
            return path
    raise UsageError("--pdf: no Chromium or Chrome is on the path; install one, or name it by $CHROME")


def _print(browser: str, page: Path, file: Path) -> None:
    if not page.is_file():
        raise UsageError(f"{page.parent.name} has no report; only a run that ended has one")
    with tempfile.TemporaryDirectory(prefix="registry-lab-print-") as profile:
        command = [
            browser,
            *("--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-sync"),
            # In a container there is no sandbox for root; the page is the lab's own and has no script.
            *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(
                "--no-pdf-header-footer",
                f"--user-data-dir={profile}",
                f"--print-to-pdf={file}",
                page.resolve().as_uri(),
            ),
        ]
        try:
            # It leaves a folder of its own among the temporary files.
            own = {**os.environ, "TMPDIR": profile}
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_PRINT_S, check=False, env=own)
        except subprocess.TimeoutExpired as error:
            raise UsageError(f"--pdf: {browser} did not end in {_PRINT_S:.0f} s") from error
    if ended.returncode or not file.is_file():
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"--pdf: {browser} ended with {ended.returncode}: {shown(last)}")
