"""Where things are printed: results to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


class PipeClosed(Exception):  # noqa: N818 - no error: whoever read our output has seen enough
    """The reader of stdout went away. No OSError, which the command-line library would answer by exit code 1."""


def show(content: Any) -> None:
    """A rich renderable to stdout."""
    from orchard.report.layout import make_console

    try:
        make_console(sys.stdout).print(content)
    except BrokenPipeError:
        raise PipeClosed from None


def print_text(text: str) -> None:
    """Lines to stdout as they are."""
    try:
        print(text)
    except BrokenPipeError:
        raise PipeClosed from None


def print_json(record: Any) -> None:
    """Strict JSON (no NaN) on stdout, keys in the order of the record."""
    import json

    print_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))


def flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise PipeClosed from None


def note(text: str) -> None:
    """A line for people to stderr, after what stdout holds so far."""
    flush()
    print(f"orchard: {text}", file=sys.stderr)


def warn(warnings: Iterable[str]) -> None:
    flush()
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
