"""New ideas, priced and tried: joint search of techniques, allocations with a proof, sheets with a verdict."""
