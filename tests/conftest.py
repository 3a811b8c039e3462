"""Runs `async def` tests, and keeps collections quick."""

from __future__ import annotations

import functools
import gc
import inspect
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.order import dealt
from tests.running import run

_DEPTH = len(Path(__file__).parent.parts)
_RUN_CHECKS = frozenset({"meta", "integration", "checks"})
"""Folders of tests that run checks, most of them in processes of their own."""

_YOUNG = 100_000
"""Objects of the oldest generation: more of them come of a test that has put the session's back."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while tests are collected: a third of the time, for modules and tests that all stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put those that run checks first, dealt to the processes of pytest-xdist: the last tests are then short ones."""
    longest, long, others = list[pytest.Item](), list[pytest.Item](), list[pytest.Item]()
    for item in items:
        is_long = _RUN_CHECKS.intersection(item.path.parts[_DEPTH:])
        (longest if item.path.name == "test_lesser.py" else long if is_long else others).append(item)
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = dealt(longest, long, others, processes)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test on a fresh loop; fail for a task or timer that it leaves, or an error of the loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    run(functools.partial(pyfuncitem.obj, **arguments))
    return True


@pytest.fixture(autouse=True, scope="session")
def whole_collection() -> Generator[None]:
    """Collect all that was left out of collections, so that its warnings come before the session ends."""
    yield
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def quick_collections() -> None:
    """Leave everything older out of collections: tests collect often, and each would walk through all imports.

    Where a test has put all of that back, as one that counts live objects does, its own young objects are collected.
    """
    # Counting those that are left out would walk through them all.
    gc.collect(2 if len(gc.get_objects(2)) < _YOUNG else 1)
    gc.freeze()
