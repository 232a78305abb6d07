"""Measurements of a trained network, as functions of the network and data."""

from vicinal.probes.calibrate import calibration, calibration_of_logits
from vicinal.probes.memorization import memorized_fraction

__all__ = ["calibration", "calibration_of_logits", "memorized_fraction"]
