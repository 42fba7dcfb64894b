"""Core ML: ML programs (.mlpackage, .mlmodel) and, through `network`, the old neural-network format.

The specification is read with our own wire reader, so coremltools (3 s to import) is not needed and weight files are never
opened: every tensor's type is in the program. Compressed weights (constexpr_* ops, nested ones too) become one weight in
the format that is stored, with its true bytes.
"""

from orchard.workloads.importers.coreml import (  # the modules register their rules
    compressed,
    compute,
    elementwise,
    layout,
    network_layers,
    network_layout,
)
from orchard.workloads.importers.coreml.model import import_coreml

__all__ = ["compressed", "compute", "elementwise", "import_coreml", "layout", "network_layers", "network_layout"]
