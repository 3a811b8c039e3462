"""The JUnit file of a run: one test case a check, valid by the schemas that CI servers read it with."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["junit"]

_TAGS: Final = {"FAIL": "failure", "UNKNOWN": "error", "NOT_APPLICABLE": "skipped"}
_MOST_FINDINGS: Final = 20
_LONGEST: Final = 20_000


def junit(about: Mapping[str, Any], checks: Sequence[Mapping[str, Any]], cards: Sequence[Mapping[str, Any]]) -> str:
    """FAIL and a planted registry that was not caught are a failure, UNKNOWN an error, NOT_APPLICABLE is skipped.

    The message of a failure is the sentence of its cause and the command that runs it again; its type the anomaly.
    """
    # Without attributes: one of the two schemas in common use allows none here, and each suite has its counts.
    suites = ET.Element("testsuites")
    for number, category in enumerate(about["catalog"]):
        of_category = [row for row in checks if row["category"] == category["name"]]
        suite = ET.SubElement(
            suites,
            "testsuite",
            id=str(number),
            name=category["name"],
            package="registry_lab",
            # Without a zone, as the schema wants it: all times are UTC. No name of a machine is in a report.
            timestamp=about["started_at"][:19],
            hostname="localhost",
            time=f"{sum(row['duration'] for row in of_category):.3f}",
        )
        properties = ET.SubElement(suite, "properties")
        for name in ("target", "profile", "seed"):
            ET.SubElement(properties, "property", name=name, value=str(about[name]))
        for row in of_category:
            _case(suite, category["name"], row, [card for card in cards if row["check"] in card["checks"]])
        for tag in ("system-out", "system-err"):
            ET.SubElement(suite, tag)
        _count(suite, suite.findall("testcase"))
    ET.indent(suites)
    return f"{ET.tostring(suites, encoding='unicode', xml_declaration=True)}\n"


def _case(suite: ET.Element, category: str, row: Mapping[str, Any], cards: Sequence[Mapping[str, Any]]) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"registry_lab.{category}",
        name=row["check"],
        time=f"{row['duration']:.3f}",
    )
    missed = [one for one in row["planted"] if not one["caught"]]
    tag = _TAGS.get(row["verdict"]) or ("failure" if missed else "")
    if not tag:
        return
    # One element at most: of two, some servers show the first and others refuse the file.
    evidence = [_evidence(card) for card in cards[:_MOST_FINDINGS]] if tag == "failure" else []
    evidence += [f"calibration: {one['planted']} was not caught ({one['defect']}): {one['reason']}" for one in missed]
    text = "\n\n".join([*evidence, row["traceback"]]).strip()
    kind, message = row["verdict"], row["reason"]
    if cards and tag == "failure":
        kind = cards[0]["anomaly"]
        message = f"{cards[0]['sentence']} {row['reason']}. Run it again: {cards[0]['replay']}"
    elif missed:
        kind, message = "not-calibrated", f"not caught: {', '.join(one['planted'] for one in missed)}; {row['reason']}"
    ET.SubElement(case, tag, type=kind, message=message).text = text[:_LONGEST] or None


def _evidence(card: Mapping[str, Any]) -> str:
    first = card["findings"][0]
    lines = [f"{first['anomaly']}: {first['sentence']}", *(f"{one['mark']} {one['text']}" for one in first["lines"])]
    return "\n".join(
        [card["sentence"], card["affected"], *lines, card["replay"], f"registry-lab replay {card['token']}"]
    )


def _count(element: ET.Element, cases: Sequence[ET.Element]) -> None:
    for name, tag in (("tests", ""), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(name, str(sum(not tag or case.find(tag) is not None for case in cases)))
