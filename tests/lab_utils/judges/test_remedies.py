"""Each anomaly has a usual cause and a remedy, the documentation has the same, and the checks know no other names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import lab_utils
from lab_utils.cli import check
from lab_utils.judges.anomalies import SENTENCES
from lab_utils.judges.remedies import REMEDIES, remedy_for, table
from lab_utils.values.verdict import Finding
from tests.lab_utils.made import failed, result

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs" / "anomalies.md"
NAME = re.compile(r"[a-z]+(-[a-z]+)+")
OTHERS = {"cache-control", "lab-no-such-session", "lab-restarted", "lab-shared"}
"""Texts of the checks of services that have the form of an anomaly's name: a header, and ids of sessions."""
LAB = Path(lab_utils.__file__).parent


def test_each_anomaly_has_a_cause_and_a_remedy_and_no_two_say_the_same_thing_twice() -> None:
    assert set(REMEDIES) == set(SENTENCES)
    for name, remedy in REMEDIES.items():
        assert remedy.cause.endswith("."), name
        assert remedy.action.endswith("."), name
        assert remedy.cause != remedy.action
    assert remedy_for("of-my-own") == ""


def test_the_documentation_has_the_same_table() -> None:
    remedy = "write table() of lab_utils.judges.remedies into docs/anomalies.md, below its heading"
    assert DOCS.read_text(encoding="utf-8").endswith(f"\n\n{table()}"), remedy


def named() -> Iterator[tuple[str, str]]:
    """Every anomaly that stands as a text where a finding is made: its name, and the place."""
    for room in ("checks", "judges", "trial", "runner"):
        for file in sorted((LAB / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                place = {"find": 0, "Finding": 0, "require": 1}.get(called)
                if place is None or len(node.args) <= place:
                    continue
                for text in ast.walk(node.args[place]):
                    value = text.value if isinstance(text, ast.Constant) else None
                    if isinstance(value, str) and NAME.fullmatch(value):
                        yield value, f"{file.relative_to(LAB)}:{node.lineno}"


def test_the_checks_find_nothing_under_another_name() -> None:
    found = list(named())
    assert len({name for name, _ in found}) > 60
    unknown = {name: place for name, place in found if name not in SENTENCES and "contract" not in place}
    assert not unknown


def test_the_remedy_is_printed_once_with_the_findings_of_an_anomaly() -> None:
    found = [Finding("not-refused", f"the {number}. call was not refused", ("w",)) for number in range(9)]
    printed = " ".join(" ".join(check._findings(result("not_refused", failed(*found)))).split())
    assert printed.count(f"remedy: {remedy_for('not-refused')}") == 1


def test_the_heading_of_a_finding_is_a_sentence_also_of_an_anomaly_of_one_s_own() -> None:
    for anomaly in ("of-my-own", "not-refused"):
        found = Finding(anomaly, "the call was not refused", ("w",))
        heading = list(check._findings(result("not_refused", failed(found))))[1].strip()
        assert heading[0].isupper()
        assert heading.removesuffix(" 1 finding in 1 check.").endswith(".")


def test_every_anomaly_of_a_service_has_a_sentence_and_a_remedy() -> None:
    """Its name often stands in a table or an argument, away from the finding: so each text of that form counts."""
    files = [*(LAB / "checks" / "service").glob("*.py"), LAB / "judges" / "services.py"]
    nodes = [(file.name, node) for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    found = {
        node.value: f"{name}:{node.lineno}"
        for name, node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value)
    }
    # The judge of growth makes names of quantities.
    quantities = ("memory", "descriptors", "threads", "connections")
    found |= {f"{quantity}-kept": f"load.py, {quantity}" for quantity in quantities}
    assert {"listed-for-another", "kept-after-end", "descriptors-kept"} <= set(found)
    assert not {name: place for name, place in found.items() if not (name in OTHERS or remedy_for(name))}
    assert all(SENTENCES[name][0].isupper() and SENTENCES[name][-1] == "." for name in set(found) - OTHERS)
