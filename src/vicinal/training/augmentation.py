"""The settings of the transforms of training inputs."""

from typing import Annotated, Literal

from pydantic import Field

from vicinal.training.recipe_table import Settings


class RandomCrop(Settings):
    """``vicinal.data.RandomCrop``; evaluation uses the center if ``size`` is given."""

    name: Literal["random-crop"]
    padding: int = Field(4, ge=0, description="black pixels added on each side")
    size: int | None = Field(None, ge=1, description="side of the crop in pixels; default: kept")


class RandomHorizontalFlip(Settings):
    """``vicinal.data.RandomHorizontalFlip``."""

    name: Literal["random-horizontal-flip"]
    p: float = Field(0.5, ge=0, le=1, description="probability of a flip")


class HLSJitter(Settings):
    """``vicinal.data.HLSJitter``."""

    name: Literal["hls-jitter"]
    hue: float = Field(36, ge=0, le=90, description="largest shift, in steps of 2 degrees")
    saturation: float = Field(50, ge=0, le=255, description="largest shift, in 255ths")
    lightness: float = Field(50, ge=0, le=255, description="largest shift, in 255ths")


class RandomResizedCrop(Settings):
    """``vicinal.data.RandomResizedCrop``; evaluation uses the center."""

    name: Literal["random-resized-crop"]
    size: int = Field(ge=1, description="side of the output in pixels")


class GaussianNoise(Settings):
    """``vicinal.data.GaussianNoise``."""

    name: Literal["gaussian-noise"]
    std: float = Field(
        ge=0, le=1e6, description="standard deviation, in the units of the inputs (pixels: 255ths)"
    )


Transform = Annotated[
    RandomCrop | RandomHorizontalFlip | HLSJitter | RandomResizedCrop | GaussianNoise,
    Field(discriminator="name"),
]
"""The type of a transform in a recipe."""


def keeps_size(transform: Settings) -> Settings:
    """Return a transform of an arm if it keeps the size, since all arms are tested alike."""
    if getattr(transform, "size", None) is not None:
        raise ValueError(
            ".size: expected a transform that keeps the size of inputs, since all arms are tested "
            "alike. Put it into data.augment."
        )
    return transform
