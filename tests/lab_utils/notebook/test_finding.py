"""A finding in a notebook: shown with its cause, joined to its operations, run again, and made smaller."""

from __future__ import annotations

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
