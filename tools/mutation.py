"""The mutation score of `registry/`: how many small changes of its code the tests notice.

    python -m tools.mutation [PATH ...] [--sample N] [--seed S] [--again] [--report]

Each mutant is judged by the tests that run the changed line (those of `tests/registry`, and the smoke checks of
`tests/integration`), the quickest first, up to the first that fails. The mutated module exists only in the memory of a
process forked for it: the working tree is never touched. A test that starts a Python of its own sees the original.

Resumable: verdicts are kept in build/mutation/, for each module as long as its source is the same. `--again` judges
the known survivors once more, after new tests; which tests run which line is measured anew when they changed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.judging import Judge, Verdict
from tools.mutants import change, mutants_of
from tools.scoring import stratified

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "mutation" / "verdicts.jsonl"
KILLED = ("killed", "timeout")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The mutation score of registry/, judged by its tests.")
    parser.add_argument("paths", nargs="*", type=Path, help="modules (default: all of registry/)")
    parser.add_argument("--sample", type=int, metavar="N", help="at most N mutants a module, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: 1)")
    parser.add_argument(
        "--most", type=int, metavar="N", help="at most N tests a mutant (default: all that run the line)"
    )
    parser.add_argument("--again", action="store_true", help="judge the known survivors once more")
    parser.add_argument("--report", action="store_true", help="run nothing; print the known verdicts")
    options = parser.parse_args(arguments)
    paths = [path.resolve().relative_to(ROOT) for path in options.paths] or modules()
    known = read()
    if not options.report:
        judge_all(paths, Judge(ROOT, options.most), options.sample, options.seed, known, again=options.again)
    report(paths, known)
    return 0


def modules() -> list[Path]:
    """Every module of the package."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / "registry").rglob("*.py"))


def judge_all(
    paths: Sequence[Path], judge: Judge, sample: int | None, seed: int, known: dict[str, Verdict], *, again: bool
) -> None:
    """Judge the mutants without a verdict, and keep every verdict as soon as there is one."""
    for path in paths:
        original = (ROOT / path).read_text(encoding="utf-8")
        mutants = mutants_of(path.as_posix(), original)
        if mutants:
            judge.control(path, original)
        if sample is not None:
            # A generator of its own for each module: the draw does not depend on which others are asked for.
            random.Random(f"{seed}/{path.as_posix()}").shuffle(mutants)
            mutants = mutants[:sample]
        for mutant in mutants:
            before = known.get(mutant.name)
            if before is not None and not (again and before.outcome == "survived"):
                continue
            source = mutant.source()
            if source is None:
                verdict = Verdict(mutant.name, "void", "", "")
            else:
                outcome, by = judge.judge(path, mutant.line, source)
                verdict = Verdict(mutant.name, outcome, by, change(original, source))
            known[mutant.name] = verdict
            keep(verdict)
            print(f"{verdict.outcome:9s} {mutant.name} {verdict.by}", flush=True)


def read() -> dict[str, Verdict]:
    """The verdicts there are, the latest of each mutant."""
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.exists() else []
    return {verdict.name: verdict for verdict in (Verdict(**json.loads(line)) for line in lines)}


def keep(verdict: Verdict) -> None:
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(verdict._asdict()) + "\n")


def report(paths: Iterable[Path], known: dict[str, Verdict]) -> None:
    """Print the score of each module and of all, and every survivor."""
    survivors: list[Verdict] = []
    strata: list[tuple[int, int, int]] = []
    print(f"\n{'module':36s} mutants  judged  killed  score")
    for path in paths:
        mutants = mutants_of(path.as_posix(), (ROOT / path).read_text(encoding="utf-8"))
        judged = [known[mutant.name] for mutant in mutants if mutant.name in known]
        judged = [verdict for verdict in judged if verdict.outcome != "void"]
        killed = sum(verdict.outcome in KILLED for verdict in judged)
        survivors += [verdict for verdict in judged if verdict.outcome not in KILLED]
        if mutants:
            score = f"{killed / len(judged):6.1%}" if judged else "     -"
            print(f"{path.as_posix():36s} {len(mutants):7d} {len(judged):7d} {killed:7d} {score}")
            strata.append((len(mutants), len(judged), killed))
    for verdict in survivors:
        print(f"\n{verdict.outcome}: {verdict.name}\n{verdict.change}")
    total, judged_, killed_ = (sum(column) for column in zip(*strata, strict=True)) if strata else (0, 0, 0)
    print(f"\n{killed_} of {judged_} judged mutants killed, of {total} there are", end="")
    print(f"; score {killed_ / judged_:.1%}" if judged_ else "")
    estimate = stratified(strata)
    if judged_ < total and estimate is not None:
        share, error = estimate
        print(f"estimated score of the modules sampled: {share:.1%} ± {error:.1%} (95%, stratified by module)")


if __name__ == "__main__":
    sys.exit(main())
