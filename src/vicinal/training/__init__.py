"""Training: settings, the loop, evaluation."""

from vicinal.extras import require

require("lightning_fabric", "pydantic", "safetensors", "tomli_w")
