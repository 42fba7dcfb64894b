"""The importers' benchmarks, whose quick cases run in the suite."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "importers"


@pytest.fixture(scope="session")
def networks():
    """benchmarks/importers/networks.py as a module."""
    path = BENCHMARKS / "networks.py"
    if not path.is_file():
        pytest.skip("benchmarks are not here")
    spec = importlib.util.spec_from_file_location("networks_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(BENCHMARKS))
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(BENCHMARKS))
    del sys.modules[spec.name]
