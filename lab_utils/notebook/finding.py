"""One finding in a notebook: its evidence, its operations, the holders of the object, and the command to run it
again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from lab_utils.judges.causes import Cause, causes
from lab_utils.judges.difference import witness_lines
from lab_utils.judges.identity import Identified, identified
from lab_utils.notebook.progress import with_progress
from lab_utils.notebook.views import View, badge, table, with_picture, witness_html
from lab_utils.output import frames
from lab_utils.runner import AnyTarget, target_name
from lab_utils.runner.again import Replayed, Return, replay, token_of
from lab_utils.runner.shrinking import Shrunk, shrink
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import CheckResult

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FindingView", "NoFinding", "ReplayView", "found_in"]

_PATH: Final = re.compile(r"(?!op \d)(\S.*?) -> (.+?)(?:; (.*))?")
_STEP: Final = re.compile(r"\[[^\]]*\]|<[^>]*>|\.?[^.\[<]+")
_CAME: Final = {
    Return.SAME: "The finding came again",
    Return.OTHERS: "Another finding came",
    Return.NOTHING: "Nothing was found",
    Return.UNKNOWN: "No verdict",
}


class FindingView(View):
    """One finding: the sentence for people, the evidence, where values differ their difference, and the command that
    runs it again. Its methods look further.

    `target` is the target of the run: its name, or its maker where it has none, as one of a notebook's cell.
    """

    def __init__(self, one: Identified, cause: Cause, target: AnyTarget | None = None) -> None:
        self.finding, self.check = one.finding, one.result.check
        self.target: AnyTarget = one.result.target if target is None else target
        self.key, self.fingerprint = one.key, one.fingerprint
        self.token = str(token_of(one))
        self._one = one
        about = f"{one.key}, {one.finding.anomaly} in {one.result.check}, seed {one.result.seed}"
        known = f"fingerprint {one.fingerprint}; cause: {cause.first.key}, {cause.affected}"
        lines = witness_lines(one.finding.witness)
        html = (
            f"<p><strong>{escape(cause.sentence)}</strong><br><small>{escape(about)}; {escape(known)}</small></p>"
            f"<p>{escape(one.finding.sentence)}</p>{with_picture(one.finding, witness_html(lines))}"
            f"<p><small>Run it again: <code>registry-lab replay {escape(self.token)}</code></small></p>"
        )
        shown = "\n".join(f"{mark or ' '} {text}" for mark, text in lines)
        markdown = f"**{cause.sentence}** ({about}; {known})\n\n{one.finding.sentence}\n\n```text\n{shown}\n```"
        super().__init__(html, f"{markdown}\n\n`registry-lab replay {self.token}`")

    def operations(self) -> pd.DataFrame:
        """One row an operation of the witness, in the order of invocation."""
        made = frames.operations("", [self._one.result])
        return made[made["index"].isin(self._one.operations)].reset_index(drop=True)

    def replay(self, target: AnyTarget | None = None) -> ReplayView:
        """Run it again, on another target if one is given, and show the outcome."""
        token, on = token_of(self._one), self.target if target is None else target
        return ReplayView(
            with_progress(f"replaying {self.key}", lambda live: replay(token, target=on, on_progress=live.report))
        )

    def shrink(self) -> ReplayView:
        """Run it again with ever less, as long as it comes again, and show the least."""
        token = token_of(self._one)
        return ReplayView(
            with_progress(
                f"shrinking {self.key}", lambda live: shrink(token, target=self.target, on_progress=live.report)
            )
        )

    def path(self) -> View:
        """The way of references from a user, or from where everything begins, to each object of the witness."""
        html, markdown = [], []
        for holder, held, _ in self._paths():
            steps = [*_STEP.findall(holder), held]
            html.append(f"<ul>{_nested(steps)}</ul>")
            markdown.append("\n".join(f"{'  ' * depth}- `{step}`" for depth, step in enumerate(steps)))
        none = f"{self.key} shows no path of references: its witness is of another kind."
        return View("".join(html) or f"<p>{escape(none)}</p>", "\n\n".join(markdown) or none)

    def holders(self) -> View:
        """The holders of each object of the witness, and where it was made, as far as that is known."""
        rows = [(held, holder, remark) for holder, held, remark in self._paths()]
        rows += [
            ("", line.removeprefix("held by "), "") for line in self.finding.witness if line.startswith("held by ")
        ]
        if not rows:
            none = f"{self.key} shows no object that is held: its witness is of another kind."
            return View(f"<p>{escape(none)}</p>", none)
        head = ("object", "held by", "remark")
        markdown = "\n".join(
            f"- {held}: held by `{holder}`{f' ({remark})' if remark else ''}" for held, holder, remark in rows
        )
        return View(
            table(head, [[f"<code>{escape(cell)}</code>" if cell else "" for cell in row] for row in rows]), markdown
        )

    def _paths(self) -> list[tuple[str, str, str]]:
        found = (_PATH.fullmatch(line) for line in self.finding.witness)
        return [(path[1], path[2], path[3] or "") for path in found if path]


class NoFinding(View):
    """Stands where no finding was named, and shows how one is."""

    target = "agent_registry"

    def __init__(self) -> None:
        text = "No run is named. `registry-lab investigate RUN F1` opens this notebook on a finding of yours."
        super().__init__(f"<p>{escape(text)}</p>", text)

    def _nothing(self, target: AnyTarget | None = None) -> View:
        return View("<p>No finding, nothing to show.</p>", "No finding, nothing to show.")

    operations = replay = shrink = path = holders = _nothing


def found_in(results: Iterable[CheckResult], key: str, target: AnyTarget | None = None) -> FindingView:
    """The finding of that key. Raises `UsageError`, naming those that there are.

    `target`: what makes the target that has this one's name, which may be a notebook's own class.
    """
    every = identified(results)
    for cause in causes(every):
        for one in cause.all:
            if one.key == key.upper():
                is_its = target is not None and target_name(target) == one.result.target
                return FindingView(one, cause, target if is_its else None)
    if not every:
        raise UsageError(f"finding {key!r}: nothing was found so far")
    raise UsageError(f"unknown finding {key!r}; there are F1 to F{len(every)}")


class ReplayView(View):
    """The outcome of a replay, and for one that was made smaller, its settings."""

    def __init__(self, made: Replayed | Shrunk) -> None:
        came = made.came if isinstance(made, Shrunk) else made
        self.came = came.came
        self.token = str(came.token)
        self.result = came.result
        word = f"{_CAME[came.came]}: {came.token.anomaly}" if came.came is Return.SAME else f"{_CAME[came.came]}."
        lines = [*came.found[:5], *([f"and {len(came.found) - 5} more"] if len(came.found) > 5 else [])]
        if not lines and came.result is not None:
            lines = [f"{came.result.outcome}: {came.result.verdict.reason}"]
        if isinstance(made, Shrunk):
            smaller = "The least that still shows it" if made.token != made.before else "Nothing smaller shows it"
            lines.append(f"{smaller}, after {made.runs} runs: registry-lab replay {self.token}")
        if not came.followed:
            lines.append("The schedule could not be followed to its end: the code takes other steps now.")
        steps = escape("\n".join(came.steps))
        html = (
            f"<p>{badge('FAIL' if came.found else came.came.value)} <strong>{escape(word)}</strong></p>"
            + "".join(f"<p>{escape(line)}</p>" for line in lines)
            + (f"<pre>{steps}</pre>" if steps else "")
        )
        super().__init__(html, "\n\n".join([f"**{word}**", *lines, *came.steps]))


def _nested(steps: Sequence[str]) -> str:
    first, *others = steps
    return f"<li><code>{escape(first)}</code>{f'<ul>{_nested(others)}</ul>' if others else ''}</li>"
