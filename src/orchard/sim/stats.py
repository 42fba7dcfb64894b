"""Statistics of constant size: quantiles and time series whose memory does not grow with the simulated time."""

from __future__ import annotations

import math
from collections.abc import Sequence

EXACT = 4096
RATIO = 1.002
"""Bucket ratio of the histogram: a quantile is off by less than 0.1 %."""
LEAST_S = 1e-9


class Quantiles:
    """Count, mean, extremes and quantiles of positive numbers (seconds).

    Exact up to `EXACT` values; then a histogram with buckets of ratio `RATIO`, so at most about 2 x 10^4 buckets over all times
    from a nanosecond to centuries.
    """

    def __init__(self) -> None:
        self.count, self.total, self.least, self.most = 0, 0.0, math.inf, 0.0
        self._values: list[float] = []
        self._buckets: dict[int, int] = {}

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)
        if self._buckets:
            self._put(value)
            return
        self._values.append(value)
        if len(self._values) > EXACT:
            for kept in self._values:
                self._put(kept)
            self._values = []

    def _put(self, value: float) -> None:
        bucket = math.floor(math.log(max(value, LEAST_S)) / math.log(RATIO))
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The least value that at least `share` of all do not exceed (nearest rank). 0 without values."""
        if not self.count:
            return 0.0
        rank = max(1, math.ceil(share * self.count))
        if not self._buckets:
            return sorted(self._values)[rank - 1]
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                middle = math.exp((bucket + 0.5) * math.log(RATIO))
                return min(max(middle, self.least), self.most)
        return self.most


class Series:
    """Means of several columns over equal intervals; when `most` rows are full, neighbours are merged in pairs.

    The caller adds one row per tick of equal length.
    """

    def __init__(self, columns: Sequence[str], tick_s: float, most: int = 600) -> None:
        self.columns, self.tick_s, self.most = tuple(columns), tick_s, most
        self.per_row = 1
        self.rows: list[list[float]] = []
        self._open: list[float] = [0.0] * len(self.columns)
        self._ticks = 0

    def add(self, row: Sequence[float]) -> None:
        self._open = [a + b for a, b in zip(self._open, row)]
        self._ticks += 1
        if self._ticks < self.per_row:
            return
        self.rows.append([x / self.per_row for x in self._open])
        self._open, self._ticks = [0.0] * len(self.columns), 0
        if len(self.rows) == self.most:
            self.rows = [[(a + b) / 2 for a, b in zip(x, y)] for x, y in zip(self.rows[::2], self.rows[1::2])]
            self.per_row *= 2

    @property
    def step_s(self) -> float:
        """Length of a row's interval."""
        return self.tick_s * self.per_row
