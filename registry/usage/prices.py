"""The prices of models, as data: savings and synthetic records are computed with this table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from registry.errors import a_type

__all__ = ["PRICES", "Price", "cheapest"]


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens in, and for a million tokens out; finite and not negative, else `ValueError`."""

    per_million_in: float
    per_million_out: float

    def __post_init__(self) -> None:
        for name in ("per_million_in", "per_million_out"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{name} {value!r} is {a_type(value)}; pass US dollars as a number")
            if not (0 <= value < math.inf):
                raise ValueError(f"{name} {value!r} is not a price; pass finite US dollars, at least 0")
            object.__setattr__(self, name, float(value))

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """US dollars for one call: `(tokens_in * per_million_in + tokens_out * per_million_out) / 1_000_000.0`."""
        return (tokens_in * self.per_million_in + tokens_out * self.per_million_out) / 1_000_000.0


PRICES: Final[Mapping[str, Price]] = MappingProxyType(
    {"large": Price(10.0, 30.0), "medium": Price(3.0, 15.0), "small": Price(0.5, 1.5)}
)
"""Three made-up sizes. Pass your own table, as data, where your models and contracts are meant."""


def cheapest(prices: Mapping[str, Price]) -> str:
    """The model with the lowest price for a million tokens in and a million out; the first by name where two tie."""
    return min(prices, key=lambda model: (prices[model].per_million_in + prices[model].per_million_out, model))
