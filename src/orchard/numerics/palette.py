"""Palettes: look-up tables from k-means. One dimension (a table per tensor or group of output channels) and vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchard.numerics.errors import NumericsError

LLOYD_ROUNDS = 25
MANY = 32
"""Entries from which Lloyd's rounds from any start end well above the optimum (benchmarks/techniques/reference.json)."""
Floats = NDArray[np.float64]


def kmeans_1d(values: Floats, count: int, *, weights: Floats | None = None, rounds: int = LLOYD_ROUNDS) -> Floats:
    """Centres [count], sorted: the better of Lloyd's algorithm from two starts, or the values themselves where they are few.

    One start spreads centres by the cube root of the density, which is optimal for many centres [Panter & Dite 1951]; the other
    takes quantiles, which serves clumps. On sorted values a cluster is a run, so a round is `count` look-ups in running sums.
    """
    order = np.argsort(values, kind="stable")
    x = values[order]
    w = np.ones_like(x) if weights is None else weights[order]
    if not w.sum() > 0:
        w = np.ones_like(x)
    distinct = np.unique(x)
    if len(distinct) <= count:
        return np.concatenate((distinct, np.full(count - len(distinct), distinct[-1])))
    sums = tuple(np.concatenate(([0.0], np.cumsum(part))) for part in (w, w * x, w * x * x))
    found = [_lloyd(x, sums, start, rounds) for start in (_by_density(x, w, count), _by_quantile(x, sums[0], count))]
    best = min(found, key=lambda pair: pair[0])
    return best[1] if count < MANY else _moved(x, sums, *best)


def _lloyd(x: Floats, sums: tuple[Floats, ...], centres: Floats, rounds: int) -> tuple[float, Floats]:
    """(sum of squares, centres)."""
    for _ in range(rounds):
        inside, total, _ = _by_cluster(x, sums, centres)
        moved = np.sort(np.where(inside > 0, total / np.where(inside > 0, inside, 1.0), centres))
        if np.array_equal(moved, centres):
            break
        centres = moved
    inside, total, square = _by_cluster(x, sums, centres)
    return float((square - 2 * centres * total + centres**2 * inside).sum()), centres


def _moved(x: Floats, sums: tuple[Floats, ...], error: float, centres: Floats) -> Floats:
    """Centres taken from where two neighbours cost least as one to where a cluster's error is largest, while that helps."""
    for _ in range(4 * len(centres)):
        inside, total, square = _by_cluster(x, sums, centres)
        mass = np.maximum(inside, 1e-300)
        spread = np.maximum(square - total**2 / mass, 0.0)
        joined = mass[1:] * mass[:-1] / (mass[1:] + mass[:-1]) * np.diff(total / mass) ** 2
        joined[(inside[1:] == 0) | (inside[:-1] == 0)] = 0.0
        split, merge = int(spread.argmax()), int(joined.argmin())
        if split in (merge, merge + 1) or joined[merge] >= 0.75 * spread[split]:
            break  # halving an even cluster takes three quarters of its error away
        step = np.sqrt(spread[split] / mass[split]) / 2
        pair = (total[merge] + total[merge + 1]) / (mass[merge] + mass[merge + 1])
        others = np.delete(centres, (merge, merge + 1, split))
        trial = np.sort(np.concatenate((others, [pair, centres[split] - step, centres[split] + step])))
        better, trial = _lloyd(x, sums, trial, 5)
        if better >= error:
            break
        error, centres = better, trial
    return _lloyd(x, sums, centres, LLOYD_ROUNDS)[1]


def _by_cluster(x: Floats, sums: tuple[Floats, ...], centres: Floats) -> list[Floats]:
    """Mass, moment and second moment of each cluster."""
    cuts = np.concatenate(([0], np.searchsorted(x, (centres[1:] + centres[:-1]) / 2), [len(x)]))
    return [np.diff(part[cuts]) for part in sums]


def _by_quantile(x: Floats, mass: Floats, count: int) -> Floats:
    """Weighted quantiles at the middles of `count` equal shares."""
    wanted = (np.arange(count) + 0.5) / count * mass[-1]
    starts: Floats = x[np.minimum(np.searchsorted(mass[1:], wanted), len(x) - 1)]
    return starts


def _by_density(x: Floats, w: Floats, count: int) -> Floats:
    """Middles of `count` equal shares of the cube root of the density, by a histogram of at most 512 bins."""
    bins = int(min(512, max(8, len(x) // 8)))
    mass, edges = np.histogram(x, bins=bins, weights=w)
    share = np.concatenate(([0.0], np.cumsum(np.cbrt(mass))))
    starts: Floats = np.interp((np.arange(count) + 0.5) / count * share[-1], share, edges)
    return starts


def nearest(values: Floats, centres: Floats) -> NDArray[np.int64]:
    """Index of the nearest of sorted centres, the lower one in a tie."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values).astype(np.int64)


@dataclass(frozen=True)
class Palette:
    """Tables [tables, 2^bits] and indices in the shape of the weight; `values` are what they stand for."""

    tables: Tensor
    indices: Tensor
    values: Tensor


def palettize(
    weight: Tensor,
    bits: int,
    *,
    group: int = 0,
    weights: Tensor | None = None,
    scale: bool = False,
    keep_zeros: bool = False,
) -> Palette:
    """k-means tables, one per `group` output channels (0: one for the tensor). `weights` [O, I] count squared errors (sensitive
    k-means); `scale` divides each output channel by its largest weight first; `keep_zeros` leaves zeros out of the tables."""
    if not 1 <= bits <= 8:
        raise NumericsError(f"a palette of {bits} bits, expected 1 to 8")
    w = weight.detach().double().reshape(weight.shape[0], -1).numpy()
    factor = np.maximum(np.abs(w).max(axis=1, keepdims=True), 1e-12) if scale else np.ones((len(w), 1))
    importance = None if weights is None else weights.detach().double().reshape(w.shape).numpy() * factor**2
    w = w / factor
    rows = group or len(w)
    out, index, tables = np.zeros_like(w), np.zeros(w.shape, dtype=np.int64), []
    for start in range(0, len(w), rows):
        block = w[start : start + rows]
        used = block != 0 if keep_zeros else np.ones(block.shape, dtype=bool)
        if not used.any():
            tables.append(np.zeros(1 << bits))
            continue
        counted = None if importance is None else importance[start : start + rows][used]
        table = kmeans_1d(block[used], 1 << bits, weights=counted)
        chosen = nearest(block, table)
        index[start : start + rows] = chosen
        out[start : start + rows] = np.where(used, table[chosen], 0.0)
        tables.append(table)
    return Palette(
        torch.from_numpy(np.stack(tables)), torch.from_numpy(index),
        torch.from_numpy(out * factor).to(weight.dtype).reshape(weight.shape),
    )  # fmt: skip


def vector_palette(weight: Tensor, bits: int, size: int, *, seed: int = 0, rounds: int = LLOYD_ROUNDS) -> Palette:
    """One table of 2^bits vectors of `size` neighbouring inputs, by k-means from k-means++ starts.
    Raises NumericsError where vectors do not fit the inputs or are fewer than the entries."""
    flat = weight.detach().double().reshape(weight.shape[0], -1)
    if flat.shape[1] % size:
        raise NumericsError(f"vectors of {size} inputs do not divide {flat.shape[1]} inputs")
    points = flat.reshape(-1, size)
    count = 1 << bits
    if len(points) < count:
        raise NumericsError(
            f"{len(points)} vectors of {size} weights cannot fill a table of {count}; expected fewer bits"
        )
    centres = _plus_plus(points, count, torch.Generator().manual_seed(seed))
    for _ in range(rounds):
        chosen = _closest(points, centres)
        number = torch.bincount(chosen, minlength=count).double()[:, None]
        total = torch.zeros_like(centres).index_add_(0, chosen, points)
        moved = torch.where(number > 0, total / number.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    chosen = _closest(points, centres)
    return Palette(centres, chosen, centres[chosen].reshape(weight.shape).to(weight.dtype))


def _closest(points: Tensor, centres: Tensor) -> Tensor:
    square = centres.pow(2).sum(1)
    return torch.cat([(square - 2 * part @ centres.T).argmin(dim=1) for part in points.split(8192)])


def _plus_plus(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Starts drawn by squared distance from those drawn before [Arthur & Vassilvitskii 2007]."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = (points - points[chosen[0]]).pow(2).sum(1)
    for _ in range(count - 1):
        if not float(distance.sum()) > 0:
            chosen.append(chosen[-1])
            continue
        chosen.append(int(torch.multinomial(distance / distance.sum(), 1, generator=generator)))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).pow(2).sum(1))
    return points[chosen].clone()
