"""The orientation of images in their EXIF data."""

from typing import Any

_ORIENTATION = 0x0112
_APP0 = 0xE0


def orientation_of(image: Any) -> int:
    """Return the EXIF orientation of a Pillow image, 1 if there is none or it is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # viewers ignore damaged EXIF data, which raise errors of every kind
        return 1
    return orientation if orientation in range(2, 9) else 1


def turned_upright(image: Any, orientation: int) -> Any:
    """Return a Pillow image turned upright, as ``ImageOps.exif_transpose`` does."""
    from PIL import ImageOps

    image.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


def may_be_turned(jpeg: bytes) -> bool:
    """Return whether a JPEG may have an orientation; fast, since most have none.

    EXIF and XMP data are in segments APP1, which come before the tables and the pixels.
    """
    at = 2
    while (head := jpeg[at : at + 4])[:1] == b"\xff" and len(head) == 4 and head[1] >= _APP0:
        if head[1] == _APP0 + 1:
            return True
        at += 2 + (head[2] << 8 | head[3])
    return False
