"""Planted services as targets: each starts the server of its name, with the service file that all of them share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from lab_utils.service import require_extra
from lab_utils.service.planted.defects import DEFECTS
from lab_utils.service.planted.notes import Notes
from lab_utils.target import Target
from lab_utils.targets.planted.base import Planted

if TYPE_CHECKING:
    from lab_utils.service.file import ServiceFile

__all__ = ["PLANTED", "RIGHT", "right_service"]

_FILE: Final = Path(__file__).parents[2] / "service" / "planted" / "service.toml"
_ROOT: Final = str(Path(__file__).parents[3])
RIGHT: Final = "right_service"
_BY_ID_ALONE: Final = ("IdsCounted", "IdsFromOneAgain", "IdsOfClientsTaken", "IdsOfTheClock", "IdByItsBeginning")
_NUMBERED: Final = ("NumbersGivenAgain", "NotesOfOldNumbers")


def planted_file(defect: str) -> ServiceFile:
    """The service file of a planted server."""
    from lab_utils.service.file import Identity, Operation, read_service

    service = read_service(_FILE)
    command = tuple(defect if word == "DEFECT" else word for word in service.command)
    service = msgspec.structs.replace(service, command=command, environment={"PYTHONPATH": _ROOT})
    if defect == "TokenIsTheName":
        identity = Identity(
            headers=service.identity.headers,
            login=Operation("POST /login", body={"name": "{user}"}, extract={"token": "token"}),
        )
        return msgspec.structs.replace(service, identity=identity)
    if defect not in (*_BY_ID_ALONE, *_NUMBERED):
        return service
    # The rules for its ids depend on who chooses them, and on the other means that keep sessions apart.
    promises = msgspec.structs.replace(
        service.promises,
        identity="none" if defect in _BY_ID_ALONE else "proved",
        session_ids="server",
        survives_restart=defect not in ("IdsFromOneAgain", "NotesOfOldNumbers"),
    )
    opening = msgspec.structs.replace(service.operations["open"], body={})
    return msgspec.structs.replace(service, promises=promises, operations={**service.operations, "open": opening})


def make(defect: str) -> Target:
    """The target of a planted server, or of the right one (`right`). Needs the extra `service`."""
    require_extra()
    from lab_utils.service.target import ServiceTarget

    return ServiceTarget(planted_file(defect))


def right_service() -> Target:
    """A small server of notes over HTTP, started for each check, which keeps the promises of its service file."""
    return make("right")


def _planted(name: str, kind: type[Notes]) -> Planted:
    return Planted(name, " ".join((kind.__doc__ or "").split()), frozenset(kind.finds), partial(make, name), RIGHT)


PLANTED: Final = tuple(_planted(name, kind) for name, kind in DEFECTS.items())
