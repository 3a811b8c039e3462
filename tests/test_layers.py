"""Fails on any import between our modules that the table below does not allow.

Imports are read with `ast`, wherever they stand: at the top, in a function, under TYPE_CHECKING, relative, or as a
literal given to `import_module`. Nothing is executed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("registry", "lab_utils")

# ------------------------------------------------------------------------------------------------------------ the table
#
# A row is a module or, with everything below it, a package; modules of one row may import each other. The row of a
# module is the longest that fits.

ANYTHING = frozenset({"*"})

# Packages whose row is for their `__init__` alone: each module of theirs needs a row of its own.
FACES = ("registry", "lab_utils", "lab_utils.targets")

# Bottom to top: a module imports only what stands before it.
REGISTRY_ORDER = (
    "errors",
    "identity",
    "lifetime",
    "copying",
    "inflight",
    "context",
    "events",
    "protocol",
    "delivery",
    "bridge",
    "tokens",
    "conversation",
    "asgi",
    "websocket",
    "llm",
    "turns",
    "retries",
    "llm_wire",
    "llm_failures",
    "llm_openai",
    "prices",
    "usage_records",
    "exact_sum",
    "usage",
    "synthetic",
    "usage_questions",
    "tools",
    "runtime",
    "scope",
    "agent",
    "suspending",
    "building",
    "closing",
    "work",
    "bridging",
    "holding",
    "session",
    "directory",
    "lifecycle",
    "agent_registry",
    "plan",
    "supervisor",
)
REGISTRY = {
    f"registry.{name}": frozenset(f"registry.{below}" for below in REGISTRY_ORDER[:place])
    for place, name in enumerate(REGISTRY_ORDER)
}
# An agent knows what it is handed, and nothing of sessions or of the registry that keeps it.
REGISTRY["registry.agents"] = frozenset(
    f"registry.{name}"
    for name in (
        "agent",
        "usage",
        "usage_questions",
        "synthetic",
        "prices",
        "tools",
        "llm",
        "events",
        "context",
        "errors",
    )
)
# `register_default_agents` needs them to register.
REGISTRY["registry.agent_registry"] |= {"registry.agents"}
REGISTRY["registry"] = frozenset({"registry.*"})


def lab(*names: str) -> frozenset[str]:
    return frozenset(f"lab_utils.{name}" for name in names)


LAB = {
    "lab_utils": ANYTHING,
    "lab_utils.history": lab(),
    "lab_utils.verdict": lab(),
    "lab_utils.profiles": lab(),
    "lab_utils.result": lab("history", "verdict", "profiles"),
    "lab_utils.target": lab("history", "verdict"),
    "lab_utils.canaries": lab(),
    "lab_utils.workload": lab("history", "verdict", "canaries"),
    "lab_utils.checkers": lab("history", "verdict", "workload", "canaries"),
    "lab_utils.faults": lab("target", "history"),
    "lab_utils.standin": lab(),
    "lab_utils.interleavings": lab("history"),
    "lab_utils.probes": lab("history"),
    "lab_utils.targets": lab("target", "profiles", "targets.*"),
    "lab_utils.targets.lab_agent": lab(),
    "lab_utils.targets.foreign": lab("target", "profiles"),
    "lab_utils.targets.reference": lab("target", "targets.lab_agent"),
    "lab_utils.targets.autogen_core": lab("target", "targets.lab_agent"),
    # The only doors from the lab to the registry.
    "lab_utils.targets.llm_over_http": lab("standin") | {"registry"},
    "lab_utils.targets.agent_registry": lab("target", "targets.lab_agent", "targets.llm_over_http") | {"registry"},
    "lab_utils.targets.planted": lab("targets.agent_registry", "targets.reference", "target", "faults")
    | {"registry", "registry.*"},
    # What a check's body works with, and what a check is.
    "lab_utils.loops": lab(),
    "lab_utils.patience": lab("loops"),
    "lab_utils.stillness": lab("loops"),
    "lab_utils.leaving": lab(),
    "lab_utils.caller": lab("target", "history"),
    "lab_utils.trial": lab(
        *("caller", "patience", "faults", "target", "history", "verdict", "result", "sockets", "transports")
    ),
    "lab_utils.check": lab("trial", "target", "profiles"),
    "lab_utils.checks": lab(
        "trial",
        "sockets",
        "check",
        "profiles",
        "canaries",
        "workload",
        "faults",
        "interleavings",
        "probes",
        "checkers",
        "verdict",
        "history",
        "target",
        "result",
        "standin",
        "usage_csv",
        "usage_staging",
    ),
    "lab_utils.usage_csv": lab("profiles"),
    "lab_utils.usage_staging": lab("usage_csv", "target"),
    "lab_utils.runner": lab(
        *("trial", "loops", "stillness", "leaving", "check", "checks", "targets", "target", "transports"),
        *("history", "verdict", "result", "profiles", "probes"),
    ),
    "lab_utils.store": lab("result", "history", "verdict", "profiles"),
    "lab_utils.frames": lab("result", "history", "verdict", "profiles"),
    "lab_utils.charts": lab("frames", "store"),
    "lab_utils.report": lab("frames", "store"),
    "lab_utils.batch": lab("store", "profiles", "report"),
    "lab_utils.notebook": lab(
        "check", "targets", "runner", "frames", "charts", "store", "checks", "profiles", "result", "verdict"
    ),
    # Sockets, and nothing of ours: what a client knows of a registry is what crosses the wire.
    "lab_utils.client": lab(),
    "lab_utils.fleet": lab("client"),
    "lab_utils.loopback": lab(),
    "lab_utils.descriptors": lab("profiles"),
    # A trial's server and its clients; both are imported only when a trial needs them.
    "lab_utils.wire": lab("target"),
    "lab_utils.sockets": lab("client", "fleet", "loopback", "descriptors", "target", "wire"),
    "lab_utils.transports": lab("sockets", "target", "profiles"),
    # `registry-lab serve` serves our own registry and judges nothing.
    "lab_utils.serve": lab("loopback") | {"registry", "registry.*"},
    "lab_utils.interactive": ANYTHING,
    "lab_utils.cli": ANYTHING,
}
TABLE = {**REGISTRY, **LAB}

# `ANYTHING` means anything of the lab: even then the registry is reached through a target alone.
DOORS = (
    "lab_utils.targets.agent_registry",
    "lab_utils.targets.llm_over_http",
    "lab_utils.targets.planted",
    "lab_utils.serve",
)

# Third parties that only one module may know. nest-asyncio changes asyncio for the whole process when it is applied.
HOMES = {
    "nest_asyncio": "lab_utils.interactive",
    "nest_asyncio2": "lab_utils.interactive",
    # So that what explores schedules can be exchanged.
    "detangle": "lab_utils.interleavings.simulation",
}


# ----------------------------------------------------------------------------------------------------------- the reader


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def modules(root: Path) -> dict[str, Path]:
    """Our modules by dotted name; a package goes by its own name, without `__init__`."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def named(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Each import as (line, module, names taken from it), relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".") if is_package else module.split(".")[:-1]
                above = here[: len(here) - (node.level - 1)]
                base = ".".join([*above, *([node.module] if node.module else [])])
            yield node.lineno, base, tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value), ()


def imports(path: Path, module: str, known: Mapping[str, Path]) -> Iterator[tuple[int, str]]:
    """Each module that `path` imports, with the line: the submodule where `from package import submodule` names one."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for line, base, names in named(tree, module, is_package=path.name == "__init__.py"):
        if not names:
            yield line, base
        for name in names:
            yield line, f"{base}.{name}" if f"{base}.{name}" in known else base


# ------------------------------------------------------------------------------------------------------------ the judge


def row(module: str) -> str | None:
    """The longest row that holds the module."""
    fitting = [name for name in TABLE if name == module or (within(module, name) and name not in FACES)]
    return max(fitting, key=len, default=None)


def allowed(importer: str, imported: str) -> bool:
    """Whether the table has the arrow, for modules that are both ours."""
    own = row(importer)
    if own is None or (within(importer, "lab_utils") and within(imported, "registry") and own not in DOORS):
        return False
    if "*" in TABLE[own]:
        return True
    target = row(imported)
    if target == own:
        return True
    return any(
        within(imported, name.removesuffix(".*")) and imported != name.removesuffix(".*")
        if name.endswith(".*")
        else target == name
        for name in TABLE[own]
    )


def problems(root: Path) -> list[str]:
    """One sentence for each wrong arrow and each module that the table does not know."""
    known = modules(root)
    found = []
    for module, path in known.items():
        where = path.relative_to(root).as_posix()
        if row(module) is None:
            found.append(f"{where} is in no row: add {module} to the table of tests/test_layers.py")
            continue
        # Once for each line, however many names are taken there.
        for line, imported in dict.fromkeys(imports(path, module, known)):
            home = HOMES.get(imported.partition(".")[0], module)
            ours = any(within(imported, package) for package in PACKAGES)
            if home != module:
                found.append(f"{where}:{line}: {imported} may be imported by {home} alone")
            elif ours and imported != module and not allowed(module, imported):
                found.append(f"{where}:{line}: {module} may not import {imported}")
    return found


# ------------------------------------------------------------------------------------------------------------ the tests


def test_every_import_is_in_the_table() -> None:
    assert problems(ROOT) == []


def test_the_packages_are_where_they_are_looked_for() -> None:
    assert {"registry", "lab_utils"} <= modules(ROOT).keys()


def test_the_table_names_rows_that_exist_in_it() -> None:
    named_rows = {name.removesuffix(".*") for entry in TABLE.values() for name in entry} - {"*"}
    assert named_rows <= TABLE.keys()


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


WRONG = {
    "upwards": ("registry/context.py", "from registry.session import UserAgentSession", "registry.session"),
    "plain import": ("registry/context.py", "import registry.session", "registry.session"),
    "submodule": ("registry/context.py", "from registry import session", "registry.session"),
    "the package itself": ("registry/context.py", "from registry import AgentRegistry", "registry"),
    "relative": ("registry/context.py", "from .session import UserAgentSession", "registry.session"),
    "relative submodule": ("registry/context.py", "from . import session", "registry.session"),
    "two up": ("registry/agents/triage.py", "from ..session import UserAgentSession", "registry.session"),
    "relative in an __init__": ("registry/agents/__init__.py", "from ..session import X", "registry.session"),
    "in a function": ("registry/context.py", "def f():\n    from registry import session", "registry.session"),
    "for types": (
        "registry/context.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import registry.session",
        "registry.session",
    ),
    "by a call": (
        "lab_utils/cli.py",
        "import importlib\nimportlib.import_module('registry.session')",
        "registry.session",
    ),
    "second of two": ("registry/context.py", "import os, registry.session", "registry.session"),
    "registry to lab": ("registry/session.py", "from lab_utils import history", "lab_utils.history"),
    "the registry's face to lab": ("registry/__init__.py", "import lab_utils.history", "lab_utils.history"),
    "lab to registry": ("lab_utils/history.py", "import registry", "registry"),
    "even the cli": ("lab_utils/cli.py", "from registry import AgentRegistry", "registry"),
    "even interactive": ("lab_utils/interactive.py", "from registry.session import X", "registry.session"),
    "even the lab's face": ("lab_utils/__init__.py", "from registry import AgentRegistry", "registry"),
    "behind the public surface": ("lab_utils/targets/agent_registry.py", "import registry.session", "registry.session"),
    "another target": ("lab_utils/targets/reference.py", "import registry", "registry"),
    "all targets": ("lab_utils/targets/__init__.py", "import registry", "registry"),
    "checker that runs": ("lab_utils/checkers/order.py", "from lab_utils.target import Target", "lab_utils.target"),
    "check to target": ("lab_utils/checks/a.py", "import lab_utils.targets.reference", "lab_utils.targets.reference"),
    "check to runner": ("lab_utils/checks/a.py", "from lab_utils.runner import run", "lab_utils.runner"),
    "report computes": ("lab_utils/report.py", "from ..lab_utils import verdict", "lab_utils.verdict"),
    "the lab's face from below": ("lab_utils/history.py", "import lab_utils", "lab_utils"),
    "nest-asyncio": ("lab_utils/runner.py", "import nest_asyncio", "nest_asyncio"),
}
# What the wrong imports name must exist to be told from a name within a module.
SCENERY = dict.fromkeys(
    (
        *("registry/__init__.py", "registry/session.py", "registry/agents/__init__.py"),
        *("lab_utils/__init__.py", "lab_utils/history.py", "lab_utils/verdict.py", "lab_utils/target.py"),
        *("lab_utils/runner.py", "lab_utils/targets/__init__.py", "lab_utils/targets/reference.py"),
        *("lab_utils/checks/__init__.py", "lab_utils/checkers/__init__.py"),
    ),
    "",
)


@pytest.mark.parametrize(("where", "text", "blamed"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_arrow_is_found(tmp_path: Path, where: str, text: str, blamed: str) -> None:
    assert problems(tree(tmp_path, SCENERY)) == []
    (problem,) = problems(tree(tmp_path, {where: text}))
    assert problem.startswith(f"{where}:{len(text.splitlines())}: ")
    assert blamed in problem.split()


RIGHT = {
    "downwards": ("registry/session.py", "from registry.context import X\nfrom .errors import Y\nfrom . import bridge"),
    "the registry's face": ("registry/__init__.py", "from .session import X\nfrom registry.agents.triage import Y"),
    "an agent": ("registry/agents/triage.py", "from registry.agent import BaseAgent\nfrom ..tools import Tool"),
    "agents among themselves": ("registry/agents/__init__.py", "from .triage import Triage"),
    "default agents": ("registry/agent_registry.py", "def f():\n    from registry.agents import ALL"),
    "the door": ("lab_utils/targets/agent_registry.py", "from registry import AgentRegistry\nimport lab_utils.target"),
    "planted": ("lab_utils/targets/planted/leaks.py", "from registry.session import X\nfrom ..reference import Y"),
    "checks among themselves": ("lab_utils/checks/a.py", "from . import b\nfrom ..checkers.order import judge"),
    "the cli": ("lab_utils/cli.py", "import lab_utils.runner\nfrom . import batch, interactive"),
    "the one home": ("lab_utils/interactive.py", "import nest_asyncio\nimport nest_asyncio.other"),
    "third parties": ("lab_utils/history.py", "import pandas\nimport registry_of_something_else\nimport lab_utils_x"),
}


@pytest.mark.parametrize(("where", "text"), RIGHT.values(), ids=RIGHT.keys())
def test_a_right_arrow_is_not_blamed(tmp_path: Path, where: str, text: str) -> None:
    others = ("agents/triage", "agent", "bridge", "context", "errors", "tools")
    scenery = SCENERY | {f"registry/{name}.py": "" for name in others}
    scenery |= {"lab_utils/checks/b.py": "", "lab_utils/checkers/order.py": "", "lab_utils/batch.py": ""}
    assert problems(tree(tmp_path, {**scenery, where: text})) == []


@pytest.mark.parametrize(
    "where",
    ["registry/helpers.py", "lab_utils/helpers.py", "lab_utils/new/__init__.py", "lab_utils/targets/framework.py"],
)
def test_an_unknown_module_is_to_be_added_to_the_table(tmp_path: Path, where: str) -> None:
    (problem,) = problems(tree(tmp_path, {**SCENERY, where: ""}))
    assert problem.startswith(f"{where} is in no row: add ")
    assert "tests/test_layers.py" in problem
