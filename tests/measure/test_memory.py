"""Resident memory of a step, measured in a process of its own because the allocator is pinned for good."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")

PROGRAM = """
import torch
from orchard.measure.programs import Program, calling
from orchard.measure.timer import Plan
from orchard.measure.torch_device import TorchDevice

def build():
    kept = torch.ones(2**24)
    thrown_away = [torch.ones(2**24) for _ in range(3)]
    return calling(lambda x: x + 1.0, kept)

device = TorchDevice("cpu")
print(device.open())
print(device.measure(Program("sum", "model", build), Plan(budget_s=0.05), operations=True).measured_bytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_what_building_throws_away_is_not_counted() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    allocator, measured = done.stdout.split("\n")[:2]
    assert allocator.startswith("glibc, pinned")
    # 64 MiB stay and 64 MiB are the result; the 192 MiB of building are gone. A twentieth for the libraries' first call.
    assert int(measured) == pytest.approx(2 * 2**26, rel=0.05)
