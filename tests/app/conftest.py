"""Running the command line: in this process for speed, or as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import orchard
from orchard.app.cli import main


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """run("predict", "llama-3.1-8b", ...) in this process."""

    def call(*arguments: str) -> Ended:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return call


@pytest.fixture
def shell() -> Run:
    """The same in a process of its own, as a user runs it."""

    def call(*arguments: str, timeout: float = 60) -> Ended:
        source = str(Path(orchard.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-m", "orchard", *arguments], capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, "PYTHONPATH": source},
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    return call
