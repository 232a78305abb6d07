"""Transforms of batches of images: augmentation, drawn per example and applied on the device."""

from vicinal.data.transforms.base import Transform
from vicinal.data.transforms.crops import CenterCrop, RandomCrop, RandomResizedCrop
from vicinal.data.transforms.flip import RandomHorizontalFlip
from vicinal.data.transforms.gaussian_noise import GaussianNoise
from vicinal.data.transforms.hls_jitter import HLSJitter

TRANSFORMS: dict[str, type] = {
    "random-crop": RandomCrop,
    "random-horizontal-flip": RandomHorizontalFlip,
    "hls-jitter": HLSJitter,
    "random-resized-crop": RandomResizedCrop,
    "gaussian-noise": GaussianNoise,
}
"""The random transforms by their names in recipes."""

__all__ = [
    "TRANSFORMS",
    "CenterCrop",
    "GaussianNoise",
    "HLSJitter",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Transform",
]
