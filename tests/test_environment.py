"""Holds equal the descriptions of the environment: pyproject.toml, environment.yml, the lock files, the hosted
workflow."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


DOCUMENT = tomllib.loads(text_of("pyproject.toml"))
PROJECT, GROUPS = DOCUMENT["project"], DOCUMENT["dependency-groups"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
ENVIRONMENT, BOOTSTRAP = (text_of(f"requirements/{name}.lock") for name in ("environment", "bootstrap"))

# Where conda-forge has a name of its own for a package of pyproject.toml.
CONDA_NAMES = {
    "jupyter-client": "jupyter_client",
    "jupyter-core": "jupyter_core",
}
# Public frameworks whose packages stand in nobody else's way: `--python` runs their targets.
OWN_ENVIRONMENT = {"agno", "crewai", "google-adk", "langgraph", "openai-agents", "pydantic-ai"}
# Packages that conda-forge lacks; pip installs them there.
PIP_ONLY = {"detangle"}


def asked(entries: Iterable[object]) -> Iterator[str]:
    """The requirements, those of the project's own extras in place of their names; an included group is left out."""
    for entry in entries:
        if isinstance(entry, str):
            wanted = Requirement(entry)
            if wanted.name == PROJECT["name"]:
                for extra in sorted(wanted.extras):
                    yield from asked(EXTRAS[extra])
            else:
                yield entry


EVERYTHING = list(asked([*PROJECT["dependencies"], *EXTRAS["dev"], *GROUPS["build"], *GROUPS["environment"]]))


def lock_problems(lock: str, wanted: Iterable[str]) -> list[str]:
    """Lines that hold an option or an address, pins without a hash, requirements that one of the Pythons lacks."""
    usual = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    address = re.compile(r"://|(^|\s)--?[a-z]|(^|[\s=@])(/\w|~/)|\b\w:\\|\.(org|com|net|io)\b")
    found = [line for line in lock.splitlines() if not usual.fullmatch(line) and address.search(line)]
    if found:
        return found
    lines = re.findall(r"^([^\s#].*?)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)$", lock, flags=re.MULTILINE)
    found = [line for line, hashes in lines if not hashes or "==" not in line]
    for python in PYTHONS:
        marks = {"python_version": python, "python_full_version": f"{python}.0"}
        here: dict[str, str] = {}
        for pinned in map(Requirement, (line for line, _ in lines)):
            if pinned.marker is None or pinned.marker.evaluate(marks):
                here[canonicalize_name(pinned.name)] = str(pinned.specifier).removeprefix("==")
        for requirement in map(Requirement, wanted):
            name = canonicalize_name(requirement.name)
            if name not in here or here[name] not in requirement.specifier:
                found.append(f"{requirement} has {here.get(name)} on Python {python}: run `make lock`")
    return found


def test_every_requirement_has_one_lower_bound_and_one_upper() -> None:
    unbounded = [
        entry
        for entry in [*EVERYTHING, *GROUPS["bootstrap"]]
        if sorted(part.operator for part in Requirement(entry).specifier) != ["<", ">="]
    ]
    assert unbounded == []


def test_the_base_install_is_small() -> None:
    assert [Requirement(entry).name for entry in PROJECT["dependencies"]] == ["cloudpickle", "msgspec", "psutil"]


def test_the_extra_dev_is_every_extra_but_those_of_frameworks_with_an_environment_each() -> None:
    shared = {name: extra for name, extra in EXTRAS.items() if name not in OWN_ENVIRONMENT}
    assert set(asked(EXTRAS["dev"])) == {entry for extra in shared.values() for entry in asked(extra)}


def test_the_pythons_are_the_same_everywhere() -> None:
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert (
        yaml.safe_load(text_of(".github/workflows/ci.yml"))["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS
    )


def test_actions_of_workflows_are_pinned_by_hash() -> None:
    files = [ROOT / "action.yml", *(ROOT / ".github" / "workflows").glob("*.yml")]
    used = re.findall(r"uses: (\S+)", "\n".join(path.read_text(encoding="utf-8") for path in files))
    assert used
    # Those of this repository itself have no version.
    assert [name for name in used if not re.fullmatch(r"\./.*|[\w./-]+@[0-9a-f]{40}", name)] == []


def test_environment_yml_asks_for_what_pyproject_asks_for() -> None:
    by_conda = [f"python >={PYTHONS[0]},<3.{int(PYTHONS[-1].removeprefix('3.')) + 1}", "pip"]
    by_pip: list[str] = []
    for entry in asked([*PROJECT["dependencies"], *EXTRAS["lab"], *EXTRAS["test"]]):
        name, limits = re.fullmatch(r"([\w-]+)(.+)", entry).groups()  # type: ignore[union-attr]
        (by_pip if name in PIP_ONLY else by_conda).append(f"{CONDA_NAMES.get(name, name)} {limits}")
    assert yaml.safe_load(text_of("environment.yml")) == {
        "name": PROJECT["name"],
        "channels": ["conda-forge"],
        "dependencies": [*by_conda, {"pip": [*by_pip, "-e ."]}],
    }


def test_the_locks_hold_every_requirement_on_every_python() -> None:
    # The build backend must be in the lock: the project is installed without build isolation.
    assert GROUPS["build"] == DOCUMENT["build-system"]["requires"]
    assert lock_problems(ENVIRONMENT, EVERYTHING) == []
    assert lock_problems(BOOTSTRAP, GROUPS["bootstrap"]) == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://packages.example/simple",
        "-i mirror",
        "    # from https://packages.example/simple",
        "psutil @ file:///home/ada/psutil.whl",
        "    # via /home/ada/project",
        "    # via ~/project",
        "# mirror.example.com",
    ],
)
def test_an_address_in_a_lock_is_found(line: str) -> None:
    assert lock_problems(f"{BOOTSTRAP}{line}\n", GROUPS["bootstrap"]) == [line]


@pytest.mark.parametrize(
    ("new", "problems"),
    [("psutil==6.0.0 \\", 3), ("psutil>=7.2 \\", 4), ("{pin} ; python_version < '3.12' \\", 2), ("{pin}\nx==1 \\", 1)],
    ids=["outside the bounds", "no version", "not for every Python", "no hash"],
)
def test_a_stale_lock_is_found(new: str, problems: int) -> None:
    (pin,) = re.findall(r"^(psutil==\S+) \\$", ENVIRONMENT, flags=re.MULTILINE)
    lock = ENVIRONMENT.replace(f"{pin} \\\n", f"{new.format(pin=pin)}\n")
    assert len(lock_problems(lock, PROJECT["dependencies"])) == problems
