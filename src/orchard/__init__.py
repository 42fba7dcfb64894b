"""Orchard: how a machine-learning workload will run on a SoC, before the device is in hand."""
