"""Layer 6: records to terminal tables, JSON schemas and figures. Computes nothing that a record does not hold."""
