"""PyTorch: a live module (weights may be on the meta device), an ExportedProgram, or a `.pt2` file.

The exported graph is read as it is, without `run_decompositions`: linear, convolution, attention and norms stay
whole, and a
32-layer model takes seconds instead of a minute. Shapes come from the export's own fake tensors, so symbolic sizes are
exact. Mixture-of-experts blocks of transformers are exported as one op (see `_experts_op`), because their grouped
kernels
have no meta implementation and their batched fallback would gather expert weights per token.

A `.pt2` is a zip archive whose program is JSON; `torch.export.load` reads tensors and constants through
`torch.load(weights_only=True)`, which refuses arbitrary pickles. A `.pt`/`.pth` file is a pickle that runs code when it
is loaded, so it is refused.
"""

from orchard.workloads.importers.torch_export import (  # the modules register their rules
    contractions,
    elementwise,
    kernels,
    layout,
    norms,
    quantized,
)
from orchard.workloads.importers.torch_export.model import import_torch

__all__ = ["contractions", "elementwise", "import_torch", "kernels", "layout", "norms", "quantized"]
