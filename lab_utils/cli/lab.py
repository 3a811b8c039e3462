"""`registry-lab lab`: opens JupyterLab on copies of the notebooks."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lab_utils.cli.exits import LAB, Exit, missing
from lab_utils.cli.terminal import say
from lab_utils.values.profiles import UsageError

__all__ = ["Copies", "add_folder", "arguments", "open_lab", "require_lab", "run"]

_CONFIG_VARIABLE: Final = "JUPYTER_CONFIG_PATH"
_ORIGINALS: Final = ".originals.json"
_CONFIG: Final = Path(__file__).with_name("jupyter")
"""JupyterLab's news popup off, which covers the output of a notebook; a user's own setting comes before this one."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder; further arguments are JupyterLab's."""
    add_folder(parser)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the folder of the copies."""
    parser.add_argument(
        "--folder",
        default=str(Path("outputs", "lab")),
        metavar="FOLDER",
        help="where the copies of the notebooks are kept, with your edits (default: %(default)s)",
    )
    parser.epilog = "Other options are passed on to JupyterLab, and the exit code is that of JupyterLab."


def run(options: argparse.Namespace) -> int:
    if not require_lab():
        return Exit.LAB_FAILED
    copies = Copies(Path(options.folder))
    copies.make()
    return open_lab(options.others, copies.folder)


def require_lab() -> bool:
    """Whether all packages that notebooks need are installed; a remark says how to install a missing one."""
    if absent := missing(("jupyterlab", *LAB)):
        say(absent)
    return not absent


class Copies:
    """A folder with copies of the notebooks, so that running one changes neither the checkout nor the installation.

    A copy that its user has changed, or run and saved, stays as it is; the others are renewed. Raises `UsageError`
    for a folder that cannot be written to, or that holds the notebooks themselves.
    """

    def __init__(self, folder: Path) -> None:
        from lab_utils.batch import notebooks_folder

        self._originals = notebooks_folder()
        if folder.resolve() == self._originals.resolve():
            raise UsageError(f"--folder {folder} holds the notebooks themselves; name another for the copies")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _ORIGINALS).touch()
        except OSError as error:
            raise UsageError(f"--folder {folder}: {error.strerror}; name another folder") from error
        self.folder = folder

    def make(self) -> None:
        """Copy every notebook, and name those that stay because they were changed."""
        stay = [name for name in self._names() if not self.write(name, (self._originals / name).read_bytes())]
        say(f"the copies of the notebooks are in {self.folder}; running them changes nothing else")
        if stay:
            say(f"kept as you left them: {', '.join(stay)}; delete one to have it copied again")

    def write(self, name: str, text: bytes) -> bool:
        """Write one copy. Returns false where it stays as its user has left it."""
        copy, written = self.folder / name, self._written()
        if copy.exists():
            there = copy.read_bytes()
            if there != text and _digest(there) != written.get(name):
                return False
        copy.write_bytes(text)
        (self.folder / _ORIGINALS).write_text(json.dumps({**written, name: _digest(text)}, indent=1) + "\n")
        return True

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._originals.glob("*.ipynb"))

    def _written(self) -> dict[str, str]:
        """The digest of each copy as it was written here."""
        try:
            found = json.loads((self.folder / _ORIGINALS).read_bytes())
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def open_lab(options: Sequence[str], opened: Path) -> int:
    """Run JupyterLab on a folder or a notebook until it ends, and return its exit code."""
    from lab_utils.notebook import FOLDER_VARIABLE

    config = os.pathsep.join(filter(None, [str(_CONFIG), os.environ.get(_CONFIG_VARIABLE)]))
    environment = {**os.environ, FOLDER_VARIABLE: str(Path.cwd()), _CONFIG_VARIABLE: config}
    words = [sys.executable, "-m", "jupyterlab", *options, str(opened)]
    try:
        return subprocess.run(words, check=False, env=environment).returncode
    except KeyboardInterrupt:
        # JupyterLab had the same Ctrl-C and asks its own question.
        return 0
