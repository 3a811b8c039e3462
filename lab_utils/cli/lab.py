"""`registry-lab lab`: opens JupyterLab on the notebooks."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab_utils.cli.exits import LAB, Exit, missing
from lab_utils.cli.terminal import say

__all__ = ["arguments", "open_lab", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """It has none of its own: what follows is JupyterLab's."""
    parser.epilog = "Ends with the exit code of JupyterLab."


def run(options: argparse.Namespace) -> int:
    if absent := missing(("jupyterlab", *LAB)):
        say(absent)
        return Exit.LAB_FAILED
    return open_lab(options.others)


def open_lab(options: Sequence[str]) -> int:
    """Run JupyterLab until it ends, and return its exit code.

    From an installed wheel the notebooks are first copied to `./notebooks`: what stands there already is kept.
    """
    from lab_utils.batch import notebooks_folder

    folder = notebooks_folder()
    if folder.name.startswith("_"):
        own = Path("notebooks")
        own.mkdir(exist_ok=True)
        for notebook in sorted(folder.glob("*.ipynb")):
            if not (own / notebook.name).exists():
                shutil.copy(notebook, own)
        folder = own
    try:
        return subprocess.run([sys.executable, "-m", "jupyterlab", *options, str(folder)], check=False).returncode
    except KeyboardInterrupt:
        # JupyterLab had the same Ctrl-C and has asked what to do.
        return 0
