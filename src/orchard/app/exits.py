"""From what ended a command to its exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from orchard.app.output import PipeClosed, flush
from orchard.units.errors import OrchardError

ANSWER, DEFECT, USER, CONDITION, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 4, 130, 141
"""130 and 141 are what a shell reports for a program that SIGINT or SIGPIPE ended."""

# Typer carries its own copy of click since 0.26; the exceptions are reached through the names it exports.
UsageError: Any = typer.BadParameter.__mro__[1]
ClickException: Any = typer.BadParameter.__mro__[2]


def run(command: Any, arguments: Sequence[str]) -> int:
    """Run a click command and say how it ended. Never raises for anything a user or a pipe can cause."""
    _write_anything()
    try:
        returned = command.main(args=list(arguments), prog_name="orchard", standalone_mode=False)
        flush()
    except OrchardError as error:
        return _refuse(_one_line(str(error)))
    except UsageError as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "orchard"
        return _refuse(f"{_one_line(error.format_message())} (see `{path} --help`)")
    except ClickException as error:
        return _refuse(_one_line(error.format_message()))
    except (PipeClosed, BrokenPipeError):
        _drop_output()
        return PIPE_CLOSED
    except OSError as error:
        if error.errno not in NO_ROOM:
            return _defect()
        _drop_output()
        return _refuse(f"the output cannot be written: {error.strerror}; nothing was lost but this answer")
    except (KeyboardInterrupt, typer.Abort):
        print("orchard: interrupted", file=sys.stderr)
        return INTERRUPTED
    except typer.Exit as end:
        return int(end.exit_code)
    except Exception:
        return _defect()
    return returned if isinstance(returned, int) else ANSWER


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""A full disk, a quota, a broken device: for the user to mend."""


def _defect() -> int:
    traceback.print_exc()
    print("orchard: this is a defect of Orchard, not of your input; please report it", file=sys.stderr)
    return DEFECT


def _refuse(sentence: str) -> int:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        print(f"orchard: {sentence}", file=sys.stderr)
    return USER


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write_anything() -> None:
    """A terminal that cannot show a character gets a question mark, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _drop_output() -> None:
    """Nobody reads any more: whatever is still buffered goes nowhere, so that the interpreter ends quietly."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
