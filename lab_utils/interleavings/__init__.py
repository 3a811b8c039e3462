"""Runs one async workload under many schedules, on a deterministic loop with virtual time, and replays any of them."""

from lab_utils.interleavings.check_token import CheckToken
from lab_utils.interleavings.clocks import virtual_clocks
from lab_utils.interleavings.exploring import Explored, Failing, explore, in_words, suspensions_of
from lab_utils.interleavings.observing import AT_ITS_TURN, awaited_by, awaits, is_internal, place
from lab_utils.interleavings.simulation import Missing, Outcome, Schedule, run_schedule
from lab_utils.interleavings.stage import Answer, Cancel, NotExplorable, Problem, Stage, Workload
from lab_utils.interleavings.token import BadToken, Token

__all__ = [
    "AT_ITS_TURN",
    "Answer",
    "BadToken",
    "Cancel",
    "CheckToken",
    "Explored",
    "Failing",
    "Missing",
    "NotExplorable",
    "Outcome",
    "Problem",
    "Schedule",
    "Stage",
    "Token",
    "Workload",
    "awaited_by",
    "awaits",
    "explore",
    "in_words",
    "is_internal",
    "place",
    "run_schedule",
    "suspensions_of",
    "virtual_clocks",
]
