"""Builds the sdist and the wheel, tries the wheel in empty environments, and writes a bill of materials, all to dist/.

    python -m tools.release [--python VERSION ...]

The wheel is built from the sdist, so a file that the sdist lacks fails here. Each Python of `PYTHONS` that is on the
machine gets an environment with nothing but the wheel: the base install must judge a registry, `[lab]` must run an
installed notebook in a folder that is not a clone, and `uvx` must judge a registry from the wheel alone. The oldest
Python is tried again with the lowest versions that pyproject.toml allows. A Python that is not on the machine is named,
and not tried.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.bootstrap import ROOT, install_uv, pip_settings, uv_environment, uv_options

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
DIST = ROOT / "dist"
CHECK = "shared_state_contamination_detection"


def run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> None:
    """Run a command there. Raises `SystemExit` with the command if it fails."""
    print(f"release: {' '.join(Path(word).name if '/' in str(word) else str(word) for word in command)}", flush=True)
    if subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        raise SystemExit(f"release: failed in {folder}: {' '.join(map(str, command))}")


def build(environment: Mapping[str, str]) -> Path:
    """Return the wheel, which is built from the sdist beside it."""
    shutil.rmtree(DIST, ignore_errors=True)
    # The environment holds the build backend by hash: nothing is fetched for a build.
    run([sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", DIST], ROOT, environment)
    (sdist,) = DIST.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (source,) = Path(folder).iterdir()
        run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", DIST], source, environment)
    (wheel,) = DIST.glob("*.whl")
    return wheel


class Trial:
    """An empty environment of one Python, in a folder that is gone afterwards."""

    def __init__(self, uv: Path, python: str, folder: Path, environment: Mapping[str, str], *options: str) -> None:
        self._uv, self._folder, self._options = uv, folder, options
        # No download: only a Python that is already installed is judged.
        self._environment = {**environment, "UV_PYTHON_DOWNLOADS": "never"}
        self.venv = folder / "venv"
        run([uv, "venv", "--quiet", "--python", python, self.venv], folder, self._environment)

    def install(self, wheel: Path, extra: str = "") -> None:
        options: list[str | Path] = ["--quiet", "--python", self.venv, *uv_options(pip_settings()), *self._options]
        run([self._uv, "pip", "install", *options, f"{wheel}{extra}"], self._folder, self._environment)

    def lab(self, *words: str) -> None:
        """Run the installed command in an empty folder."""
        folder = self._folder / "elsewhere"
        folder.mkdir(exist_ok=True)
        run([self.venv / "bin" / "registry-lab", *words], folder, self._environment)

    def uvx(self, wheel: Path, *words: str) -> None:
        """Run the command as `uvx` does, in an environment that uv makes for this call."""
        options: list[str | Path] = ["--quiet", "--python", self.venv / "bin" / "python", *uv_options(pip_settings())]
        command: list[str | Path] = [self._uv, "tool", "run", "--isolated", *options, "--from", wheel, "registry-lab"]
        run([*command, *words], self._folder, self._environment)


def on_this_machine(uv: Path, python: str, environment: Mapping[str, str]) -> bool:
    command = [str(uv), "python", "find", "--no-python-downloads", "--no-project", python]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode == 0


def bill_of(venv: Path, environment: Mapping[str, str]) -> None:
    """Write a CycloneDX file of an environment's content."""
    command: list[str | Path] = [Path(sys.executable).with_name("cyclonedx-py"), "environment", "--output-reproducible"]
    files: list[str | Path] = [
        "--pyproject",
        ROOT / "pyproject.toml",
        "--output-file",
        DIST / "sbom.cdx.json",
        venv / "bin" / "python",
    ]
    run([*command, *files], ROOT, environment)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the release, and try it in empty environments.")
    parser.add_argument("--python", action="append", choices=PYTHONS, help="try this one only, and others so named")
    asked: list[str] = parser.parse_args().python or list(PYTHONS)
    # A clone on the path would be imported in place of the wheel.
    environment = uv_environment(
        pip_settings(), {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    )
    uv = install_uv(ROOT)
    wheel = build(environment)
    there = [python for python in asked if on_this_machine(uv, python, environment)]
    if not there:
        raise SystemExit(f"release: none of {', '.join(asked)} is on this machine")
    for lowest in (False, True):
        for python in there[:1] if lowest else there:
            with tempfile.TemporaryDirectory() as folder:
                options = ["--resolution", "lowest-direct"] if lowest else []
                trial = Trial(uv, python, Path(folder), environment, *options)
                trial.install(wheel)
                trial.lab("--version")
                trial.lab("check", CHECK, "--target", "reference")
                if not lowest:
                    trial.uvx(wheel, "check", CHECK, "--target", "reference")
                trial.install(wheel, "[lab]")
                trial.lab("run", "--check", CHECK, "--calibrate", "never")
                if not lowest and python == there[-1]:
                    bill_of(trial.venv, environment)
    for python in asked:
        print(
            f"release: Python {python} {'passed' if python in there else 'is not on this machine, and was not tried'}"
        )
    print(f"release: {', '.join(sorted(path.name for path in DIST.iterdir()))} in dist/")


if __name__ == "__main__":
    main()
