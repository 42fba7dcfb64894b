"""Which tensors are known to be mostly zero: a few library functions take a slow path for zeros.

The gradient of an embedding is zero but for the rows that were looked up, and so are the moments that an optimizer keeps of it.
Followed by storage, from shapes alone: an upper bound of the share of elements that can differ from zero.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

MADE_ZERO = frozenset(["zeros", "zeros_like", "new_zeros", "zero"])
KEEPS = frozenset(["mul", "div", "neg", "sqrt", "clone", "_to_copy", "copy", "square"])
"""Zero where the first operand is zero, or either factor; a copy takes its source's."""
ADDS = frozenset(["add", "sub", "lerp"])
"""Zero where every operand is zero: operands of one table have the same rows."""


class Zeros:
    """`share(tensor)` is the bound, 1 for a tensor nothing is known of."""

    def __init__(self) -> None:
        self._shares: dict[int, float] = {}
        self._live: dict[int, Any] = {}

    def share(self, tensor: Any) -> float:
        return self._shares.get(int(tensor.untyped_storage()._cdata), 1.0)

    def follow(self, func: Any, args: Any, kwargs: Any, result: Any, graded: bool) -> None:
        """Take note of what one operation wrote."""
        del kwargs, graded
        if not hasattr(result, "untyped_storage"):
            return
        raw = func._schema.name.partition("::")[2]
        name = raw[:-1] if raw.endswith("_") else raw
        share = self._written(name, args, result)
        storage = result.untyped_storage()
        key = int(storage._cdata)
        if share < 1.0:
            self._shares[key] = share
            self._live[key] = weakref.ref(storage, partial(self._gone, key))
        elif key in self._shares and (raw.endswith("_") or name == "copy"):
            self._gone(key, None)

    def _written(self, name: str, args: Any, result: Any) -> float:
        if name in MADE_ZERO:
            return 0.0
        if name == "embedding_dense_backward":
            return float(min(1.0, args[1].numel() / max(1, args[2])))
        tensors = [x for x in args if hasattr(x, "untyped_storage") and x.dim()]
        if name == "copy" and len(tensors) == 2:
            return self.share(tensors[1])
        if not tensors or any(x.shape != result.shape for x in tensors):
            return 1.0
        if name in KEEPS:
            return min(self.share(x) for x in (tensors if name == "mul" else tensors[:1]))
        if name == "addcmul" and len(tensors) == 3:
            return max(self.share(tensors[0]), min(self.share(x) for x in tensors[1:]))
        if name in ADDS and len(tensors) == 2:
            return max(self.share(x) for x in tensors)
        return 1.0

    def _gone(self, key: int, dead: Any) -> None:
        del dead
        self._shares.pop(key, None)
        self._live.pop(key, None)
