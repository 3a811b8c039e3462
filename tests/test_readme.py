"""What README quotes exists: messages to look up, and an example to copy."""

from __future__ import annotations

import re
from pathlib import Path

from lab_utils.cli.exits import missing

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Said by Python itself.
PYTHONS = ("No module named venv", "ensurepip", "asyncio.run() cannot be called from a running event loop")


def test_messages_that_troubleshooting_quotes_are_said_somewhere() -> None:
    rows = [
        line.split("|")[1] for line in README.partition("## Troubleshooting")[2].splitlines() if line.startswith("| ")
    ]
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 6
    code = [path for folder in ("registry", "lab_utils", "tools") for path in (ROOT / folder).rglob("*.py")]
    said = "\n".join([*(path.read_text(encoding="utf-8") for path in code), missing(["no_such_module"]), *PYTHONS])
    parts = [part.strip() for text in quoted for part in text.removeprefix("ResourceWarning:").split("...")]
    assert [part for part in parts if part not in said] == []


def test_the_interactive_example_runs() -> None:
    example = next(
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "notebook.interactive" in block
    )
    found: dict[str, object] = {}
    exec(example, found)
    assert "ada" in found
