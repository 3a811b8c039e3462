"""A user's own texts on the goods that checks protect."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path

from lab_utils.values.profiles import UsageError, unknown

__all__ = ["read_protects"]


def read_protects(path: Path, names: Collection[str]) -> dict[str, str]:
    """Read a TOML file of lines `name = "the protected good"`, where a name is that of a check or of a group of
    checks.

    Raises `UsageError` for a file that cannot be read, a name that is not among `names`, and a value that is not text.
    """
    try:
        texts = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f'{path} is not TOML ({error}); write lines like check = "the good it protects"') from error
    for name, text in texts.items():
        if name not in names:
            raise UsageError(f"{unknown('check or group', name, tuple(names))} (in {path})")
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f"{name} in {path} is {text!r}; give it a text")
    return texts
