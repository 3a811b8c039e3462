"""Draws frames as figures; computes no verdict. With nothing to draw, a figure says so in words."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_utils.output.charts.activity import delivery_matrix, latencies, timeline
    from lab_utils.output.charts.drawing import Chart, NoChart
    from lab_utils.output.charts.kills import kill_matrix
    from lab_utils.output.charts.memory import memory_over_time, object_counts

__all__ = [
    "Chart",
    "NoChart",
    "delivery_matrix",
    "kill_matrix",
    "latencies",
    "memory_over_time",
    "object_counts",
    "timeline",
]

# Loaded when first drawn, for a notebook draws when its checks have run: matplotlib and pandas are 80,000 objects, and
# every count of what is alive would pass over them.
_HOMES = {
    **dict.fromkeys(("delivery_matrix", "latencies", "timeline"), "activity"),
    **dict.fromkeys(("Chart", "NoChart"), "drawing"),
    "kill_matrix": "kills",
    **dict.fromkeys(("memory_over_time", "object_counts"), "memory"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
