"""Holds equal what describes the environment: pyproject.toml, environment.yml, the lock files, the hosted workflow.

Each rule is a function from texts to a list of problems; below, each is also seen to find one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


PYPROJECT = text_of("pyproject.toml")
CONDA = text_of("environment.yml")
WORKFLOW = text_of(".github/workflows/ci.yml")
LAB, DEV, BOOTSTRAP = (text_of(f"requirements/{name}.lock") for name in ("lab", "dev", "bootstrap"))

# Where conda-forge has a name of its own for what pyproject.toml asks for.
CONDA_NAMES = {
    "jupyter-client": "jupyter_client",
    "jupyter-core": "jupyter_core",
    "matplotlib": "matplotlib-base",
}
# What conda-forge does not have; pip installs it there.
PIP_ONLY = {"detangle"}

Bounds = dict[str, SpecifierSet]


# -------------------------------------------------------------------------------------------------------- what is asked


def bounds(texts: Iterable[str]) -> Bounds:
    return {canonicalize_name(wanted.name): wanted.specifier for wanted in map(Requirement, texts)}


def asked(pyproject: str, *extras: str, groups: tuple[str, ...] = ()) -> Bounds:
    """Names to bounds: the project's own, with those of extras (and the extras they are made of) and of groups."""
    document = tomllib.loads(pyproject)
    own = bounds(document["project"]["dependencies"])
    waiting = list(extras)
    for extra in waiting:
        for wanted in map(Requirement, document["project"]["optional-dependencies"][extra]):
            if canonicalize_name(wanted.name) == document["project"]["name"]:
                waiting += sorted(wanted.extras - set(waiting))
            else:
                own[canonicalize_name(wanted.name)] = wanted.specifier
    for group in groups:
        own |= bounds(document["dependency-groups"][group])
    return own


def supported_pythons(pyproject: str) -> list[str]:
    lines = tomllib.loads(pyproject)["project"]["classifiers"]
    return [found[1] for line in lines if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))]


def pins(lock: str) -> list[tuple[Requirement, int]]:
    """Each pinned requirement, with the number of its hashes."""
    lines = re.findall(r"^([^\s#].*?)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)$", lock, flags=re.MULTILINE)
    return [(Requirement(line), hashes.count("--hash")) for line, hashes in lines]


# ------------------------------------------------------------------------------------------------------------ the rules


def pyproject_problems(pyproject: str) -> list[str]:
    """Each requirement has one lower bound and one upper; the lowest tested Python is the lowest allowed."""
    document = tomllib.loads(pyproject)
    problems = [
        f"{name}{specifier}: give it one lower and one upper bound"
        for name, specifier in asked(pyproject, "dev", groups=("bootstrap", "build")).items()
        if sorted(part.operator for part in specifier) != ["<", ">="]
    ]
    if document["project"]["requires-python"] != f">={supported_pythons(pyproject)[0]}":
        problems.append("requires-python is not the lowest Python of the classifiers")
    if bounds(document["dependency-groups"]["build"]) != bounds(document["build-system"]["requires"]):
        problems.append("the group build is not build-system.requires: the locks would lack the build backend")
    return problems


def conda_problems(conda: str, pyproject: str) -> list[str]:
    """environment.yml asks for the same names with the same bounds, for the tested Pythons, and for nothing else."""
    pythons = supported_pythons(pyproject)
    expected = {CONDA_NAMES.get(name, name): wanted for name, wanted in asked(pyproject, "lab", "test").items()}
    expected["python"] = SpecifierSet(f">={pythons[0]},<3.{int(pythons[-1].removeprefix('3.')) + 1}")
    expected["pip"] = SpecifierSet()

    document: dict[str, Any] = yaml.safe_load(conda)
    found: Bounds = {}
    problems: list[str] = []
    by_pip = bounds(f"{name}{expected.pop(name)}" for name in sorted(PIP_ONLY))
    for entry in document["dependencies"]:
        if isinstance(entry, dict):
            *others, project = entry["pip"]
            if project != "-e ." or bounds(others) != by_pip:
                problems.append(f"pip may install {', '.join(by_pip)}, the project and no more, not {entry['pip']}")
            continue
        name, _, limits = entry.partition(" ")
        if name in found:
            problems.append(f"{name} is there twice")
        found[name] = SpecifierSet(limits)
    problems += [
        f"{name}: pyproject.toml has {expected.get(name)}, environment.yml {found.get(name)}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if document["channels"] != ["conda-forge"]:
        problems.append(f"the channels are {document['channels']}, not conda-forge alone")
    return problems


def address_problems(lock: str) -> list[str]:
    """A lock file holds no option, no address and no path of anyone's machine, and says how to make it anew."""
    usual = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?|    #   -c requirements/dev\.lock")
    outside = re.compile(r"://|(^|\s)--?[a-z]|(^|[\s=@])(/\w|~/)|\b\w:\\|\.(org|com|net|io)\b")
    problems = [
        f"line {number} should not be there: {line}"
        for number, line in enumerate(lock.splitlines(), 1)
        if not usual.fullmatch(line) and outside.search(line)
    ]
    return problems if "\n#    make lock\n" in lock else [*problems, "the header does not say `make lock`"]


def lock_problems(lock: str, wanted: Bounds, pythons: Iterable[str]) -> list[str]:
    """Each line pins one version by its hashes; what is asked for is there for every Python, within its bounds."""
    problems = [
        f"{pinned}: not one version with its hashes"
        for pinned, hashes in pins(lock)
        if [part.operator for part in pinned.specifier] != ["=="] or not hashes
    ]
    for python in pythons:
        marks = {"python_version": python, "python_full_version": f"{python}.0"}
        here: dict[str, str] = {
            canonicalize_name(pinned.name): str(next(iter(pinned.specifier)).version)
            for pinned, _ in pins(lock)
            if pinned.marker is None or pinned.marker.evaluate(marks)
        }
        for name, limits in wanted.items():
            if name not in here:
                problems.append(f"{name} is not there for Python {python}: run `make lock`")
            elif here[name] not in limits:
                problems.append(f"{name}=={here[name]} is outside {limits}: run `make lock`")
    return problems


def subset_problems(smaller: str, larger: str) -> list[str]:
    """One environment serves both locks: the larger has every pin of the smaller, at the same version."""

    def flat(lock: str) -> set[str]:
        return {f"{canonicalize_name(pinned.name)}{pinned.specifier}" for pinned, _ in pins(lock)}

    return [f"{pin} is not in the larger lock: run `make lock`" for pin in sorted(flat(smaller) - flat(larger))]


def workflow_problems(workflow: str, pyproject: str) -> list[str]:
    """The hosted workflow tests the Pythons that the classifiers name."""
    matrix = yaml.safe_load(workflow)["jobs"]["test"]["strategy"]["matrix"]["python"]
    pythons = supported_pythons(pyproject)
    return [] if matrix == pythons else [f"the workflow tests {matrix}, the classifiers say {pythons}"]


# ------------------------------------------------------------------------------------------------- the files keep them


def test_every_requirement_is_bounded_on_both_sides() -> None:
    assert pyproject_problems(PYPROJECT) == []


def test_the_base_install_is_small() -> None:
    assert set(asked(PYPROJECT)) == {"psutil"}


def test_lab_is_made_of_every_extra_that_the_registry_has() -> None:
    extras = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]
    # autogen is no part of the registry: a runtime that the lab can judge beside it.
    own = sorted(extras.keys() - {"autogen", "lab", "test", "dev"})
    assert f"agent-registry-lab[{','.join(own)}]" in extras["lab"]


def test_the_extra_dev_is_everything() -> None:
    extras = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]
    assert extras["dev"] == ["agent-registry-lab[autogen,lab,test]"]


def test_environment_yml_equals_pyproject() -> None:
    assert conda_problems(CONDA, PYPROJECT) == []


@pytest.mark.parametrize("lock", [LAB, DEV, BOOTSTRAP], ids=["lab", "dev", "bootstrap"])
def test_lock_holds_no_address(lock: str) -> None:
    assert pins(lock)
    assert address_problems(lock) == []


def test_locks_satisfy_pyproject_on_every_tested_python() -> None:
    pythons = supported_pythons(PYPROJECT)
    assert lock_problems(LAB, asked(PYPROJECT, "lab", groups=("build",)), pythons) == []
    assert lock_problems(DEV, asked(PYPROJECT, "dev", groups=("build",)), pythons) == []
    assert lock_problems(BOOTSTRAP, bounds(tomllib.loads(PYPROJECT)["dependency-groups"]["bootstrap"]), pythons) == []


def test_lab_lock_is_part_of_dev_lock() -> None:
    assert subset_problems(LAB, DEV) == []


def test_the_workflow_tests_what_the_classifiers_say() -> None:
    assert workflow_problems(WORKFLOW, PYPROJECT) == []


# ----------------------------------------------------------------------------------- the rules find what they should


def changed(text: str, old: str, new: str) -> str:
    """`text` with one thing made wrong. A change that finds nothing to change would test nothing."""
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"psutil>=7.2,<8"', '"psutil>=7.2"'),
        ('"psutil>=7.2,<8"', '"psutil==7.2.2"'),
        ('requires-python = ">=3.11"', 'requires-python = ">=3.10"'),
        ('requires = ["hatchling>=1.33,<2"]', 'requires = ["hatchling>=1.30,<2"]'),
    ],
)
def test_a_wrong_pyproject_is_found(old: str, new: str) -> None:
    assert pyproject_problems(changed(PYPROJECT, old, new))


@pytest.mark.parametrize(
    ("old", "new", "blamed"),
    [
        ("  - psutil >=7.2,<8", "  - psutil >=7.2,<9", "psutil"),
        ("  - psutil >=7.2,<8", "  - psutil >=7.1,<8", "psutil"),
        ("  - psutil >=7.2,<8", "  - psutil", "psutil"),
        ("  - rich >=15.0,<16\n", "", "rich"),
        ("  - pip\n", "  - pip\n  - requests >=2\n", "requests"),
        ("  - pip\n", "  - pip\n  - rich >=15.0,<16\n", "rich"),
        ("python >=3.11,<3.14", "python >=3.11", "python"),
        ("      - -e .", "      - -e .\n      - requests", "requests"),
        ("      - detangle >=0.1,<0.2\n", "", "detangle"),
        ("  - conda-forge", "  - defaults", "defaults"),
    ],
)
def test_a_wrong_environment_yml_is_found(old: str, new: str, blamed: str) -> None:
    (problem, *others) = conda_problems(changed(CONDA, old, new), PYPROJECT)
    assert blamed in problem
    assert not others


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://packages.example/simple",
        "-i mirror",
        "--find-links wheels",
        "    # from https://packages.example/simple",
        "#    uv pip compile --index-url mirror",
        "psutil @ file:///home/ada/psutil.whl",
        "    # via /home/ada/project",
        "    # via ~/project",
        "# mirror.example.com",
    ],
)
def test_an_address_in_a_lock_is_found(line: str) -> None:
    assert address_problems(f"{BOOTSTRAP}{line}\n") == [
        f"line {len(BOOTSTRAP.splitlines()) + 1} should not be there: {line}"
    ]


def test_a_lock_made_in_another_way_is_found() -> None:
    assert address_problems(changed(LAB, "#    make lock", "#    uv pip compile"))


def test_a_stale_lock_is_found() -> None:
    wanted = asked(PYPROJECT, "lab")
    psutil = next(pinned for pinned, _ in pins(LAB) if pinned.name == "psutil")
    hashes = re.compile(rf"({re.escape(str(psutil))}) \\\n(    --hash\S+( \\)?\n)+")

    assert lock_problems(changed(LAB, str(psutil), "psutil==6.0.0"), wanted, ["3.12"])
    assert lock_problems(changed(LAB, str(psutil), "psutil>=7.2"), wanted, ["3.12"])
    assert lock_problems(changed(LAB, str(psutil), f"{psutil} ; python_version < '3.12'"), wanted, ["3.11"]) == []
    assert lock_problems(changed(LAB, str(psutil), f"{psutil} ; python_version < '3.12'"), wanted, ["3.12"])
    assert hashes.search(LAB)
    assert lock_problems(hashes.sub(r"\1\n", LAB), wanted, ["3.12"])
    assert subset_problems(changed(LAB, str(psutil), "psutil==7.2.1"), DEV) == [
        "psutil==7.2.1 is not in the larger lock: run `make lock`"
    ]


def test_a_forgotten_python_is_found() -> None:
    assert workflow_problems(changed(WORKFLOW, ', "3.13"', ""), PYPROJECT)
