"""Serves one of the planted services: `python -m lab_utils.service.planted NAME PORT`."""

from __future__ import annotations

import sys

import uvicorn

from lab_utils.service.planted.defects import DEFECTS
from lab_utils.service.planted.notes import Notes

name, port = sys.argv[1:]
app = Notes() if name == "right" else DEFECTS[name]()
uvicorn.run(
    app, host="127.0.0.1", port=int(port), log_level="warning", lifespan="off", ws="none", http="h11", loop="asyncio"
)
