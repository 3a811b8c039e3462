"""The 31 checks of registries, in the order of the notebooks, those of services, and the one that tries a target."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lab_utils.checks.contract import CONTRACT
from lab_utils.checks.events.checks import CHECKS as EVENTS
from lab_utils.checks.golden_path.checks import CHECKS as GOLDEN_PATH
from lab_utils.checks.isolation.checks import CHECKS as ISOLATION
from lab_utils.checks.limits_and_time.checks import CHECKS as LIMITS
from lab_utils.checks.memory.checks import CHECKS as MEMORY
from lab_utils.checks.registration.checks import CHECKS as REGISTRATION
from lab_utils.checks.service.checks import CHECKS as SERVICE
from lab_utils.checks.tenants.checks import CHECKS as TENANTS
from lab_utils.trial import Check

__all__ = ["CHECKS", "CONTRACT", "RUNNABLE"]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        check.name: check
        for check in (*ISOLATION, *REGISTRATION, *EVENTS, *TENANTS, *GOLDEN_PATH, *MEMORY, *LIMITS, *SERVICE)
    }
)

RUNNABLE: Mapping[str, Check] = MappingProxyType({**CHECKS, CONTRACT.name: CONTRACT})
"""The jobs of a process of the runner."""
