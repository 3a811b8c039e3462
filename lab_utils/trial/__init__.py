"""One run of one check: its target, its record of operations, its waiting and its findings."""

from lab_utils.trial.answers import checked
from lab_utils.trial.check import PROTECTS, Body, Check, Part, protected
from lab_utils.trial.client import Client
from lab_utils.trial.trial import ASKED, LAB, StopFailed, Trial
from lab_utils.trial.waiting import STUCK_AFTER, OutOfTime, Stuck

__all__ = [
    "ASKED",
    "LAB",
    "PROTECTS",
    "STUCK_AFTER",
    "Body",
    "Check",
    "Client",
    "OutOfTime",
    "Part",
    "StopFailed",
    "Stuck",
    "Trial",
    "checked",
    "protected",
]
