"""Layer 5: the one place that wires things. Predictions, comparisons, validation, calibration."""
