"""Layer 3: counts of ops and bytes, then time and energy on a machine."""
