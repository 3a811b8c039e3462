"""Makes usage records up, the same ones from the same seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from registry.usage.prices import PRICES, Price
from registry.usage.records import UsageRecord

__all__ = ["SYNTHETIC_FEATURES", "synthetic_records"]

SYNTHETIC_FEATURES: Final = ("synthetic/chat", "synthetic/search", "synthetic/summary")
_REPEATED: Final = 0.15  # The share of calls that repeat an earlier one, so that a cache has something to save.


def synthetic_records(
    seed: int, count: int, *, end: datetime, days: int, prices: Mapping[str, Price] = PRICES
) -> tuple[UsageRecord, ...]:
    """Return `count` records in the `days` before `end`, in the order of time, of the models that have a price.

    The same arguments give the same records on every machine and Python version. Costs are exactly `Price.cost`.
    Features begin with `synthetic/`, so that these records can always be distinguished from real ones.
    """
    rng = random.Random(seed)
    models = sorted(prices)
    span = days * 86_400_000_000  # Microseconds.
    calls: list[tuple[str, str, int, int]] = []
    made: list[UsageRecord] = []
    for _ in range(count):
        # Only rng.random(): the other methods may change from one Python version to the next.
        if calls and rng.random() < _REPEATED:
            call = calls[_below(rng, len(calls))]
        else:
            model = models[_below(rng, len(models))]
            feature = SYNTHETIC_FEATURES[_below(rng, len(SYNTHETIC_FEATURES))]
            # Many short calls and a few long ones: 32 to 4,095 tokens in, 8 to 1,023 out.
            call = (model, feature, int(2 ** (5 + 7 * rng.random())), int(2 ** (3 + 7 * rng.random())))
        calls.append(call)
        model, feature, tokens_in, tokens_out = call
        made.append(
            UsageRecord(
                at=end - timedelta(microseconds=1 + _below(rng, span)),
                model=model,
                tokens_in=tokens_in,
                tokens_out=tokens_out,
                latency_ms=120.0 + 4.0 * tokens_out + 400.0 * rng.random(),
                cost_usd=prices[model].cost(tokens_in, tokens_out),
                feature=feature,
            )
        )
    made.sort(key=lambda record: record.at)
    return tuple(made)


def _below(rng: random.Random, limit: int) -> int:
    return int(rng.random() * limit)
