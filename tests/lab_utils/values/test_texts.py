"""Strangers' text is escaped and cut wherever it is shown, in time proportional to its length."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab_utils.values.history import Op, OpType
from lab_utils.values.result import decode, encode
from lab_utils.values.texts import plain_output, reported, shown, shown_lines, without_folders, worded
from lab_utils.values.verdict import Finding, Verdict
from lab_utils.values.workload import hostile_pairs
from tests.lab_utils.made import result

ODD = "\udc80 \x1b]0;title\x07 \x00 <script>alert(1)</script> \u202egnp\u200b " + "x" * 100_000


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain and Zürich", "plain and Zürich"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\tc\0", "a\\nb\\tc\\x00"),
        ("\udc80 \x9b31m", "\\udc80 \\x9b31m"),
        ("user\u202egnp", "user\\u202egnp"),
        ("a\u200bb\u2028", "a\\u200bb\\u2028"),
        (ValueError("said"), "said"),
    ],
)
def test_nothing_but_printable_characters_is_shown(text: object, line: str) -> None:
    assert shown(text) == line


def test_a_long_text_is_cut_and_both_of_its_ends_are_shown() -> None:
    line = shown("head " + "x" * 100_000 + " tail", 100)
    assert line.startswith("head xxx")
    assert "x... 99,958 characters ...x" in line
    assert line.endswith("xxx tail")
    assert len(line) <= 100
    assert shown("x" * 100, 100) == "x" * 100


@pytest.mark.parametrize("text", [ODD, "\0" * 5_000, "\U0001f600\ue000" * 900, "\x1b[31m\n" * 9_000], ids=repr)
@pytest.mark.parametrize("show", [shown, shown_lines, lambda text: shown(text, only_ascii=True), reported])
def test_what_was_shown_stays_as_it_is_and_is_no_longer_than_was_asked_for(
    text: str, show: Callable[[str], str]
) -> None:
    once = show(text)
    assert show(once) == once
    assert once.replace("\n", "").isprintable()
    assert len(once) <= (20_000 if show is shown_lines else 1_000)


def test_the_count_of_what_was_cut_out_is_of_the_characters_that_were_there() -> None:
    line = shown("\0" * 5_000, 400)
    kept = line.count("\\x00")
    assert f"... {5_000 - kept:,} characters ..." in line


def test_ids_that_look_alike_are_told_apart_in_findings() -> None:
    for one, other in (
        *hostile_pairs(),
        ("\u0430\u0441\u043c\u0435", "acme"),
        ("\uff41cme", "acme"),
        ("a\u2010b", "a-b"),
    ):
        found = Finding("leak", f"{one} read what {other} wrote", (f"op 1 of {one!r}", f"op 2 of {other}"))
        for text in (found.sentence, *found.witness, Verdict.unknown(f"{one} beside {other}").reason):
            assert text.isascii()
        assert found.sentence != Finding("leak", f"{one} read what {one} wrote", ("w",)).sentence
    assert Finding("growth", "4.2 ± 0.1 bytes a cycle", ("w",)).sentence == "4.2 ± 0.1 bytes a cycle"


def test_a_finding_is_bounded_and_keeps_the_token_that_replays_it() -> None:
    token = "replay: registry-lab replay " + "y" * 15_000
    found = Finding("odd", ODD, (*[f"{number} {ODD}" for number in range(200)], token))
    assert len(found.sentence) <= 1_000
    assert sum(map(len, found.witness)) < 40_000
    assert found.witness[-1] == token
    assert found.witness[0].startswith("0 \\udc80 \\x1b]0;title\\x07 \\x00 <script>")
    assert len(Finding("odd", "s", tuple(map(str, range(1_000)))).witness) == 121
    assert found.witness[-2].startswith("199 ")
    [remark] = [line for line in found.witness if line.endswith("more entries ...")]
    assert int(remark.split()[1]) == 200 - (len(found.witness) - 2)
    assert Finding(found.anomaly, found.sentence, found.witness) == found


def test_a_result_is_bounded_in_every_text_and_crosses_to_another_process_as_it_is() -> None:
    op = Op(0, "c", "ada", "run", "triage", "main", OpType.FAIL, 0, 1, 0.0, 1.0, ODD * 10, "RuntimeError")
    deep = Op(1, "c", "ada", "run", "triage", "main", OpType.OK, 2, 3, 0.0, 1.0, {"rows": [ODD * 10]}, "")
    made = result(
        verdict=Verdict.unknown(ODD), traceback=f"Traceback\n{ODD}", notes=(ODD,), printed=ODD, operations=(op, deep)
    )
    text = encode(made)
    assert len(text) < 80_000
    found = decode(text)
    for part in (found.verdict.reason, *found.notes, found.traceback, found.printed):
        assert "\\udc80 \\x1b]0;title\\x07 \\x00 <script>" in part
        assert part.replace("\n", "").isprintable()
    assert decode(encode(found)) == found


class Mute(Exception):
    def __str__(self) -> str:
        raise self


def test_what_cannot_say_what_it_is_is_named_by_its_type() -> None:
    assert shown(Mute()) == worded(str, Mute()) == "<Mute whose str raises Mute>"


def test_colours_and_titles_are_taken_out_of_a_programs_output() -> None:
    assert plain_output("\x1b[1;31mred\x1b[0m \x1b]0;title\x07and \x1b]8;;http://x\x1b\\link\x1b(B") == "red and link"


@pytest.mark.parametrize("piece", ["\x1b[31mred\x1b[0m\n", "\x1b]", "\x1b[", "\x1bP", "\0", "/", "/tmp", "/tmp/a:"])
def test_megabytes_take_time_in_proportion(piece: str) -> None:
    def seconds(count: int) -> float:
        text = piece * count
        began = time.thread_time()
        for each in (plain_output, shown, shown_lines, reported, without_folders):
            each(text)
        return time.thread_time() - began

    # The least of several: a machine that others load makes one or another longer, and more than proportional is each.
    few, many = (min(seconds(count) for _ in range(3)) for count in (20_000, 200_000))
    assert many < 40 * few + 0.2


def test_no_folder_of_this_machine_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "zoë home"
    monkeypatch.setenv("HOME", str(home))
    here = Path(__file__).resolve()
    text = (
        f'File "{here}", line 1; File "{home}/customers/acme/usage.csv"; {tmp_path}/acme/x.csv:7; '
        "POST /v1/chat/completions at http://127.0.0.1:1/v1/x and 1/2 of a/b/c"
    )
    assert without_folders(text) == (
        'File "tests/lab_utils/values/test_texts.py", line 1; File "~/.../usage.csv"; .../x.csv:7; '
        "POST /v1/chat/completions at http://127.0.0.1:1/v1/x and 1/2 of a/b/c"
    )
    found = Finding("leak", text, (text,))
    assert "zo" not in found.sentence
    assert str(tmp_path) not in found.sentence + found.witness[0]
