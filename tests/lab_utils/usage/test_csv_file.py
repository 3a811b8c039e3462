"""A user's own records: the form of a file, and the line, column and remedy of its faults."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lab_utils.usage.csv_file import MAX_USERS, ONE_USER, UsageSummary, check_usage_csv, read_usage_csv
from lab_utils.values.profiles import UsageError
from registry.errors import InvalidIdentifier, InvalidUsageRecord
from registry.identity import check_user_id
from registry.usage.records import UsageRecord

HEADER = "at,model,tokens_in,tokens_out,latency_ms,cost_usd,feature,user_id"
ROW = "2026-01-31T12:00:00Z,large,10,20,150.5,0.25,chat,ada"
RECORD = ("ada", "2026-01-31T12:00:00Z", "large", 10, 20, 150.5, 0.25, "chat")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(*lines: str | bytes, end: bytes = b"\n") -> Path:
        path = tmp_path / "usage.csv"
        path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + end for line in lines))
        return path

    return written


def records(path: Path) -> list[tuple[Any, ...]]:
    return list(read_usage_csv(UsageSummary(path)))


def changed(column: str, value: str) -> str:
    """The row with one value in another's place."""
    cells = dict(zip(HEADER.split(","), ROW.split(","), strict=True)) | {column: value}
    out = io.StringIO()
    csv.writer(out).writerow(cells.values())
    return out.getvalue().removesuffix("\r\n")


# -------------------------------------------------------------------------------------------------------- right files


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_utf8_with_and_without_mark_and_either_line_end(write: Callable[..., Path], end: bytes, mark: bytes) -> None:
    path = write(mark + HEADER.encode(), changed("feature", 'Übersicht, "kurz"'), "", ROW, end=end)
    assert records(path) == [(*RECORD[:7], 'Übersicht, "kurz"'), RECORD]
    summary = check_usage_csv(path)
    assert (summary.users, summary.records, summary.ignored) == ({"ada": 2}, 2, ())
    assert summary.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(summary) == f"2 records of 1 user from {path.name} (SHA-256 {summary.sha256[:16]}...)"


def test_columns_come_in_any_order_and_two_may_be_left_out(write: Callable[..., Path]) -> None:
    path = write("cost_usd,model,latency_ms,at,tokens_out,tokens_in", '0.25,"large",150.5,2026-01-31T12:00:00Z,20,10')
    assert records(path) == [(ONE_USER, *RECORD[1:7], "")]


def test_other_columns_are_ignored_and_said(write: Callable[..., Path]) -> None:
    path = write(f"request,{HEADER},région", f'"a\nb",{ROW},eu', f"x,{ROW},us")
    summary = check_usage_csv(path)
    assert summary.ignored == ("request", "région")
    assert "columns that mean nothing here: request, région" in str(summary)
    assert records(path) == [RECORD, RECORD]


def test_names_that_mean_missing_elsewhere_are_names_and_a_last_line_without_an_end_counts(tmp_path: Path) -> None:
    names = ["NA", "nan", "null", "None", "-1", "1e5", "007"]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, *(changed("user_id", name) for name in names)]))
    assert list(check_usage_csv(path).users) == names


# -------------------------------------------------------------------------------------------------------- wrong files

WRONG = {
    "at": [
        *("", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31T25:00:00Z", "2026-02-30T12:00:00Z"),
        *("1769860800", " 2026-01-31T12:00:00Z", "2026-01-31T12:00:00+25:00", "2026-W05-6T12:00:00Z"),
        *("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-01-31T12:00:00.1234567890Z"),
    ],
    "model": ["", " large", "large ", "a\tb", "a\nb", "m" * 257, "a\x85b", "\u2003x"],
    "tokens_in": ["", "-1", "1.0", "1e3", " 7", "+7", "1_000", "1,000", "seven", "1000000000001", "²", "٣", "0" * 19],
    "tokens_out": ["", "-1", "0x10"],
    "latency_ms": ["", "-0.1", "nan", "inf", "1e13", "1_0.0", "0,5", "1.5 ", "٣.0", ".", "1e"],
    "cost_usd": ["", "-1", "$0.25", "1e400", "0x1p3"],
    "feature": [" chat", "a\rb", "f" * 257],
    "user_id": ["", " ada", "a\x00b"],
}


@pytest.mark.parametrize(("column", "value"), [(column, value) for column in WRONG for value in WRONG[column]])
def test_a_malformed_value_is_named_by_line_and_column(write: Callable[..., Path], column: str, value: str) -> None:
    # The first record takes two lines, so the bad one begins in the fifth.
    path = write(f"{HEADER},note", f'{ROW},"two\nlines"', f"{ROW},", f"{changed(column, value)},", f"{ROW},")
    with pytest.raises(UsageError) as raised:
        check_usage_csv(path)
    assert str(raised.value).startswith(f"{path}: line 5: column {column}: ")


NEAREST = (
    "line 1: column 'tokens_in' is missing; found: 'at', 'model', 'token_in', 'tokens_out', 'latency_ms', 'cost_usd', "
    "'feature', 'user_id'; did you mean 'tokens_in' by 'token_in'?"
)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "usage.csv is empty; its first row must name the columns at, model, tokens_in"),
        ([b"", b"", b"\r"], "usage.csv is empty"),
        ([HEADER], "has a header and no records"),
        ([HEADER, ""], "has a header and no records"),
        ([ROW, ROW], "line 1: columns 'at', 'model', 'tokens_in'"),
        ([HEADER.replace("tokens_in", "token_in"), ROW], NEAREST),
        ([HEADER.replace("model", "Model"), ROW], "did you mean 'model' by 'Model'?"),
        ([HEADER.replace("at,", "at ,"), ROW], "did you mean 'at' by 'at '?"),
        ([HEADER.replace("model", "MODEL"), ROW], "did you mean 'model' by 'MODEL'?"),
        ([f"{HEADER},Model", f"{ROW},x"],
         "line 1: column 'Model' stands beside 'model', and only the spelling differs; keep one"),
        ([f" model,{HEADER}", f"x,{ROW}"], "column ' model' stands beside 'model'"),
        ([f"{HEADER},tokensIn", f"{ROW},x"], "column 'tokensIn' stands beside 'tokens_in'"),
        ([f"{HEADER},cost usd", f"{ROW},x"], "column 'cost usd' stands beside 'cost_usd'"),
        ([f"{HEADER},\ufeffat", f"{ROW},x"], "column '\\ufeffat' stands beside 'at'"),
        ([f"{HEADER},USER-ID", f"{ROW},x"], "column 'USER-ID' stands beside 'user_id'"),
        ([HEADER.replace("user_id", "USER ID"), ROW], "column 'USER ID' is unknown; rename it to 'user_id'"),
        ([f"\ufeff\ufeff{HEADER}", ROW], "did you mean 'at' by '\\ufeffat'?"),
        ([HEADER.replace(",", ";"), ROW], "separate the columns with commas"),
        ([f"{HEADER},model", f"{ROW},x"], "line 1: column 'model' stands there 2 times"),
        ([HEADER.replace("feature", "features"), ROW], "line 1: column 'features' is unknown; rename it to 'feature'"),
        ([HEADER.replace("user_id", "userId"), ROW], "column 'userId' is unknown; rename it to 'user_id'"),
        (["", HEADER, ROW, "a,b"], "line 4: 2 fields, and the header has 8; quote a value that holds a comma"),
        ([HEADER, f"{ROW},x"], "line 2: 9 fields"),
        ([HEADER, " "], "line 2: 1 fields"),
        ([HEADER, ROW, f'"{ROW}', ROW], "line 3: a quote is opened here and never closed"),
        ([HEADER, ROW.replace("large", '"large"x')], "line 2: "),
        ([HEADER, f'"{"x" * 140_000}'], "line 2: a field is longer than 131,072 characters"),
        ([HEADER, f"{ROW}\r{ROW}"], "line 2: a carriage return stands alone"),
        ([HEADER, ROW, ROW.encode().replace(b"chat", b"caf\xe9")],
         "line 3: byte 0xe9 at position 48 is not UTF-8; save the file as UTF-8"),
        ([HEADER.encode("utf-16")], "looks like UTF-16; save it as UTF-8"),
        ([HEADER.encode("utf-16-be")], "usage.csv: line 1: columns "),
        ([HEADER, "x" * (1 << 20)], "line 2 is longer than 1 MiB; is it a CSV file?"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_said_with_its_remedy(
    write: Callable[..., Path], lines: Sequence[str | bytes], said: str
) -> None:
    with pytest.raises(UsageError) as raised:
        check_usage_csv(write(*lines))
    assert said in str(raised.value)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nowhere\.csv: No such file"):
        check_usage_csv(tmp_path / "nowhere.csv")
    with pytest.raises(UsageError, match="no regular file"):
        check_usage_csv(tmp_path)


def test_a_thousand_users_and_no_more(write: Callable[..., Path]) -> None:
    rows = [changed("user_id", f"user {number}") for number in range(MAX_USERS)]
    assert len(check_usage_csv(write(HEADER, *rows, rows[0])).users) == MAX_USERS == 1_000
    with pytest.raises(UsageError, match=r"line 1003: column user_id: 'one more' is one user too many; at most 1,000"):
        check_usage_csv(write(HEADER, *rows, rows[0], changed("user_id", "one more")))


# ------------------------------------------------------------------------------------ the same as the registry itself

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from([*WRONG["model"], "m" * 256, "x\u200b"])
TIMES = st.sampled_from([*WRONG["at"], "2026-01-31 12:00Z", "1969-12-31T23:59:59.999999999+0530"]) | st.builds(
    lambda at, offset: f"{at.isoformat()}{offset}",
    st.datetimes(),
    st.sampled_from(["Z", "+00:00", "-11:30", "+0100", "+14", "", "+23:59"]),
)
COUNTS = st.sampled_from(WRONG["tokens_in"]) | st.integers(-5, 10**13).map(str)
AMOUNTS = st.sampled_from(WRONG["cost_usd"]) | st.floats(-1, 2e12).map(repr)


def registrys(cells: dict[str, str]) -> UsageRecord | None:
    """The record that the registry makes of the cells, typed as the columns are; None where it refuses them."""
    typed: dict[str, Any] = dict(cells)
    try:
        check_user_id(typed.pop("user_id"))
        for column, kind in (("tokens_in", int), ("tokens_out", int), ("latency_ms", float), ("cost_usd", float)):
            typed[column] = kind(typed[column])
        return UsageRecord(**typed)
    except (InvalidUsageRecord, InvalidIdentifier, ValueError, OverflowError):
        return None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(
    column=st.sampled_from(HEADER.split(",")),
    text=TEXTS,
    time=TIMES,
    count=COUNTS,
    amount=AMOUNTS,
)
@example("feature", "", "", "", "")
def test_what_is_accepted_the_registry_accepts_as_the_same(
    write: Callable[..., Path], column: str, text: str, time: str, count: str, amount: str
) -> None:
    kinds = {"at": time, "tokens_in": count, "tokens_out": count, "latency_ms": amount, "cost_usd": amount}
    value = kinds.get(column, text)
    line = changed(column, value)
    wanted = registrys(dict(zip(HEADER.split(","), ROW.split(","), strict=True)) | {column: value})
    path = write(HEADER, line)
    try:
        ((user, *values),) = records(path)
    except UsageError:
        # Stricter than the registry only in how numbers and times are written, never in which names there may be.
        assert wanted is None or column not in ("model", "feature", "user_id")
        return
    made = UsageRecord(*values)
    assert made == wanted
    assert user == (value if column == "user_id" else "ada")


def test_columns_that_are_ignored_are_named_as_one_short_line(write: Callable[..., Path]) -> None:
    path = write(f"{HEADER},\x1b]0;title\x07{'z' * 100_000}".encode(), f"{ROW},1")
    said = str(check_usage_csv(path))
    assert said.isprintable()
    assert "columns that mean nothing here: \\x1b]0;title\\x07zzz" in said
    assert len(said) < 600
