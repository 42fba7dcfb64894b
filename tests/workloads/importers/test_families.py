"""The quick model families against torch's own counter; benchmarks/importers/families.py runs all of them."""

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from orchard.ir.count import macs  # noqa: E402
from orchard.workloads.importers import import_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "importers" / "families.py"


@pytest.mark.parametrize("name", ["convnext", "distilbert", "unet"])
def test_counts_equal_torchs(name):
    if not BENCHMARK.is_file():
        pytest.skip("benchmarks are not here")
    spec = importlib.util.spec_from_file_location("families", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ours, torchs, stored, parameters = module.counts(name)
    assert ours == torchs > 0
    assert stored == parameters


def test_recurrent_layers():
    """LSTM and GRU against their definition: four or three gates, input and state products per step and direction."""

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(8, 16, batch_first=True, bidirectional=True)
            self.gru = torch.nn.GRU(32, 12, batch_first=True)

        def forward(self, x):
            return self.gru(self.lstm(x)[0])[0]

    imported = import_model(Both(), {"x": (2, 5, 8)})
    assert macs(imported.graph) == 2 * 5 * (2 * 4 * 16 * (8 + 16) + 3 * 12 * (32 + 12))
