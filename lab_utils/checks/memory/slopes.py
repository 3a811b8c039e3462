"""Repeats a cycle of the same work until it is known whether it leaves something behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from lab_utils.checks.memory.rest import Rest
from lab_utils.judges.leaks import Fit, Trend, is_decided
from lab_utils.probes.live import drop_cancelled_timers
from lab_utils.probes.memory import Series, anonymous_now, slope_of
from lab_utils.trial import Trial
from lab_utils.values.result import Sample

__all__ = ["Cycle", "Slopes"]

_SERIES = 3
_MORE_SERIES = 3
"""Series at most beyond these, for a quantity whose growth decays."""
_SOON = 12
_FAR_OFF = 100_000
"""Bytes a cycle that are far beyond any budget: a series that grows by more ends soon."""
_CERTAIN = 100
"""Bytes a cycle that are enough where a planted registry grows."""
_MOST_TIMES = 3
"""A series whose interval stays too wide ends after so many times the cycles asked for."""
_EXTENSIONS = 6
_LEAST_CYCLES = 4
_TURNS = 5
_UNITS = {"traced": "bytes", "objects": "objects", "process": "bytes"}
_DECIDING = ("traced", "objects")
_SHOWN_ONLY = ("process",)
_RESAMPLES = {"traced": 400, "objects": 400, "process": 100}
"""The deciding figures are shown more finely."""
_NAMES = {
    "traced": "traced memory of {}",
    "objects": "the number of live objects of {}",
    "process": "anonymous memory of the process, of {}",
}

Cycle = Callable[[int], Awaitable[None]]


class Slopes:
    """Reads traced bytes, live objects and memory of the process after each cycle, and fits slopes to them.

    `traced` and `counts` return the bytes that Python objects hold now, and the number of each kind.
    """

    def __init__(
        self,
        trial: Trial,
        traced: Callable[[], int],
        counts: Callable[[], Mapping[str, int]],
        process: Callable[[], int] = anonymous_now,
    ) -> None:
        self._trial = trial
        self._traced = traced
        self._counts = counts
        self._process = process
        self._to_show: list[tuple[str, int, int, Mapping[str, Series]]] = []
        """The repeated work, the number of the series, the cycles between two counts of objects, the readings."""
        self._own_bytes = 0
        self._rest = Rest()
        self._ends_soon = trial.waiting.is_hasty

    async def trend(self, what: str, cycle: Cycle, cycles: int, shown: int = 0, first: int = 0) -> list[Trend]:
        """Repeat the cycle; return the growth a cycle of traced bytes, of live objects, and of memory of the process,
        which does not decide.

        A series has `cycles` cycles, and up to three times as many while a deciding interval is too wide for the
        smallest leak that matters. It has fewer only if it grows by 100 kB a cycle or more: an object left in every
        twentieth cycle shows in no interval of ten. One that seems to grow, or stays too wide, is followed by two of a
        third of its length: a leak grows in every one. Where growth decays, as that of a cache which fills, up to three
        more follow, and the last three decide. Live objects are counted after `shown` of the cycles, evenly spread.

        On a planted registry a series ends once its growth is certain.
        """
        lengths = [cycles, *[max(_LEAST_CYCLES, cycles // 3)] * (_SERIES - 1 + _MORE_SERIES)]
        # Set aside before the first reading, for the lab's own memory must not grow between two of them.
        series = [{name: Series(_MOST_TIMES * length) for name in _UNITS} for length in lengths]
        fits: dict[str, list[Fit]] = {name: [] for name in _UNITS}
        trends: list[Trend] = []
        for number, length in enumerate(lengths):
            every = max(1, length // max(1, shown))
            done, decided = await self._measure(cycle, series[number], first, length, every, number)
            first += done
            self._to_show.append((what, number, every, series[number]))
            for name, fit in (*decided, *self._fits(series[number], _SHOWN_ONLY, every, number)):
                fits[name].append(fit)
            trends = [
                Trend(_NAMES[name].format(what), _UNITS[name], tuple(found), name in _DECIDING)
                for name, found in fits.items()
                if found
            ]
            # All that has come since the last reading is the lab's own. It is read in a step of its own: a thread that
            # looks whether the loop is held leaves objects at the frames of a step, which go when the step ends.
            await self._trial.waiting.settle(_TURNS)
            self._own_bytes = self._traced() - int(series[number]["traced"].values[-1])
            deciding = [trend for trend in trends if trend.decides]
            is_settling = any(trend.is_settling for trend in deciding)
            if not is_settling and not any(trend.steady_growth > 0 or trend.is_open for trend in deciding):
                break
            if number + 1 >= _SERIES and not is_settling:
                break
        return trends

    async def _measure(
        self, cycle: Cycle, series: Mapping[str, Series], first: int, length: int, every: int, number: int
    ) -> tuple[int, list[tuple[str, Fit]]]:
        """Fill the series, until those that decide do or are full; return the number of cycles that it took, and the
        fits of those that decide."""
        done, goal, most = 0, min(length, _SOON), _MOST_TIMES * length
        while True:
            while done < goal:
                # Before the cycle: sent data is gone when memory is read.
                self._trial.progress("cycles of the same work", done / most)
                await cycle(first + done)
                await self._trial.waiting.settle(_TURNS)
                await self._rest.reached()
                await drop_cancelled_timers()
                done += 1
                at = self._trial.now()
                series["traced"].take(self._traced() - self._own_bytes, at)
                series["process"].take(self._process(), at)
                if done % every == 0:
                    series["objects"].take(sum(self._counts().values()), at)
            look = list(self._fits(series, _DECIDING, every, number))
            enough = _CERTAIN if self._ends_soon else _FAR_OFF
            if any(name == "traced" and fit.low >= enough for name, fit in look):
                return done, look
            if done < length:
                # Nothing of this look stays: it would be a step in the middle of the series.
                del look
                goal = length
                continue
            if done == most or all(is_decided(_UNITS[name], fit.low, fit.high) for name, fit in look):
                return done, look
            del look
            goal = min(most, done + max(_LEAST_CYCLES, length // _EXTENSIONS))

    def _fits(
        self, series: Mapping[str, Series], names: Sequence[str], every: int, number: int
    ) -> Iterator[tuple[str, Fit]]:
        """The fit of each of these series that is long enough for one; its slope is a cycle's, however often it was
        read."""
        for name in names:
            values, step = series[name].values, every if name == "objects" else 1
            if len(values) >= _LEAST_CYCLES:
                resamples = _RESAMPLES[name] // (4 if self._ends_soon else 1)
                slope = slope_of(values, self._trial.seed + number, resamples)
                of_a_cycle = (slope.per_step / step, slope.low / step, slope.high / step)
                yield name, Fit(len(values) * step, *of_a_cycle, min(values))

    @property
    def traced_readings(self) -> list[float]:
        """Traced bytes after each cycle so far, without the lab's own."""
        return [value for *_, series in self._to_show for value in series["traced"].values]

    def show(self, trends: Sequence[Trend], *, in_figures: bool = True) -> None:
        """Add the readings to the trial's samples, and the slopes to its measurements.

        Readings over cycles are a series `cycles: ` and the quantity, with the cycle as `x`. Those for the figures of
        memory over time (`in_figures`) are there once more, as the check's own.

        When all is measured, not before: they would be memory that grows from one series to the next.
        """
        for what, number, every, series in self._to_show:
            for name, shown_as in (("traced", "traced"), ("process", "anonymous"), ("objects", "")):
                points = list(zip(series[name].values, series[name].times, strict=True))
                if in_figures and shown_as:
                    self._trial.samples.extend(Sample(shown_as, value, "bytes", at, "work") for value, at in points)
                step = every if name == "objects" else 1
                quantity, unit, phase = f"cycles: {_NAMES[name].format(what)}", _UNITS[name], f"series {number + 1}"
                self._trial.samples.extend(
                    Sample(quantity, value, unit, at, phase, x=str(place * step))
                    for place, (value, at) in enumerate(points, 1)
                )
        for trend in trends:
            last, unit = trend.fits[-1], f"{trend.unit}/cycle"
            for name, value in (("slope", last.slope), ("slope, at least", last.low), ("slope, at most", last.high)):
                self._trial.measure(f"{name}, of {trend.what} (95%)", value, unit)
