"""Draws frames as figures; computes no verdict. With nothing to draw, a figure says so in words."""

from lab_utils.charts.activity import delivery_matrix, latencies, timeline
from lab_utils.charts.drawing import Chart, NoChart
from lab_utils.charts.kills import kill_matrix
from lab_utils.charts.memory import memory_over_time, object_counts

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
