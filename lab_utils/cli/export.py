"""`registry-lab export`: writes a run's whole folder as one archive."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

from lab_utils.cli.exits import Exit
from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    parser.add_argument("run", metavar="RUN", help="its name, its folder, or latest")
    parser.add_argument(
        "--zip", type=Path, dest="file", metavar="FILE", help="the file to write (default: RUN.zip here)"
    )
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="where runs are (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    from lab_utils.output.store import StoreError, open_run

    try:
        found = open_run(Path(options.out), options.run)
    except StoreError as error:
        raise UsageError(str(error)) from error
    file: Path = options.file or Path(f"{found.run_id}.zip")
    partly = file.with_name(f".{file.name}.partial")
    try:
        with zipfile.ZipFile(partly, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(found.folder.rglob("*")):
                if path.is_file():
                    archive.write(path, f"{found.run_id}/{path.relative_to(found.folder).as_posix()}")
        partly.replace(file)
    except OSError as error:
        partly.unlink(missing_ok=True)
        raise UsageError(f"{shown(file)}: {error.strerror}; name another file") from error
    print(f"{shown(file)}: {file.stat().st_size / 1e6:.1f} MB")
    return Exit.PASSED
