"""Suggest the size that the images of a folder are resized to."""

from collections import Counter
from pathlib import Path

from vicinal.data.formats.file_listing import files_below, folders_in

_SIZES = (32, 64, 128, 224)
_LOOKED_AT = 400  # images, evenly spaced in the order of their paths
DEFAULT_LARGEST = 64


def suggested_size(folder: Path, *, largest: int | None = None) -> tuple[int | None, str]:
    """Suggest a size for the images in a folder, from the headers of up to 400 of them.

    It is the largest of 32, 64, 128 and 224 that is neither above ``largest`` nor above the median
    of the shorter sides, so at least half of the images are not enlarged. If the median is below
    32, it is the size. Images that all have the same size, no side of which is above ``largest``,
    keep it.

    Args:
        folder: with folders of images, at any depth.
        largest: 64 by default, which small networks train on in minutes on a CPU. Pretrained
            networks expect 224.

    Returns:
        The size, None if the images keep theirs or none can be read; and a sentence about them.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "cats").mkdir()
        ...     for k, size in enumerate([(90, 70), (500, 375), (640, 480)]):
        ...         Image.new("RGB", size).save(Path(folder, "cats", f"{k}.png"))
        ...     suggested_size(Path(folder)), suggested_size(Path(folder), largest=224)[0]
        ((64, 'the shorter sides of the images have 70 to 480 pixels, and they are resized and \
cropped to 64x64'), 224)
    """
    from PIL import ExifTags, Image

    largest = DEFAULT_LARGEST if largest is None else largest
    names = [name for one in folders_in(folder) for name in files_below(folder, one, Counter())]
    sizes = []
    for name in names[:: -(-len(names) // _LOOKED_AT) or 1]:
        try:
            with Image.open(folder / name) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
                turned &= image.format != "TIFF"  # Pillow turns the size of these itself
                sizes.append(image.size[::-1] if turned else image.size)
        except Exception:  # not an image, or a damaged one, which loading reports
            continue
    if not sizes:
        return None, "no image can be read"
    shorter = sorted(map(min, sizes))
    if len(set(sizes)) == 1 and max(sizes[0]) <= largest:
        return None, f"all images have {sizes[0][0]}x{sizes[0][1]} pixels"
    median = min(shorter[len(shorter) // 2], largest)
    size = max((size for size in _SIZES if size <= median), default=median)
    pixels = f"{shorter[0]} to {shorter[-1]}" if shorter[0] < shorter[-1] else str(shorter[0])
    return size, (
        f"the shorter sides of the images have {pixels} pixels, and they are resized and cropped "
        f"to {size}x{size}"
    )
