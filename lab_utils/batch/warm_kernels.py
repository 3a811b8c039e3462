"""The imports of a process from which kernels are forked, and the work of its children.

Imported by that process alone. A kernel that is forked from it is ready in a tenth of the time. Nothing is measured in
kernels, so the memory that they share with it does no harm.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from lab_utils.output import pages
from lab_utils.output.store import Store
from lab_utils.runner.forkserver import enter

# Set where a batch runs below a notebook. A kernel would take it for its own parent, and end, as it is not.
os.environ.pop("JPY_PARENT_PID", None)

_IMPORTED: Final = (
    *("ipykernel.kernelapp", "ipykernel.displayhook", "ipykernel.debugger", "tornado.platform.asyncio"),
    *("IPython.core.completerlib", "IPython.core.debugger", "IPython.core.logger", "IPython.core.oinspect"),
    *("pandas", "pandas.io.formats.html", "pandas.io.formats.string", "pyarrow.parquet", "pyarrow.pandas_compat"),
    *("lab_utils.notebook.lab", "lab_utils.notebook.overview", "lab_utils.notebook.gallery"),
    *(f"lab_utils.output.charts.{name}" for name in ("activity", "findings", "growth", "kills", "measured", "memory")),
    "lab_utils.output.pages.run",
)
for _name in _IMPORTED:
    importlib.import_module(_name)
# Objects made so far live as long as the process: no collection need look at them again, nor write to memory they
# share.
gc.freeze()


def kernel(connection: Connection) -> None:
    """Be a kernel, until it is shut down or the process is killed."""
    # Of Jupyter's and pandas' kinds, as they are, and typed nowhere.
    import numpy
    from ipykernel.kernelapp import IPKernelApp

    asked = json.loads(connection.recv_bytes())
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    enter(asked)
    sys.argv = ["ipykernel_launcher", *asked["arguments"]]
    # `random` does so itself after a fork.
    numpy.random.seed()
    # No parent is polled (1 says that): the server ends with the batch, and the system this process with it.
    app = IPKernelApp.instance(parent_handle=1)
    app.initialize(asked["arguments"])  # type: ignore[no-untyped-call]
    app.start()  # type: ignore[no-untyped-call]


def report(connection: Connection) -> None:
    """Write the frames and the report of a run."""
    asked = json.loads(connection.recv_bytes())
    enter(asked)
    pages.publish(Store(Path(asked["outputs"])).resume(asked["run"]), asked["status"])
