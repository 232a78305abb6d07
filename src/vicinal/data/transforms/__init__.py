"""Augmentation of batches of images, per example at random, on the device."""

from vicinal.data.transforms.crops import CenterCrop, RandomCrop, RandomResizedCrop
from vicinal.data.transforms.flip_and_color import (
    TRANSFORMS,
    HLSJitter,
    RandomHorizontalFlip,
    Transform,
)

__all__ = [
    "TRANSFORMS",
    "CenterCrop",
    "HLSJitter",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Transform",
]
