"""`registry/usage/` can be deleted, and its names are found where it is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import registry

SCRIPT = Path(__file__).with_name("without_usage.py")


def run_with(folder: Path, *arguments: str) -> str:
    """The output of a fresh interpreter that finds its packages in this folder first."""
    command = [sys.executable, "-P", "-W", "error", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_copy_without_usage_creates_runs_tells_supervises_and_ends(tmp_path: Path) -> None:
    source = Path(registry.__file__).parent
    shutil.copytree(source, tmp_path / "registry", ignore=shutil.ignore_patterns("usage", "__pycache__"))
    run_with(tmp_path, str(SCRIPT))


def test_every_public_name_is_there_and_usage_and_extras_are_imported_at_their_first_use_only() -> None:
    for name in registry.__all__:
        assert getattr(registry, name) is not None
    lines = (
        "import sys",
        # Coverage has imported sqlite3 already where it counts this process.
        "before = set(sys.modules)",
        "import registry",
        "print(*(name for name in set(sys.modules) - before if name.startswith(('registry.usage', 'sqlite3'))))",
        "import registry.events.app, registry.events.tokens",
        "registry.WebSocketManager().asgi_app(lambda token: token)",
        "extras = ('starlette', 'uvicorn', 'websockets', 'itsdangerous', 'openai', 'httpx2')",
        "print(*(name for name in extras if name in sys.modules))",
        "from registry import UsageRecord, usage_dispatcher_factory",
        "print(UsageRecord.__module__, usage_dispatcher_factory.__module__)",
    )
    output = run_with(Path(registry.__file__).parent.parent, "-c", "\n".join(lines))
    assert output.splitlines() == ["", "", "registry.usage.records registry.usage.tools"]


def test_a_name_that_is_none_of_the_registrys_is_refused_as_anywhere() -> None:
    with pytest.raises(AttributeError, match=r"^module 'registry' has no attribute 'UsageRecrod'$"):
        registry.UsageRecrod  # type: ignore[attr-defined]  # noqa: B018
