"""Chains as text.

    attention:h=12,m=2048,p=2048,e=64        m queries, p keys, head size e; kv= heads of K and V, f= head size of V, b= batch,
                                             softmax=0 leaves the softmax out
    mlp:m=512,d=4096,f=11008                 down(act(up(x))); act=relu, gated=1 (two up projections, one gates), out=
    convs:c=64,k=64x64x256,r=1x3x1,p=56,q=56 convolutions in a row; p and q are the last output's; s= and stride= likewise
    S[h,m,p] = Q[h,m,e] * K[h,p,e]; P[h,m,p] = softmax[p](S[h,m,p]); O[h,m,f] = P[h,m,p] * V[h,p,f]; h=2,m=8,p=8,e=4,f=4

In the free form ops stand between semicolons and sizes come last. `name = kind(inputs)` is work of the vector unit, `kind[dim]`
names the dim that a softmax runs over. An index may be a window: `Z[k,p] = Y[c,p+r] * W[k,c,r]`; the size of a dim that only an
intermediate has follows from its readers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from orchard.ir import Einsum
from orchard.ir.einsum import Access, Axis
from orchard.mapping.chain import Chain, Op, VectorOp, extent
from orchard.mapping.errors import MappingError
from orchard.mapping.ops import parse_op, parse_sizes
from orchard.mapping.problem import Problem

_VECTOR = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\[\s*([A-Za-z_]\w*)\s*\])?\s*\((.*)\)\s*\Z", re.DOTALL)
_TENSOR = re.compile(r"\s*([A-Za-z_]\w*)\s*\[([^\[\]]*)\]\s*\Z")
_SIZES = re.compile(r"\s*[A-Za-z_]\w*\s*=\s*\d+\s*(,\s*[A-Za-z_]\w*\s*=\s*\d+\s*)*,?\s*\Z")


def is_chain(text: str) -> bool:
    """Whether a text names more than one op."""
    head = text.partition(":")[0].strip()
    return head in _SHORTHANDS or len([p for p in text.split(";") if "[" in p]) > 1 or _vector_side(text)


def _vector_side(text: str) -> bool:
    first = text.partition(";")[0]
    return "=" in first and _VECTOR.match(first.partition("=")[2]) is not None


def parse_chain(text: str, sizes: Mapping[str, int] | None = None) -> Chain:
    """Read a chain, or a single op as a chain of one. Raises MappingError with what was expected."""
    head, _, rest = text.partition(":")
    if head.strip() in _SHORTHANDS and "[" not in text:
        return _SHORTHANDS[head.strip()](_options(head.strip(), rest, dict(sizes or {})))
    parts = [part.strip() for part in text.split(";") if part.strip()]
    given = dict(sizes or {})
    if parts and _SIZES.match(parts[-1]):
        given = {**parse_sizes(parts.pop()), **given}
    if not any("[" in part for part in parts):
        problem = parse_op(text, sizes)
        return Chain(problem.name, (problem,), problem.sizes)
    return _free(parts, given)


# -- shorthands --------------------------------------------------------------------------------------------------------------
def _options(kind: str, text: str, sizes: dict[str, int]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = re.fullmatch(r"([A-Za-z_]\w*)\s*=\s*([\w]+)", part)
        if match is None:
            raise MappingError(f"{kind}: {part[:40]!r} is no size, expected e.g. 'm=64'")
        if match[1] in found:
            raise MappingError(f"{kind}: {match[1]} is given twice")
        found[match[1]] = match[2]
    return {**found, **{name: str(value) for name, value in sizes.items()}}


class _Options:
    """Options of one shorthand, read one by one; what is left over is unknown."""

    def __init__(self, kind: str, given: dict[str, str], known: str) -> None:
        self.kind, self.given, self.known = kind, given, known.split()
        for name in given:
            if name not in self.known:
                raise MappingError(f"{kind}: unknown {name!r}, known: {', '.join(self.known)}")

    def number(self, name: str, default: int | None = None) -> int:
        text = self.given.get(name)
        if text is None:
            if default is None:
                raise MappingError(f"{self.kind}: {name} is missing, known: {', '.join(self.known)}")
            return default
        if not re.fullmatch(r"\d{1,13}", text):
            raise MappingError(f"{self.kind}: {name} is {text[:40]!r}, expected a whole number")
        return int(text)

    def numbers(self, name: str, count: int | None, default: int | None = None) -> list[int]:
        """A list as `64x64x256`; one number stands for all when the length is known."""
        text = self.given.get(name)
        if text is None and default is not None and count is not None:
            return [default] * count
        parts = (text or "").split("x")
        if text is None or not all(re.fullmatch(r"\d{1,9}", p) for p in parts):
            raise MappingError(f"{self.kind}: {name} is {text!r}, expected e.g. {name}=64x64x256")
        if count is not None and len(parts) == 1:
            parts = parts * count
        if count is not None and len(parts) != count:
            raise MappingError(f"{self.kind}: {name} has {len(parts)} entries, expected {count} (one per convolution)")
        return [int(p) for p in parts]


def _attention(given: dict[str, str]) -> Chain:
    opts = _Options("attention", given, "b h kv m p e f softmax")
    heads, m, p, e = (opts.number(n) for n in "hmpe")
    kv, f, batch = opts.number("kv", heads), opts.number("f", e), opts.number("b", 1)
    if kv < 1 or heads % kv:
        raise MappingError(f"attention: {kv} heads of K and V do not divide h={heads}")
    b = "b," if batch > 1 else ""
    g = "g," if 1 < kv < heads else ""
    shared = g or ("" if kv == 1 and heads > 1 else "h,")
    s, ks = f"{b}{g}h,", f"{b}{shared}"
    score = f"S[{s}m,p] = Q[{s}m,e] * K[{ks}p,e]"
    soft = f"P[{s}m,p] = softmax[p](S[{s}m,p])"
    if opts.number("softmax", 1):
        texts = [score, soft, f"O[{s}m,f] = P[{s}m,p] * V[{ks}p,f]"]
    else:
        texts = [score, f"O[{s}m,f] = S[{s}m,p] * V[{ks}p,f]"]
    sizes = {"h": heads // kv if g else heads, "m": m, "p": p, "e": e, "f": f}
    sizes |= ({"g": kv} if g else {}) | ({"b": batch} if b else {})
    return replace(_free(texts, sizes), name="attention")


def _mlp(given: dict[str, str]) -> Chain:
    opts = _Options("mlp", given, "m d f out act gated")
    sizes = {"m": opts.number("m"), "d": opts.number("d"), "f": opts.number("f")}
    sizes["n"] = opts.number("out", sizes["d"])
    act = opts.given.get("act", "relu")
    if not re.fullmatch(r"[A-Za-z_]\w*", act):
        raise MappingError(f"mlp: act is {act!r}, expected a kind such as relu or gelu, or none")
    if opts.number("gated", 0):
        texts = ["G[m,f] = X[m,d] * WG[d,f]", "U[m,f] = X[m,d] * WU[d,f]"]
        texts += [] if act == "none" else [f"A[m,f] = {act}(G[m,f])"]
        texts += [f"H[m,f] = mul({'G' if act == 'none' else 'A'}[m,f], U[m,f])"]
    else:
        texts = ["U[m,f] = X[m,d] * WU[d,f]"] + ([] if act == "none" else [f"H[m,f] = {act}(U[m,f])"])
    hidden = "U" if act == "none" and not opts.number("gated", 0) else "H"
    return replace(_free([*texts, f"Y[m,n] = {hidden}[m,f] * WD[f,n]"], sizes), name="mlp")


def _convs(given: dict[str, str]) -> Chain:
    opts = _Options("convs", given, "n c k r s stride p q act")
    ks = opts.numbers("k", None)
    count = len(ks)
    rs, strides = opts.numbers("r", count, 1), opts.numbers("stride", count, 1)
    ss = opts.numbers("s", count) if "s" in given else rs
    if min([*ks, *rs, *ss, *strides]) < 1:
        raise MappingError("convs: k, r, s and stride are whole numbers >= 1")
    act, n = opts.given.get("act", "none"), ("n," if "n" in given else "")
    sizes = {"k0": opts.number("c"), **{f"k{i + 1}": k for i, k in enumerate(ks)}}
    sizes |= {f"p{count}": opts.number("p"), f"q{count}": opts.number("q")}
    sizes |= {"n": opts.number("n")} if n else {}
    texts, source = [], "T0"
    for i in range(1, count + 1):
        step = "" if strides[i - 1] == 1 else f"{strides[i - 1]}*"
        window = f"{step}p{i}+r{i},{step}q{i}+s{i}"
        sizes |= {f"r{i}": rs[i - 1], f"s{i}": ss[i - 1]}
        texts.append(f"T{i}[{n}k{i},p{i},q{i}] = {source}[{n}k{i - 1},{window}] * W{i}[k{i},k{i - 1},r{i},s{i}]")
        source = f"T{i}"
        if act != "none" and i < count:
            texts.append(f"A{i}[{n}k{i},p{i},q{i}] = {act}(T{i}[{n}k{i},p{i},q{i}])")
            source = f"A{i}"
    return replace(_free(texts, sizes), name="convs")


_SHORTHANDS = {"attention": _attention, "mlp": _mlp, "convs": _convs}


# -- the free form -----------------------------------------------------------------------------------------------------------
def _free(texts: list[str], sizes: dict[str, int]) -> Chain:
    drafts = [_draft(text) for text in texts]
    drafts = _thin_windows(drafts, sizes)
    drafts, sizes = _joined_dims(drafts, sizes)
    sizes = _inferred(drafts, sizes)
    used = {d for _, _, _, accesses in drafts for access in accesses for axis in access for d in axis.dims}
    for dim in sizes:
        if dim not in used:
            raise MappingError(f"chain: size given for {dim!r}, which is no dim of it")
    ops = tuple(_op(draft, sizes) for draft in drafts)
    return Chain(ops[0].output if len(ops) == 1 else "chain", ops, {d: sizes[d] for d in sizes if d in used})


_Draft = tuple[str, "str | None", tuple[str, ...], tuple[Access, ...]]
"""(kind or "", over, tensors with the output last, accesses in the same order)"""


def _draft(text: str) -> _Draft:
    left, equals, right = text.partition("=")
    if not equals:
        raise MappingError(f"op {text[:80]!r}: expected 'C[m,n] = A[m,k] * B[k,n]' or 'P[m,n] = relu(S[m,n])'")
    vector = _VECTOR.match(right)
    sign, operands = (",", vector[3]) if vector is not None else (r"\*", right)
    factors = re.split(sign + r"(?![^\[]*\])", operands)
    names, accesses = [], []
    for part in [*factors, left]:
        match = _TENSOR.match(part)
        if match is None:
            raise MappingError(f"op {text.strip()[:80]!r}: {part.strip()[:40]!r} is no tensor, expected e.g. 'A[m,k]'")
        names.append(match[1])
        accesses.append(tuple(_axis(axis, text) for axis in match[2].split(",")))
    if any(not axis.is_plain for axis in accesses[-1]):
        raise MappingError(f"op {text.strip()[:80]!r}: an index of the output is no plain dim")
    if vector is not None and any(not axis.is_plain for access in accesses for axis in access):
        raise MappingError(f"op {text.strip()[:80]!r}: elementwise work reads plain dims only, no windows")
    return (vector[1] if vector else "", vector[2] if vector else None, tuple(names), tuple(accesses))


def _axis(text: str, where: str) -> Axis:
    terms = []
    for term in text.strip().strip("()").split("+"):
        match = re.fullmatch(r"\s*(?:(\d{1,6})\s*\*\s*)?([A-Za-z_]\w*)\s*", term)
        if match is None or match[1] == "0":
            raise MappingError(f"op {where.strip()[:80]!r}: {term.strip()[:40]!r} is no index, expected 'm' or '2*p+r'")
        terms.append((int(match[1] or 1), match[2]))
    return Axis(tuple(terms))


def _thin_windows(drafts: list[_Draft], sizes: Mapping[str, int]) -> list[_Draft]:
    """A window whose filter has one tap and whose stride is 1 is a plain axis: `p+r` with r=1 is p."""

    def thin(axis: Axis, made: set[str]) -> Axis:
        left = tuple((c, d) for c, d in axis.terms if sizes.get(d) != 1 or d in made)
        return Axis(left) if len(axis.terms) > 1 and len(left) == 1 and left[0][0] == 1 else axis

    def taps(accesses: tuple[Access, ...]) -> tuple[Access, ...]:
        made = {d for axis in accesses[-1] for d in axis.dims}
        return tuple(tuple(thin(axis, made) for axis in access) for access in accesses)

    return [(kind, over, names, taps(accesses)) for kind, over, names, accesses in drafts]


def _joined_dims(drafts: list[_Draft], sizes: dict[str, int]) -> tuple[list[_Draft], dict[str, int]]:
    """Give a dim of an intermediate one name: a producer's dim takes the name that its reader uses for the same plain axis."""
    drafts = list(drafts)
    for i in reversed(range(len(drafts))):
        output = drafts[i][2][-1]
        for j in range(i + 1, len(drafts)):
            if output not in drafts[j][2][:-1]:
                continue
            theirs = drafts[j][3][drafts[j][2].index(output)]
            mine = drafts[i][3][-1]
            if len(theirs) != len(mine):
                raise MappingError(f"chain: {output} has {len(mine)} axes where written, {len(theirs)} where read")
            for a, b in zip(mine, theirs):
                if a != b and b.is_plain:
                    drafts, sizes = _renamed(drafts, sizes, a.dims[0], b.dims[0], output, upto=i)
    return drafts, sizes


def _renamed(
    drafts: list[_Draft], sizes: dict[str, int], old: str, new: str, tensor: str, *, upto: int
) -> tuple[list[_Draft], dict[str, int]]:
    if old in sizes and new in sizes and sizes[old] != sizes[new]:
        raise MappingError(f"chain: {tensor} has {old}={sizes[old]} where written and {new}={sizes[new]} where read")
    for draft in drafts:
        names = {d for access in draft[3] for axis in access for d in axis.dims}
        if {old, new} <= names:
            raise MappingError(f"chain: {tensor} is written with {old!r} and read with {new!r}; use one name for one dim")
    if any(new in {d for access in draft[3] for axis in access for d in axis.dims} for draft in drafts[: upto + 1]):
        raise MappingError(f"chain: {tensor} is read with {new!r} where it has {old!r}; use one name for one dim")

    def rename(axis: Axis) -> Axis:
        return Axis(tuple((c, new if d == old else d) for c, d in axis.terms))

    changed = [
        (kind, new if over == old else over, names, tuple(tuple(rename(a) for a in access) for access in accesses))
        for kind, over, names, accesses in drafts
    ]
    kept = {new if d == old else d: n for d, n in sizes.items()}
    return changed, kept


def _inferred(drafts: list[_Draft], sizes: dict[str, int]) -> dict[str, int]:
    """Sizes of dims that readers' windows fix, from the last op to the first."""
    sizes = dict(sizes)
    for i in reversed(range(len(drafts))):
        output, mine = drafts[i][2][-1], drafts[i][3][-1]
        for draft in drafts[i + 1 :]:
            if output in draft[2][:-1]:
                for a, b in zip(mine, draft[3][draft[2].index(output)]):
                    if all(d in sizes for d in b.dims):
                        sizes.setdefault(a.dims[0], extent(b, sizes))
    return sizes


def _op(draft: _Draft, sizes: Mapping[str, int]) -> Op:
    kind, over, names, accesses = draft
    dims = {d for access in accesses for axis in access for d in axis.dims}
    if kind:
        missing = [d for d in sorted(dims) if d not in sizes]
        if missing:
            raise MappingError(f"{names[-1]}: dim {missing[0]!r} has no size, expected e.g. {missing[0]}=64")
        for t, access in zip(names[:-1], accesses):
            extra = [a.dims[0] for a in access if a not in accesses[-1]]
            if extra:
                raise MappingError(f"{names[-1]}: {kind} reads {t} with {extra[0]!r}, which {names[-1]} does not have")
        return VectorOp(kind, names[-1], names[:-1], accesses, over)
    if len(set(names)) != len(names):
        raise MappingError(f"{names[-1]}: a tensor stands twice in one op, which the mapper does not support")
    return Problem(names[-1], Einsum(accesses[:-1], accesses[-1]), {d: s for d, s in sizes.items() if d in dims}, names)
