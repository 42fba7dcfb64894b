"""Convolutional and attention networks on images, one architecture a file."""

from orchard.workloads.vision.catalog import NETWORKS, Network, build_network, network

__all__ = ["NETWORKS", "Network", "build_network", "network"]
