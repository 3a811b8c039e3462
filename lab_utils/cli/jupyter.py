"""Opens JupyterLab on the notebooks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab_utils.batch import notebooks_folder

__all__ = ["open_lab"]


def open_lab(options: Sequence[str]) -> int:
    """Run JupyterLab until it ends, and return its exit code.

    From an installed wheel the notebooks are first copied to `./notebooks`: what stands there already is kept.
    """
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
