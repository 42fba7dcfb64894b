"""An einsum equation over letters as one Einsum."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.ir import Size
from orchard.workloads.importers.lowering.lowering import Lowering
from orchard.workloads.importers.lowering.values import Value, show


def contract(low: Lowering, equation: str, operands: Sequence[Value], shape: Sequence[Size]) -> Value:
    """einsum("bhid,bhjd->bhij") and the like: one Einsum, or elementwise work when nothing is summed."""
    left, _, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not right and "->" not in equation:
        letters = sorted({c for c in left if c.isalpha() and left.count(c) == 1})
        right = "".join(letters)
    if len(terms) != len(operands):
        raise low.fail(f"einsum {equation!r} with {len(operands)} operands")
    extra = max((v.ndim - len(t.replace("...", "")) for t, v in zip(terms, operands) if "..." in t), default=0)
    names = [f"e{i}" for i in range(extra)]

    def spread(term: str, ndim: int | None) -> list[str]:
        head, dots, tail = term.partition("...")
        own = names if ndim is None else names[extra - (ndim - len(head) - len(tail)) :] if dots else []
        return [*head, *(own if dots else []), *tail]

    accesses = [spread(t, v.ndim) for t, v in zip(terms, operands)]
    sizes: dict[str, Size] = {}
    for access, operand in zip(accesses, operands):
        if len(access) != operand.ndim:
            raise low.fail(f"einsum {equation!r} on {show(operand.shape)}")
        for index, (letter, size) in enumerate(zip(access, operand.shape)):
            if sizes.get(letter, 1) == 1:
                sizes[letter] = size
            elif size == 1:
                access[index] = f"{letter}one"
    out = spread(right, None)
    lower = {n: _dim_name(n) for access in [*accesses, out] for n in access}
    spec = (
        ", ".join(" ".join(lower[n] for n in access) for access in accesses) + " -> " + " ".join(lower[n] for n in out)
    )
    return low.einsum(spec.strip(), list(operands), shape)


def _dim_name(letter: str) -> str:
    return letter if letter.islower() or not letter.isalpha() else f"{letter.lower()}_"
