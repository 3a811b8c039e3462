"""Every value of the package is frozen: what one user is given, nobody can change under another."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import Any

import registry


def values() -> list[Any]:
    """Every dataclass of the package, once."""
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(registry.__path__, "registry.")]
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    return [kind for kind in kinds if dataclasses.is_dataclass(kind) and kind.__module__.startswith("registry.")]


def test_every_dataclass_is_frozen_and_has_no_dict() -> None:
    found = values()
    assert len(found) > 20
    for kind in found:
        assert kind.__dataclass_params__.frozen, kind
        assert "__slots__" in vars(kind), kind
