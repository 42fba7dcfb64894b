"""Sizes: an int, or an exact expression over declared symbols (batch, prompt, context).

An `Expr` is a polynomial with rational coefficients over *atoms*. An atom is a symbol or a call of one of a few
functions (`ceildiv`, `floordiv`, `min`, `max`, `distinct`) of other sizes. Polynomials are kept in one canonical form,
so equal expressions compare equal and print the same, and a count written with `+ - *` works for ints and for symbols
alike: the same cost rule yields a number for a bound graph and a closed form for a symbolic one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Union

from orchard.ir.errors import GraphError

if TYPE_CHECKING:
    import sympy

Number = int | float | Fraction
Size = Union[int, "Expr"]
"""What a tensor axis or a count may be: an int, or an expression that becomes an int once symbols are bound."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A declared symbol, e.g. `B` batch, `T` new tokens, `S` tokens attended to."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Call:
    """A function of sizes that is not a polynomial. `function` is a key of `FUNCTIONS`."""

    function: str
    arguments: tuple[Size | Fraction, ...]

    def __str__(self) -> str:
        return f"{self.function}({', '.join(str(a) for a in self.arguments)})"


Atom = Symbol | Call
Monomial = tuple[tuple[Atom, int], ...]


def _distinct(population: Number, draws: Number, rounds: Number) -> Number:
    """Expected number of distinct members among `rounds` draws of `draws` different ones out of `population`.

    Each round takes `draws` of `population` without replacement, rounds are independent and uniform, so a member is
    missed by all of them with probability (1 - draws/population)^rounds (the occupancy problem).
    """
    if rounds <= 0:
        return 0
    if rounds == 1 or draws >= population:
        return min(draws, population)
    return float(population) * -_expm1_log(1.0 - float(draws) / float(population), float(rounds))


def _expm1_log(base: float, exponent: float) -> float:
    from math import expm1, log

    return expm1(exponent * log(base))


FUNCTIONS: dict[str, Callable[..., Number]] = {
    "ceildiv": lambda a, b: -(-a // b),
    "floordiv": lambda a, b: a // b,
    "min": min,
    "max": max,
    "distinct": _distinct,
}


class Expr:
    """An immutable polynomial over atoms. Build it with `symbol`, arithmetic, and the functions below."""

    __slots__ = ("_hash", "_terms")

    def __init__(self, terms: Mapping[Monomial, Number]) -> None:
        self._terms: dict[Monomial, Number] = {m: _tidy(c) for m, c in sorted(terms.items(), key=_term_key) if c != 0}
        self._hash = hash(tuple(self._terms.items()))

    @classmethod
    def _ordered(cls, terms: dict[Monomial, Number]) -> Expr:
        """An expression of terms that are already tidy, without zeros, and in order."""
        made = cls.__new__(cls)
        made._terms = terms
        made._hash = hash(tuple(terms.items()))
        return made

    @property
    def terms(self) -> Mapping[Monomial, Number]:
        return self._terms

    def symbols(self) -> frozenset[str]:
        """Names of all symbols, those inside function calls included."""
        found: set[str] = set()
        for monomial in self._terms:
            for atom, _ in monomial:
                if isinstance(atom, Symbol):
                    found.add(atom.name)
                else:
                    for argument in atom.arguments:
                        if isinstance(argument, Expr):
                            found |= argument.symbols()
        return frozenset(found)

    def evaluate(self, bindings: Mapping[str, int]) -> Number:
        """The value with every symbol bound. Raises GraphError that names the first symbol without a value."""
        return _evaluate(self, bindings)

    def __add__(self, other: Size | Fraction) -> Size:
        terms = dict(self._terms)
        for monomial, coefficient in _terms_of(other).items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _simplest(terms)

    __radd__ = __add__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + (other * -1)

    def __rsub__(self, other: Size) -> Size:
        return (self * -1) + other

    def __mul__(self, other: Size | Fraction) -> Size:
        if not isinstance(other, Expr):
            if other == 0:
                return 0
            return Expr._ordered({monomial: _tidy(a * other) for monomial, a in self._terms.items()})
        terms: dict[Monomial, Number] = {}
        for left, a in self._terms.items():
            for right, b in _terms_of(other).items():
                monomial = _multiply(left, right)
                terms[monomial] = terms.get(monomial, 0) + a * b
        return _simplest(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self._terms == other._terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return _print(self)

    def __repr__(self) -> str:
        return f"Expr({self})"

    def __reduce__(self) -> tuple[type[Expr], tuple[dict[Monomial, Number]]]:
        return (Expr, (self._terms,))


@lru_cache(maxsize=1024)
def symbol(name: str) -> Expr:
    """The expression that is just the symbol `name` (a Python identifier)."""
    if not name.isidentifier():
        raise GraphError(f"size symbol {name!r}: expected an identifier such as 'B' or 'seq'")
    return Expr({((Symbol(name), 1),): 1})


def ceildiv(a: Size, b: Size) -> Size:
    """⌈a / b⌉ for positive b."""
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b)
    if b == 1:
        return a
    return _call("ceildiv", a, b)


def floordiv(a: Size, b: Size) -> Size:
    """⌊a / b⌋ for positive b; exact polynomial division where every coefficient divides."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if isinstance(a, Expr) and isinstance(b, int) and all(isinstance(c, int) and c % b == 0 for c in a.terms.values()):
        return _simplest({m: c // b for m, c in a.terms.items()})
    return _call("floordiv", a, b)


def minimum(a: Size, b: Size) -> Size:
    """The smaller of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return a if a == b else _call("min", *_ordered(a, b))


def maximum(a: Size, b: Size) -> Size:
    """The larger of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return a if a == b else _call("max", *_ordered(a, b))


def _ordered(a: Size, b: Size) -> tuple[Size, Size]:
    """Arguments of a commutative function in canonical order: expressions by their text, then numbers."""
    if isinstance(a, Expr) and isinstance(b, Expr):
        return (a, b) if str(a) <= str(b) else (b, a)
    return (a, b) if isinstance(a, Expr) else (b, a)


def distinct(population: int, draws: int, rounds: Size) -> Size | float:
    """Expected distinct members drawn, see `_distinct`; used for the experts that a batch of tokens touches."""
    if isinstance(rounds, int):
        value = _distinct(population, draws, rounds)
        return value if isinstance(value, int) else float(value)
    return _call("distinct", population, draws, rounds)


def product(sizes: Iterable[Size]) -> Size:
    """Product of sizes; 1 for none."""
    number = 1
    result: Size = 1
    for size in sizes:
        if isinstance(size, int):
            number *= size
        else:
            result = result * size
    return result * number


def symbols_of(size: Size) -> frozenset[str]:
    """Symbols of a size; none for an int."""
    return size.symbols() if isinstance(size, Expr) else frozenset()


def bind(size: Size, bindings: Mapping[str, int]) -> int:
    """The integer value of `size`. Raises GraphError for an unbound symbol or a result that is not a whole number."""
    if isinstance(size, int):
        return size
    value = size.evaluate(bindings)
    if value != int(value):
        raise GraphError(f"size {size}: {dict(bindings)} gives {float(value)}, expected a whole number")
    return int(value)


def substitute(size: Size, bindings: Mapping[str, Size]) -> Size:
    """`size` with some symbols replaced by sizes; the others stay."""
    if isinstance(size, int) or not size.symbols() & bindings.keys():
        return size
    total: Size = 0
    for monomial, coefficient in size.terms.items():
        factor: Any = coefficient
        for atom, power in monomial:
            replaced = _substitute_atom(atom, bindings)
            for _ in range(power):
                factor = replaced * factor
        total = total + factor
    return total if isinstance(total, Expr) else _tidy(total)  # type: ignore[return-value]


def value_of(size: Size | float | Fraction, bindings: Mapping[str, int]) -> float:
    """`size` as a float with symbols bound: what a count becomes before it meets hardware parameters."""
    return float(size.evaluate(bindings)) if isinstance(size, Expr) else float(size)


def to_sympy(size: Size) -> sympy.Expr:
    """The same size as a sympy expression with positive integer symbols (imports sympy)."""
    import sympy

    functions: dict[str, Callable[..., sympy.Expr]] = {
        "ceildiv": lambda a, b: sympy.ceiling(a / b),
        "floordiv": lambda a, b: sympy.floor(a / b),
        "min": sympy.Min,
        "max": sympy.Max,
        "distinct": lambda n, k, r: n * (1 - (1 - sympy.Rational(k, n)) ** r),
    }

    def convert(value: Size | Number) -> sympy.Expr:
        if not isinstance(value, Expr):
            return (
                sympy.Rational(value.numerator, value.denominator)
                if isinstance(value, Fraction)
                else sympy.sympify(value)
            )
        total = sympy.Integer(0)
        for monomial, coefficient in value.terms.items():
            term = convert(coefficient)
            for atom, power in monomial:
                if isinstance(atom, Symbol):
                    base = sympy.Symbol(atom.name, positive=True, integer=True)
                else:
                    base = functions[atom.function](*(convert(a) for a in atom.arguments))
                term *= base**power
            total += term
        return total

    return convert(size)


def parse_size(text: str) -> Size:
    """Read what `str` prints. Raises GraphError with the offending text."""
    import ast

    if len(text) > 2000:
        raise GraphError(f"size of {len(text)} characters: expected at most 2000")
    try:
        return _from_ast(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        raise GraphError(f"size {text!r}: expected an integer or an expression such as 'B*(S+1)'") from None


def _from_ast(node: Any, text: str) -> Size:
    import ast

    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return _bounded(value, text)
        case ast.Constant(value=float() as number) if number * 0 == 0:  # a coefficient of an expected count
            return number  # type: ignore[return-value]
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _from_ast(operand, text) * -1
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _from_ast(left, text) + _from_ast(right, text)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _from_ast(left, text) - _from_ast(right, text)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _multiplied([_from_ast(left, text), _from_ast(right, text)], text)
        case ast.BinOp(left=left, op=ast.Div(), right=ast.Constant(value=int() as divisor)) if divisor:
            scaled: Any = _from_ast(left, text) * Fraction(1, divisor)
            return _tidy(scaled) if isinstance(scaled, Fraction) else scaled  # type: ignore[return-value]
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as power)) if 0 <= power <= 16:
            return _multiplied([_from_ast(left, text)] * power, text)
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]) if function in FUNCTIONS:
            parts = [_from_ast(a, text) for a in arguments]
            builders: dict[str, Any] = {
                "ceildiv": ceildiv, "floordiv": floordiv, "min": minimum, "max": maximum, "distinct": distinct,
            }  # fmt: skip
            if len(parts) == (3 if function == "distinct" else 2):
                return builders[function](*parts)  # type: ignore[no-any-return]
    raise GraphError(f"size {text!r}: expected integers, symbols, + - * and {', '.join(FUNCTIONS)}")


def _multiplied(factors: Sequence[Size], text: str) -> Size:
    """The product, as long as it stays small: text is somebody else's, and (a+b)**16 nested a few times is a bomb."""
    result: Size = 1
    for factor in factors:
        if len(_terms_of(result)) * len(_terms_of(factor)) > 1000:
            raise GraphError(f"size {text[:60]!r}: the product has too many terms, expected at most 1000")
        result = _bounded(result * factor, text)
    return result


def _bounded(size: Size, text: str) -> Size:
    if any(not -(10**60) <= coefficient <= 10**60 for coefficient in _terms_of(size).values()):
        raise GraphError(f"size {text[:60]!r}: a number is too large, expected at most 10^60")
    return size


def _call(function: str, *arguments: Size) -> Expr:
    return Expr({((Call(function, arguments), 1),): 1})


def _substitute_atom(atom: Atom, bindings: Mapping[str, Size]) -> Size | float:
    if isinstance(atom, Symbol):
        return bindings.get(atom.name, symbol(atom.name))
    builders: dict[str, Callable[..., Size | float]] = {
        "ceildiv": ceildiv, "floordiv": floordiv, "min": minimum, "max": maximum, "distinct": distinct,
    }  # fmt: skip
    return builders[atom.function](
        *(substitute(a, bindings) if isinstance(a, (int, Expr)) else a for a in atom.arguments)
    )


def _evaluate(value: Size | Number, bindings: Mapping[str, int]) -> Number:
    if not isinstance(value, Expr):
        return value
    total: Number = 0
    for monomial, coefficient in value.terms.items():
        term = coefficient
        for atom, power in monomial:
            if isinstance(atom, Symbol):
                if atom.name not in bindings:
                    known = ", ".join(sorted(bindings)) or "none"
                    raise GraphError(f"size {value}: symbol {atom.name!r} has no value (bound: {known})")
                base: Number = bindings[atom.name]
            else:
                base = FUNCTIONS[atom.function](*(_evaluate(a, bindings) for a in atom.arguments))
            term = term * base**power
        total = total + term
    return total


def _tidy(value: Number) -> Number:
    """A whole Fraction as int, so that equal coefficients print and compare alike."""
    return int(value) if isinstance(value, Fraction) and value.denominator == 1 else value


def _terms_of(value: Size | Number) -> Mapping[Monomial, Number]:
    return value.terms if isinstance(value, Expr) else {(): value}


def _simplest(terms: Mapping[Monomial, Number]) -> Size:
    """A plain number where no symbol is left, else an Expr."""
    kept = {m: c for m, c in terms.items() if c != 0}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return _tidy(kept[()])  # type: ignore[return-value]
    return Expr(kept)


def _multiply(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: str(item[0])))


def _term_key(item: tuple[Monomial, Number]) -> tuple[int, str]:
    monomial = item[0]
    return (-sum(power for _, power in monomial), "*".join(f"{atom}^{power}" for atom, power in monomial))


def _print(expr: Expr) -> str:
    parts: list[str] = []
    for monomial, coefficient in expr.terms.items():
        factors = [str(atom) if power == 1 else f"{atom}**{power}" for atom, power in monomial]
        sign, magnitude = ("-", -coefficient) if coefficient < 0 else ("+", coefficient)
        denominator = ""
        if isinstance(magnitude, Fraction):
            magnitude, denominator = magnitude.numerator, f"/{magnitude.denominator}"
        if magnitude != 1 or not factors:
            factors.insert(0, repr(magnitude) if isinstance(magnitude, float) else str(magnitude))
        parts.append(f"{sign} {'*'.join(factors)}{denominator}")
    text = " ".join(parts)
    return text[2:] if text.startswith("+ ") else "-" + text[2:]
