"""Services that run behind a URL, in any language: their file, their process, and requests to them.

Its modules need the extra `service`; this one imports none of them.
"""

from __future__ import annotations

import importlib.util
import ipaddress
from typing import Final

from lab_utils.values.profiles import UsageError

__all__ = ["ALLOWED_VARIABLE", "LOG_VARIABLE", "NEEDED", "PREFIX", "is_loopback", "require_extra"]

PREFIX: Final = "service:"
"""How the name of a target begins that is a service file; its path follows."""
ALLOWED_VARIABLE: Final = "REGISTRY_LAB_ALLOW_HOSTS"
"""The environment variable with the hosts that may be asked beside this machine, a comma between two."""
LOG_VARIABLE: Final = "REGISTRY_LAB_SERVICE_LOG"
"""The environment variable with the folder in which all that is sent to a service is written down."""
NEEDED: Final = ("httpx", "jmespath", "uvicorn")


def require_extra() -> None:
    """Raise `UsageError` with the remedy where the extra `service` is not installed."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        remedy = "pip install 'agent-registry-lab[service]'"
        raise UsageError(f"{', '.join(absent)} not installed; services need: {remedy}")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine for certain."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
