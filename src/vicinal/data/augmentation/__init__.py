"""Augmentation of batches of pictures, per example at random, on the device."""

from vicinal.data.augmentation.crops import CentreCrop, PaddedCrop, RandomResizedCrop
from vicinal.data.augmentation.steps import AUGMENTATIONS, Augmentation, ColourJitter, Flip

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "CentreCrop",
    "ColourJitter",
    "Flip",
    "PaddedCrop",
    "RandomResizedCrop",
]
