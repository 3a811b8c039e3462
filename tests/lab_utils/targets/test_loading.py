"""A target of somebody else is loaded by its import path, and every problem with it is said at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab_utils.runner import run_check
from lab_utils.target import BaseTarget
from lab_utils.targets import FRAMEWORKS, GROUP, RIGHT, TARGETS, target_factory
from lab_utils.targets.loading import load_target, problems_of
from lab_utils.testing import parametrize_with_checks
from lab_utils.values.profiles import UsageError
from lab_utils.values.verdict import Outcome


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module; return its name, which is a name of its own: modules that were imported are kept."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> str:
        (tmp_path / f"their_{tmp_path.name}.py").write_text(text)
        return f"their_{tmp_path.name}"

    return write


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - {RIGHT}))
def test_our_own_targets_fit(name: str) -> None:
    assert problems_of(TARGETS[name]()) == []


def test_a_foreign_target_is_tested_by_its_import_path(module: Callable[[str], str]) -> None:
    name = module(
        "from lab_utils.targets.reference import ReferenceTarget\n"
        "class Theirs(ReferenceTarget):\n"
        "    name = 'theirs'\n"
        "    def key(self, user):\n"
        "        return user.lower()\n"
    )
    result = run_check("per_user_agent_registry_isolation_validation", target=f"{name}:Theirs")
    assert result.outcome is Outcome.FAIL
    assert "shared-object" in {finding.anomaly for finding in result.verdict.findings}


def test_every_problem_is_listed_at_once(module: Callable[[str], str]) -> None:
    name = module(
        "class Half:\n"
        "    name = 'half'\n"
        "    capabilities = {'events'}\n"
        "    def start(self, recipes, rows, close_timeout): ...\n"
        "    async def stop(self): ...\n"
        "    async def create(self, user, agent_type): ...\n"
        "def forgets():\n"
        "    Half()\n"
    )
    with pytest.raises(UsageError, match=r"None was returned; return the target$"):
        load_target(f"{name}:forgets")
    with pytest.raises(UsageError) as caught:
        load_target(f"{name}:Half")
    message = str(caught.value)
    assert "capabilities hold 'events'; " in message
    assert "start() must be async" in message
    assert "create() lacks the parameters thread, data, permissions, context_user, connect" in message
    assert "population(), " in message
    assert "are missing; derive from" in message
    assert "stop()" not in message


_GUARD = "its work as a script belongs below `if __name__ == '__main__':`"


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("def f(:\n", "T", "SyntaxError: invalid syntax ({module}.py, line 1)"),
        ("\nraise RuntimeError('no key')\n", "T", "RuntimeError: no key (at {module}.py:2)"),
        ("import not_there\n", "T", "ModuleNotFoundError: No module named 'not_there' (at {module}.py:1)"),
        ("import sys\nsys.exit(0)\n", "T", "it ends the process by sys.exit(0) (at {module}.py:2); " + _GUARD),
        ("raise BaseException('no')\n", "T", "BaseException: no (at {module}.py:1)"),
        ("class Target: ...\n", "Targt", "unknown name 'Targt'; known: Target; did you mean 'Target'?"),
        ("class Target: ...\n", "", "unknown name ''; known: Target"),
        ("x = 1 / 0\n", "T", "ZeroDivisionError: division by zero (at {module}.py:1)"),
    ],
    ids=["syntax", "raises", "lacks a package", "exits", "a base exception", "misspelt", "no name", "fails"],
)
def test_what_keeps_a_module_from_being_imported_is_said_with_its_line(
    text: str, name: str, words: str, module: Callable[[str], str]
) -> None:
    spec = f"{module(text)}:{name}"
    with pytest.raises(UsageError) as caught:
        load_target(spec)
    assert str(caught.value) == f"target '{spec}' cannot be imported: {words.format(module=spec.partition(':')[0])}"


@pytest.mark.parametrize(
    ("text", "kind"), [("T = object()", "object of type object"), ("async def T(): ...", "async func")]
)
def test_what_makes_no_target_is_named_with_the_remedy(text: str, kind: str, module: Callable[[str], str]) -> None:
    with pytest.raises(UsageError, match=f"is an {kind}.*; name a class, or a function that returns a new target"):
        load_target(f"{module(text)}:T")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere_at_all.lab:T", "No module named 'nowhere_at_all'; is its folder this one, or on PYTHONPATH?"),
        ("lab_utils.nowhere:T", "No module named 'lab_utils.nowhere'; is its folder this one, or on PYTHONPATH?"),
        (":T", "give it as package.module:Name"),
        (".lab:T", "give it as package.module:Name"),
        ("my_app/lab.py:Mine", "give it as my_app.lab:Mine"),
    ],
)
def test_what_is_no_module_is_told_with_the_remedy(spec: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_target(spec)
    assert str(caught.value).endswith(words)


@pytest.mark.parametrize("file", ["registry.py", "registry/agents.py"])
def test_a_package_of_theirs_that_the_labs_own_hides_is_named_with_the_remedy(
    file: str, module: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("def build(): ...\n")
    # Behind the lab's own, as the working directory of a command is.
    name = module("from registry.agents import build\n")
    monkeypatch.setattr(sys, "path", [*sys.path[1:], sys.path[0]])
    with pytest.raises(UsageError) as caught:
        load_target(f"{name}:T")
    theirs = tmp_path / file.partition("/")[0]
    assert "No module named 'registry.agents'" in str(caught.value)
    assert f"'registry' is a package of the lab's too, which hides yours at {theirs}: rename yours" in str(caught.value)


def test_an_unknown_target_is_answered_with_those_to_judge_and_how_to_name_ones_own() -> None:
    with pytest.raises(UsageError) as caught:
        target_factory("my_app.lab")
    known = "known: " + ", ".join(sorted({*TARGETS, *FRAMEWORKS}))
    remedy = "one of your own is package.module:Name, and `registry-lab list targets` names all"
    assert str(caught.value) == f"unknown target 'my_app.lab'; {known}; {remedy}"
    with pytest.raises(UsageError, match="did you mean 'SharedDispatcher', which is planted"):
        target_factory("SharedDispatchr")


def test_methods_of_a_capability_are_demanded_with_it_alone(module: Callable[[str], str]) -> None:
    name = module(
        "from lab_utils.target import Capability\n"
        "from lab_utils.targets.reference import ReferenceTarget\n"
        "class Older:\n"
        "    name = 'older'\n"
        "    capabilities = ReferenceTarget.capabilities\n"
        "for method in vars(ReferenceTarget):\n"
        "    if method not in ('asgi_app', 'token', 'pass_time', 'choose_model', 'prompts',\n"
        "                      '__dict__', '__weakref__'):\n"
        "        setattr(Older, method, vars(ReferenceTarget)[method])\n"
        "class Claims(Older):\n"
        "    capabilities = Older.capabilities | {Capability.SOCKETS}\n"
        "    def token(self, user): ...\n"
    )
    assert problems_of(load_target(f"{name}:Older")()) == []
    with pytest.raises(UsageError) as caught:
        load_target(f"{name}:Claims")
    listed = str(caught.value)
    assert "asgi_app() is missing" in listed
    assert "token() lacks the parameters audience, max_age" in listed
    assert "choose_model" not in listed


_EVENTS = """
from dataclasses import replace
from lab_utils.target import Capability
from lab_utils.targets.reference import Bridge, ReferenceTarget

class Theirs(ReferenceTarget):
    name = "theirs"
    capabilities = ReferenceTarget.capabilities - {{Capability.{lacking}}}

    async def run(self, handle, command):
        return await super().run(handle, replace(command, run=""))

    def make_bridge(self, user):
        return Changed(user, self.clients_of(user))

class Changed(Bridge):
    def event(self, kind, body, origin):
        return replace(super().event(kind, body, origin), {changes})
"""
_ALL = "THREADS, Capability.RUN_IDS, Capability.AGENT_IDS"


@pytest.mark.parametrize(
    ("lacking", "changes", "note", "found"),
    [
        (_ALL, "stream='', thread='', run='', agent_id=''", "No event names its stream, thread, run, agent:", set()),
        (_ALL, "", "Callers do not receive the run, thread, agent of an event:", set()),
        ("RUN_IDS", "run=''", "No event names its run:", set()),
        ("AGENT_IDS", "run=''", "", {"wrong-run"}),
    ],
)
def test_an_event_is_judged_by_the_ids_that_a_target_tells(
    lacking: str, changes: str, note: str, found: set[str], module: Callable[[str], str]
) -> None:
    name = module(_EVENTS.format(lacking=lacking, changes=changes))
    result = run_check("event_delivery_isolation_between_users", target=f"{name}:Theirs")
    assert {finding.anomaly for finding in result.verdict.findings} == found
    assert any(text.startswith(note) for text in result.notes)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("pass", "T overrides nothing that the lab could call"),
        ("async def start(self, recipes, rows, close_timeout): ...", "T overrides nothing that the lab could call"),
        ("async def create(self, user, agent_type, **_): ...", "run() is not overridden; every target needs it"),
        ("async def remove(self, user, agent_type): ...", "remove() is overridden and reset() is not"),
        ("also = {Capability.LOOKUP}", "T overrides nothing that the lab could call"),
        (
            "also = {Capability.LOOKUP}\n    async def run(self, handle, command): ...",
            "it names the capability lookup and does not override get()",
        ),
        (
            "async def get_or_create(self, user, agent_type, **_): ...",
            "write it as `async def get_or_create(self, user, agent_type, thread, **_)`",
        ),
        ("also = {'tools'}\n    async def run(self, handle, command): ...", "capabilities hold 'tools'; "),
    ],
)
def test_what_a_subclass_of_the_base_leaves_out_is_listed(body: str, words: str, module: Callable[[str], str]) -> None:
    name = module(f"from lab_utils.target import BaseTarget, Capability\nclass T(BaseTarget):\n    {body}\n")
    with pytest.raises(UsageError) as caught:
        load_target(f"{name}:T")
    assert words in str(caught.value)


def test_one_object_is_refused_with_its_class_named() -> None:
    class Mine(BaseTarget):
        pass

    with pytest.raises(UsageError, match="hand over Mine itself, or a function that makes one"):
        run_check("shared_state_contamination_detection", target=Mine())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="hand over Mine itself, or a function that makes one"):
        parametrize_with_checks(Mine())  # type: ignore[arg-type]


def test_an_installed_package_offers_targets_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\ntheirs = lab_utils.targets.skeleton:MyTarget\nreference = lab_utils.targets.skeleton:MyTarget\n"
    )
    assert target_factory("theirs")().name == "MyTarget"
    # A name of the lab's own is the lab's.
    assert target_factory("reference")().name == "reference"
    assert run_check("per_user_agent_registry_isolation_validation", target="theirs").outcome is Outcome.PASS
    with pytest.raises(
        UsageError, match=r"known: .*, agent_registry, .*, reference, right_service, theirs; did you mean"
    ):
        target_factory("thiers")
