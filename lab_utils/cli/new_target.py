"""`registry-lab new-target`: writes the skeleton of a target, which runs as it is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import lab_utils.targets
from lab_utils.cli.exits import Exit
from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

__all__ = ["arguments", "run"]

_SKELETON: Final = Path(lab_utils.targets.__file__).with_name("skeleton.py")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `new-target`."""
    parser.epilog = "exit codes: 0 written, 2 wrong usage, such as a file that is there already"
    parser.add_argument("file", metavar="FILE", help="where to write it, below this folder, such as mypkg/lab.py")
    parser.add_argument("--name", default="MyTarget", help="the name of the class (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Write the skeleton and print the next commands. Raises `UsageError` for a file that cannot be imported by its
    name, or is there: nothing is overwritten."""
    path, name = Path(options.file), options.name
    if not name.isidentifier():
        raise UsageError(f"--name {name!r} is not a name that a Python class can have")
    parts = path.with_suffix("").parts
    if path.is_absolute() or path.suffix != ".py" or not all(part.isidentifier() for part in parts):
        raise UsageError(f"{path} cannot be imported by its name: give a path below this folder, such as mypkg/lab.py")
    spec = f"{'.'.join(parts)}:{name}"
    text = _SKELETON.read_text(encoding="utf-8").replace("{spec}", spec).replace("MyTarget", name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already, and nothing is overwritten; name another file") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    print(f"wrote {shown(path)}; it runs as it is. Next, from this folder:")
    print(f"  registry-lab check-target {shown(spec)}               # is the adapter right?")
    print(f"  registry-lab list checks --target {shown(spec)}       # which checks run, and how to add more")
    print(f"  registry-lab check shared_state_contamination_detection --target {shown(spec)}")
    return Exit.PASSED
