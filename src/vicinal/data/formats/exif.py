"""What decoding changes in images beyond their pixels: orientation and transparency, counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import Note
from vicinal.data.source_spec import choice

Alpha = Literal["white", "black", "ignore"]

_ORIENTATION = 0x0112


class Looks(NamedTuple):
    """How orientation and transparency are treated.

    Args:
        exif: whether images are turned upright by the orientation in their EXIF data.
        alpha: the color that transparent images are composed onto, or ``"ignore"``.
        max_bytes: the most bytes that one decoded image may take.
    """

    exif: bool = True
    alpha: Alpha = "white"
    max_bytes: int = MAX_BYTES


AS_VIEWERS = Looks()
"""As web browsers and viewers show images."""


def looks_of(options: Mapping[str, str], max_bytes: int) -> Looks:
    """Return what the options ``exif`` and ``alpha`` say.

    Raises:
        UserError: if one has an unknown value.

    Example:
        >>> looks_of({"alpha": "black"}, 1000)
        Looks(exif=True, alpha='black', max_bytes=1000)
    """
    exif = choice("exif", options, ("apply", "ignore")) != "ignore"
    alpha: Any = choice("alpha", options, ("white", "black", "ignore"))
    return Looks(exif, alpha or "white", max_bytes)


@dataclass
class Looked:
    """What was changed in the images that were decoded, counted.

    Args:
        images: how many were decoded.
        turned: by the orientation in their EXIF data.
        composed: onto a color, since they are transparent.
        warned: decoded though the decoder complained.
        warning: the first such complaint.
        fitted: resized or cropped.
        sizes: of the smallest and the largest of those, width and height.
    """

    images: int = 0
    turned: int = 0
    composed: int = 0
    warned: int = 0
    warning: str = ""
    fitted: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def warn(self, sentence: str) -> None:
        """Count an image that was decoded with a warning."""
        self.warned += 1
        self.warning = self.warning or sentence

    def fit(self, width: int, height: int) -> None:
        """Count an image that was resized or cropped, by its size before."""
        self.fitted += 1
        every = sorted([*self.sizes, (width, height)], key=lambda size: size[0] * size[1])
        self.sizes = [every[0], every[-1]]

    def notes(self, looks: Looks, size: int | None, *, every: bool) -> tuple[Note, ...]:
        """Return what a user should know.

        Args:
            looks: how the images were decoded.
            size: to which they were fitted.
            every: whether all images were decoded, not only the first ones.
        """
        of = f"of {self.images} images" if every else f"of the first {self.images} images looked at"
        notes = []
        if self.fitted:
            known = " to ".join(f"{w}x{h}" for w, h in dict.fromkeys(self.sizes))
            notes.append(
                Note(f"{self.fitted} {of} were resized and cropped from {known} to {size}x{size}")
            )
        if self.turned:
            notes.append(
                Note(
                    f"{self.turned} {of} were turned by the orientation in their EXIF data; "
                    "exif=ignore leaves them as they are stored"
                )
            )
        if self.composed:
            notes.append(
                Note(
                    f"{self.composed} {of} are transparent and were composed onto {looks.alpha}; "
                    "alpha=black or alpha=ignore treats them otherwise"
                )
            )
        if self.warned:
            notes.append(
                Note(
                    f"{self.warned} {of} were decoded though they may be damaged, such as "
                    f"{self.warning}",
                    doubtful=True,
                )
            )
        return tuple(notes)


def orientation_of(image: Any) -> int:
    """Return the EXIF orientation of a Pillow image, 1 where there is none or it is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data raise what they like, and viewers pass over them
        return 1
    return orientation if orientation in range(2, 9) else 1


def turned(image: Any, orientation: int) -> Any:
    """Return a Pillow image turned upright, as ``ImageOps.exif_transpose`` does."""
    from PIL import ImageOps

    image.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


def upright(image: Any, looks: Looks, looked: Looked) -> Any:
    """Turn a Pillow image as its EXIF data say, and count it."""
    orientation = orientation_of(image) if looks.exif else 1
    if orientation == 1:
        return image
    looked.turned += 1
    return turned(image, orientation)


def opaque(image: Any, mode: str, looks: Looks, looked: Looked) -> Any:
    """Convert a Pillow image to RGB or L; compose a transparent one onto a color, and count it."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert(mode)
    rgba = image.convert("RGBA")
    if looks.alpha == "ignore" or rgba.getextrema()[3][0] == 255:
        return rgba.convert(mode)
    ground = Image.new("RGBA", rgba.size, looks.alpha)
    ground.alpha_composite(rgba)
    looked.composed += 1
    return ground.convert(mode)
