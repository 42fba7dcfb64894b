"""Buffers that count their own traffic. This text stands at the top of every emitted Python nest."""

from __future__ import annotations

import sys

import numpy as np


class Clock:
    """Number of the transfer or MAC step that runs; MACs and steps so far."""

    epoch = 0
    macs = 0
    steps = 0


class Buffer:
    """One tensor in one level, an array per copy. Index i of an axis sits in slot i mod extent."""

    def __init__(
        self, level: str, tensor: str, extents: tuple[int, ...], copies: int, expected: tuple[int, int]
    ) -> None:
        self.level, self.tensor, self.extents, self.expected = level, tensor, extents, expected
        shape = (copies, *extents)
        self.data = np.zeros(shape)
        self.has = np.zeros(shape, dtype=bool)  # outputs: a partial sum is here
        self.fresh = np.zeros(shape, dtype=bool)  # this transfer is the first that brings a sum here
        self.touched = np.zeros(shape, dtype=np.int64)  # last transfer that moved this slot
        self.words: list[np.ndarray] = [
            np.zeros(0, dtype=np.int64)
        ] * copies  # inputs: numbers of the words of the tile
        self.reads = self.writes = 0

    def at(self, copy: int, tile: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Where the tile's elements lie."""
        return np.ix_(np.array([copy]), *(index % extent for index, extent in zip(tile, self.extents)))


class Port:
    """Transfers out of `parent`: lanes that cannot share a word (groups) move it separately."""

    def __init__(self, parent: Buffer, groups: int) -> None:
        self.parent = parent
        self.stamp = np.zeros((groups, *parent.data.shape), dtype=np.int64)

    def first_times(self, group: int, at: tuple[np.ndarray, ...]) -> np.ndarray:
        """Which of the words are moved for the first time in this transfer for this group."""
        new: np.ndarray = self.stamp[group][at] != Clock.epoch
        self.stamp[group][at] = Clock.epoch
        return new


def block(low: int, high: int, *steps: tuple[int, int]) -> tuple[int, int]:
    """Take block after block: (step, size of the block)."""
    for step, tile in steps:
        low += step * tile
        high = min(high, low + tile)
    return low, high


def axis(*terms: tuple[int, int, int]) -> np.ndarray:
    """Distinct indices of one axis: the sums of c * i for i in [low, high), over (c, low, high)."""
    total = np.zeros(1, dtype=np.int64)
    for c, low, high in terms:
        total = np.unique(total[:, None] + c * np.arange(low, high)[None, :])
    return total


def load(
    port: Port, b: Buffer, root: Buffer, copy: int, up: int, group: int, tile: list[np.ndarray], slide: bool
) -> None:
    """An input's tile comes in; with `slide`, words of the previous tile stay."""
    there = port.parent.at(up, tile)
    b.data[b.at(copy, tile)] = port.parent.data[there]
    numbers = np.zeros((1,) * len(tile), dtype=np.int64)
    for a, index in enumerate(tile):
        numbers = numbers * root.extents[a] + index.reshape([-1 if i == a else 1 for i in range(len(tile))])
    new = ~np.isin(numbers, b.words[copy]) if slide else np.ones(numbers.shape, dtype=bool)
    b.words[copy] = numbers.ravel()
    b.writes += int(new.sum())
    asked = tuple(np.broadcast_to(i, (1, *new.shape)).ravel()[new.ravel()] for i in there)
    port.parent.reads += int(port.first_times(group, asked).sum())


def load_sums(port: Port, b: Buffer, copy: int, up: int, group: int, tile: list[np.ndarray]) -> None:
    """Partial sums that exist above come back: one copy takes them, the others start from zero."""
    above = port.parent
    here, there = b.at(copy, tile), above.at(up, tile)
    known = above.has[there]
    leads = known & (above.touched[there] != Clock.epoch)
    b.has[here] = known
    b.data[here] = np.where(leads, above.data[there], 0)
    above.touched[there] = np.where(known, Clock.epoch, above.touched[there])
    b.writes += int(known.sum())
    above.reads += int((port.first_times(group, there) & known).sum())


def drain(port: Port, b: Buffer, copy: int, up: int, group: int, tile: list[np.ndarray]) -> None:
    """Partial sums go up; copies of one element add on the way, or by read and write where nothing reduces."""
    above = port.parent
    here, there = b.at(copy, tile), above.at(up, tile)
    again = above.touched[there] == Clock.epoch
    above.fresh[there] = np.where(again, above.fresh[there], ~above.has[there])
    above.data[there] = np.where(again, above.data[there], 0) + b.data[here]
    above.touched[there] = Clock.epoch
    above.has[there] = True
    b.reads += int(again.size)
    first = port.first_times(group, there)
    above.writes += int(first.sum())
    above.reads += int((first & again & above.fresh[there]).sum())


def fetch(port: Port, copy: int, group: int, index: tuple[int, ...]) -> float:
    """One operand of a MAC."""
    b = port.parent
    at = (copy, *(i % extent for i, extent in zip(index, b.extents)))
    if port.stamp[group][at] != Clock.epoch:
        port.stamp[group][at] = Clock.epoch
        b.reads += 1
    return float(b.data[at])


def add(port: Port, copy: int, group: int, index: tuple[int, ...], value: float) -> None:
    """The sum of a MAC. The first sum of an element is not read."""
    b = port.parent
    at = (copy, *(i % extent for i, extent in zip(index, b.extents)))
    if not b.has[at]:
        b.has[at], b.data[at] = True, 0
        b.reads -= 1
    if port.stamp[group][at] != Clock.epoch:
        port.stamp[group][at] = Clock.epoch
        b.reads += 1
        b.writes += 1
    b.data[at] += value


def view(b: Buffer, access: list[list[tuple[int, int]]]) -> np.ndarray:
    """The whole tensor with one axis per dim: for every axis of the tensor its (coefficient, size) terms."""
    shape, strides = [], []
    for stride, terms in zip(b.data.strides[1:], access):
        for c, size in terms:
            shape.append(size)
            strides.append(c * stride)
    return np.lib.stride_tricks.as_strided(b.data[0], shape, strides)


def report(buffers: list[Buffer], right: bool) -> int:
    """Print counts beside the prediction. Exit code: 0 where result and counts are right."""
    print("nest:", "right" if right else "WRONG")
    print(f"macs {Clock.macs}\nsteps {Clock.steps}")
    print(f"{'level':<10} {'tensor':<10} {'reads':>14} {'predicted':>14} {'writes':>14} {'predicted':>14}")
    equal = True
    for b in buffers:
        reads, writes = b.expected
        print(f"{b.level:<10} {b.tensor:<10} {b.reads:>14} {reads:>14} {b.writes:>14} {writes:>14}")
        equal = equal and (b.reads, b.writes) == b.expected
    print("counts:", "equal to the prediction" if equal else "DIFFER")
    return 0 if right and equal else 1


def finish(code: int) -> None:
    """Leave with this exit code."""
    sys.exit(code)
