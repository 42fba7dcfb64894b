"""Convolutional and attention networks on images, one architecture a file; `orchard.workloads.networks` lists them."""

from orchard.workloads.networks import NETWORKS, Network, build_network, network

__all__ = ["NETWORKS", "Network", "build_network", "network"]
