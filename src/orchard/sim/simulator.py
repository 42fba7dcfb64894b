"""The simulator: requests arrive, wait, run on engines and end.

Order at one instant, so that every run of the same input is the same: calls that end, engine by engine in the machine's order;
then events in the order memory users, submissions, arrivals, tick; then by when they were scheduled. Within one engine the
highest priority runs; equal priorities take turns call by call, first come first. A request of higher priority takes an engine at
the end of the op that runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

from orchard.sim.arrivals import Arrivals, Closed
from orchard.sim.errors import SimError
from orchard.sim.governor import Governor, Usage
from orchard.sim.kernel import advance, compiled
from orchard.sim.machine import FULL, Machine, OperatingPoint
from orchard.sim.program import PS, Call, Program, Sums, Workload
from orchard.sim.results import EngineStats, Outcome, StreamStats
from orchard.sim.stats import Series
from orchard.sim.trace import TraceWriter

USER, READY, ARRIVAL, TICK = range(4)
FOREVER = 1 << 62
ROWS = 300
"""Intervals of the time series of a machine without a governor."""
COMPILE_FROM_OPS = 1_500_000
"""Ops under contention after which compiling the inner loop (a few seconds) pays for itself."""


@dataclass(frozen=True, slots=True)
class Successor:
    """After a request: `count` requests of another stream, each with `probability`."""

    stream: int
    probability: float = 1.0
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Requests of one kind. Request i runs `workloads[i % len]`.

    deadline_ps  from the arrival of the request that started the chain (its own without a cascade); None: none
    limit        requests of the stream that may be unfinished at once; more are dropped and counted
    """

    name: str
    workloads: tuple[Workload, ...]
    arrivals: Arrivals
    priority: int = 0
    deadline_ps: int | None = None
    limit: int = 64
    then: tuple[Successor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUser:
    """Somebody outside the engines who moves bytes at a constant rate (camera, display) and is always served first."""

    name: str
    bytes_per_s: float
    from_ps: int = 0
    to_ps: int | None = None


class Request:
    """A request on its way. `position`, `op`: where it is in its present call."""

    __slots__ = (
        "arrived", "call", "causes", "chain", "done", "ident", "op", "position", "preempted", "repeat", "seq", "since",
        "stage", "stream", "trail", "work",
    )  # fmt: skip

    def __init__(self, stream: int, ident: int, work: Workload, arrived: int, chain: int) -> None:
        self.stream, self.ident, self.work, self.arrived, self.chain = stream, ident, work, arrived, chain
        self.stage = self.call = self.repeat = self.done = 0
        self.position, self.op, self.seq, self.since = 0.0, 0, 0, arrived
        self.preempted = False
        self.trail = 0
        self.causes = [0.0] * 8

    @property
    def current(self) -> Call:
        return self.work.stages[self.stage].calls[self.call]


@dataclass(slots=True)
class Unit:
    """One server of an engine, and what has been accounted of its present run."""

    engine: int
    request: Request | None = None
    program: Program | None = None
    base: int = 0
    seen: Sums = (0.0,) * 6
    seen_at: float = 0.0
    seen_op: int = 0
    seen_ps: int = 0
    log: list[Any] = field(default_factory=list)


class _Flat:
    """Op arrays of all programs, one after the other."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self.offset: dict[int, int] = {}
        self.peaks: dict[int, tuple[float, float]] = {}
        self.ends: Any = []
        self.dram: Any = []
        self.port: Any = []
        self.labels: list[str] = []
        for program in programs:
            if id(program) in self.offset:
                continue
            self.offset[id(program)] = len(self.ends)
            dram, port = program.dram_bytes / program.work_ps, program.port_bytes / program.work_ps
            self.peaks[id(program)] = (float(dram.max()), float(port.max()))
            self.ends += program.ends_ps.tolist()
            self.labels += program.labels or [program.name] * len(program)
            self.dram += dram.tolist()
            self.port += port.tolist()

    def as_arrays(self) -> None:
        import numpy as np

        for name in ("ends", "dram", "port"):
            setattr(self, name, np.array(getattr(self, name), dtype=np.float64))


class Simulator:
    """One run of streams on a machine. `seconds` None: until every request has ended (then arrivals must be finite).

    trace   writer for a Chrome trace; `log`: a list that gets every interval of every engine (tests, small runs)
    say     gets the part of the time that is done, every tick
    fast    True or False: inner loop compiled by numba or not; None: compiled once it pays. The results are the same.
    """

    def __init__(
        self, machine: Machine, streams: Sequence[Stream], users: Sequence[MemoryUser] = (), *,
        seconds: float | None, seed: int = 0, trace: TraceWriter | None = None, log: list[Any] | None = None,
        fast: bool | None = None, say: Callable[[float], None] | None = None,
    ) -> None:  # fmt: skip
        self.machine, self.streams, self.users = machine, tuple(streams), tuple(users)
        self.horizon = None if seconds is None else round(seconds * PS)
        self.trace, self.log, self.say = trace, log, say
        self.now = 0
        self._engine_of = {e.name: i for i, e in enumerate(machine.engines)}
        self._check()
        self._draws = [Random(f"{seed}/{s.name}") for s in self.streams]
        self._times: list[Iterator[int]] = [s.arrivals.times(d) for s, d in zip(self.streams, self._draws)]
        self._events: list[tuple[int, int, int, Any]] = []
        self._sequence = self._ident = self._arrow = 0
        self._open = [0] * len(self.streams)
        self._turn = [0] * len(self.streams)
        self._live: dict[int, Request] = {}
        self._units = [Unit(i) for i, e in enumerate(machine.engines) for _ in range(e.units)]
        self._units_of = [
            [u for u, unit in enumerate(self._units) if unit.engine == i] for i in range(len(machine.engines))
        ]
        self._queues: list[list[tuple[int, int, Request]]] = [[] for _ in machine.engines]
        self._flat = _Flat([c.program for s in self.streams for w in s.workloads for g in w.stages for c in g.calls])
        self._start_kernel(fast)
        self._start_statistics()

    def _check(self) -> None:
        for stream in self.streams:
            if not stream.workloads:
                raise SimError(f"stream {stream.name}: has no workload")
            for stage in (g for w in stream.workloads for g in w.stages):
                if stage.engine not in self._engine_of:
                    known = ", ".join(self._engine_of)
                    raise SimError(f"stream {stream.name}: no engine {stage.engine!r}, expected one of {known}")
        taken = self._most_taken()
        for name, capacity in (("DRAM", self.machine.dram_bytes_per_s), ("cache port", self.machine.port_bytes_per_s)):
            if capacity is not None and taken >= capacity:
                raise SimError(
                    f"memory users take {taken / 1e9:.4g} GB/s together, the {name} gives {capacity / 1e9:.4g} GB/s"
                )

    def _most_taken(self) -> float:
        """The most that memory users take at one time, bytes/s."""
        starts = [u.from_ps for u in self.users]
        return max((sum(u.bytes_per_s for u in self.users if _on(u, t)) for t in starts), default=0.0)

    def _start_kernel(self, fast: bool | None) -> None:
        n = len(self._units)
        self._on: Any = [False] * n
        self._op: Any = [0] * n
        self._at: Any = [0.0] * n
        self._last: Any = [0] * n
        self._clock: Any = [1.0] * n
        self._halt: Any = [False] * n
        self._ended: Any = [False] * n
        self._peak_dram: Any = [0.0] * n
        self._peak_port: Any = [0.0] * n
        self._scratch: Any = [[0.0] * n for _ in range(3)]
        self._advance: Callable[..., int] = advance
        self._log: list[Any] | None = [] if self.log is not None or (self.trace and self.trace.ops) else None
        self._compile = self._log is None and fast is not False
        self._contended_ops = 0
        self._free = [math.inf, math.inf]
        if fast and self._compile:
            self._use_compiled()

    def _use_compiled(self) -> None:
        self._compile = False
        found = compiled()
        if found is None:
            return
        import numpy as np

        self._advance = found
        self._flat.as_arrays()
        for name in ("_on", "_halt", "_ended"):
            setattr(self, name, np.array(getattr(self, name), dtype=np.bool_))
        for name in ("_op", "_last"):
            setattr(self, name, np.array(getattr(self, name), dtype=np.int64))
        for name in ("_at", "_clock", "_peak_dram", "_peak_port", "_scratch"):
            setattr(self, name, np.array(getattr(self, name), dtype=np.float64))

    def _start_statistics(self) -> None:
        m = self.machine
        self.governor = Governor(m) if m.governed else None
        self._points: tuple[OperatingPoint, ...] = self.governor.now if self.governor else (FULL,) * len(m.engines)
        self._usage = [Usage() for _ in m.engines]
        self._streams = [StreamStats(s.name) for s in self.streams]
        self._stats = [EngineStats(e.name, e.units) for e in m.engines]
        horizon = self.horizon or 0
        self._tick_ps = round(m.tick_s * PS) if self.governor else max(1, horizon // ROWS)
        columns = ("power_w", "dram_bytes_per_s", "die_c", "case_c", "passes_per_s", *(f"clock.{e.name}" for e in m.engines))
        self.series = Series((*columns, *(f"busy.{e.name}" for e in m.engines)), self._tick_ps / PS)
        self._tick_dram = self._tick_user = 0.0
        self._tick_busy = [0] * len(m.engines)
        self._user_rate, self._user_since = 0.0, 0
        self._ticked = self._tick_passes = 0
        self._energy = self._user_j = self._idle_j = self._dram = self._user_bytes = 0.0
        self._peak_w = self._peak_dram_rate = self._throttled = 0.0
        self._most_die = self._most_case = -math.inf

    # --- the loop

    def run(self) -> Outcome:
        """Simulate to the end. May be called once."""
        if self.trace:
            self.trace.name_threads(self.machine.name, [self._unit_name(u) for u in range(len(self._units))])
        self._schedule_first()
        self._set_free()
        while True:
            limit = self._events[0][0] if self._events else FOREVER
            if self.horizon is not None:
                limit = min(limit, self.horizon)
            elif not self._live and not any(e[1] == ARRIVAL for e in self._events):
                break
            self._step(limit)
            while self._events and self._events[0][0] <= self.now:
                _, kind, _, what = heappop(self._events)
                self._handle(kind, what)
            if self.horizon is not None and self.now >= self.horizon:
                break
        return self._finish()

    def _step(self, limit: int) -> None:
        flat, n = self._flat, len(self._units)
        reached = self._advance(
            self.now, limit, n, self._on, self._op, self._at, self._last, self._clock, self._halt, self._peak_dram,
            self._peak_port, flat.ends, flat.dram, flat.port, self._free[0], self._free[1], self._scratch,
            self._ended, self._log,
        )  # fmt: skip
        self.now = int(reached)
        if self._log:
            self._keep_log()
        for u in range(n):
            if self._ended[u]:
                self._ended[u] = False
                self._stopped(u)
        if self._compile and self._contended_ops > COMPILE_FROM_OPS:
            self._use_compiled()

    def _handle(self, kind: int, what: Any) -> None:
        if kind == READY:
            self._ready(what)
        elif kind == ARRIVAL:
            self._arrive(what, self.now)
            self._schedule_arrival(what)
        elif kind == TICK:
            self._tick()
        else:
            self._set_free()

    def _at_time(self, when: int, kind: int, what: Any) -> None:
        if self.horizon is not None and when > self.horizon:
            return
        self._sequence += 1
        heappush(self._events, (when, kind, self._sequence, what))

    def _schedule_first(self) -> None:
        for user in self.users:
            for when in (user.from_ps, user.to_ps):
                if when:
                    self._at_time(when, USER, None)
        for i in range(len(self.streams)):
            self._schedule_arrival(i)
        if self.governor or self.horizon is not None:
            self._at_time(self._tick_ps, TICK, None)

    def _schedule_arrival(self, stream: int) -> None:
        when = next(self._times[stream], None)
        if when is not None:
            self._at_time(max(when, self.now), ARRIVAL, stream)

    # --- requests

    def _arrive(self, stream: int, chain: int, trail: int = 0) -> None:
        spec, stats = self.streams[stream], self._streams[stream]
        stats.arrived += 1
        if self._open[stream] >= spec.limit:
            stats.dropped += 1
            return
        self._open[stream] += 1
        self._ident += 1
        work = spec.workloads[self._turn[stream] % len(spec.workloads)]
        self._turn[stream] += 1
        request = Request(stream, self._ident, work, self.now, chain)
        request.trail = trail
        self._live[request.ident] = request
        self._submit(request)

    def _submit(self, request: Request) -> None:
        """The host prepares the next call, then it waits for its engine."""
        host = request.current.host_ps
        request.since = self.now
        if host:
            request.causes[2] += host
            request.since = self.now + host
            self._at_time(self.now + host, READY, request)
        else:
            self._enqueue(request)

    def _ready(self, request: Request) -> None:
        """The host has submitted a call: its engine was powered meanwhile, as the estimate counts it."""
        engine = self._engine_of[request.work.stages[request.stage].engine]
        spec = self.machine.engines[engine]
        joules = request.current.host_ps / PS * (spec.active_w + spec.host_w)
        self._usage[engine].fixed_j += joules
        self._stats[engine].energy_j += joules
        self._streams[request.stream].energy_j += joules
        self._enqueue(request)

    def _enqueue(self, request: Request) -> None:
        self._sequence += 1
        request.seq = self._sequence
        self._wait(request)

    def _wait(self, request: Request) -> None:
        engine = self._engine_of[request.work.stages[request.stage].engine]
        queue, stats = self._queues[engine], self._stats[engine]
        heappush(queue, (-self.streams[request.stream].priority, request.seq, request))
        self._fill(engine)
        stats.most_waiting = max(stats.most_waiting, len(queue))

    def _priority_on(self, unit: int) -> int:
        request = self._units[unit].request
        assert request is not None
        return self.streams[request.stream].priority

    def _start(self, u: int, request: Request) -> None:
        unit, program = self._units[u], request.current.program
        waited = self.now - request.since
        request.causes[1 if request.preempted else 0] += waited
        self._stats[unit.engine].waiting_s += waited / PS
        request.preempted = False
        unit.request, unit.program = request, program
        unit.base = self._flat.offset[id(program)]
        self._op[u], self._at[u] = unit.base + request.op, request.position
        self._last[u] = unit.base + len(program)
        self._peak_dram[u], self._peak_port[u] = self._flat.peaks[id(program)]
        self._clock[u] = self._points[unit.engine].clock
        self._halt[u], self._on[u] = False, True
        unit.seen, unit.seen_at = program.at(request.position, request.op), request.position
        unit.seen_op, unit.seen_ps = request.op, self.now
        if self.trace:
            self.trace.begin(
                u + 1, self.now, f"{self.streams[request.stream].name}: {program.name}", request=request.ident
            )
            if request.trail:
                self.trace.arrow("f", u + 1, self.now, request.trail)
                request.trail = 0

    def _stopped(self, u: int) -> None:
        """A call has ended, or an op has and somebody more important waits."""
        unit = self._units[u]
        request = unit.request
        assert request is not None
        self._account(u)
        whole = int(self._op[u]) == int(self._last[u])
        request.op, request.position = int(self._op[u]) - unit.base, float(self._at[u])
        unit.request, unit.program = None, None
        self._on[u] = self._halt[u] = False
        if whole:
            self._call_ended(u, request)
        else:
            request.preempted, request.since = True, self.now
            self._slice_ends(u)
            priority = self.streams[request.stream].priority
            heappush(self._queues[unit.engine], (-priority, request.seq, request))
        self._fill(unit.engine)

    def _fill(self, engine: int) -> None:
        """Give idle units to who waits, highest priority first; stop the least important op for somebody above it."""
        queue, units = self._queues[engine], self._units_of[engine]
        for u in units:
            if queue and self._units[u].request is None:
                self._start(u, heappop(queue)[2])
        if queue:
            lowest = min(units, key=lambda u: (self._priority_on(u), -u))
            if self._priority_on(lowest) < -queue[0][0]:
                self._halt[lowest] = True

    def _call_ended(self, u: int, request: Request) -> None:
        stats = self._streams[request.stream]
        request.op, request.position = 0, 0.0
        request.done += 1
        stats.passes += 1
        if request.done == request.work.first_calls:
            stats.first.add((self.now - request.arrived) / PS)
        request.repeat += 1
        if request.repeat >= request.current.repeats:
            request.repeat, request.call = 0, request.call + 1
            if request.call >= len(request.work.stages[request.stage].calls):
                request.call, request.stage = 0, request.stage + 1
        if request.stage < len(request.work.stages):
            moves = request.call == 0 and request.repeat == 0
            if moves and self.trace:
                request.trail = self._arrow_from(u)
            self._slice_ends(u)
            self._submit(request)
        else:
            self._complete(u, request)

    def _complete(self, u: int, request: Request) -> None:
        spec, stats = self.streams[request.stream], self._streams[request.stream]
        latency = self.now - request.arrived
        stats.completed += 1
        stats.latency.add(latency / PS)
        stats.late += spec.deadline_ps is not None and self.now - request.chain > spec.deadline_ps
        for name, ps in zip(stats.causes_s, request.causes):
            stats.causes_s[name] += ps / PS
        self._open[request.stream] -= 1
        del self._live[request.ident]
        caused = [s for s in spec.then for _ in range(s.count) if self._happens(request.stream, s.probability)]
        trails = [self._arrow_from(u) if self.trace else 0 for _ in caused]
        self._slice_ends(u)
        if self.trace:
            self.trace.span(spec.name, request.ident, request.arrived, self.now, **_shown(request))
        for successor, trail in zip(caused, trails):
            self._arrive(successor.stream, request.chain, trail)
        if isinstance(spec.arrivals, Closed):
            self._at_time(self.now + spec.arrivals.think_ps, ARRIVAL, request.stream)

    def _happens(self, stream: int, probability: float) -> bool:
        return probability >= 1.0 or self._draws[stream].random() < probability

    # --- accounting

    def _account(self, u: int) -> None:
        """Time, bytes and energy of a unit since it was last looked at."""
        unit = self._units[u]
        request, program = unit.request, unit.program
        if request is None or program is None:
            return
        op, at, point = int(self._op[u]) - unit.base, float(self._at[u]), self._points[unit.engine]
        sums, before = program.at(at, op), unit.seen
        elapsed, spec, stats = self.now - unit.seen_ps, self.machine.engines[unit.engine], self._stats[unit.engine]
        causes = request.causes
        for i in range(3):
            causes[3 + i] += sums[i] - before[i]
        held_back = elapsed * point.clock - (at - unit.seen_at)
        causes[6] += held_back
        causes[7] += elapsed * (1.0 - point.clock)
        seconds, volts = elapsed / PS, point.voltage**2
        switching = (sums[4] - before[4]) * volts + seconds * spec.active_w * point.clock * volts
        traffic = (sums[5] - before[5]) * self.machine.dram_j_per_byte
        fixed = seconds * spec.host_w
        usage = self._usage[unit.engine]
        usage.switching_j += switching
        usage.traffic_j += traffic
        usage.fixed_j += fixed
        stats.energy_j += switching + traffic + fixed
        stats.busy_s += seconds
        stats.clock_s += seconds * point.clock
        self._tick_busy[unit.engine] += elapsed
        self._streams[request.stream].energy_j += switching + traffic + fixed
        self._tick_dram += sums[3] - before[3]
        stats.ops += op - unit.seen_op
        if self._compile and self._crowded():
            self._contended_ops += op - unit.seen_op
        unit.seen, unit.seen_at, unit.seen_op, unit.seen_ps = sums, at, op, self.now

    def _crowded(self) -> bool:
        running = [u for u in range(len(self._units)) if self._on[u]]
        return bool(sum(self._peak_dram[u] for u in running) > self._free[0])

    def _set_free(self) -> None:
        """Capacity left to engines, bytes/ps, and the traffic of memory users so far."""
        self._account_users()
        self._user_rate = sum(u.bytes_per_s for u in self.users if _on(u, self.now))
        for i, capacity in enumerate((self.machine.dram_bytes_per_s, self.machine.port_bytes_per_s)):
            self._free[i] = math.inf if capacity is None else (capacity - self._user_rate) / PS

    def _account_users(self) -> None:
        self._tick_user += self._user_rate * (self.now - self._user_since) / PS
        self._user_since = self.now

    def _tick(self) -> None:
        self._close_tick(self._tick_ps)
        if self.governor:
            self._points = self.governor.now
            for u, unit in enumerate(self._units):
                self._clock[u] = self._points[unit.engine].clock
        if self.horizon is not None or self._live or any(e[1] == ARRIVAL for e in self._events):
            self._at_time(self.now + self._tick_ps, TICK, None)

    def _close_tick(self, length: int) -> None:
        """Everything since the last tick into totals, series and trace."""
        if length <= 0:
            return
        for u in range(len(self._units)):
            self._account(u)
        self._account_users()
        m, seconds = self.machine, length / PS
        user_j, idle_j = self._tick_user * m.dram_j_per_byte, m.idle_w * seconds
        engines_j = sum(x.switching_j + x.traffic_j + x.fixed_j for x in self._usage)
        self._user_j += user_j
        self._idle_j += idle_j
        self._energy += engines_j + user_j + idle_j
        self._dram += self._tick_dram
        self._user_bytes += self._tick_user
        power, rate = (engines_j + user_j + idle_j) / seconds, (self._tick_dram + self._tick_user) / seconds
        self._peak_w, self._peak_dram_rate = max(self._peak_w, power), max(self._peak_dram_rate, rate)
        if any(p.clock < 1.0 for p in self._points):
            self._throttled += seconds
        clocks = [p.clock for p in self._points]
        if self.governor and length == self._tick_ps:
            self.governor.tick(self._usage, user_j + idle_j)
        die, case = self._temperatures()
        busy = [b / length for b in self._tick_busy]
        if length == self._tick_ps:
            passes = (sum(s.passes for s in self._streams) - self._tick_passes) / seconds
            self.series.add([power, rate, die, case, passes, *clocks, *busy])
        if self.trace:
            self._trace_tick(length, power, rate, die, case, clocks)
        self._usage = [Usage() for _ in m.engines]
        self._tick_dram = self._tick_user = 0.0
        self._tick_passes = sum(s.passes for s in self._streams)
        self._tick_busy = [0] * len(m.engines)
        self._ticked = self.now
        if self.say and self.horizon:
            self.say(self.now / self.horizon)

    def _temperatures(self) -> tuple[float, float]:
        heat = self.governor.heat if self.governor else None
        if heat is None:
            return 0.0, 0.0
        self._most_die, self._most_case = max(self._most_die, heat.die_c), max(self._most_case, heat.case_c)
        return heat.die_c, heat.case_c

    # --- traces

    def _unit_name(self, u: int) -> str:
        engine = self._units[u].engine
        units = self._units_of[engine]
        name = self.machine.engines[engine].name
        return name if len(units) == 1 else f"{name} {units.index(u)}"

    def _keep_log(self) -> None:
        assert self._log is not None
        for entry in self._log:
            if self.trace and self.trace.ops:
                self._units[entry[2]].log.append(entry)
            if self.log is not None:
                self.log.append((*entry, self._flat.dram[entry[3]], self._flat.port[entry[3]]))
        self._log.clear()

    def _slice_ends(self, u: int) -> None:
        if self.trace:
            self._op_slices(u)
            self.trace.end(u + 1, self.now)

    def _op_slices(self, u: int) -> None:
        """Slices of the ops inside the call that stops now."""
        unit = self._units[u]
        if not unit.log or self.trace is None:
            return
        begun, last = unit.log[0][0], int(self._op[u])
        following = [entry[3] for entry in unit.log[1:]] + [last]
        for (t0, t1, _, op, at, pace, alone), after in zip(unit.log, following):
            for k in range(op, after):
                end = min(t1, t0 + math.ceil((self._flat.ends[k] - at) / pace)) if alone else t1
                self._op_slice(u, k, begun, end)
                begun = end
        if begun < self.now:
            self._op_slice(u, last, begun, self.now)
        unit.log.clear()

    def _op_slice(self, u: int, op: int, begun: int, end: int) -> None:
        assert self.trace is not None
        self.trace.begin(u + 1, begun, self._flat.labels[op])
        self.trace.end(u + 1, end)

    def _arrow_from(self, u: int) -> int:
        assert self.trace is not None
        self._op_slices(u)
        self._arrow += 1
        self.trace.arrow("s", u + 1, self.now, self._arrow)
        return self._arrow

    def _trace_tick(self, length: int, power: float, rate: float, die: float, case: float, clocks: list[float]) -> None:
        assert self.trace is not None
        at = self.now - length
        self.trace.counter("DRAM GB/s", at, {"GB/s": rate / 1e9})
        self.trace.counter("power W", at, {"W": power})
        if self.governor and self.governor.heat:
            self.trace.counter("temperature °C", at, {"die": die, "case": case})
        names = [e.name for e in self.machine.engines]
        self.trace.counter("relative clock", at, dict(zip(names, clocks)))

    # --- the end

    def _finish(self) -> Outcome:
        self._close_tick(self.now - self._ticked)
        for u, unit in enumerate(self._units):
            if unit.request is not None:
                self._slice_ends(u)
        for request in self._live.values():
            spec, stats = self.streams[request.stream], self._streams[request.stream]
            stats.overdue += spec.deadline_ps is not None and self.now - request.chain > spec.deadline_ps
            if self.trace:
                self.trace.span(spec.name, request.ident, request.arrived, self.now, unfinished=True)
        heat = self.governor.heat if self.governor else None
        return Outcome(
            seconds=self.now / PS, streams=self._streams, engines=self._stats, dram_bytes=self._dram,
            user_bytes=self._user_bytes, energy_j=self._energy, idle_j=self._idle_j, user_j=self._user_j,
            peak_dram_bytes_per_s=self._peak_dram_rate, series=self.series, peak_w=self._peak_w,
            most_die_c=self._most_die if heat else None, most_case_c=self._most_case if heat else None,
            throttled_s=self._throttled, pending=len(self._live),
        )  # fmt: skip


def _on(user: MemoryUser, when: int) -> bool:
    return user.from_ps <= when and (user.to_ps is None or when < user.to_ps)


def _shown(request: Request) -> dict[str, float]:
    """Causes of a request for a trace, milliseconds."""
    from orchard.sim.results import CAUSES

    return {f"{name}_ms": round(ps * 1e3 / PS, 6) for name, ps in zip(CAUSES, request.causes) if ps}
