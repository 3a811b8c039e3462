"""Objects that a notebook keeps among Python's own names are nobody's: a module is searched for its own objects."""

from __future__ import annotations

import builtins
import sys
import types

import pytest

from lab_utils.probes.reachability import survey

SOURCE = """
class Agent:
    pass
kept = []
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("an_application")
    exec(SOURCE, vars(made))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def in_code(module: types.ModuleType) -> list[str]:
    roots = {"ada": {"agent": module.Agent()}, "bo": {"agent": module.Agent()}}
    found = survey(roots, (), text="canary<", modules=lambda name: name == module.__name__)
    return [one.path for one in found.in_code]


def test_what_ipython_keeps_among_the_builtins_is_not_the_modules(
    module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "what_a_cell_answered", ["canary<ada|note|0>"], raising=False)
    assert vars(module)["__builtins__"] is vars(builtins)
    assert in_code(module) == []


def test_what_the_module_keeps_itself_is_found(module: types.ModuleType) -> None:
    module.kept.append("canary<ada|note|0>")
    (path,) = in_code(module)
    assert path.startswith("an_application.kept")
