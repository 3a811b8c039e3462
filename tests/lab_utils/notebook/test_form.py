"""The form beside the cells: what it asks the runner, what it shows meanwhile, and where it stays away."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lab_utils.notebook import Lab, form, lab
from lab_utils.notebook.form import Form
from lab_utils.notebook.views import View
from lab_utils.runner import Cancelled, Look, runner
from lab_utils.values.profiles import CATEGORIES
from lab_utils.values.result import CheckResult
from tests.lab_utils.made import CATEGORY, HOSTILE, failed, result


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the runner was asked; each check fails, and is seen once from outside."""
    made: list[dict[str, Any]] = []

    def run_check(name: str, **options: Any) -> CheckResult:
        made.append({"name": name, **options})
        options["on_progress"]("racing", 0.5)
        options["on_look"](Look(1.0, 50_000_000, 12))
        if options["cancelled"].is_set():
            raise Cancelled
        return result(name, failed(), target=options["target"], parameters=options["parameters"])

    for module in (form, lab):
        monkeypatch.setattr(module, "is_watched", lambda: True)
    monkeypatch.setattr(runner, "run_check", run_check)
    return made


def made_form(made: Lab) -> Form:
    shown = made.form()
    assert isinstance(shown, Form)
    return shown


async def pressed(made: Form) -> list[str]:
    """Press Run, wait for the end, and return what the panel showed."""
    shown: list[str] = []
    made.panel.observe(lambda change: shown.append(change["new"]), "value")
    made.run.click()
    assert made.task is not None
    await made.task
    assert (made.run.disabled, made.stop.disabled) == (False, True)
    return shown


def alert(made: Form) -> str:
    return str(made.panel.value) if 'role="alert"' in made.panel.value else ""


async def test_run_asks_for_what_is_ticked_and_typed_and_keeps_the_results_as_experiments(
    asked: list[dict[str, Any]],
) -> None:
    notebook = Lab(CATEGORY, users=5)
    made = made_form(notebook)
    assert made.sizes["users"].value == 5
    first, second, *others = made.checks
    for name in others:
        made.checks[name].value = False
    made.target.value, made.profile.value, made.seed.value = " reference ", "standard", 7
    assert made.sizes["users"].value == 20, "a profile brings its sizes"
    made.sizes["users"].value = 3
    shown = await pressed(made)
    assert [(one["name"], one["target"], one["seed"], one["parameters"]["users"]) for one in asked] == [
        (first, "reference", 7, 3),
        (second, "reference", 7, 3),
    ]
    assert f"1 of 2: {first}" in shown[0]
    assert "2 of 2 checks ran. lab.finding(" in shown[-1]
    assert "F1" in made.table.outputs[0]["data"]["text/html"]
    assert len(notebook.runs()) == 2
    assert all("was not run" in problem for problem in notebook.problems() if first in problem)
    # A finding is run again on the target it was found on, not on the notebook's.
    assert notebook.finding("F1").target == "reference"


async def test_a_check_that_runs_is_shown_with_its_step_its_memory_and_its_events(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_form(Lab(CATEGORY))
    before, seen = runner.run_check, threading.Event()

    def look(change: dict[str, Any]) -> None:
        if "50 MB" in change["new"]:
            seen.set()

    made.panel.observe(look, "value")

    def run_check(name: str, **options: Any) -> CheckResult:
        found = before(name, **options)
        assert seen.wait(60)
        return found

    monkeypatch.setattr(runner, "run_check", run_check)
    shown = "".join(await pressed(made))
    assert "racing" in shown
    assert "<strong>12</strong> events" in shown


def no_check(made: Form) -> None:
    made.every.click()


def bad_size(made: Form) -> None:
    made.sizes["users"].value = 0


@pytest.mark.parametrize(("change", "words"), [(no_check, "no check is ticked"), (bad_size, "users=0 is below 2")])
async def test_what_cannot_be_run_is_shown_and_runs_nothing(
    asked: list[dict[str, Any]], change: Callable[[Form], None], words: str
) -> None:
    made = made_form(Lab(CATEGORY))
    change(made)
    await pressed(made)
    assert words in alert(made)
    assert not asked


async def test_an_error_of_the_runner_is_shown_escaped(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str, **_: Any) -> CheckResult:
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr(runner, "run_check", fails)
    made = made_form(Lab(CATEGORY))
    await pressed(made)
    assert "RuntimeError: " in alert(made)
    assert HOSTILE not in made.panel.value


async def test_stop_ends_the_check_and_what_would_follow(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = runner.run_check
    made = made_form(Lab(CATEGORY))

    def run_check(name: str, **options: Any) -> CheckResult:
        made.stop.click()
        return before(name, **options)

    monkeypatch.setattr(runner, "run_check", run_check)
    await pressed(made)
    assert "Stopped; 0 checks ran." in made.panel.value
    assert len(asked) == 1


@pytest.mark.parametrize("category", CATEGORIES)
async def test_each_category_has_a_form_whose_values_are_the_notebooks(
    asked: list[dict[str, Any]], category: str
) -> None:
    notebook = Lab(category)
    made = made_form(notebook)
    await pressed(made)
    assert alert(made) == ""
    assert [one["name"] for one in asked] == list(notebook.checks)
    assert all(one["parameters"] == notebook.parameters for one in asked)


def test_without_a_person_or_without_ipywidgets_a_sentence_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Lab(CATEGORY).form()
    assert isinstance(shown, View)
    assert "Opened in JupyterLab" in repr(shown)
    with monkeypatch.context() as patch:
        patch.setenv("REGISTRY_LAB_HEADLESS", "1")
        assert repr(Lab(CATEGORY).form()) == ""
    monkeypatch.setattr(form, "is_watched", lambda: True)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert "pip install 'agent-registry-lab[lab]'" in repr(Lab(CATEGORY).form())
