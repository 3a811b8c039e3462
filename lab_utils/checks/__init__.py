"""The 21 checks, in the order of the notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lab_utils.check import Check
from lab_utils.checks import (
    enterprise_multi_user,
    golden_path,
    memory_management,
    registration_management,
    user_isolation,
    websocket_bridge,
)

__all__ = ["CHECKS"]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        check.name: check
        for check in (
            *user_isolation.CHECKS,
            *registration_management.CHECKS,
            *websocket_bridge.CHECKS,
            *enterprise_multi_user.CHECKS,
            *golden_path.CHECKS,
            *memory_management.CHECKS,
        )
    }
)
