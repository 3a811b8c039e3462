"""A finding in a notebook: shown with its cause, joined to its operations, run again, and made smaller."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils.interleavings import CheckToken
from lab_utils.judges.identity import identified
from lab_utils.notebook import Lab
from lab_utils.notebook.finding import found_in
from lab_utils.runner.again import Return, read_token
from lab_utils.runner.shrinking import shrink
from lab_utils.targets import PLANTED
from lab_utils.values.profiles import UsageError
from lab_utils.values.verdict import Finding
from tests.lab_utils.made import failed, op, result

ROOT = Path(__file__).resolve().parents[3]
CHECK = "agent_registration_with_user_context_isolation"


@pytest.fixture(scope="module")
def failing() -> Lab:
    made = Lab("registration_management", target=PLANTED["LookupCreates"].make, users=3)
    made.run(CHECK)
    return made


def test_a_finding_is_shown_with_its_sentence_its_witness_and_how_to_run_it_again(failing: Lab) -> None:
    one = failing.finding("f1")
    assert "Looking something up created an entry." in repr(one)
    assert one.finding.witness[0] in repr(one)
    assert f"registry-lab replay {one.token}" in one._repr_html_()
    assert isinstance(read_token(one.token), CheckToken)


def test_its_operations_are_those_of_its_witness(failing: Lab) -> None:
    shown = failing.finding("F1").operations()
    assert shown["action"].tolist() == ["get"]
    assert f"op {shown['index'][0]} " in failing.finding("F1").finding.witness[0]


def test_a_target_of_a_cell_is_replayed_and_a_finding_is_made_smaller(failing: Lab) -> None:
    one = failing.finding("F1")
    assert one.replay().came is Return.SAME
    least = one.shrink()
    token = read_token(least.token)
    assert least.came is Return.SAME
    assert isinstance(token, CheckToken)
    assert (token.parameters["users"], token.parameters["racers"]) == (2, 2)
    assert "The least that still shows it" in repr(least)


def test_what_does_not_come_again_is_not_made_smaller(failing: Lab) -> None:
    token = read_token(failing.finding("F1").token)
    made = shrink(token, target="reference")
    assert (made.came.came, made.runs, made.token) == (Return.NOTHING, 1, token)


def test_earlier_results_stay_and_experiments_do_not_gate(failing: Lab) -> None:
    before = failing.findings()["key"].tolist()
    failing.run(CHECK, seed=5, users=2)
    shown = failing.runs()
    assert shown[["seed", "parameters"]].values.tolist()[-1] == [5, "users=2"]
    after = failing.findings()
    assert after["key"].tolist()[: len(before)] == before
    assert len(after) > len(before)
    assert set(after["fingerprint"][: len(before)]) == set(after["fingerprint"][len(before) :])
    assert next(one for one in failing.problems() if CHECK in one).startswith(f"{CHECK} is FAIL: {len(before)} finding")


def test_a_key_that_is_none_is_named(failing: Lab) -> None:
    with pytest.raises(UsageError, match="there are F1 to F"):
        failing.finding("F99")
    with pytest.raises(UsageError, match="nothing was found"):
        found_in([result()], "F1")


def test_paths_and_holders_are_read_from_the_witness() -> None:
    path = "mod._ALL['a/b'].bridge<closure count> -> <Bridge object>; allocated mod.py:3"
    (one,) = identified([result(verdict=failed(Finding("retained-object", "s", ("before: 1", path))))])
    shown = found_in([one.result], "F1")
    assert [line.strip() for line in repr(shown.path()).splitlines()] == [
        "- `mod`",
        "- `._ALL`",
        "- `['a/b']`",
        "- `.bridge`",
        "- `<closure count>`",
        "- `<Bridge object>`",
    ]
    assert "allocated mod.py:3" in repr(shown.holders())
    none = found_in([result(verdict=failed(Finding("x", "s", (str(op(1)),))))], "F1")
    assert "shows no path" in repr(none.path())
    assert "shows no object" in repr(none.holders())


def test_values_that_differ_are_shown_as_a_difference_and_nothing_becomes_markup() -> None:
    witness = ("before: {'a': 1, 'b': '<i>'}", "after: {'a': 2, 'b': '<i>'}")
    page = found_in([result(verdict=failed(Finding("aliased-input", "<b>", witness)))], "F1")._repr_html_()
    assert "<b>" not in page
    assert "<i>" not in page
    assert page.count("background:rgba") == 2


CELLS = """
import json, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
from lab_utils.cli.investigate import about
from lab_utils.output import pages
from lab_utils.output.store import CategoryResults, Store, save_category
from tests.lab_utils.made import about as about_run

shell, shown, values = InteractiveShell(), [], []

def cells(book):
    sources = ["".join(cell["source"]) for cell in json.loads(book)["cells"] if cell["cell_type"] == "code"]
    for source in sources:
        value = shell.run_cell(source).result
        shown.append((source, repr(value)))
        values.append(value)

notebook = Path("notebooks/09_investigate.ipynb").read_text(encoding="utf-8")
cells(notebook)
result = values[2].result
run = Store(Path(sys.argv[1])).begin(about_run(result.check, category=result.category))
save_category(run.folder, CategoryResults(result.category, True, (result,), ()))
cells(about(notebook, run=str(run.finish("findings", pages.runs_page)), finding="F2"))
Path(sys.argv[1], "found.json").write_text(json.dumps(shown))
"""


@pytest.mark.slow
def test_the_notebook_leads_from_a_finding_to_the_line_and_to_the_mend(tmp_path: Path) -> None:
    # In a process of its own: an open registry patches asyncio.
    done = subprocess.run(
        [sys.executable, "-c", CELLS, str(tmp_path)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout, done.stdout
    found = json.loads((tmp_path / "found.json").read_text())

    def shown(source: str) -> list[str]:
        return [value for cell, value in found if cell.endswith(source)]

    failed, passed = shown('.run("resource_cleanup_after_user_session_termination")')
    assert (failed[:8], passed[:8]) == ("**FAIL**", "**PASS**")
    assert "still alive" in shown("\nexample")[0]
    assert shown("example.replay()")[0].startswith("**The finding came again")
    assert "retention._ALL_SESSIONS[" in shown("example.holders()")[0]
    assert "Session" in shown("\nretention._ALL_SESSIONS")[0]
    assert shown("example.replay(mended)")[0].startswith("**Nothing was found.**")
    # Without a run the second half says how to name one; with a run it is about that finding.
    none, theirs = shown("\ntheirs")
    assert "No run is named" in none
    assert theirs == shown("\nexample")[0]
    before, after = shown("theirs.replay()")[-2:]
    assert before.startswith("**The finding came again")
    assert after == before
    assert shown("\nregistry")[-1] == "<OpenRegistry SessionsInModuleList>"
