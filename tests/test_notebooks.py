"""Notebooks are prose and one-line expressions; their defaults are those of the smoke profile.

The rules are a function from a notebook to a list of problems; below, each is also seen to find one.
"""

from __future__ import annotations

import ast
import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lab_utils.batch import notebook_parameters
from lab_utils.checks import CHECKS
from lab_utils.notebook.gallery import PAIRS
from lab_utils.output.store import LATEST
from lab_utils.runner import DEFAULT_SEED
from lab_utils.targets import RIGHT
from lab_utils.values.profiles import CATEGORIES, DEFAULT_PROFILE, parameters_for

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CATEGORY_OF = {category.notebook: category for category in CATEGORIES.values()}
OF_CATEGORIES = [path for path in NOTEBOOKS if path.name in CATEGORY_OF]
COMMON = {
    "target": "agent_registry",
    "profile": DEFAULT_PROFILE,
    "seed": DEFAULT_SEED,
    "protects": "",
    "save_to": "",
    "fail_on_findings": False,
}
LATER = ["08_planted_defects.ipynb", "09_investigate.ipynb", "10_frameworks.ipynb", "12_your_own_registry.ipynb"]
MOST_LINES = 6
GALLERY = ROOT / "notebooks" / "08_planted_defects.ipynb"

FORBIDDEN = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda),
    *(ast.For, ast.AsyncFor, ast.While, ast.If, ast.IfExp, ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.Match),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Global, ast.Delete, ast.Assert, ast.Raise),
)

Notebook = dict[str, Any]


def load(path: Path) -> Notebook:
    book: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return book


def source(cell: Notebook) -> str:
    return "".join(cell["source"])


def tags(cell: Notebook) -> list[str]:
    found: list[str] = cell["metadata"].get("tags", [])
    return found


# ------------------------------------------------------------------------------------------------------------ the rules


def problems(book: Notebook) -> list[str]:
    """One sentence for each rule that the notebook breaks."""
    found = [] if (book["nbformat"], book["nbformat_minor"]) == (4, 5) else ["it is not of format 4.5"]
    ids = [cell.get("id", "") for cell in book["cells"]]
    if len(set(ids)) != len(ids) or not all(ids):
        found.append("its cells need an id each, and each another")
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    if not book["cells"] or not re.match(r"# .*\?\n\n", source(book["cells"][0])):
        found.append("it does not begin with a title that asks a question, and the claim")
    if [tags(cell) for cell in code].count(["parameters"]) != 1:
        found.append("it needs one cell tagged parameters")
    for cell in code:
        found += [f"cell {cell.get('id')}: {problem}" for problem in _cell_problems(cell)]
    importing = [cell for cell in code if re.search(r"^\s*(import|from)\s", source(cell), flags=re.MULTILINE)]
    if len(importing) != 1:
        found.append(f"{len(importing)} cells import; one does")
    text = json.dumps(book)
    if re.search(r"/(home|root|Users|tmp|work)/|[A-Za-z]:\\\\\\\\", text):
        found.append("it names a folder of somebody's machine")
    return found


def _cell_problems(cell: Notebook) -> list[str]:
    found = []
    if cell["outputs"] or cell["execution_count"] is not None:
        found.append("it has stored output")
    # Only declarations stand in the parameters cell, one a line, and there may be more of them.
    lines = [line for line in source(cell).splitlines() if line.strip()]
    if len(lines) > MOST_LINES and "parameters" not in tags(cell):
        found.append(f"{len(lines)} lines; at most {MOST_LINES}")
    for line in lines:
        if "parameters" in tags(cell) and not re.search(r"\S  # \w+", line):
            found.append(f"{line!r} does not say its unit")
        if line.lstrip().startswith(("%", "!")):
            found.append(f"{line!r} is a command of the notebook's own")
            return found
    return found + [
        f"{type(node).__name__} at line {node.lineno}; logic belongs in lab_utils"
        for node in ast.walk(ast.parse(source(cell)))
        if isinstance(node, FORBIDDEN)
    ]


def category_problems(name: str, book: Notebook) -> list[str]:
    """The cells that a category's notebook must have beside: its checks, calibrated and then run, the save, the
    gate."""
    code = [source(cell) for cell in book["cells"] if cell["cell_type"] == "code"]
    prose = "\n".join(source(cell) for cell in book["cells"] if cell["cell_type"] == "markdown")
    found = []
    calls = [call for call in code if call.startswith(("lab.calibrate(", "lab.run("))]
    checks = [check.name for check in CHECKS.values() if check.category == name]
    expected = [f'lab.{verb}("{check}")' for check in checks for verb in ("calibrate", "run")]
    if calls != expected:
        found.append(f"it calls {calls}, and should call {expected}")
    found += [
        f"no heading names {check}" for check in checks if not re.search(rf"^## .*`{check}`$", prose, re.MULTILINE)
    ]
    if f'Lab("{name}", **given, **sizes)' not in "\n".join(code):
        found.append("it does not pass its parameters on")
    for parameter in (*COMMON, *parameters_for(name, DEFAULT_PROFILE)):
        if parameter != "fail_on_findings" and f'"{parameter}": {parameter}' not in "\n".join(code):
            found.append(f"the parameter {parameter} reaches nobody")
    for words in ("What the anomaly looks like", "what it could not have shown"):
        if words not in prose:
            found.append(f"its prose lacks: {words}")
    if "lab.save()" not in code:
        found.append("it saves nothing")
    last = book["cells"][-1]
    if (source(last), tags(last)) != ("lab.gate(fail_on_findings)", ["gate"]):
        found.append("its last cell is not the gate")
    return found


# ---------------------------------------------------------------------------------------------- the notebooks keep them


def test_there_is_a_notebook_for_each_category_and_two_of_the_run() -> None:
    assert {path.name for path in NOTEBOOKS} == {"00_overview.ipynb", *CATEGORY_OF, *LATER}


def test_the_gallerys_notebook_names_its_pairs_and_runs_nothing_as_it_stands() -> None:
    values = notebook_parameters(GALLERY)
    assert values == {"run": LATEST, "pairs": PAIRS[0], "profile": DEFAULT_PROFILE, "seed": DEFAULT_SEED}
    code = "\n".join(source(cell) for cell in load(GALLERY)["cells"] if cell["cell_type"] == "code")
    assert all(f"{name}={name}" in code for name in values)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_the_rules(path: Path) -> None:
    assert problems(load(path)) == []


@pytest.mark.parametrize("path", OF_CATEGORIES, ids=lambda path: path.stem)
def test_a_categorys_notebook_calibrates_and_runs_its_checks(path: Path) -> None:
    assert category_problems(CATEGORY_OF[path.name].name, load(path)) == []


@pytest.mark.parametrize("path", OF_CATEGORIES, ids=lambda path: path.stem)
def test_the_defaults_are_the_smoke_profiles_with_their_units(path: Path) -> None:
    category = CATEGORY_OF[path.name]
    target = RIGHT if category.of_services else COMMON["target"]
    assert notebook_parameters(path) == {
        **parameters_for(category.name, DEFAULT_PROFILE),
        **COMMON,
        "target": target,
    }
    (cell,) = [cell for cell in load(path)["cells"] if "parameters" in tags(cell)]
    for parameter in category.parameters:
        assert re.search(rf"^{parameter.name} = .*# {parameter.unit}\b", source(cell), flags=re.MULTILINE)


# --------------------------------------------------------------------------------------- a bad notebook is seen to fail


def changed(change: str, value: Any) -> Notebook:
    """The first category's notebook with one thing about its import cell, or about itself, made wrong."""
    book = copy.deepcopy(load(NOTEBOOKS[1]))
    (imports,) = [cell for cell in book["cells"] if cell["id"] == "imports"]
    match change:
        case "source":
            imports["source"] = [value]
        case "added":
            imports["source"] = [*imports["source"], f"\n{value}"]
        case "cell":
            imports |= value
        case "book":
            book |= value
        case "first":
            book["cells"][0]["source"] = [value]
        case "parameters":
            (cell,) = [cell for cell in book["cells"] if "parameters" in tags(cell)]
            cell["source"] = [value]
    return book


BAD = {
    "def": ("added", "def f(): ...", "FunctionDef"),
    "class": ("added", "class A: ...", "ClassDef"),
    "lambda": ("added", "f = lambda: 1", "Lambda"),
    "for": ("added", "for a in b: c", "For"),
    "if": ("added", "if a: b", "If"),
    "while": ("added", "while a: b", "While"),
    "try": ("added", "try: a\nexcept B: c", "Try"),
    "comprehension": ("added", "[a for a in b]", "ListComp"),
    "with": ("added", "with a: b", "With"),
    "seven lines": ("added", "a\nb\nc\nd\ne\nf", "7 lines"),
    "magic": ("added", "%matplotlib inline", "command"),
    "shell": ("added", "!pip install x", "command"),
    "no import": ("source", "a", "0 cells import"),
    "output": ("cell", {"outputs": [{"output_type": "stream"}]}, "stored output"),
    "counted": ("cell", {"execution_count": 3}, "stored output"),
    "no id": ("cell", {"id": ""}, "an id each"),
    "same id": ("cell", {"id": "lab"}, "an id each"),
    "old format": ("book", {"nbformat_minor": 4}, "4.5"),
    "no question": ("first", "# User isolation\n\nClaim.", "asks a question"),
    "no claim": ("first", "# Is it so?", "asks a question"),
    "no unit": ("parameters", "users = 8", "does not say its unit"),
    "machine": ("added", "'/home/ada/x'", "somebody's machine"),
}


@pytest.mark.parametrize(("change", "value", "words"), BAD.values(), ids=BAD.keys())
def test_a_broken_rule_is_found(change: str, value: Any, words: str) -> None:
    assert words in "\n".join(problems(changed(change, value)))


def without(*ids: str) -> Notebook:
    book = load(NOTEBOOKS[1])
    return {**book, "cells": [cell for cell in book["cells"] if cell["id"] not in ids]}


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["calibrate-1"], "it calls"),
        (["run-4"], "it calls"),
        (["about-2"], "no heading names"),
        (["save"], "saves nothing"),
        (["gate"], "not the gate"),
        (["lab"], "reaches nobody"),
        (["reading"], "could not have shown"),
    ],
)
def test_a_missing_part_is_found(ids: list[str], words: str) -> None:
    assert words in "\n".join(category_problems(CATEGORY_OF[NOTEBOOKS[1].name].name, without(*ids)))
