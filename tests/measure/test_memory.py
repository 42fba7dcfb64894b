"""Resident memory of a step: what counts and what does not."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from orchard.measure.programs import Program, Step, calling
from orchard.measure.timer import Plan

torch = pytest.importorskip("torch")
PART = 2**23
"""Elements of a tensor of 32 MiB in f32."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_imports_and_what_building_throws_away_are_not_counted() -> None:
    from orchard.measure.torch_device import TorchDevice

    imported: list[bytes] = []

    def build() -> Step:
        if not imported:
            imported.append(b"1" * (32 * 2**20))  # as a library's tables
        kept = torch.ones(PART)
        thrown_away: list[Any] = [torch.ones(PART)]
        thrown_away.append(thrown_away)  # a cycle: only the collector frees it
        return calling(lambda x: x + 1.0, kept)

    device = TorchDevice("cpu")
    sample = device.measure(Program("sum", "model", build), Plan(budget_s=0.02), operations=True)
    # 32 MiB stay and 32 MiB are the result; a twentieth for the libraries' first call
    assert sample.measured_bytes == pytest.approx(2 * 2**25, rel=0.05)
