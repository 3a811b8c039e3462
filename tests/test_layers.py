"""The contracts of pyproject.toml on who imports whom, each seen to find a planted import. `make check` runs them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent

LATE = "def _late() -> None:\n    "
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
# By the first words of a contract: an import that it must name, and how that is written at the end of the importer.
PLANTS = {
    "Rooms of the registry": ("registry.context -> registry.agent", f"{LATE}from registry.agent import BaseAgent"),
    "Rooms of the lab": ("lab_utils.runner -> lab_utils.batch", f"{FOR_TYPES}from lab_utils import batch"),
    "Frames and stored runs": ("lab_utils.output.store -> lab_utils.output.pages", "from .. import pages"),
    "The registry knows nothing": ("registry.errors -> lab_utils.values", "import lab_utils.values"),
    "The lab reaches our registry": ("lab_utils.targets.reference -> registry", "from registry import AgentRegistry"),
    "The lab uses public": ("lab_utils.targets.agent_registry -> registry.context", "import registry.context"),
    "Judges are pure": ("lab_utils.judges.counts -> asyncio", "import asyncio"),
    "A client knows": ("lab_utils.sockets.loopback -> lab_utils.target", "from lab_utils import target"),
    "pandas": ("lab_utils.runner -> pandas", "import pandas"),
    "IPython": ("lab_utils.output.pages.run -> IPython", "from IPython.display import HTML"),
    "nest-asyncio": ("lab_utils.notebook.lab -> nest_asyncio2", "import nest_asyncio2"),
    "detangle": ("lab_utils.interleavings.token -> detangle", "import detangle"),
}


def test_each_contract_finds_what_is_planted_for_it(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("registry", "lab_utils"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "registry" / "homeless.py").touch()
    for planted, added in PLANTS.values():
        importer = tmp_path.joinpath(*planted.partition(" ")[0].split("."))
        file = importer / "__init__.py" if importer.is_dir() else importer.with_suffix(".py")
        file.write_text(f"{file.read_text(encoding='utf-8')}\n{added}\n", encoding="utf-8")

    # In a process of its own: here the modules of the same names are already imported from the checkout.
    code = "from importlinter.cli import lint_imports_command as command; command()"
    output = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
    ).stdout
    sections = re.split(r"\n(.+)\n-{20,}\n", output.partition("Broken contracts")[2])
    found = {
        next(words for words in PLANTS if name.startswith(words)): re.findall(r"(\S+ -> \S+) \(l\.\d+\)", text)
        for name, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    assert found == {words: [planted] for words, (planted, _) in PLANTS.items()}
    assert "Contracts: 0 kept" in output
    assert "\n- registry.homeless\n" in output


def test_the_registry_needs_the_standard_library_alone() -> None:
    graph = grimp.build_graph("registry", include_external_packages=True, cache_dir=None)
    outside = {
        f"{importer} -> {module}"
        for module in graph.modules - {"registry"} - sys.stdlib_module_names
        for importer in graph.find_modules_that_directly_import(module)
        if not module.startswith("registry.")
    }
    # These import it when they are used.
    assert outside == {
        "registry.events.tokens -> itsdangerous",
        "registry.llm.failures -> httpx2",
        "registry.llm.failures -> openai",
    }
