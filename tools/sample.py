"""Makes the sample in docs/sample/: a failing report as one file, and the notebook that it came from, executed.

    python -m tools.sample [--run FOLDER]

One category runs on a planted registry, calibrated, with the usual seed. Names and times of the run, the machine, the
commit and the times of cells are set or left out: they would differ from run to run in vain. Measured values are those
of this run. `made.json` names all that a sample depends on; a test compares it with the code.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lab_utils.cli import main as registry_lab
from lab_utils.output import pages
from lab_utils.output.frames import FRAMES
from lab_utils.output.pages.bundle import bundle
from lab_utils.output.store import CategoryResults, Run, Store, find_run, read_run, save_category
from lab_utils.output.store.record import FORMAT
from lab_utils.values.digest import DIGEST_FORMAT
from lab_utils.values.profiles import CATEGORIES, parameters_for
from lab_utils.values.quantities import moment
from tools.bootstrap import ROOT

SAMPLE: Final = ROOT / "docs" / "sample"
CATEGORY: Final = "user_isolation"
TARGET: Final = "SharedMemory"
SEED: Final = 20261
MOST_BYTES: Final = 1_500_000
_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_STAMP: Final = _AT.isoformat(timespec="seconds")
_MOMENT: Final = re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC")


def inputs() -> dict[str, Any]:
    """All that a sample depends on: with another one of these it is to be made anew."""
    columns = {name: [column.name for column in columns] for name, columns in FRAMES.items()}
    return {
        "command": ["registry-lab", "run", CATEGORY, "--target", TARGET, "--seed", str(SEED)],
        "parameters": dict(parameters_for(CATEGORY, "smoke")),
        "run": FORMAT,
        "digest": DIGEST_FORMAT,
        "frames": f"{zlib.crc32(json.dumps(columns).encode()):08x}",
    }


def again(run: Run, outputs: Path) -> Path:
    """Publish a run anew in `outputs`, without values that would differ in vain; return its folder."""
    opened = Store(outputs, now=lambda: _AT, rng=random.Random(SEED)).begin({})
    about: dict[str, Any] = {**run.about, "run_id": opened.run_id, "started_at": _STAMP, "finished_at": None}
    machine = {**about["provenance"]["machine"], "release": "", "processor": None}
    about["provenance"] = {**about["provenance"], "git": None, "machine": machine}
    about["process"] = {"pid": 0, "created": 0.0}
    opened.note(**about)
    results = tuple(replace(one, started_at=_STAMP) for one in run.results)
    calibrations = tuple(
        replace(one, made_at=_STAMP, made_by=opened.run_id, result=replace(one.result, started_at=_STAMP))
        for one in run.calibrations
    )
    save_category(opened.folder, CategoryResults(CATEGORY, True, results, calibrations))
    for path in sorted(run.folder.glob("notebooks/*.ipynb")):
        text = _MOMENT.sub(moment(_STAMP), path.read_text("utf-8").replace(run.run_id, opened.run_id))
        opened.write(f"notebooks/{path.name}", _plain(text))
        pages.write_notebook_page(opened, f"notebooks/{path.name}")
    pages.publish(opened, run.about["status"])
    return opened.finish(run.about["status"], pages.runs_page)


def _plain(text: str) -> str:
    """The notebook without the times and places that the runner has put into its metadata."""
    notebook = json.loads(text)
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        for name in ("papermill", "execution"):
            cell["metadata"].pop(name, None)
    return json.dumps(notebook, indent=1) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="take this run of the same command, and run nothing")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        if options.run is None:
            registry_lab([*inputs()["command"][1:], "--out", str(outputs / "run")])
        made = again(read_run(options.run or find_run(outputs / "run")), outputs / "again")
        page = bundle(made).page
        SAMPLE.mkdir(exist_ok=True)
        (SAMPLE / "report.html").write_text(page, encoding="utf-8")
        shutil.copy(made / "notebooks" / CATEGORIES[CATEGORY].notebook, SAMPLE)
    (SAMPLE / "made.json").write_text(json.dumps(inputs(), indent=2) + "\n", encoding="utf-8")
    size = (SAMPLE / "report.html").stat().st_size
    print(f"sample: {size / 1e3:,.0f} kB")
    return 0 if size <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
