"""Every value of the package is frozen: a value that one user receives cannot be changed under another."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import pytest

import registry

EXCEPTIONS: Mapping[str, str] = {}
"""Dataclasses that need not be frozen or may have a `__dict__`, by their full names, each with the reason. None yet."""


def values() -> dict[str, Any]:
    """Every dataclass that the package defines, by its full name."""
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(registry.__path__, "registry.")]
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    ours = [kind for kind in kinds if dataclasses.is_dataclass(kind) and kind.__module__.startswith("registry.")]
    return {f"{kind.__module__}.{kind.__qualname__}": kind for kind in ours}


VALUES = values()


def test_the_values_are_found() -> None:
    assert len(VALUES) > 20
    assert set(EXCEPTIONS) <= set(VALUES)


@pytest.mark.parametrize("name", sorted(set(VALUES) - set(EXCEPTIONS)))
def test_every_dataclass_is_frozen_and_has_no_dict(name: str) -> None:
    kind = VALUES[name]
    value = object.__new__(kind)
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(value, field.name)
    # Slots all the way down: no holder can hang anything on a value.
    assert not hasattr(value, "__dict__")
    assert {field.name for field in dataclasses.fields(kind)} <= {
        slot for base in kind.__mro__ for slot in vars(base).get("__slots__", ())
    }
