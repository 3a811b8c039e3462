"""Fills templates: `{name}` in texts, at any depth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

__all__ = ["fields_of", "filled", "filled_path"]

_FIELD: Final = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


def filled(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with its variables replaced; a text that is one variable and nothing else becomes that value, of
    whatever type. A variable that has no value stays as it is."""
    if isinstance(template, str):
        whole = _FIELD.fullmatch(template)
        if whole is not None:
            return values.get(whole[1], template)
        return _FIELD.sub(lambda found: str(values.get(found[1], found[0])), template)
    if isinstance(template, Mapping):
        return {filled(key, values): filled(value, values) for key, value in template.items()}
    if isinstance(template, (list, tuple)):
        return [filled(one, values) for one in template]
    return template


def filled_path(template: str, values: Mapping[str, Any]) -> str:
    """A path whose variables are quoted, so that an id never adds a segment of its own."""
    return _FIELD.sub(lambda found: quote(str(values.get(found[1], found[0])), safe=""), template)


def fields_of(template: Any) -> set[str]:
    """The variables that a template, or anything in it, uses."""
    if isinstance(template, str):
        return set(_FIELD.findall(template))
    if isinstance(template, Mapping):
        return {name for pair in template.items() for one in pair for name in fields_of(one)}
    if isinstance(template, (list, tuple)):
        return {name for one in template for name in fields_of(one)}
    return set()
