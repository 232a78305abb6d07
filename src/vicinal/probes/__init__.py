"""Measurements of a trained network, as functions of the network and data."""

from vicinal.probes.adversarial import attacked_inputs, attacks
from vicinal.probes.between_examples import between
from vicinal.probes.calibrate import calibration, calibration_of_logits
from vicinal.probes.label_errors import memorization, memorized_fraction
from vicinal.probes.masking import masking_checks
from vicinal.probes.out_of_distribution import ood

__all__ = [
    "attacked_inputs",
    "attacks",
    "between",
    "calibration",
    "calibration_of_logits",
    "masking_checks",
    "memorization",
    "memorized_fraction",
    "ood",
]
