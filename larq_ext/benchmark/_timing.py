"""Times functions in turns, so that all of them share whatever else the machine does."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

# A turn this long has more calls than what the change of contenders disturbs.
_TURN_SECONDS = 0.01
_MOST_CALLS = 50
_OVERHEAD_CALLS = 9
_WARM_UP_SECONDS = 0.05

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timed:
    """A function to time.

    # Arguments
        run: the function.
        overhead: what `run` does that is not meant: it is timed in the same turns, and its
            median of the turn is subtracted from each time of `run`.
    """

    run: Callable[[], object]
    overhead: Callable[[], object] | None = None


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def times(self, factor: float) -> Spread:
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Turn:
    """The times of one turn in seconds, without overhead, and that overhead."""

    seconds: tuple[float, ...]
    overhead: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def take_turns(
    contenders: Mapping[Key, Timed],
    rounds: int,
    each_round: Callable[[], object] = lambda: None,
    pause: float = 0.0,
) -> dict[Key, list[Turn]]:
    """Times each function in each round, some calls in a row.

    # Arguments
        contenders: what to time, by any key.
        rounds: the number of turns of each.
        each_round: what else to do once in each round.
        pause: seconds to wait before each turn, for the threads of the turn before: those of
            TensorFlow Lite go on looking for work for a while, on cores that are needed now.

    # Returns
        The turns of each contender, in the order of the rounds.
    """
    calls = {key: _warm_up(contender) for key, contender in contenders.items()}
    turns: dict[Key, list[Turn]] = {key: [] for key in contenders}
    for round_ in range(rounds):
        # Every other round backwards: no contender always follows the same one.
        for key in list(contenders)[:: 1 if round_ % 2 == 0 else -1]:
            turns[key].append(_turn(contenders[key], calls[key], pause))
        each_round()
    return turns


def ratios(turns: Sequence[Turn], base: Sequence[Turn]) -> Spread:
    """How many times the base's time a contender takes, compared round by round."""
    return Spread.of([a.median / b.median for a, b in zip(turns, base, strict=True)])


def _warm_up(contender: Timed) -> int:
    """Runs a contender until it is warm; returns how many calls fill a turn."""
    times = _repeat(contender.run, _WARM_UP_SECONDS)
    return min(math.ceil(_TURN_SECONDS / max(min(times), 1e-9)), _MOST_CALLS)


def _turn(contender: Timed, calls: int, pause: float) -> Turn:
    time.sleep(pause)
    _repeat(contender.run, pause / 10)  # finds caches full of other data, and a core asleep
    times = [_seconds(contender.run) for _ in range(calls)]
    overhead = 0.0
    if contender.overhead is not None:
        contender.overhead()
        repeats = max(calls, _OVERHEAD_CALLS)
        overhead = statistics.median(_seconds(contender.overhead) for _ in range(repeats))
    # Subtracting two measurements may end below zero where there is next to nothing to time.
    return Turn(tuple(max(seconds - overhead, 1e-9) for seconds in times), overhead)


def _repeat(function: Callable[[], object], seconds: float) -> list[float]:
    """Times calls until some time is over, at least one."""
    end = time.perf_counter() + seconds
    times = [_seconds(function)]
    while time.perf_counter() < end:
        times.append(_seconds(function))
    return times


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
