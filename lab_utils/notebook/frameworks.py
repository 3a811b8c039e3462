"""Public frameworks side by side, as a notebook shows them: from the record that comes with the lab, or from runs."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Final

import pandas as pd

from lab_utils.notebook.overview import finished
from lab_utils.notebook.views import View, badge, markdown_table, sortable, table
from lab_utils.output.frames import breakable
from lab_utils.output.store import place
from lab_utils.output.store.matrix import LEGEND, RECORD, Matrix, Row, cell, found_anomalies, read_matrix, row_of
from lab_utils.targets.frameworks import FRAMEWORKS
from lab_utils.values.profiles import UsageError, unknown
from lab_utils.values.verdict import Outcome

__all__ = ["Frameworks"]

_DAY: Final = 10
_CELL: Final = (
    "padding:.25em .3em;text-align:center;vertical-align:bottom;border-bottom:1px solid rgba(128,128,128,.35)"
)
_NAME: Final = f"{_CELL};text-align:left;white-space:nowrap;font-weight:400"
_FAIL: Final = "color:#fff;background:#b42318;font-weight:600"
_UPRIGHT: Final = "writing-mode:vertical-rl;white-space:nowrap"


class Frameworks:
    """The matrix of targets and anomalies.

    `matrix` is the file that `make frameworks` writes; "" is the record that comes with the lab. `run`, a name or a
    path, adds a run's own target as the last row; "" adds none. `only` keeps the row of one target. Raises `UsageError`
    for a target that is not in the matrix, and `StoreError` for an unknown file or run.
    """

    def __init__(self, *, matrix: str = "", run: str = "", only: str = "") -> None:
        self._matrix = read_matrix(place(matrix) if matrix else RECORD)
        known = tuple(row.target for row in self._matrix.rows)
        if only and only not in known:
            raise UsageError(unknown("target", only, known))
        rows = tuple(row for row in self._matrix.rows if only in ("", row.target))
        self._has_run = bool(run)
        self._matrix = Matrix(self._matrix.format, (*rows, *([_of_run(run)] if run else [])))
        pd.set_option("display.max_colwidth", None, "display.max_rows", 200, "display.max_columns", 50)

    def __repr__(self) -> str:
        return f"<Frameworks targets={len(self._matrix.rows)} anomalies={len(found_anomalies(self._matrix))}>"

    def _repr_html_(self) -> str:
        rows = []
        for name, row in zip(self._names(), self._matrix.rows, strict=True):
            counts = Counter(one.outcome for one in row.checks.values())
            words = " ".join(f"{badge(word)}&nbsp;{counts[word]}" for word in Outcome if counts[word])
            made = f"{row.made_on}, Python {row.python}, {row.profile}, seed {row.seed}"
            rows.append([f"<code>{escape(name)}</code>", escape(row.version), words, escape(made)])
        return View(table(("target", "version", "checks", "judged"), rows), repr(self))._repr_html_()

    def matrix(self) -> pd.DataFrame:
        """One row a target, one column an anomaly that was found on any of them: the cells as they were judged."""
        anomalies = found_anomalies(self._matrix)
        cells = [[str(cell(self._matrix, row, anomaly)) for anomaly in anomalies] for row in self._matrix.rows]
        return pd.DataFrame(cells, index=self._names(), columns=anomalies)

    def by_anomaly(self) -> View:
        """The matrix on one screen: one row an anomaly, one column a target, and a sign for each cell."""
        names, rows, plain = self._names(), [], []
        for anomaly in found_anomalies(self._matrix):
            signs = [self._sign(row, anomaly) for row in self._matrix.rows]
            plain.append([anomaly, *(sign for sign, _ in signs)])
            cells = "".join(
                f'<td title="{escape(words)}" style="{_CELL};{_FAIL if "✗" in sign else ""}">{sign}</td>'
                for sign, words in signs
            )
            rows.append(f'<tr><th style="{_NAME}">{escape(anomaly)}</th>{cells}</tr>')
        heads = "".join(f'<th style="{_CELL}"><span style="{_UPRIGHT}">{escape(name)}</span></th>' for name in names)
        html = (
            f'<p>{LEGEND}</p><div style="overflow-x:auto" tabindex="0"><table style="border-collapse:collapse">'
            f'<thead><tr style="background:transparent"><th></th>{heads}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
        return View(html, f"{LEGEND}\n\n{markdown_table(['', *names], plain)}", "none")

    def _sign(self, row: Row, anomaly: str) -> tuple[str, str]:
        """A cell's sign, and in words what it says."""
        one = cell(self._matrix, row, anomaly)
        promise = FRAMEWORKS[row.target].promises.get(anomaly) if row.target in FRAMEWORKS else None
        if one.outcome is not Outcome.FAIL or promise is None:
            return one.sign, f"{row.target}: {one}"
        return f"{one.sign}{promise.standing.letter}", f"{row.target}: {one}, {promise.standing}"

    def evidence(self) -> View:
        """The findings as a table that sorts and filters; witnesses are folded up."""
        head, rows, plain = ("target", "anomaly", "what the lab found", "its documentation", "script"), [], []
        for one in self.findings().itertuples(index=False, name=None):
            name, anomaly, sentence, witness, standing, quote, document, script = map(str, one)
            where = f'<a href="{escape(document)}">there</a>' if document.startswith("https:") else escape(document)
            said = f"<em>{escape(standing)}</em>: “{escape(quote)}” ({where})" if quote else "not looked up"
            lines = escape(witness).replace("\n", "<br>")
            found = f'<details><summary style="cursor:pointer">{escape(sentence)}</summary>{lines}</details>'
            rows.append([breakable(name), breakable(anomaly), found, said, breakable(script)])
            plain.append((name, anomaly, sentence, f"{standing}: “{quote}” ({document})" if quote else "", script))
        return View(sortable(head, rows), markdown_table(head, plain), "none")

    def findings(self) -> pd.DataFrame:
        """One row a FAIL: the finding with its witness, the sentence of the documentation that bears on it, how the
        two stand to each other, and the script that shows it without the lab."""
        columns = ["target", "anomaly", "finding", "witness", "standing", "documentation", "document", "script"]
        rows = []
        for name, row in zip(self._names(), self._matrix.rows, strict=True):
            promises = FRAMEWORKS[row.target].promises if row.target in FRAMEWORKS else {}
            for anomaly, found in row.found.items():
                one = promises.get(anomaly)
                promised = (one.standing.value, one.quote, one.document, f"{one.reproduction}.py") if one else ("",) * 4
                rows.append((name, anomaly, found.sentence, "\n".join(found.witness), *promised))
        return pd.DataFrame(rows, columns=columns)

    def standings(self) -> pd.DataFrame:
        """One row a framework: how many of its anomalies break its promise, are an unsafe default, are left to the
        app."""
        found = self.findings()
        counted = pd.crosstab(found["target"], found["standing"])
        return counted.reindex([name for name in self._names() if name in counted.index])

    def costs(self) -> pd.DataFrame:
        """One row a target, then the plain dict that was measured beside each: microseconds of processor time a user,
        and bytes. NaN where a target has no such call."""
        columns = ["create_us", "get_us", "end_us", "live_bytes", "left_bytes"]
        measured = [(row.target, row.cost) for row in self._matrix.rows if row.cost is not None]
        frame = pd.DataFrame(
            [[getattr(cost, name) for name in columns] for _, cost in measured],
            index=[name for name, _ in measured],
            columns=columns,
            dtype="float64",
        )
        floors = pd.DataFrame(
            [[getattr(cost, f"floor_{name}") for name in columns[:3]] for _, cost in measured], columns=columns[:3]
        )
        frame.loc["a plain dict"] = floors.median()
        return frame.round(1)

    def installed(self) -> pd.DataFrame:
        """One row a framework target: the version in this environment, "" for none, and how it is had."""
        rows = [(name, one.title, one.version, one.remedy) for name, one in FRAMEWORKS.items()]
        return pd.DataFrame(rows, columns=["target", "framework", "installed", "remedy"])

    def _names(self) -> list[str]:
        names = [row.target for row in self._matrix.rows]
        return [*names[:-1], f"{names[-1]}, this run"] if self._has_run else names


def _of_run(name: str) -> Row:
    run = finished(name)
    return row_of(
        run.results,
        target=run.about["target"],
        version=run.run_id,
        python=run.about["provenance"]["python"],
        made_on=run.about["started_at"][:_DAY],
    )
