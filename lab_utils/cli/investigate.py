"""`registry-lab investigate`: opens a notebook on one finding of a run."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Final

from lab_utils.cli.exits import Exit
from lab_utils.cli.lab import Copies, add_folder, open_lab, require_lab
from lab_utils.cli.replay import finding_in_run
from lab_utils.cli.terminal import say

__all__ = ["arguments", "run"]

_NOTEBOOK: Final = "09_investigate.ipynb"
_EXAMPLE: Final = "example"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the finding, and where the notebook is kept."""
    parser.add_argument("run_name", metavar="RUN", help="a run: its name, its folder, or latest")
    parser.add_argument("finding", metavar="F1", help="the key of a finding in that run")
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="where runs are (default: %(default)s)")
    add_folder(parser)


def run(options: argparse.Namespace) -> int:
    """Write a copy of the notebook that is about this finding, and open JupyterLab on it."""
    if not require_lab():
        return Exit.LAB_FAILED
    from lab_utils.batch import notebooks_folder

    found, one = finding_in_run(options.run_name, options.finding, Path(options.out))
    is_here = found.folder.parent == Path("outputs").resolve()
    where = found.folder.name if is_here else str(found.folder)
    copies = Copies(Path(options.folder))
    copy = copies.folder / f"investigate_{found.run_id}_{one.key}.ipynb"
    original = (notebooks_folder() / _NOTEBOOK).read_text(encoding="utf-8")
    if copies.write(copy.name, about(original, run=where, finding=one.key).encode()):
        say(f"{one.key} of run {found.run_id} is in {copy}")
    else:
        say(f"kept as you left it: {copy}; delete it to begin again")
    return open_lab(options.others, copy)


def about(notebook: str, **parameters: str) -> str:
    """The notebook without its example, and with these parameters alone."""
    book = json.loads(notebook)
    book["cells"] = [cell for cell in book["cells"] if _EXAMPLE not in cell["metadata"].get("tags", [])]
    for cell in book["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = [_with(line, parameters) for line in cell["source"] if _name(line) in parameters]
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def _name(line: str) -> str:
    return line.partition(" = ")[0]


def _with(line: str, parameters: dict[str, str]) -> str:
    # A backslash in the value would be read as one of a template.
    return re.sub(r'= ".*?"', lambda _: f"= {json.dumps(parameters[_name(line)])}", line, count=1)
