"""The operations that PyTorch runs eagerly, traced without running them.

A module is moved to fake tensors (shapes, strides, no data) and called as usual; a dispatch mode sees every operation below
autograd, in the order in which it would run: forward, backward, optimizer, recomputation. Memory follows from the life of
storages. No operation is timed and no data is touched, so a model that does not fit can be traced.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from orchard.cost.eager import Launch
from orchard.measure.classify import classify
from orchard.measure.library import library
from orchard.measure.zeros import Zeros

MMAP_THRESHOLD_MAX = 32 * 2**20
"""Bytes from which glibc's malloc always maps fresh pages: DEFAULT_MMAP_THRESHOLD_MAX = 4 MiB x sizeof(long) (malloc.c)."""


@dataclass(frozen=True)
class Trace:
    """A program's launches in order, how many modules it called, and its memory in bytes.

    resident_bytes   parameters, buffers and inputs that exist before the call
    peak_bytes       the most that was alive beyond those during the call
    """

    launches: tuple[Launch, ...]
    module_calls: int
    resident_bytes: int
    peak_bytes: int


class Recorder:
    """Follows storages: when each was last touched, what is alive, what the allocator can hand out again."""

    def __init__(self, *, keeps_memory: bool = False, zeros: Zeros | None = None) -> None:
        self.keeps_memory = keeps_memory
        self.zeros = zeros or Zeros()
        self.launches: list[Launch] = []
        self.clock = 0.0
        self.last: dict[int, float] = {}
        self.first: dict[int, list[tuple[int, str, int, float]]] = {}
        self.sizes: dict[int, int] = {}
        self.free: dict[int, list[float]] = {}
        self.alive = 0
        self.peak = 0
        self.counting = False
        self.module_calls = 0
        self.scopes: list[str] = []
        self._live: dict[int, Any] = {}

    def hold(self, tensor: Any) -> None:
        """A tensor that is there before the program starts."""
        self._storage(tensor)

    def _storage(self, tensor: Any) -> int:
        storage = tensor.untyped_storage()
        key = int(storage._cdata)
        if key not in self.sizes:
            size = int(storage.nbytes())
            self.sizes[key] = size
            self.alive += size
            self.peak = max(self.peak, self.alive)
            self._live[key] = weakref.ref(storage, partial(self._gone, key))
        return key

    def _gone(self, key: int, dead: Any) -> None:
        del dead
        self._freed(key)

    def _freed(self, key: int) -> None:
        size = self.sizes.pop(key, 0)
        self.alive -= size
        self.free.setdefault(size, []).append(self.last.pop(key, self.clock))

    def record(self, func: Any, args: Any, kwargs: Any, result: Any, graded: bool) -> None:
        found = classify(func, args, kwargs, result)
        if found is None:
            return
        slow = found.launch.elements * (1.0 - self.zeros.share(args[0])) if found.launch.fn == "sqrt" else 0.0
        self.zeros.follow(func, args, kwargs, result, graded)
        reads: list[tuple[float, float]] = []
        writes: list[tuple[float, float]] = []
        fresh = 0.0
        index = len(self.launches)
        now = self.clock
        for tensor, size in found.reads:
            reads.append((size, self._distance(tensor, now, index, "reads", len(reads))))
        for tensor, size in found.writes:
            known = int(tensor.untyped_storage()._cdata) in self.sizes
            if known:
                distance = self._distance(tensor, now, index, "writes", len(writes))
            else:
                key = self._storage(tensor)
                whole = self.sizes[key]
                stack = self.free.get(whole)
                distance = now - stack.pop() if stack else max(now, float(whole))
                foreign = found.launch.op.endswith("_")  # memory that no operation made: mapped by the program itself
                if foreign or (whole >= MMAP_THRESHOLD_MAX and not self.keeps_memory):
                    fresh += size
            writes.append((size, distance))
        again = found.launch.reads
        moved = sum(s for s, _ in reads) + sum(s for s, _ in writes)
        self.clock = now + moved
        for tensor, _ in (*found.reads, *found.writes):
            self.last[self._storage(tensor)] = self.clock
        # An operand is at least as far away as the operation's own bytes: it streams through the caches once.
        reads = [(s, max(d, moved)) for s, d in reads]
        writes = [(s, max(d, moved)) for s, d in writes]
        self.launches.append(
            replace(
                found.launch, reads=(*reads, *again), writes=tuple(writes), fresh_bytes=fresh, graded=graded, zeros=slow,
                scope=self.scopes[-1] if self.scopes else "",
            )
        )  # fmt: skip

    def _distance(self, tensor: Any, now: float, index: int, field: str, place: int) -> float:
        key = self._storage(tensor)
        if key in self.last:
            return now - self.last[key]
        # First touch in this pass: the pass before left it at its last touch there. Settled when the pass is known.
        self.first.setdefault(key, []).append((index, field, place, now))
        return 0.0

    def settle(self) -> tuple[Launch, ...]:
        """Launches with the distance of first touches known: what passes from the last touch to the end and on to here."""
        launches = list(self.launches)
        for key, places in self.first.items():
            gap = self.clock - self.last.get(key, 0.0)
            for index, field, place, now in places:
                pairs = list(getattr(launches[index], field))
                size, own = pairs[place]
                pairs[place] = (size, max(own, now + gap))
                settled = tuple(pairs)
                old = launches[index]
                launches[index] = replace(old, reads=settled) if field == "reads" else replace(old, writes=settled)
        return tuple(launches)


def trace(program: Callable[[], Callable[[], Any]], *, grad: bool = False) -> Trace:
    """Trace `step = program(); step()`. `program` builds everything; it runs under fake tensors, so weights have no data."""
    torch, fakes = library("torch"), library("torch._subclasses.fake_tensor")

    mode = fakes.FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        try:
            with torch.set_grad_enabled(grad):
                step = program()
        except fakes.DataDependentOutputException:
            step = None
    if step is None:  # the constructor reads numbers back (a list of drop rates): build it for real, call it on fakes
        step = program()
    with mode:
        return record_step(torch, step, grad=grad)


def record_step(torch: Any, step: Callable[[], Any], *, grad: bool, keeps_memory: bool = False) -> Trace:
    """The trace of one call of `step` after one call that settles lazily made state (optimizer moments, gradients).

    keeps_memory: the allocator never maps large blocks afresh, as while measuring (`orchard.measure.allocator`).
    """
    with torch.set_grad_enabled(grad):
        zeros = Zeros()
        with _mode(torch, zeros.follow) if grad else nullcontext():
            step()  # the state that a first call leaves behind (optimizer moments) is there in every later one
        recorder = Recorder(keeps_memory=keeps_memory, zeros=zeros)
        for tensor in _reachable(step):
            recorder.hold(tensor)
        resident = recorder.alive
        recorder.peak = recorder.alive
        with _watching(torch, recorder), _mode(torch, recorder.record):
            result = step()
        del result
    return Trace(recorder.settle(), recorder.module_calls, resident, recorder.peak - resident)


def _reachable(step: Any) -> Iterator[Any]:
    """Tensors a step keeps between calls: `step.tensors()` where it says so."""
    listed = getattr(step, "tensors", None)
    yield from (listed() if callable(listed) else ())


def _mode(torch: Any, record: Callable[..., None]) -> Any:
    base = library("torch.utils._python_dispatch").TorchDispatchMode

    class Mode(base):  # type: ignore[misc,valid-type]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            kwargs = kwargs or {}
            result = func(*args, **kwargs)
            record(func, args, kwargs, result, torch.is_grad_enabled())
            return result

    return Mode()


@contextmanager
def _watching(torch: Any, recorder: Recorder) -> Iterator[None]:
    """Counts module calls and knows which module runs."""
    names: dict[int, str] = {}

    def before(module: Any, inputs: Any) -> None:
        del inputs
        recorder.module_calls += 1
        if not recorder.scopes:  # the outermost module knows the paths of those inside
            names.update({id(inner): path for path, inner in module.named_modules()})
        recorder.scopes.append(names.get(id(module)) or type(module).__name__)

    def after(module: Any, inputs: Any, output: Any) -> None:
        del module, inputs, output
        if recorder.scopes:
            recorder.scopes.pop()

    hooks = torch.nn.modules.module
    handles = (hooks.register_module_forward_pre_hook(before), hooks.register_module_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
