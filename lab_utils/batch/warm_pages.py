"""The imports of a process from which the pages of notebooks are forked, and the work of its children.

Imported by that process alone: another one than that of the kernels, which so are there sooner.
"""

from __future__ import annotations

import gc
import json
from multiprocessing.connection import Connection
from pathlib import Path

from lab_utils.output import pages
from lab_utils.output.store import Store
from lab_utils.runner.forkserver import enter

pages.warm_up()
gc.freeze()


def page(connection: Connection) -> None:
    """Write the page of an executed notebook."""
    asked = json.loads(connection.recv_bytes())
    enter(asked)
    pages.write_notebook_page(Store(Path(asked["outputs"])).resume(asked["run"]), asked["notebook"])
