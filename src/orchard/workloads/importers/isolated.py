"""Parsers written in C++ run in a process of their own: a damaged file then ends that process, not ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from orchard.workloads.importers.errors import ImportError_

TIMEOUT_S = 300


def run_isolated(module: str, where: str, *arguments: str) -> Any:
    """What `python -m module arguments` prints as JSON on its last line.

    Raises ImportError_ when it ends otherwise: its own sentence if it has one, else how it died.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}  # the same modules as here
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise ImportError_(f"{where}: not read within {TIMEOUT_S} s") from None
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    try:
        result = json.loads(lines[-1]) if lines else None
    except ValueError:
        result = None
    if isinstance(result, dict) and "error" in result:
        raise ImportError_(f"{where}: {result['error']}")
    if done.returncode != 0 or result is None:
        raise ImportError_(f"{where}: damaged or not of this format (its reader ended with {done.returncode})")
    return result


def answer(main: Callable[[str], None]) -> None:
    """Run an isolated parser on the file of the command line; an error of ours is its answer."""
    try:
        main(sys.argv[1])
    except ImportError_ as error:
        reply({"error": str(error)})


def reply(result: Any) -> None:
    """Print the answer of an isolated parser."""
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()
