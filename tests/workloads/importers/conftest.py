"""The importers' benchmarks, whose quick cases run in the suite."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "importers"


@pytest.fixture(scope="session")
def benchmark_module():
    """Modules of benchmarks/importers by name, which import each other."""
    if not BENCHMARKS.is_dir():
        pytest.skip("benchmarks are not here")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module


@pytest.fixture(scope="session")
def networks(benchmark_module):
    return benchmark_module("networks")
