"""The JUnit file of any run is valid by the two schemas in common use: that of Ant's JUnitReport, and Jenkins' junit-10."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lxml import etree  # type: ignore[import-untyped]

from lab_utils.output import pages
from lab_utils.output.store import CategoryResults, Store, save_category
from lab_utils.values.profiles import CATEGORIES
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Finding, Verdict
from tests.lab_utils.made import CATEGORY, HOSTILE, about, calibration, failed, result

OTHER = "memory_management"
TIME = r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]{0,3})?"
PROPERTIES = """
<xs:element name="properties"><xs:complexType><xs:sequence>
  <xs:element name="property" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
    <xs:attribute name="name" type="xs:token" use="required"/><xs:attribute name="value" type="xs:string" use="required"/>
  </xs:complexType></xs:element>
</xs:sequence></xs:complexType></xs:element>
<xs:element name="system-out" type="xs:string"/><xs:element name="system-err" type="xs:string"/>
"""


def problem(name: str, use: str) -> str:
    return f"""<xs:element name="{name}"><xs:complexType mixed="true">
      <xs:attribute name="message" type="xs:string"/><xs:attribute name="type" type="xs:string" use="{use}"/>
    </xs:complexType></xs:element>"""


def attributes(required: str, optional: str = "") -> str:
    def one(word: str, use: str) -> str:
        name, _, kind = word.partition(":")
        kind = kind if kind == "when" else f"xs:{kind or 'string'}"
        return f'<xs:attribute name="{name}" type="{kind}" use="{use}"/>'

    return "".join(
        one(word, use) for words, use in ((required, "required"), (optional, "optional")) for word in words.split()
    )


def schema(body: str) -> etree.XMLSchema:
    when = '<xs:simpleType name="when"><xs:restriction base="xs:dateTime"><xs:pattern value="[0-9-]{10}T[0-9:]{8}"/>'
    text = f"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">{when}</xs:restriction></xs:simpleType>
      {PROPERTIES}{body}</xs:schema>"""
    return etree.XMLSchema(etree.fromstring(text))


# Of a suite the parts in this order, and counts, times and places all of them; the root has no attribute.
ANT = schema(f"""
{problem("failure", "required")}{problem("error", "required")}{problem("skipped", "optional")}
<xs:element name="testcase"><xs:complexType>
  <xs:choice minOccurs="0"><xs:element ref="skipped"/><xs:element ref="error"/><xs:element ref="failure"/></xs:choice>
  {attributes("name:token classname:token time:decimal")}
</xs:complexType></xs:element>
<xs:element name="testsuite"><xs:complexType>
  <xs:sequence><xs:element ref="properties"/><xs:element ref="testcase" minOccurs="0" maxOccurs="unbounded"/>
    <xs:element ref="system-out"/><xs:element ref="system-err"/></xs:sequence>
  {attributes("name:token timestamp:when hostname:token tests:int failures:int errors:int time:decimal package:token id:int", "skipped:int")}
</xs:complexType></xs:element>
<xs:element name="testsuites"><xs:complexType>
  <xs:sequence><xs:element ref="testsuite" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
</xs:complexType></xs:element>""")  # fmt: skip
# Any order, and nearly all is optional; nothing that is not named is allowed.
JENKINS = schema(f"""
{"".join(problem(name, "optional") for name in ("failure", "error", "skipped"))}
<xs:element name="testcase"><xs:complexType>
  <xs:choice minOccurs="0" maxOccurs="unbounded"><xs:element ref="skipped"/><xs:element ref="error"/>
    <xs:element ref="failure"/><xs:element ref="system-out"/><xs:element ref="system-err"/></xs:choice>
  {attributes("name classname", "assertions time status group")}
</xs:complexType></xs:element>
<xs:element name="testsuite"><xs:complexType>
  <xs:choice minOccurs="0" maxOccurs="unbounded"><xs:element ref="properties"/><xs:element ref="testcase"/>
    <xs:element ref="system-out"/><xs:element ref="system-err"/></xs:choice>
  {attributes("name tests", "failures errors group time skipped timestamp hostname id package file log url version")}
</xs:complexType></xs:element>
<xs:element name="testsuites"><xs:complexType>
  <xs:sequence><xs:element ref="testsuite" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
  {attributes("", "name time tests failures disabled errors")}
</xs:complexType></xs:element>""")


def runs() -> dict[str, tuple[CheckResult, ...]]:
    hostile = Finding(HOSTILE, HOSTILE, (HOSTILE, "]]>"))
    return {
        "nothing": (),
        "every verdict": (
            result("passes"),
            result("fails", failed()),
            result("unknown", Verdict.unknown("nothing was exercised"), traceback="Traceback: boom"),
            result("skipped", Verdict.not_applicable("no threads")),
            result("missed", duration_s=1234.5678),
        ),
        "hostile texts": (result("fails", failed(hostile), claim=HOSTILE, traceback=HOSTILE, target="mine:T\n<"),),
        "a thousand findings": (result("fails", failed(*[Finding("leak", f"{n}", ("w",)) for n in range(1_000)])),),
    }


@pytest.mark.parametrize("name", runs())
def test_the_file_is_valid_by_both_schemas(name: str, tmp_path: Path) -> None:
    both = {
        key: [*about(category=CATEGORY)[key], *about(category=OTHER)[key]]
        for key in ("categories", "catalog", "checks")
    }
    parameters = {known: about(category=known)["parameters"][known] for known in (CATEGORY, OTHER)}
    files = {known: CATEGORIES[known].notebook for known in (CATEGORY, OTHER)}
    run = Store(tmp_path).begin({**about(), **both, "parameters": parameters, "files": files})
    calibrated = (calibration("missed", caught=False),)
    save_category(run.folder, CategoryResults(CATEGORY, True, runs()[name], calibrated))
    pages.publish(run, "findings")
    file = etree.parse(run.folder / "junit.xml")
    for each in (ANT, JENKINS):
        each.assertValid(file)
    assert all(re.fullmatch(TIME, time) for time in file.xpath("//@time"))
    assert len(file.xpath("/testsuites/testsuite")) == 2


def test_the_schemas_refuse_what_servers_refuse() -> None:
    case = '<testcase name="a" classname="b" time="1.0">{}</testcase>'
    two = case.format('<failure type="t" message="m"/><failure type="t" message="m"/>')
    begin = '<testsuite name="n" timestamp="2026-01-02T03:04:05" hostname="h" tests="1" failures="0" errors="0" time="1" package="p" id="0">'
    whole = f"<testsuites>{begin}<properties/>{{}}<system-out/><system-err/></testsuite></testsuites>"
    assert ANT.validate(etree.fromstring(whole.format(case.format(""))))
    assert not ANT.validate(etree.fromstring(whole.format(two)))
    assert not ANT.validate(etree.fromstring(whole.format("").replace("03:04:05", "03:04:05+00:00")))
    assert not JENKINS.validate(etree.fromstring(whole.format("").replace("<testsuites>", '<testsuites skipped="1">')))
