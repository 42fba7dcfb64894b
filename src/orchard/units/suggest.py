"""Nearest names, for error messages."""

from __future__ import annotations

from collections.abc import Iterable


def edit_distance(a: str, b: str, limit: int | None = None) -> int:
    """Levenshtein distance. With `limit`, any value above it may come back as limit + 1 (the row is cut short)."""
    if limit is not None and abs(len(a) - len(b)) > limit:
        return limit + 1
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
        if limit is not None and min(row) > limit:
            return limit + 1
    return row[-1]


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of `names` that look like `name`, best first; ties in alphabetical order. May be empty.

    A name is near when it differs in at most a third of the longer spelling (but two edits are always near), or when
    one spelling starts with the other. Separators and case do not count.
    """
    wanted = _bare(name[:80])
    if not wanted:
        return []
    scored: list[tuple[int, str]] = []
    for candidate in set(names):
        bare = _bare(candidate)
        limit = max(2, max(len(wanted), len(bare)) // 3)
        distance = edit_distance(wanted, bare, limit)
        if distance <= min(limit, len(wanted) - 1):
            scored.append((distance, candidate))
        elif len(wanted) >= 2 and (bare.startswith(wanted) or wanted.startswith(bare)):
            scored.append((limit + 1, candidate))
    return [candidate for _, candidate in sorted(scored)[:count]]


def did_you_mean(name: str, names: Iterable[str], count: int = 3) -> str:
    """'; did you mean a, b or c?' or '' when nothing is near. Meant to follow the statement of the error."""
    found = nearest(name, names, count)
    if not found:
        return ""
    listed = found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"
    return f"; did you mean {listed}?"


def _bare(name: str) -> str:
    return "".join(c for c in name.lower() if c not in " _-.")
