"""Counts habits of our prose that readers stumble over, and lists the longest sentences. Judges nothing.

    python -m tools.prose [PATH ...] [--longest N] [--show WORD]

Read are the docstrings and comments of Python files and the text of Markdown files. "what" where a noun would stand,
and "told" of code, are counted per 1,000 words; the goals are below 4 and below 0.2.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("registry", "lab_utils", "tests", "tools", "benchmarks", "examples")
HABITS = ("what", "told")


def passages(path: Path) -> Iterator[tuple[int, str]]:
    """The lines where prose begins, with the prose."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        prose = re.sub(r"```.*?```|<!--.*?-->", lambda block: "\n" * block[0].count("\n"), source, flags=re.DOTALL)
        for found in re.finditer(r"(?:.+\n?)+", prose):
            yield prose[: found.start()].count("\n") + 1, found[0]
        return
    for node in ast.walk(ast.parse(source)):
        # Every text that stands alone: docstrings, and those of attributes and constants.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value
    begin, last, lines = 0, 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1 and lines:
                yield begin, "\n".join(lines)
                lines = []
            if not lines:
                begin = token.start[0]
            last = token.start[0]
            lines.append(token.string.lstrip("#- "))
    if lines:
        yield begin, "\n".join(lines)


def words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z][A-Za-z'-]*", re.sub(r"`[^`]*`", " code ", text))


def sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-*|]|\d+\.) ", text):
        yield from re.split(r"(?<=[.!?])\s+(?=[A-Z`\"])", " ".join(paragraph.split()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders (default: all code)")
    parser.add_argument("--longest", type=int, default=10, metavar="N", help="sentences to list (default: %(default)s)")
    parser.add_argument("--show", metavar="WORD", help="print each sentence with this word")
    options = parser.parse_args()
    asked: list[Path] = options.paths or [ROOT / name for name in FOLDERS]
    files = [
        path
        for each in asked
        for path in ([each] if each.is_file() else sorted([*each.rglob("*.py"), *each.rglob("*.md")]))
    ]
    total = 0
    counts = dict.fromkeys(HABITS, 0)
    every: list[tuple[int, str, str]] = []
    for path in files:
        for line, text in passages(path):
            found = [word.lower() for word in words(text)]
            total += len(found)
            for habit in HABITS:
                counts[habit] += found.count(habit)
            every += [(len(words(sentence)), f"{path}:{line}", sentence) for sentence in sentences(text)]
    print(f"{total} words in {len(files)} files")
    for habit, count in counts.items():
        print(f"{habit:6} {count:5}  {1_000 * count / max(total, 1):6.2f} in 1,000 words")
    for length, place, sentence in sorted(every, reverse=True)[: options.longest]:
        print(f"\n{length} words, {place}\n  {sentence}")
    if options.show:
        for _, place, sentence in every:
            if options.show in map(str.lower, words(sentence)):
                print(f"\n{place}\n  {sentence}")


if __name__ == "__main__":
    main()
