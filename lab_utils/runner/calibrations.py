"""Keeps the calibrations of checks, which depend on the lab, Python, packages, profile, parameters and seed, never on a
target; makes them again only when one of these has changed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from lab_utils.checks import CHECKS
from lab_utils.runner.conduct import Progress
from lab_utils.runner.forkserver import is_available
from lab_utils.runner.runner import calibrate, calibrated_on, was_caught
from lab_utils.runner.server import server
from lab_utils.values.decoding import decodable
from lab_utils.values.profiles import CATEGORIES, UsageError, Value, parameters_for, unknown
from lab_utils.values.result import CheckResult, decode, encode

__all__ = [
    "KEPT_VARIABLE",
    "MODES",
    "MODE_VARIABLE",
    "Calibrated",
    "calibrated",
    "calibration_mode",
    "code_digest",
    "default_folder",
    "kept",
]

MODES: Final = ("changed", "always", "all", "never")
KEPT_VARIABLE: Final = "REGISTRY_LAB_CALIBRATIONS"
"""The environment variable that names the folder of kept calibrations."""
MODE_VARIABLE: Final = "REGISTRY_LAB_CALIBRATE"
"""The environment variable that names the mode, where a call does not."""

_FORMAT: Final = 1
_IMPORTED_AT: Final = time.time()
_PACKAGES: Final = tuple(Path(__file__).resolve().parents[2] / name for name in ("registry", "lab_utils"))
_MOST_KEPT: Final = 8
"""How many records of one check are kept, the newest: those of other profiles, seeds and parameters."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The results of one check on its planted registries, in the check's order; when they were made, in UTC, and by
    which run ("" for none). Operations and samples are not kept."""

    results: tuple[CheckResult, ...]
    made_at: str
    made_by: str


@dataclass(frozen=True, slots=True)
class _Record:
    """One file. `results` are texts of `encode`, `digest` is over all the rest: a damaged record is not believed."""

    format: int
    key: str
    check: str
    made_at: str
    made_by: str
    digest: str
    results: tuple[str, ...]


decodable(_Record)


def calibrated(
    check: str,
    *,
    mode: str = "",
    profile: str,
    seed: int,
    parameters: Mapping[str, Value] | None = None,
    folder: Path | None = None,
    run: str = "",
    on_progress: Progress | None = None,
) -> Calibrated:
    """The check's calibration: the one that is kept in `folder` if nothing that it depends on has changed, else a new
    one, which is kept there.

    `mode` is by default `$REGISTRY_LAB_CALIBRATE`, else "changed"; with "always" it is made anew; with "all" it is made
    anew on all of the check's planted registries, not only on those of `calibrated_on`; with "never" there is none. A
    record that is damaged, of another format, of another key, or that lacks one of the planted registries is not
    believed. One whose planted registries were not all caught is not kept, nor is one that the lab's code has changed
    under. A folder that cannot be written keeps nothing and fails nothing. Raises `UsageError` for an unknown mode, and
    the errors of `calibrate`.
    """
    mode = calibration_mode(mode)
    place = _place(check, profile, seed, parameters, folder)
    if mode == "never":
        return Calibrated((), "", "")
    if mode == "changed" and (found := place.read()) is not None:
        return found
    results = calibrate(
        check,
        profile=profile,
        seed=seed,
        parameters=parameters,
        planted=CHECKS[check].planted if mode == "all" else place.planted,
        on_progress=on_progress,
    )
    results = tuple(replace(result, operations=(), samples=(), printed="") for result in results)
    made = Calibrated(results, datetime.now(UTC).isoformat(timespec="seconds"), run)
    if mode != "all" and all(map(was_caught, results)) and not _has_changed():
        with suppress(OSError):
            place.write(made)
    return made


def kept(
    check: str,
    *,
    profile: str,
    seed: int,
    parameters: Mapping[str, Value] | None = None,
    folder: Path | None = None,
) -> Calibrated | None:
    """The check's calibration that is kept, as `calibrated` would find it; None where there is none. Makes none."""
    return _place(check, profile, seed, parameters, folder).read()


def calibration_mode(named: str = "") -> str:
    """The mode that is named, else that of the environment, else "changed". Raises `UsageError` for an unknown one."""
    mode = named or os.environ.get(MODE_VARIABLE) or MODES[0]
    if mode not in MODES:
        raise UsageError(unknown("calibration mode", mode, MODES))
    return mode


def default_folder() -> Path:
    """Where calibrations are kept: `$REGISTRY_LAB_CALIBRATIONS`, else `outputs/.calibrations` of this clone, else the
    user's cache."""
    if named := os.environ.get(KEPT_VARIABLE):
        return Path(named)
    root = _PACKAGES[0].parent
    if (root / "outputs").is_dir() and (root / "pyproject.toml").is_file():
        return root / "outputs" / ".calibrations"
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "agent-registry-lab" / "calibrations"


@dataclass(frozen=True, slots=True)
class _Place:
    """The file of a check's calibration on these planted registries, and the key of all that it depends on."""

    path: Path
    key: str
    check: str
    planted: tuple[str, ...]

    def read(self) -> Calibrated | None:
        """What is kept here; None for nothing, and for what is not believed."""
        if not self.path.is_file():
            # A pipe of that name would block whoever reads it.
            return None
        try:
            record = msgspec.json.decode(self.path.read_bytes(), type=_Record)
            if (record.format, record.key, record.check) != (_FORMAT, self.key, self.check):
                return None
            if _digest(record) != record.digest:
                return None
            results = tuple(decode(text.encode()) for text in record.results)
        except (OSError, ValueError):
            return None
        if tuple(result.target for result in results) != self.planted or not all(map(was_caught, results)):
            return None
        return Calibrated(results, record.made_at, record.made_by)

    def write(self, made: Calibrated) -> None:
        """Keep it here, and of the check's others the newest."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        results = tuple(encode(result).decode() for result in made.results)
        record = _Record(_FORMAT, self.key, self.check, made.made_at, made.made_by, "", results)
        record = replace(record, digest=_digest(record))
        # Another run may write the same record: in another container, of the same process number.
        part = self.path.with_suffix(f".{os.urandom(8).hex()}")
        try:
            part.write_bytes(msgspec.json.encode(record))
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)
        kept = sorted(self.path.parent.glob(f"{self.check}-*.json"), key=lambda one: one.stat().st_mtime, reverse=True)
        for one in kept[_MOST_KEPT:]:
            one.unlink(missing_ok=True)


def _place(check: str, profile: str, seed: int, parameters: Mapping[str, Value] | None, folder: Path | None) -> _Place:
    if check not in CHECKS:
        raise UsageError(unknown("check", check, CHECKS))
    category, planted = CATEGORIES[CHECKS[check].category], calibrated_on(check, profile)
    values = parameters_for(category.name, profile, parameters)
    calibrating = sorted((one.name, values[one.name]) for one in category.parameters if one.calibrates)
    parts: list[Any] = [_FORMAT, _surroundings(), check, planted, profile, seed, calibrating]
    key = hashlib.blake2b(json.dumps(parts).encode(), digest_size=32).hexdigest()
    return _Place((folder or default_folder()) / f"{check}-{key[:16]}.json", key, check, planted)


@cache
def code_digest() -> str:
    """A digest of all code of the lab and the registry, and of the files of planted services."""
    digest = hashlib.blake2b(digest_size=32)
    for path in _code():
        digest.update(f"{path.relative_to(_PACKAGES[0].parent)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _code() -> list[Path]:
    return [path for package in _PACKAGES for kind in ("*.py", "*.toml") for path in sorted(package.rglob(kind))]


def _has_changed() -> bool:
    """Whether code was written since the checks' processes have imported it: they run what it was before."""
    began = server().path.stat().st_mtime if is_available() else _IMPORTED_AT
    return any(path.stat().st_mtime >= began for path in _code())


@cache
def _surroundings() -> str:
    """A digest of all code of the lab and the registry, of the interpreter, and of the installed packages."""
    digest = hashlib.blake2b(code_digest().encode(), digest_size=32)
    installed = {one.name for folder in sys.path if folder for one in Path(folder).glob("*.dist-info")}
    digest.update(json.dumps([sys.version, platform.platform(), sorted(installed)]).encode())
    return digest.hexdigest()


def _digest(record: _Record) -> str:
    return hashlib.blake2b(msgspec.json.encode(replace(record, digest="")), digest_size=32).hexdigest()
