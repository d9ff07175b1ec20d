"""The papers' classification networks, built of the layers of ``emboundary.model``."""

from emboundary.training.networks.building import NetworkConfig, build_network

__all__ = ["NetworkConfig", "build_network"]
