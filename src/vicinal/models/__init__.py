"""Networks by name."""

from vicinal.models.external import imported_module
from vicinal.models.fast_cnn import FastCNN
from vicinal.models.registry import NETWORKS, build, check_name, mixing_layers

__all__ = ["NETWORKS", "FastCNN", "build", "check_name", "imported_module", "mixing_layers"]
