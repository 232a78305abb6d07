import io
import pickle
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from vicinal.data.dataset import LoadOptions
from vicinal.data.formats.image_data_set import image_split
from vicinal.data.formats.images import ImageChanges, ImageOptions
from vicinal.data.formats.images import decode as decode_image
from vicinal.data.formats.stored_images import StoredImages
from vicinal.errors import UserError

CHANCE = np.random.default_rng(0)
COLOR = CHANCE.integers(0, 256, (12, 16, 3), dtype=np.uint8)
SMOOTH = np.linspace(0, 250, 12 * 16 * 3).reshape(12, 16, 3).astype(np.uint8)


def saved(pixels, form="PNG", mode=None, **options):
    image = Image.fromarray(pixels)
    out = io.BytesIO()
    (image.convert(mode) if mode else image).save(out, form, **options)
    return out.getvalue()


def decode(data, *, where, **options):
    return decode_image(data, ImageOptions(**options), where=where)


class Listed:
    """Encoded images in a list."""

    def __init__(self, *images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def get(self, row):
        return self.images[row]

    def name(self, row):
        return f"image {row}"


def stored(*images, channels=3, size=None, skip_bad=False):
    return StoredImages.of(Listed(*images), ImageOptions(channels, size), skip_bad)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_are_decoded_bit_for_bit(form):
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    assert np.array_equal(decode(saved(COLOR, form, **options), where=""), COLOR)


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}])
def test_jpegs_are_decoded_like_in_pillow(options):
    data = saved(COLOR, "JPEG", quality=95, **options)
    known = np.asarray(Image.open(io.BytesIO(data)))
    assert np.abs(decode(data, where="").astype(int) - known).max() <= 1


def test_gray_is_repeated_and_color_becomes_gray_with_one_channel():
    gray = COLOR[..., 0]
    for data in (saved(gray), saved(gray, "JPEG", quality=100)):
        known = np.asarray(Image.open(io.BytesIO(data)))
        assert np.array_equal(decode(data, where=""), np.stack([known] * 3, 2))
        assert np.array_equal(decode(data, channels=1, where="")[..., 0], known)
    luma = COLOR @ np.array([0.299, 0.587, 0.114])
    found = decode(saved(COLOR), channels=1, where="")
    assert found.shape == (12, 16, 1)
    assert np.abs(found[..., 0] - luma).max() < 1


def test_alpha_can_be_dropped_and_a_palette_is_looked_up():
    alpha = np.concatenate([COLOR, np.full((12, 16, 1), 7, np.uint8)], 2)
    assert np.array_equal(decode(saved(alpha), where="", alpha="ignore"), COLOR)
    gray_alpha = saved(alpha, mode="LA")
    known = np.asarray(Image.open(io.BytesIO(gray_alpha)))[..., :1]
    assert np.array_equal(decode(gray_alpha, where="", alpha="ignore"), np.repeat(known, 3, 2))
    few = (COLOR // 128 * 128).astype(np.uint8)  # eight colors
    palette = io.BytesIO()
    Image.fromarray(few).quantize(8).save(palette, "PNG")
    known = np.asarray(Image.open(io.BytesIO(palette.getvalue())).convert("RGB"))
    assert np.array_equal(decode(palette.getvalue(), where=""), known)


def test_sixteen_bits_are_rounded_to_eight_and_not_cut_off():
    deep = np.linspace(0, 65535, 192).reshape(12, 16).astype(np.uint16)
    found = decode(saved(deep), channels=1, where="")[..., 0]
    assert np.abs(found - deep / 257).max() <= 0.5
    assert np.array_equal(found, np.round(deep / 257).astype(np.uint8))


def test_cmyk_images_become_rgb():
    for form in ("JPEG", "TIFF"):
        data = saved(SMOOTH, form, mode="CMYK", **({"quality": 100} if form == "JPEG" else {}))
        assert np.abs(decode(data, where="").astype(int) - SMOOTH).max() < 12


def test_images_of_32_bits_raise_an_error():
    deep = saved(np.full((4, 4), 70_000, np.int32), "TIFF")
    with pytest.raises(UserError, match=r"deep\.tif: expected 8 or 16 bits per channel, got 32"):
        decode(deep, where="deep.tif")


def test_a_size_fits_the_shorter_side_and_cuts_the_middle():
    tall = np.zeros((40, 20, 3), np.uint8)
    tall[15:25] = 255  # the middle
    for data in (saved(tall), saved(tall, "JPEG", quality=100)):
        found = decode(data, size=10, where="")
        assert found.shape == (10, 10, 3)
        assert found[3:7].min() > 200
        assert found[[0, 9]].max() < 50


@pytest.mark.parametrize("orientation", [1, 7])
@pytest.mark.parametrize("size", [20, 64, 100])
def test_a_jpeg_is_resized_as_if_it_were_decoded_whole(size, orientation):
    photo = Image.fromarray(load_sample_image("china.jpg")).crop((10, 20, 311, 243))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    photo.save(data, "JPEG", quality=95, exif=exif)
    whole = ImageOps.exif_transpose(Image.open(data).convert("RGB"))
    expected = np.asarray(ImageOps.fit(whole, (size, size), Image.Resampling.BILINEAR)).astype(int)
    found = decode(data.getvalue(), size=size, where="")
    assert np.abs(found - expected).mean() < 0.75


def stops_early(data):
    return data[: len(data) * 2 // 3]


def flipped(data):
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP"])
def test_an_incomplete_image_raises_an_error(form):
    with pytest.raises(
        UserError, match=r"^photo: .*cannot be decoded .*damaged, incomplete or not an image"
    ):
        decode(stops_early(saved(COLOR, form)), where="photo")


def test_a_flipped_bit_in_a_png_is_noticed():
    with pytest.raises(UserError, match=r"photo: the image cannot be decoded"):
        decode(flipped(saved(COLOR)), where="photo")


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"\xff\xd8", b"plain text, not an image"])
def test_inputs_that_are_not_images_raise(data):
    with pytest.raises(UserError, match=r"photo: .*cannot be decoded"):
        decode(data, where="photo")


def png_of(width, height):
    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    ends = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + ends


def jpeg_of(width, height):
    data = bytearray(saved(COLOR, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("make", [png_of, jpeg_of])
def test_a_header_that_claims_more_than_the_file_can_hold_raises_an_error(make):
    with pytest.raises(UserError, match=r"photo: the header claims 324000000 bytes"):
        decode(make(9_000, 9_000), where="photo")
    with pytest.raises(UserError, match=r"photo: .*(14400000000 bytes|3600000000 pixels)"):
        decode(make(60_000, 60_000), where="photo")


def test_stored_images_are_read_in_the_order_of_the_rows():
    many = [CHANCE.integers(0, 256, (5, 7, 3), dtype=np.uint8) for _ in range(6)]
    images = stored(*map(saved, many))
    assert images.shape == (6, 3, 5, 7)
    read = pickle.loads(pickle.dumps(images)).read([4, 0, 4])
    assert read.inputs.dtype == torch.uint8
    for place, row in enumerate([4, 0, 4]):
        assert np.array_equal(read.inputs[place].permute(1, 2, 0).numpy(), many[row])


def test_in_memory_or_not_images_and_targets_are_the_same():
    images = stored(*(saved(np.full((2, 2, 3), k, np.uint8)) for k in range(5)))
    targets = torch.arange(5)
    inside = image_split(images, targets, LoadOptions(None, in_memory=60))
    outside = image_split(images, targets, LoadOptions(None, in_memory=59))
    assert isinstance(inside.inputs, torch.Tensor)
    assert outside.inputs is images
    assert torch.equal(inside.inputs, outside.read(range(5)).inputs)
    assert torch.equal(inside.inputs[:, 0, 0, 0].long(), targets)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_image_of_another_size_raises_an_error_with_both_sizes(form):
    larger, smaller = (saved(np.zeros((n, 3, 3), np.uint8), form) for n in (5, 2))
    good = saved(np.zeros((4, 3, 3), np.uint8), form)
    for other, size in ((larger, "5x3"), (smaller, "2x3")):
        with pytest.raises(
            UserError, match=rf"image 1: expected .* 4x3x.* got {size}x.\. Add the option size=N"
        ):
            stored(good, other).read([0, 1])


def test_bad_images_are_skipped_with_their_targets_and_reported():
    good = [saved(np.full((4, 4, 3), k, np.uint8)) for k in range(4)]
    bad = stops_early(good[0])
    images = stored(bad, good[1], bad, good[3], skip_bad=True)
    split = image_split(images, torch.tensor([10, 11, 12, 13]), LoadOptions(None, skip_bad=True))
    assert split.targets.tolist() == [11, 13]
    assert split.inputs[:, 0, 0, 0].tolist() == [1, 3]
    assert [sentence.split(":")[0] for sentence in split.skipped] == ["image 0", "image 2"]
    read = images.read([2, 3, 0, 1])
    assert read.kept.tolist() == [1, 3]
    assert read.inputs[:, 0, 0, 0].tolist() == [3, 1]


def test_if_no_image_can_be_read_the_first_error_is_shown():
    with pytest.raises(UserError, match=r"none of 2 images can be read\. image 0: "):
        stored(b"no", b"no", skip_bad=True)


def test_raw_images_are_pixels_and_have_to_be_complete():
    pixels = CHANCE.integers(0, 256, (2, 3, 3), dtype=np.uint8)
    images = StoredImages(
        Listed(pixels.tobytes(), b"few"), (2, 3, 2, 3), ImageOptions(raw=(2, 3, 3))
    )
    assert np.array_equal(images.read([0]).inputs[0].permute(1, 2, 0).numpy(), pixels)
    with pytest.raises(UserError, match=r"image 1: expected 18 bytes, for raw=2x3x3, got 3"):
        images.read([1])


def test_a_side_of_one_pixel_is_not_taken_for_channels():
    line = np.zeros((1, 30, 3), np.uint8)
    line[:, :, 0] = 255
    found = decode(saved(line, "JPEG", quality=100), size=8, where="")
    assert found.shape == (8, 8, 3)
    assert found[..., 0].min() > 200
    assert decode(saved(np.zeros((8, 8, 3), np.uint8), "JPEG"), size=1, where="").shape == (1, 1, 3)


def test_the_checksum_of_the_pixels_of_a_png_is_checked():
    data = bytearray(saved(COLOR))
    data[data.index(b"IEND") - 5] ^= 1  # the last byte of the sum behind the pixels
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bytes(data)))), COLOR)  # passed over
    with pytest.raises(UserError, match=r"photo: .*wrong checksum of b'IDAT' at byte"):
        decode(bytes(data), where="photo")


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("highest", [4095, 65535])
def test_sixteen_bits_are_noted_and_doubted_if_they_use_a_part_of_the_range(form, highest):
    values = np.linspace(0, highest, 64).round().astype(np.uint16).reshape(8, 8)
    content = io.BytesIO()
    if form == "PPM":
        content.write(b"P5 8 8 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(content, form)
    changes = ImageChanges()
    found = decode_image(content.getvalue(), ImageOptions(1), where="x", changes=changes)
    expected = (values.astype(float) * 255 / 65535).round()
    assert np.abs(found[:, :, 0] - expected).max() <= 1
    (note,) = replace(changes, images=1).notes(all_read=True)
    assert note.doubtful == (highest == 4095)
    assert "have 16 bits per channel" in note.text


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_frames_is_read_and_noted(form):
    first, second = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    content = io.BytesIO()
    first.save(content, form, save_all=True, append_images=[second])
    changes = ImageChanges()
    found = decode_image(content.getvalue(), where="x", changes=changes)
    assert found[0, 0].argmax() == 0
    assert changes.counts == {"have several frames or pages, of which the first was read": 1}
    content = io.BytesIO()
    first.save(content, form)
    decode_image(content.getvalue(), where="x", changes=(once := ImageChanges()))
    assert not once.counts


def png_of_16_bits(colors):
    """Encode ``(height, width, 3 or 4)`` by hand, since Pillow writes no color of 16 bits."""

    def chunk(kind, content):
        sum_ = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", sum_)

    height, width, channels = colors.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in colors)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff_of_16_bits(colors):
    """Encode ``(height, width, 3)`` by hand, since Pillow writes no color of 16 bits."""
    height, width, _ = colors.shape
    pixels, start = colors.astype("<u2").tobytes(), 8
    after = start + len(pixels)  # where three numbers of bits are, and then the directory
    short, long = 3, 4
    entries = [
        (256, short, 1, width), (257, short, 1, height), (258, short, 3, after),
        (259, short, 1, 1), (262, short, 1, 2), (273, long, 1, start), (277, short, 1, 3),
        (278, short, 1, height), (279, long, 1, len(pixels)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    bits = struct.pack("<HHH", 16, 16, 16)
    return struct.pack("<2sHI", b"II", 42, after + len(bits)) + pixels + bits + directory


def ppm_of_16_bits(colors):
    height, width, _ = colors.shape
    return b"P6\n# by hand\n%d %d\n65535\n" % (width, height) + colors.astype(">u2").tobytes()


def plain_ppm_of_16_bits(colors):
    height, width, _ = colors.shape
    numbers = " ".join(map(str, colors.astype(int).ravel())).encode()
    return b"P3 %d %d\n# by hand\n65535\n" % (width, height) + numbers + b"\n"


@pytest.mark.parametrize("encoded", [tiff_of_16_bits, ppm_of_16_bits, plain_ppm_of_16_bits])
@pytest.mark.parametrize("highest", [4095, 65535])
def test_colors_of_sixteen_bits_in_other_formats_are_noted_and_doubted_too(highest, encoded):
    colors = np.linspace(0, highest, 192).round().reshape(8, 8, 3)
    found = decode_image(encoded(colors), where="x", changes=(changes := ImageChanges()))
    assert np.abs(found - colors * 255 / 65535).max() <= 1
    (note,) = replace(changes, images=1).notes(all_read=True)
    assert note.doubtful == (highest == 4095)
    assert "have 16 bits per channel" in note.text


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("highest", [4095, 65535])
def test_colors_of_sixteen_bits_are_noted_and_doubted_too(highest, alpha):
    colors = np.linspace(0, highest, 192).round().reshape(8, 8, 3)
    opaque = np.full((8, 8, 1), 65535)
    whole = np.concatenate([colors, opaque], 2) if alpha else colors
    found = decode_image(png_of_16_bits(whole), where="x", changes=(changes := ImageChanges()))
    assert np.abs(found - colors * 255 / 65535).max() <= 1
    (note,) = replace(changes, images=1).notes(all_read=True)
    assert note.doubtful == (highest == 4095)
    assert "have 16 bits per channel" in note.text


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["TIFF", "PNG"])
def test_a_tiff_is_turned_only_if_that_is_wanted(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    Image.fromarray(COLOR).save(content, form, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content.getvalue()))))
    for exif, expected in ((True, upright), (False, COLOR)):
        found = decode_image(
            content.getvalue(), ImageOptions(exif=exif), where="x", changes=(seen := ImageChanges())
        )
        assert np.array_equal(found, expected)
        assert bool(seen.counts) == (exif and orientation > 1)


def test_an_image_that_is_too_large_for_pillow_is_not_called_damaged(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"photo: the image has more pixels than Pillow decodes"):
        decode(saved(COLOR), where="photo")
