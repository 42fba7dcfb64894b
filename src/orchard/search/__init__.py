"""Layer 3: searches that own no cost model; the caller brings evaluation and bounds."""

from orchard.search.layered import Batch, Model, Outcome, Slot, Trail, solve

__all__ = ["Batch", "Model", "Outcome", "Slot", "Trail", "solve"]
