"""Augmentation of batches of pictures, per example at random, on the device."""

from vicinal.data.transforms.crops import CenterCrop, RandomCrop, RandomResizedCrop
from vicinal.data.transforms.flip_and_color import (
    AUGMENTATIONS,
    Augmentation,
    HLSJitter,
    RandomHorizontalFlip,
)

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "CenterCrop",
    "HLSJitter",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
]
