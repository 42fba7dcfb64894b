"""Traces in Chrome's JSON format, which Perfetto opens: written as they happen, and checked by rules of our own.

One process is the SoC; a thread per engine unit shows what runs on it (`B`/`E` slices: calls, with ops inside where asked);
counters show GB/s, W, deg C and clocks; `s`/`f` arrows lead from a request to the one it causes; `b`/`e` spans show a request
from arrival to end, one track per stream. Times are microseconds with six decimals, which is the simulator's picosecond exactly.
One event stands on each line, so a trace of any length is written and checked in constant memory.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from orchard.sim.errors import TraceError

PID = 1


def microseconds(ps: int) -> str:
    """Exact decimal text: 1_234_567 ps is "1.234567"."""
    return f"{ps // 1_000_000}.{ps % 1_000_000:06d}"


class TraceWriter:
    """Writes events to a file; `.gz` compresses. `ops`: also a slice per op. Use as a context manager."""

    def __init__(self, path: str | Path, *, ops: bool = False) -> None:
        self.path, self.ops = Path(path), ops
        self.events = 0
        try:
            raw = open(self.path, "wb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise TraceError(f"trace {str(path)[:200]!r}: cannot be written ({error.strerror})") from None
        # no file name and no time in the gzip header: the same run gives the same bytes
        self._raw: IO[bytes] = raw
        zipped = self.path.suffix == ".gz"
        self._out: IO[bytes] = gzip.GzipFile("", "wb", 6, raw, mtime=0) if zipped else raw  # type: ignore[assignment]
        self._out.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the JSON and close the file. May be called twice."""
        if self._raw.closed:
            return
        self._out.write(b"\n]}\n")
        self._out.close()
        self._raw.close()

    def _write(self, text: str) -> None:
        self._out.write(((",\n" if self.events else "") + text).encode())
        self.events += 1

    def name_threads(self, process: str, threads: list[str]) -> None:
        """Names of the process and its threads; thread ids count from 1."""
        self._write(_line({"ph": "M", "pid": PID, "tid": 0, "name": "process_name", "args": {"name": process}}))
        for tid, name in enumerate(threads, 1):
            self._write(_line({"ph": "M", "pid": PID, "tid": tid, "name": "thread_name", "args": {"name": name}}))

    def begin(self, tid: int, at_ps: int, name: str, **args: Any) -> None:
        extra = f',"args":{json.dumps(args)}' if args else ""
        self._write(f'{{"ph":"B","pid":{PID},"tid":{tid},"ts":{microseconds(at_ps)},"name":{json.dumps(name)}{extra}}}')

    def end(self, tid: int, at_ps: int) -> None:
        self._write(f'{{"ph":"E","pid":{PID},"tid":{tid},"ts":{microseconds(at_ps)}}}')

    def arrow(self, phase: str, tid: int, at_ps: int, ident: int) -> None:
        """`s` starts an arrow inside the open slice of a thread, `f` ends it in the enclosing one."""
        binding = ',"bp":"e"' if phase == "f" else ""
        self._write(
            f'{{"ph":"{phase}","pid":{PID},"tid":{tid},"ts":{microseconds(at_ps)},"cat":"cause","name":"causes",'
            f'"id":{ident}{binding}}}'
        )

    def span(self, stream: str, ident: int, from_ps: int, to_ps: int, **args: Any) -> None:
        """A request of a stream from arrival to end."""
        common = f'"pid":{PID},"tid":0,"cat":{json.dumps(stream)},"name":{json.dumps(stream)},"id":{ident}'
        self._write(f'{{"ph":"b",{common},"ts":{microseconds(from_ps)},"args":{json.dumps(args)}}}')
        self._write(f'{{"ph":"e",{common},"ts":{microseconds(to_ps)}}}')

    def counter(self, name: str, at_ps: int, values: dict[str, float]) -> None:
        shown = json.dumps({k: round(v, 6) for k, v in values.items()})
        self._write(
            f'{{"ph":"C","pid":{PID},"tid":0,"ts":{microseconds(at_ps)},"name":{json.dumps(name)},"args":{shown}}}'
        )


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"))


@dataclass(slots=True)
class TraceSummary:
    """What a checked trace holds."""

    events: int = 0
    slices: int = 0
    arrows: int = 0
    open_arrows: int = 0
    spans: int = 0
    counters: int = 0
    threads: dict[int, str] = field(default_factory=dict)


def check_trace(path: str | Path) -> TraceSummary:
    """Check a trace file. Raises TraceError at the first broken rule, naming the event.

    * the file is one JSON object with a list `traceEvents`, and every event has a phase, a process and a thread;
    * on each thread, `B` and `E` are in order of time and balanced, so slices nest and never overlap;
    * at depth one (what an engine runs) a slice starts where the one before has ended, or later;
    * each counter is in order of time; request spans have both ends, the second not before the first;
    * an arrow's ends lie in open slices, the second not before the first (a trace may end before an effect starts).
    """
    rules = _Rules()
    for number, event in enumerate(_events(Path(path))):
        try:
            rules.see(event)
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(f"{path}: event {number}: {type(error).__name__} at {error}") from None
        except TraceError as error:
            raise TraceError(f"{path}: event {number}: {error}") from None
    try:
        return rules.finish()
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """Events of a trace one per line (as we write them), or of any JSON with a list `traceEvents`."""
    try:
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            first = lines.readline()
            if not first.rstrip().endswith('"traceEvents":['):
                lines.seek(0)
                yield from json.loads(lines.read())["traceEvents"]
                return
            for line in lines:
                text = line.strip().rstrip(",")
                if text == "]}":
                    return
                if text:
                    yield json.loads(text)
        raise TraceError(f"{path}: the list of events has no end")
    except OSError as error:
        raise TraceError(f"{str(path)[:200]}: cannot be read ({error.strerror or error})") from None
    except (EOFError, ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{str(path)[:200]}: no trace in Chrome's JSON format ({type(error).__name__})") from None


class _Rules:
    def __init__(self) -> None:
        self.found = TraceSummary()
        self.stack: dict[Any, list[float]] = {}
        self.last: dict[Any, float] = {}
        self.counters: dict[Any, float] = {}
        self.open_arrows: dict[Any, float] = {}
        self.open_spans: dict[Any, float] = {}

    def see(self, event: dict[str, Any]) -> None:
        self.found.events += 1
        phase, thread = event["ph"], (event["pid"], event["tid"])
        if phase == "M":
            if event["name"] == "thread_name":
                self.found.threads[event["tid"]] = event["args"]["name"]
            return
        at = float(event["ts"])
        rule = getattr(self, f"_see_{phase}", None)
        if rule is None:
            raise TraceError(f"phase {phase!r} is none of B, E, s, f, b, e, C, M")
        rule(event, thread, at)

    def _see_B(self, event: dict[str, Any], thread: Any, at: float) -> None:  # noqa: N802
        if not event["name"]:
            raise TraceError("a slice has no name")
        if at < self.last.get(thread, 0.0):
            raise TraceError(f"thread {thread[1]}: a slice starts at {at} us, before {self.last[thread]} us: overlap")
        self.stack.setdefault(thread, []).append(at)
        self.last[thread] = at
        self.found.slices += 1

    def _see_E(self, event: dict[str, Any], thread: Any, at: float) -> None:  # noqa: N802
        del event
        if not self.stack.get(thread):
            raise TraceError(f"thread {thread[1]}: an end at {at} us without a beginning")
        self.stack[thread].pop()
        if at < self.last[thread]:
            raise TraceError(f"thread {thread[1]}: a slice ends at {at} us, before {self.last[thread]} us")
        self.last[thread] = at

    def _see_s(self, event: dict[str, Any], thread: Any, at: float) -> None:
        self._inside(thread, at)
        self.open_arrows[event["id"]] = at
        self.found.arrows += 1

    def _see_f(self, event: dict[str, Any], thread: Any, at: float) -> None:
        self._inside(thread, at)
        start = self.open_arrows.pop(event["id"], None)
        if start is None or at < start:
            raise TraceError(f"arrow {event['id']} ends at {at} us and starts at {start}")

    def _inside(self, thread: Any, at: float) -> None:
        if not self.stack.get(thread) or at < self.last[thread]:
            raise TraceError(f"thread {thread[1]}: an arrow at {at} us outside a slice")

    def _see_b(self, event: dict[str, Any], thread: Any, at: float) -> None:
        del thread
        key = (event["cat"], event["id"])
        if key in self.open_spans:
            raise TraceError(f"request {key} begins twice")
        self.open_spans[key] = at

    def _see_e(self, event: dict[str, Any], thread: Any, at: float) -> None:
        del thread
        start = self.open_spans.pop((event["cat"], event["id"]), None)
        if start is None or at < start:
            raise TraceError(f"request {event['id']} ends at {at} us and begins at {start}")
        self.found.spans += 1

    def _see_C(self, event: dict[str, Any], thread: Any, at: float) -> None:  # noqa: N802
        del thread
        if at < self.counters.get(event["name"], 0.0):
            raise TraceError(f"counter {event['name']} goes back to {at} us")
        if not all(isinstance(v, int | float) for v in event["args"].values()):
            raise TraceError(f"counter {event['name']} holds something that is no number")
        self.counters[event["name"]] = at
        self.found.counters += 1

    def finish(self) -> TraceSummary:
        left = {thread[1]: len(open_) for thread, open_ in self.stack.items() if open_}
        if left:
            raise TraceError(f"slices without an end, by thread: {left}")
        if self.open_spans:
            raise TraceError(f"{len(self.open_spans)} requests without an end")
        self.found.open_arrows = len(self.open_arrows)
        return self.found
