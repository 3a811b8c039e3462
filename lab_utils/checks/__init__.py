"""The 21 checks, in the order of the notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lab_utils.check import Check
from lab_utils.checks import user_isolation

__all__ = ["CHECKS"]

CHECKS: Mapping[str, Check] = MappingProxyType({check.name: check for check in (*user_isolation.CHECKS,)})
