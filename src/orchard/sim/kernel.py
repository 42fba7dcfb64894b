"""The inner loop: engines that run ops and share bandwidth, until something outside has to decide.

The state of an engine is one number, its position in the work time of its program. While nothing changes, an engine moves at
`clock x share`: `clock` is its relative frequency, `share` the part of its demanded bandwidth that it gets (1 without
contention). So an op with more bytes than its share allows takes bytes / share, and one that gets all it asks for takes what
the estimate says; both at the pace of the clock.

Bandwidth is shared max-min fairly over two resources: the port of the system-level cache, which every byte passes, and DRAM,
which serves what the cache does not. All engines are raised together until a resource is full; those that use it stay there,
the others go on (progressive filling). The result is the unique allocation in which nobody can have more without somebody
poorer having less.

The function is plain arithmetic on sequences, so that numba compiles it unchanged; both give the same bits, because no
reassociating option is set. It runs on lists without numba.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

ROUNDING = 1.0 + 1e-12
"""Demands above a capacity by less than this factor are equal to it."""
SNAP_PS = 1e-6
"""Work left that counts as none: a millionth of a picosecond, above the rounding of positions (2^-53 of a call)."""


def fill_shares(n: int, on: Any, dram: Any, port: Any, free_dram: float, free_port: float, share: Any) -> None:
    """Max-min fair shares of the demands into `share`, each 0..1.

    `dram[i] <= port[i]` are demands in bytes per picosecond; `free_*` the capacities. An engine that demands nothing gets 1.
    """
    open_count = 0
    for i in range(n):
        if on[i] and port[i] > 0.0:
            share[i] = -1.0  # still rising
            open_count += 1
        else:
            share[i] = 1.0
    while open_count > 0:
        # bytes through the port per engine are raised to one level; a part dram / port of them loads DRAM
        left_port, left_dram = free_port, free_dram
        weight_dram = 0.0
        for i in range(n):
            if on[i] and port[i] > 0.0:
                if share[i] >= 0.0:
                    left_port -= share[i] * port[i]
                    left_dram -= share[i] * dram[i]
                else:
                    weight_dram += dram[i] / port[i]
        level = max(left_port, 0.0) / open_count
        by_dram = False
        if weight_dram > 0.0 and max(left_dram, 0.0) / weight_dram < level:
            level = max(left_dram, 0.0) / weight_dram
            by_dram = True
        settled = False
        for i in range(n):
            if on[i] and share[i] < 0.0 and port[i] <= level:
                share[i] = 1.0
                open_count -= 1
                settled = True
        if settled:
            continue
        for i in range(n):
            if on[i] and share[i] < 0.0 and (not by_dram or dram[i] > 0.0):
                share[i] = level / port[i]
                open_count -= 1


def advance(
    now: int, until: int, n: int, on: Any, op: Any, at: Any, last: Any, clock: Any, halt: Any, peak_dram: Any,
    peak_port: Any, ends: Any, dram: Any, port: Any, free_dram: float, free_port: float, scratch: Any,
    ended: Any, log: Any,
) -> int:  # fmt: skip
    """Run until `until` (ps) or until an engine ends its call or, with `halt`, an op; returns the time reached.

    Per engine [n]: `on` running, `op` index of its op in the flat op arrays, `at` position in work time, `last` index after its
    last op, `clock` relative frequency, `peak_*` the largest demand of its program (bytes/ps). Per op, over all programs:
    `ends` in work time, and `dram`, `port` demands in bytes per ps of work. `scratch` holds three sequences [n];
    `ended[i]` becomes True where engine i has to be looked at. `log`, where not None, gets
    (from, to, engine, op, position, pace, alone) for every interval; `alone`: ops run at one pace to the end of the interval.
    """
    need_dram, need_port, pace = scratch[0], scratch[1], scratch[2]
    while now < until:
        most_dram = most_port = 0.0
        running = 0
        for i in range(n):
            if on[i]:
                running += 1
                most_dram += peak_dram[i] * clock[i]
                most_port += peak_port[i] * clock[i]
        if running == 0:
            return until
        stop = False
        if most_dram <= free_dram * ROUNDING and most_port <= free_port * ROUNDING:
            # nobody can be in anybody's way: go to the next end in one step
            step = until - now
            for i in range(n):
                if on[i]:
                    goal = ends[op[i]] if halt[i] else ends[last[i] - 1]
                    step = min(step, max(math.ceil((goal - at[i]) / clock[i]), 1))
            for i in range(n):
                if on[i]:
                    if log is not None:
                        log.append((now, now + step, i, op[i], at[i], clock[i], True))
                    at[i] += clock[i] * step
                    goal = ends[op[i]] if halt[i] else ends[last[i] - 1]
                    if goal - at[i] <= SNAP_PS:
                        at[i] = goal
                        op[i] = op[i] + 1 if halt[i] else last[i]
                        ended[i] = True
                        stop = True
                    else:
                        low, high = op[i], last[i] - 1  # first op that ends after the position
                        while low < high:
                            middle = (low + high) // 2
                            if ends[middle] - at[i] <= SNAP_PS:
                                low = middle + 1
                            else:
                                high = middle
                        op[i] = low
            now += step
            if stop:
                return now
            continue
        sum_dram = sum_port = 0.0
        for i in range(n):
            if on[i]:
                k = op[i]
                need_dram[i] = dram[k] * clock[i]
                need_port[i] = port[k] * clock[i]
                sum_dram += need_dram[i]
                sum_port += need_port[i]
        if sum_dram <= free_dram * ROUNDING and sum_port <= free_port * ROUNDING:
            for i in range(n):
                pace[i] = clock[i]
        else:
            fill_shares(n, on, need_dram, need_port, free_dram, free_port, pace)
            for i in range(n):
                pace[i] *= clock[i]
        step = until - now
        for i in range(n):
            if on[i] and pace[i] > 0.0:
                needed = (ends[op[i]] - at[i]) / pace[i]
                if needed < step:
                    step = max(math.ceil(needed), 1)
        for i in range(n):
            if on[i]:
                if log is not None:
                    log.append((now, now + step, i, op[i], at[i], pace[i], False))
                at[i] += pace[i] * step
                if ends[op[i]] - at[i] <= SNAP_PS:
                    at[i] = ends[op[i]]
                    op[i] += 1
                    if halt[i] or op[i] == last[i]:
                        ended[i] = True
                        stop = True
        now += step
        if stop:
            return now
    return now


@lru_cache(maxsize=1)
def compiled() -> Any | None:
    """`advance` compiled by numba, with the same results; None without numba. Compiling waits for the first call."""
    try:
        import numba
    except ImportError:
        return None
    from types import FunctionType

    fill = numba.njit(cache=False)(fill_shares)
    scope = {**advance.__globals__, "fill_shares": fill}
    body = FunctionType(advance.__code__, scope, "advance", advance.__defaults__, advance.__closure__)
    return numba.njit(cache=False)(body)
