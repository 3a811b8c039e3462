"""Types that are read from JSON, in whichever thread."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["decodable"]


def decodable(*kinds: Any) -> None:
    """Have msgspec look at the fields of these types now, once for all. Call it where they are defined.

    It would do so when the first value is decoded, and crash the process where several threads decode that at once.
    """
    for kind in kinds:
        msgspec.json.Decoder(kind)
