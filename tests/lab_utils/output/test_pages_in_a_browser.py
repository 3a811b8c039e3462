"""Reports in a browser: on a phone, by keyboard, sorted and filtered, and in print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_utils.output import pages
from lab_utils.output.store import CategoryResults, Store, save_category
from lab_utils.values.verdict import Finding, Verdict
from tests.browser import Page, browsing, chromium
from tests.lab_utils.made import CATEGORY, about, calibration, failed, notebook, result

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium"),
]
TOKEN = "replay: registry-lab replay rl2~" + "registration/get_or_create" * 8
LONG = "a_check_whose_name_is_as_long_as_any_that_there_is_and_longer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    opened = Store(tmp_path_factory.mktemp("outputs")).begin(about("first", "second", LONG))
    race = Finding("race", "two were made " * 20, ("1  the first: begins", "w" * 500, TOKEN))
    again = Finding("race", "three were made", ("1  the third: begins",))
    chain = Finding(
        "shared-object", "'a' and 'b' can both reach one object", ("a.agent.x -> <B>; more", "b.y -> <B>; more")
    )
    results = (
        result("first", failed(race, again, chain), duration_s=12.5),
        result("second", Verdict.passed("3 things compared; 40 others; 7 more"), duration_s=3.25),
        result(LONG, duration_s=110.0),
    )
    save_category(opened.folder, CategoryResults(CATEGORY, True, results, (calibration(), calibration("second"))))
    opened.path("notebooks/n.ipynb").write_text(notebook("x = " + "'y' " * 99))
    pages.write_notebook_page(opened, "notebooks/n.ipynb")
    pages.publish(opened, "findings")
    return opened.finish("findings", pages.runs_page)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_nothing_is_wider_than_a_phone(folder: Path, tab: Page) -> None:
    tab.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    for name in ("index.html", "../index.html", "notebooks/n.html"):
        tab.open((folder / name).resolve().as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        wide = "[...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > 391)"
        assert tab.evaluate("document.documentElement.scrollWidth") == 390, (
            name,
            tab.evaluate(f"{wide}.map((one) => one.outerHTML)"),
        )
    tab.call("Emulation.clearDeviceMetricsOverride")


def test_tables_sort_by_keyboard_and_filter_by_words(folder: Path, tab: Page) -> None:
    tab.open((folder / "index.html").as_uri())
    shown = "[...document.querySelectorAll('table.checks tbody tr')].filter((row) => !row.hidden).map((row) => row.id)"
    in_order = [CATEGORY, "first", "second", LONG]
    assert tab.evaluate(shown) == in_order
    head = "document.querySelector('table.checks th:last-child')"
    orders = []
    for _ in range(3):
        tab.evaluate(f"{head}.querySelector('button').focus()")
        for kind in ("keyDown", "keyUp"):
            tab.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
            )
        orders.append((tab.evaluate(f"{head}.getAttribute('aria-sort')"), tab.evaluate(shown)))
    # Numbers, not texts: 110 comes after 12.5 and 3.25. The heading of a category has no place in another order.
    assert orders == [
        ("ascending", ["second", "first", LONG]),
        ("descending", [LONG, "first", "second"]),
        (None, in_order),
    ]
    field = "document.querySelector('table.checks').previousElementSibling.querySelector('input')"
    for words, left in (
        ("fail BO", []),
        ("pass things", ["second"]),
        ("-second -longer", ["first"]),
        ("check -things", [LONG]),
        ("-", in_order[1:]),
    ):
        tab.evaluate(f"{{ const f = {field}; f.value = {words!r}; f.dispatchEvent(new Event('input')); }}")
        assert tab.evaluate(shown) == ([CATEGORY, *left] if left else []), words


def test_print_opens_what_did_not_pass_and_brings_back_what_was_filtered(folder: Path, tab: Page) -> None:
    tab.open((folder / "index.html").as_uri())
    field = "document.querySelector('table.checks').previousElementSibling.querySelector('input')"
    tab.evaluate(f"{{ const f = {field}; f.value = 'nothing'; f.dispatchEvent(new Event('input')); }}")
    tab.call("Emulation.setEmulatedMedia", media="print")
    folded = "tr.PASS details, details.kept, details.further, .lab-chart details"
    hidden = "[...document.querySelectorAll('main *')].filter((one) => !one.closest('svg, .no-print') && !one.matches('wbr, br')"
    visible = "one.checkVisibility({contentVisibilityAuto: true})"
    assert tab.evaluate(f"{hidden} && !one.closest('{folded}') && !{visible}).map((one) => one.outerHTML)") == []
    assert tab.evaluate("[...document.querySelectorAll('tr.FAIL details p')].length") > 0
    # A further finding of a cause is printed as its sentence alone.
    assert tab.evaluate(f"[...document.querySelectorAll('.further > summary')].filter((one) => {visible}).length") == 1
    assert not tab.evaluate(f"[...document.querySelectorAll('.further pre')].some((one) => {visible})")
    assert tab.evaluate("document.querySelectorAll('.further pre').length") == 1
    # What passed is printed in a line or two each: its details would be fifty pages.
    inside = "[...document.querySelectorAll('tr.PASS details, details.kept')].flatMap((one) => [...one.querySelectorAll('p, table')])"
    assert tab.evaluate(f"{inside}.length") > 0
    assert not tab.evaluate(f"{inside}.some((one) => {visible})")
    tab.evaluate("document.querySelector('tr.PASS details').open = true")
    assert tab.evaluate(f"{inside}.some((one) => {visible})")
    # A token is whole: its line is broken, never cut off.
    assert tab.evaluate("[...document.querySelectorAll('pre')].every((one) => one.scrollWidth <= one.clientWidth + 1)")
    assert tab.evaluate("getComputedStyle(document.querySelector('.banner')).printColorAdjust") == "exact"
    tab.call("Emulation.setEmulatedMedia", media="")


def test_a_link_opens_what_it_leads_to(folder: Path, tab: Page) -> None:
    tab.open((folder / "index.html").as_uri())
    tab.evaluate("document.querySelector('table.planted').id = 'deep'")
    assert not tab.evaluate("document.getElementById('deep').closest('details').open")
    opened = "new Promise((go) => addEventListener('hashchange', () => setTimeout(go)))"
    tab.evaluate(f"{{ const done = {opened}; location.hash = 'deep'; done; }}")
    assert tab.evaluate("document.getElementById('deep').closest('details').open")
