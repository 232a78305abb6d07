"""The augmentations that recipes can ask for, and what stands for them when nothing is random."""

from collections.abc import Sequence
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from vicinal.data import TRANSFORMS, CenterCrop, Transform


class _Step(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class CropStep(_Step):
    """``vicinal.data.RandomCrop``; tests see the middle."""

    name: Literal["random-crop"]
    padding: int = Field(4, ge=0, description="pixels of black on each side")
    size: int | None = Field(
        None, ge=1, description="side of the window; the picture's if left out"
    )


class FlipStep(_Step):
    """``vicinal.data.RandomHorizontalFlip``."""

    name: Literal["random-horizontal-flip"]
    p: float = Field(0.5, ge=0, le=1, description="probability of a flip")


class ColorStep(_Step):
    """``vicinal.data.HLSJitter``."""

    name: Literal["hls-jitter"]
    hue: float = Field(36, ge=0, le=90, description="most that is added, in steps of 2 degrees")
    saturation: float = Field(50, ge=0, le=255, description="most that is added, in 255ths")
    lightness: float = Field(50, ge=0, le=255, description="most that is added, in 255ths")


class ResizedCropStep(_Step):
    """``vicinal.data.RandomResizedCrop``; tests see the middle."""

    name: Literal["random-resized-crop"]
    size: int = Field(ge=1, description="side of what comes out, in pixels")


STEPS: dict[str, type[_Step]] = {
    "random-crop": CropStep,
    "random-horizontal-flip": FlipStep,
    "hls-jitter": ColorStep,
    "random-resized-crop": ResizedCropStep,
}
"""The settings of each augmentation, by its name."""

Augment = Annotated[CropStep | FlipStep | ColorStep | ResizedCropStep, Field(discriminator="name")]


def training_steps(settings: Sequence[Augment]) -> list[Transform]:
    """Return what training inputs go through.

    Example:
        >>> training_steps([FlipStep(name="random-horizontal-flip")])
        [RandomHorizontalFlip(p=0.5)]
    """
    return [TRANSFORMS[step.name](**step.model_dump(exclude={"name"})) for step in settings]


def evaluation_steps(settings: Sequence[Augment]) -> list[Transform]:
    """Return what test inputs go through: the middle, of the size that training has seen.

    Example:
        >>> evaluation_steps([CropStep(name="random-crop", size=28)])
        [CenterCrop(size=28)]
    """
    sizes = [getattr(step, "size", None) for step in settings]
    return [CenterCrop(size) for size in [size for size in sizes if size is not None][-1:]]
