"""Networks by name, their initial weights, and the inputs that these expect."""

from vicinal.models.dropout import set_dropout
from vicinal.models.external import imported_module
from vicinal.models.fast_cnn import FastCNN
from vicinal.models.heads import freeze_backbone, head_names, head_parameters
from vicinal.models.hugging_face import HuggingFace, network_config
from vicinal.models.input_format import InputFormat, input_format
from vicinal.models.network_name import parse_name
from vicinal.models.registry import NETWORKS, build, check_name, default_layers, mixing_layers

__all__ = [
    "NETWORKS",
    "FastCNN",
    "HuggingFace",
    "InputFormat",
    "build",
    "check_name",
    "default_layers",
    "freeze_backbone",
    "head_names",
    "head_parameters",
    "imported_module",
    "input_format",
    "mixing_layers",
    "network_config",
    "parse_name",
    "set_dropout",
]
