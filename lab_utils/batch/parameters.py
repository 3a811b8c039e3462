"""Checks parameters against a notebook's own parameters cell, as papermill only warns about an unknown one."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path

from lab_utils.values.profiles import UsageError, Value, unknown

__all__ = ["NotebookError", "check_parameters", "notebook_parameters", "notebooks_folder"]

_PACKAGE = Path(__file__).resolve().parents[1]


class NotebookError(Exception):
    """A notebook is not one that can be run with parameters."""


def notebooks_folder() -> Path:
    """Where the notebooks are: beside the package in a clone, inside it in an installed wheel."""
    beside = _PACKAGE.parent / "notebooks"
    return beside if (beside / "00_overview.ipynb").is_file() else _PACKAGE / "_notebooks"


def notebook_parameters(notebook: Path) -> dict[str, Value]:
    """Return the names and literal values of the cell tagged `parameters`.

    Raises `NotebookError` where there is no such cell, or it holds anything but assignments of literals.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotebookError(f"{notebook} cannot be read as a notebook: {error!r}") from error
    if len(tagged) != 1:
        raise NotebookError(f"{notebook} has {len(tagged)} cells tagged 'parameters'; it needs one")
    found: dict[str, Value] = {}
    try:
        for line in ast.parse("".join(tagged[0]["source"])).body:
            match line:
                case ast.Assign(targets=[ast.Name(id=name)], value=literal):
                    found[name] = ast.literal_eval(literal)
                case _:
                    raise NotebookError(f"{notebook}, parameters cell: {ast.unparse(line)!r} is not a plain assignment")
    except (SyntaxError, ValueError) as error:
        raise NotebookError(f"{notebook}, parameters cell: {error}") from error
    return found


def check_parameters(notebook: Path, given: Mapping[str, Value]) -> None:
    """Raise `UsageError` for a parameter that the notebook does not have, or has with a value of another type."""
    own = notebook_parameters(notebook)
    for name, value in given.items():
        if name not in own:
            raise UsageError(f"{unknown('parameter', name, tuple(own))} (notebook {notebook.name})")
        if type(value) is not type(own[name]):
            expected = type(own[name]).__name__
            raise UsageError(
                f"parameter {name}={value!r} is of type {type(value).__name__}; {notebook.name} takes {expected}"
            )
