"""The interactive layer patches asyncio only when it is called, and checks are not touched by that.

In a process of its own, since the patch stays.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

CELLS = """
import asyncio
import lab_utils.notebook.interactive as interactive
assert not hasattr(asyncio, "_nest_patched"), "importing it changed asyncio"
from lab_utils.target import Command

async def notebook():
    registry = interactive.open_registry()
    handle = registry.create("ada", "helper")
    registry.run(handle, Command("write", {"key": "k", "value": 1}))
    # Another cell, later: the agent still lives, and knows what it was told.
    assert registry.run(registry.get("ada", "helper"), Command("read", {"key": "k"})) == 1
    assert registry.population().agents == 1
    assert asyncio.run(asyncio.sleep(0, "nested")) == "nested"
    registry.close()
    registry.close()
    assert "closed" in repr(registry)

asyncio.new_event_loop().run_until_complete(notebook())

with interactive.open_registry("reference") as outside:
    assert outside.create("bo", "helper").user == "bo"

from lab_utils import Lab
print(Lab("user_isolation").run("user_context_boundary_enforcement").result.outcome)
"""


def test_a_registry_stays_open_across_cells_and_checks_run_on_a_plain_loop_all_the_same() -> None:
    ran = subprocess.run([sys.executable, "-c", CELLS], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "PASS\n"
