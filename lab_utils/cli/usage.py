"""Takes a user's own usage records from the words of a command line, and reads them through before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lab_utils.cli.terminal import say
from lab_utils.values.profiles import UsageError, Value

__all__ = ["COLUMNS_HELP", "take_usage", "without_usage"]

COLUMNS_HELP = (
    "a CSV file in UTF-8 whose first row names the columns at (ISO 8601 with an offset), model, tokens_in, tokens_out, "
    "latency_ms, cost_usd, and if you like feature and user_id (without it all rows are one user's)"
)


def take_usage(path: str | None, overrides: dict[str, dict[str, Value]]) -> str:
    """Make the file of `--usage-csv`, or of the parameter `usage_csv`, golden_path's: its name, below
    `$REGISTRY_LAB_USAGE`. Return its whole path, "" without a file.

    Prints on stderr the file's name and a summary of its content. Raises `UsageError` for a file that is malformed, or
    that no category to run takes.
    """
    given = overrides.get("golden_path", {})
    if path is not None:
        if "golden_path" not in overrides:
            raise UsageError(f"--usage-csv {path}: only golden_path takes usage records; add it to the categories")
        if not path:
            raise UsageError("--usage-csv is empty; give the path of a CSV file")
        if "usage_csv" in given:
            raise UsageError(f"--usage-csv {path}: --param gives usage_csv as well; leave one of them out")
        given["usage_csv"] = path
    if found := str(given.get("usage_csv", "")):
        from lab_utils.usage.csv_file import USAGE_VARIABLE, check_usage_csv

        say(f"reading {found}")
        whole = Path(found).absolute()
        say(f"{check_usage_csv(whole)}")
        given["usage_csv"] = f"${USAGE_VARIABLE}/{whole.name}"
        return str(whole)
    return ""


def without_usage(given: Iterable[str]) -> tuple[str, ...]:
    """The `--param` texts that name another parameter: the command line repeats the file by its own option."""
    return tuple(text for text in given if text.partition("=")[0].rpartition(".")[2] != "usage_csv")
