"""Where things are printed: results to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def show(content: Any) -> None:
    """A rich renderable to stdout."""
    from orchard.report.layout import make_console

    make_console(sys.stdout).print(content)


def print_json(record: Any) -> None:
    """Strict JSON (no NaN) on stdout, keys in the order of the record."""
    import json

    print(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))


def note(text: str) -> None:
    """A line for people to stderr, after what stdout holds so far."""
    sys.stdout.flush()
    print(f"orchard: {text}", file=sys.stderr)


def warn(warnings: Iterable[str]) -> None:
    sys.stdout.flush()
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
