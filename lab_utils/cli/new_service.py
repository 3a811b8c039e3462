"""`registry-lab new-service`: writes a commented service file to begin with."""

from __future__ import annotations

import argparse
from pathlib import Path

import lab_utils.service
from lab_utils.cli.exits import Exit
from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `new-service`."""
    parser.add_argument("file", metavar="FILE", help="where to write it; there must be none")


def run(options: argparse.Namespace) -> int:
    """Write the file. Raises `UsageError` where there is one, or its folder is missing."""
    place = Path(options.file)
    template = Path(lab_utils.service.__file__).with_name("template.toml").read_text(encoding="utf-8")
    try:
        with place.open("x", encoding="utf-8") as file:
            file.write(template.replace("{file}", str(place)))
    except FileExistsError:
        raise UsageError(f"{place}: there is one already; give another name") from None
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror}") from error
    print(f"wrote {shown(place)}; change it, then: registry-lab check-service {shown(place)}")
    return Exit.PASSED
