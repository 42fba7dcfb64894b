"""The quick model families against torch's own counter; benchmarks/importers/families.py runs all of them."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from orchard.ir.count import macs  # noqa: E402
from orchard.workloads.importers import import_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", ["convnext", "distilbert", "unet xl", "mobilenet v4", "yolo", "gru"])
def test_counts_equal_torchs(benchmark_module, name):
    ours, torchs, stored, parameters = benchmark_module("families").counts(name)
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
