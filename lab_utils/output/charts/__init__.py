"""Draws frames as figures in SVG; computes no verdict. Without data, a figure states that in words."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_utils.output.charts.activity import delivery_matrix, latencies, timeline
    from lab_utils.output.charts.chart import Chart, NoChart
    from lab_utils.output.charts.findings import interleaving, picture, reference_path
    from lab_utils.output.charts.growth import slopes
    from lab_utils.output.charts.kills import kill_matrix
    from lab_utils.output.charts.measured import budgets
    from lab_utils.output.charts.memory import memory_over_time, object_counts

# Loaded when first drawn, for a notebook draws after its checks have run: pandas is 40,000 objects, and every count of
# live objects would pass over them.
_HOMES = {
    **dict.fromkeys(("delivery_matrix", "latencies", "timeline"), "activity"),
    "budgets": "measured",
    **dict.fromkeys(("Chart", "NoChart"), "chart"),
    **dict.fromkeys(("interleaving", "picture", "reference_path"), "findings"),
    "kill_matrix": "kills",
    **dict.fromkeys(("memory_over_time", "object_counts"), "memory"),
    "slopes": "growth",
}

__all__ = [
    "Chart",
    "NoChart",
    "budgets",
    "delivery_matrix",
    "interleaving",
    "kill_matrix",
    "latencies",
    "memory_over_time",
    "object_counts",
    "picture",
    "reference_path",
    "slopes",
    "timeline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
