"""Measuring the machine at hand: timers, devices, microbenchmarks, whole models, energy; runs as folders. Layer 4."""
