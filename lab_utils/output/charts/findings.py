"""Pictures of one finding: the operations of each user in their order, and the references by which an object is
reached."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from lab_utils.output.charts.chart import Chart, Key, NoChart, Part, Table
from lab_utils.output.charts.drawing import BACKGROUND, COLOURS, INK, Drawing
from lab_utils.output.charts.reading import scaled
from lab_utils.output.charts.scale import Scale
from lab_utils.output.charts.text import fitted, plain
from lab_utils.values import texts
from lab_utils.values.quantities import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["interleaving", "picture", "reference_path"]

_STEP: Final = re.compile(
    r"^ *(?P<number>\d+)(?P<mark>[ *]) (?P<who>.*?): "
    r"(?P<what>begins|books of asyncio|goes on|calls )(?P<more>.*?)(?:  \(ahead of (?P<ahead>.*)\))?$",
    flags=re.DOTALL,
)
_NOTE: Final = re.compile(r"^ *-- (?P<note>.*)$", flags=re.DOTALL)
_AT: Final = r"(?P<file>\S*?)(?P<name>[^/\s]+:\d+) (?P<function>\S+?)(?=[,;]|$)"
_PLACE: Final = re.compile(f" at {_AT}")
_WITHIN: Final = re.compile(f", within {_AT}")
_END: Final = re.compile(r"; (answers|raises|ends|is cancelled)(.*)$", flags=re.DOTALL)
_OPERATION: Final = re.compile(r"^(?:[a-z ]+: )?op (?P<index>\d+) ")
_QUOTED: Final = re.compile(r"'([^']+)'")
_TEARDOWN: Final = "the callers have ended"
_MOST_STEPS: Final = 60
_MOST_NODES: Final = 14
_LINE: Final = 15.0
_WIDE: Final = 640
_LANES: Final = (0.0, 0.5)


def interleaving(findings: pd.DataFrame, operations: pd.DataFrame | None = None) -> Chart | NoChart:
    """The first of these findings that has an order, as a sequence: the steps of two callers side by side, or, with
    the frame of operations, the operations of its witness over time."""
    for row in findings.to_dict("records"):
        drawn = _steps(row["sentence"], row["witness"])
        if drawn is None and operations is not None:
            drawn = _operations(row["sentence"], row["witness"], operations[operations["check"] == row["check"]])
        if drawn is not None:
            return drawn
    return NoChart("Interleaving", "No finding has one.")


def reference_path(findings: pd.DataFrame) -> Chart | NoChart:
    """The first of these findings whose witness is a chain of references, as a graph from holder to held object."""
    for row in findings.to_dict("records"):
        if (drawn := _paths(row["sentence"], row["witness"])) is not None:
            return drawn
    return NoChart("Reference path", "No finding has one.")


def picture(sentence: str, witness: str) -> Chart | None:
    """The picture that fits a finding with this witness, if one does, to stand beside both of them."""
    return _steps(sentence, witness, beside=True) or _paths(sentence, witness, beside=True)


# ---------------------------------------------------------------------------------------------------- the interleaving


@dataclass(frozen=True, slots=True)
class _Step:
    number: str
    who: str
    lines: tuple[tuple[str, str], ...]
    """The shown text, with its looks: "", "soft" or "bold"."""
    text: str
    is_ahead: bool = False


def _steps(sentence: str, witness: str, *, beside: bool = False) -> Chart | None:
    before, after = _read(witness)
    if not before:
        return None
    names = list(dict.fromkeys(step.who for step in before if step.who and not step.who.startswith("the lo")))
    # Callers are named by their place and their call; tasks of the target are beside them.
    names.sort(key=lambda name: ": " not in name)
    lanes = names[:2]
    shown = before[:_MOST_STEPS]
    tall = sum(_height(step) for step in shown) + 28
    drawing = Drawing(tall, left=26, right=2, top=2, bottom=2)
    for place, name in enumerate(lanes):
        shown_name, spot = _short(name, 0.46, bold=True), (_LANES[place], 13.0)
        drawing.text(spot, shown_name, bold=True, within=0.47, colour=COLOURS[place], full=name)
    tops = [26.0, *(26.0 + height for height in accumulate(map(_height, shown)))]
    for place, name in enumerate(lanes):
        x = _LANES[place] + 0.012
        own = [top + _LINE / 2 for top, step in zip(tops, shown, strict=False) if step.who == name]
        drawing.lines([((x, 24), (x, tall))], INK, 1.5, 0.2)
        drawing.lines([((x, own[0]), (x, own[-1]))], COLOURS[place], 3.5, 0.6)
        drawing.dots(((x, y) for y in own), COLOURS[place], 10)
    for top, step in zip(tops, shown, strict=False):
        drawing.text((0, top + _LINE / 2 + 4), step.number, anchor="end", aside=-8, size=10.5, soft=True)
        _say(drawing, step, lanes.index(step.who) if step.who in lanes else None, top)
    folded = f"{counted(len(after), 'step')} of teardown folded" if after else ""
    cut = f"{len(before) - len(shown)} more steps are not drawn" if len(before) > len(shown) else ""
    ahead = "⇅ marks a step that ran out of asyncio's own order" if any(step.is_ahead for step in shown) else ""
    remark = "".join(f" {words[0].upper()}{words[1:]}." for words in (folded, cut, ahead) if words)
    table = Table(("step", "who and what"), [(step.number, step.text) for step in (*before, *after)], "all steps")
    said = "; ".join(f"{step.number} {step.text}".strip() for step in shown)
    words = f"{sentence}. In order: {said}."
    if beside:
        return Chart("How it happens", words, [Part(drawing)], remark=remark.strip())
    return Chart("How it happens", words, [Part(drawing)], remark=f"{sentence}.{remark}", table=table)


def _read(witness: str) -> tuple[list[_Step], list[_Step]]:
    """The steps of an interleaving, up to where its callers have ended, and those of the teardown."""
    before: list[_Step] = []
    after: list[_Step] = []
    here = before
    for line in witness.split("\n"):
        if found := _STEP.match(line):
            here.append(_step(found))
        elif (note := _NOTE.match(line)) and (before or after):
            if note["note"].startswith(_TEARDOWN):
                here = after
            else:
                here.append(_Step("", "", ((note["note"], "bold"),), note["note"]))
    return (before, after) if any(step.number for step in before) else ([], [])


def _step(found: re.Match[str]) -> _Step:
    more = found["more"]
    lines: list[tuple[str, str]] = []
    end = _END.search(more)
    where = more[: end.start()] if end else more
    # "within" names the target's own line, which called the lab's.
    place = _WITHIN.search(where) or _PLACE.search(where)
    match found["what"]:
        case "goes on" if place:
            lines += [(f"goes on in {place['function']}", ""), (place["name"], "soft")]
        case "calls ":
            lines.append((f"calls {more[: end.start()] if end else more}", ""))
        case what:
            lines.append((what, ""))
    if end:
        lines.append((f"{end[1]}{end[2]}", "bold"))
    if found["ahead"]:
        lines.append((f"⇅ ahead of {found['ahead']}", "soft"))
    text = f"{found['who']}: {found['what']}{more}" + (f" (ahead of {found['ahead']})" if found["ahead"] else "")
    return _Step(found["number"], found["who"], tuple(lines), text, found["ahead"] is not None)


def _height(step: _Step) -> float:
    return _LINE * len(step.lines) + 7


def _say(drawing: Drawing, step: _Step, lane: int | None, top: float) -> None:
    if lane is None:
        # A step of neither caller stands on a band across both lanes.
        band = ((0.03, top), (1.0, top + _height(step) - 4))
        drawing.boxes([band], BACKGROUND)
        drawing.boxes([band], INK, 0.07)
    x, room = (_LANES[lane] + 0.03, 0.45) if lane is not None else (0.04, 0.95)
    for place, (words, looks) in enumerate(step.lines):
        if lane is None and step.who and place == 0:
            words = f"{step.who}: {words}"
        soft, bold = looks == "soft" or (lane is None and not looks), looks == "bold"
        # The end of an answer names its instance.
        shown = _short(words, room, bold=bold, keep_end=bold)
        spot = (x, top + place * _LINE + 11.5)
        drawing.text(spot, shown, within=room, soft=soft, bold=bold, full=words)


def _operations(sentence: str, witness: str, operations: pd.DataFrame) -> Chart | None:
    numbers = [int(found["index"]) for line in witness.split("\n") if (found := _OPERATION.match(line))]
    shown = operations[operations["index"].isin(numbers)].sort_values("invoked").head(_MOST_NODES)
    if len(shown) < 2:
        return None
    begin = float(shown["start"].min())
    factor, unit = scaled(float(shown["end"].max()) - begin)
    xs = Scale.of([0.0, *((shown["end"] - begin) * factor)])
    tall = 34.0
    drawing = Drawing(tall * len(shown), right=4)
    drawing.rows([plain(name) for name in shown["client"]], tall, most=110)
    drawing.x_axis(xs, f"{unit} since the first of them began")
    rows = []
    for place, one in enumerate(shown.to_dict("records")):
        where = plain(one["user"]) + (f"/{one['agent_type']}" if one["agent_type"] else "")
        answer = f"{one['error']}: {one['value']}" if one["error"] else one["value"]
        words = f"op {one['index']}: {one['action']} {where} → {one['type']} {answer}"
        left, right = xs.at((one["start"] - begin) * factor), xs.at((one["end"] - begin) * factor)
        y = place * tall
        colour = {"ok": COLOURS[0], "fail": COLOURS[1]}.get(one["type"], COLOURS[4])
        drawing.boxes([((left, y + 19), (max(right, left + 0.006), y + 29))], colour, 0.9)
        drawing.text((0, y + 13), fitted(texts.shown(words), 600, keep_end=False), within=1.0, full=words)
        rows.append((plain(one["client"]), words))
    said = "; ".join(words for _, words in rows)
    table = Table(("client", "operation"), rows, "the operations")
    return Chart("The operations", f"{sentence}. {said}.", [Part(drawing)], remark=sentence, table=table)


# ------------------------------------------------------------------------------------------------- the reference path


@dataclass(frozen=True, slots=True)
class _Path:
    root: str
    steps: tuple[str, ...]
    end: str


def _paths(sentence: str, witness: str, *, beside: bool = False) -> Chart | None:
    found = list(_found_paths(sentence, witness))
    if not found:
        return None
    # Two users who reach one object: their two ways to it. Else each chain is a finding's evidence by itself.
    together = [path for path in found if path.end == found[0].end][:2]
    deepest = max(len(_folded(path.steps)) for path in together)
    row = 28.0
    held, _, more = found[0].end.partition("; ")
    box = 46 if more else 28
    tall = row * (deepest + 1) + 12 + box
    drawing = Drawing(tall, left=10, right=2, top=4, bottom=4)
    share = 1 / len(together)
    # The object is as wide as all ways to it, and each comes down on it.
    goal = tall - box
    for place, path in enumerate(together):
        x = place * share + 0.012
        labels = [path.root, *_folded(path.steps)]
        spots = [(x, 8 + number * row) for number in range(len(labels))]
        drawing.line([*spots, (x, goal)], COLOURS[place], 2)
        drawing.dots(spots, COLOURS[place], 9)
        for number, ((_, y), label) in enumerate(zip(spots, labels, strict=True)):
            room = share - 0.06
            words = _short(label, room, bold=number == 0)
            drawing.text((x + 0.025, y + 4), words, bold=number == 0, within=room, full=label)
    drawing.boxes([((0.0, goal), (1.0, tall))], INK, 0.1)
    drawing.text((0.015, goal + 18), _short(held, 0.96, bold=True), bold=True, within=0.97, full=held)
    if more:
        drawing.text((0.015, goal + 36), _short(more, 0.96), soft=True, within=0.97, full=more)
    keys = [Key(f"from {path.root}", COLOURS[place], "solid") for place, path in enumerate(together)]
    left_out = len(found) - len(together)
    remark = f"{counted(left_out, 'more chain')} {'is' if left_out == 1 else 'are'} in the witness." if left_out else ""
    rows = [(path.root, "".join(path.steps), path.end) for path in found[:_MOST_NODES]]
    said = "; ".join(f"{root}{steps} leads to {end}" for root, steps, end in rows[:2])
    table = Table(("from", "by", "to"), rows, "the whole chains")
    words, told = f"{sentence}. {said}.", keys if len(together) > 1 else ()
    if beside:
        return Chart("Who reaches it", words, [Part(drawing)], remark=remark, keys=told)
    remark = f"{sentence}. {remark}".rstrip()
    return Chart("Who reaches it", words, [Part(drawing)], remark=remark, keys=told, table=table)


def _short(text: str, room: float, *, bold: bool = False, keep_end: bool = False) -> str:
    """As much of a text's beginning as has room in that share of a wide figure."""
    return fitted(texts.shown(text), room * _WIDE, 13 if bold else 12, keep_end=keep_end)


def _found_paths(sentence: str, witness: str) -> Iterator[_Path]:
    users = sorted(_QUOTED.findall(sentence), key=len, reverse=True)
    for line in witness.split("\n"):
        if _OPERATION.match(line) or " -> " not in line:
            continue
        held, _, end = line.partition(" -> ")
        about, colon, chain = held.rpartition(": ")
        chain = chain if colon and not _is_open(about) else held
        root = next(
            (user for user in users if chain.startswith(user) and chain[len(user) :][:1] in {".", "[", "<"}), ""
        )
        tokens = list(_tokens(chain[len(root) :]))
        if not root and tokens:
            # The names before the first item are a module's; the last of them is an object in it.
            dotted = 0
            while dotted + 1 < len(tokens) and tokens[dotted + 1].startswith("."):
                dotted += 1
            first = dotted if _is_module(tokens[: dotted + 1]) else 1
            root, tokens = "".join(tokens[:first]), tokens[first:]
        if not tokens:
            continue
        steps: list[str] = []
        for token in tokens:
            if steps and token.startswith("[") and not steps[-1].endswith("]"):
                steps[-1] += token
            else:
                steps.append(token)
        yield _Path(root, tuple(steps), end)


def _is_open(text: str) -> bool:
    """Whether a text ends inside brackets or quotes: a colon that follows is part of a key."""
    return text.count("[") > text.count("]") or text.count("'") % 2 == 1


def _is_module(tokens: Sequence[str]) -> bool:
    return len(tokens) > 2 and all(token.lstrip(".").isidentifier() for token in tokens)


def _tokens(chain: str) -> Iterator[str]:
    """The parts of `ada.agents['helper'].memory`: a name, then attributes, items, and the content of `<...>`."""
    begin = depth = 0
    quote = ""
    for place, one in enumerate(chain):
        if quote:
            if one == quote and chain[place - 1] != "\\":
                quote = ""
            continue
        if one in "'\"" and depth:
            quote = one
        elif one in "[<(":
            # A dot before `<...>` belongs to it: the name of a part that no attribute names.
            if not depth and one != "(" and place > begin and chain[begin:place] != ".":
                yield chain[begin:place]
                begin = place
            depth += 1
        elif one in "]>)":
            depth = max(0, depth - 1)
        elif one == "." and not depth and place > begin:
            yield chain[begin:place]
            begin = place
    if chain[begin:]:
        yield chain[begin:]


def _folded(steps: Sequence[str]) -> list[str]:
    """The steps, of a long chain the first and the last ones."""
    if len(steps) <= _MOST_NODES:
        return list(steps)
    half = _MOST_NODES // 2
    return [*steps[:half], f"… {len(steps) - 2 * half} more steps …", *steps[-half:]]
