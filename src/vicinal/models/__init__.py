"""Networks by name."""

from vicinal.models.registry import NETWORKS, build, mixing_places

__all__ = ["NETWORKS", "build", "mixing_places"]
