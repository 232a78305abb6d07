import colorsys
import math

import numpy as np
import pytest
import torch
from torch import nn

from vicinal.data.transforms import (
    TRANSFORMS,
    CenterCrop,
    GaussianNoise,
    HLSJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
)
from vicinal.errors import UserError

ALL = [
    RandomCrop(),
    RandomCrop(padding=2, size=7),
    RandomCrop(padding=0, size=5),
    CenterCrop(5),
    RandomHorizontalFlip(),
    HLSJitter(),
    RandomResizedCrop(6),
    GaussianNoise(20.0),
]
DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]

every_transform = pytest.mark.parametrize("transform", ALL, ids=str)
every_image_transform = pytest.mark.parametrize("transform", ALL[:-1], ids=str)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch=12, channels=3, height=9, width=11, dtype=torch.uint8):
    shape = (batch, channels, height, width)
    return torch.randint(256, shape, generator=seeded(batch + height)).to(dtype)


def drawn_for(transform, x, seed=0):
    return transform.draw(len(x), tuple(x.shape[1:]), seeded(seed))


# What every transform promises.


@every_transform
def test_numbers_depend_only_on_the_seed(transform):
    first, again, other = (transform.draw(50, (3, 9, 11), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.dtype == torch.float64
    assert len(first) == 50
    assert isinstance(transform, CenterCrop) or not torch.equal(first, other)


@every_transform
def test_an_image_is_transformed_independently_of_the_rest_of_its_batch(transform):
    x = images(batch=140, height=32, width=32)  # more than one block
    drawn = drawn_for(transform, x)
    whole = transform.apply(x, drawn)
    splits = [transform.apply(x[i::3], drawn[i::3]) for i in range(3)]
    assert all(torch.equal(whole[i::3], split) for i, split in enumerate(splits))


@every_transform
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_argument_is_not_modified_and_its_type_is_kept(transform, dtype):
    x = images(dtype=dtype)
    drawn = drawn_for(transform, x)
    before, drawn_before = x.clone(), drawn.clone()
    out = transform.apply(x, drawn)
    assert torch.equal(x, before)
    assert torch.equal(drawn, drawn_before)
    assert out.dtype == dtype
    assert out.is_contiguous()
    out.zero_()
    assert torch.equal(x, before)


@every_image_transform
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_point_images_agree_with_bytes(transform, dtype):
    x = images()
    drawn = drawn_for(transform, x)
    expected = transform.apply(x, drawn).double()
    out = transform.apply(x.to(dtype), drawn).double()
    # Half of a step by rounding to bytes, and what the type rounds by itself.
    assert (out - expected).abs().max() <= 0.501 + 128 * torch.finfo(dtype).eps


@every_transform
@pytest.mark.parametrize("batch", [0, 1])
def test_empty_and_single_batches_give_images_of_the_same_shape(transform, batch):
    x = images(batch=2)
    shape = transform.apply(x, drawn_for(transform, x)).shape[1:]
    x = x[:batch]
    assert transform.apply(x, drawn_for(transform, x)).shape == (batch, *shape)


@every_transform
def test_the_memory_format_makes_no_difference(transform):
    x = images()
    drawn = drawn_for(transform, x)
    expected = transform.apply(x, drawn)
    gaps = torch.stack([x, x + 1], dim=-1)[..., 0]
    transposed = x.transpose(2, 3).contiguous().transpose(2, 3)
    for other in (x.to(memory_format=torch.channels_last), gaps, transposed):
        assert not other.is_contiguous()
        out = transform.apply(other, drawn)
        assert torch.equal(out, expected)
        assert out.is_contiguous()


@every_transform
def test_images_of_one_channel_are_accepted(transform):
    x = images(channels=1)
    out = transform.apply(x, drawn_for(transform, x))
    assert out.shape[1] == 1
    assert not torch.equal(out, x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@every_transform
def test_a_gpu_gives_the_same_images_without_synchronizing(transform):
    x = images(batch=70, height=32, width=32)
    drawn = drawn_for(transform, x)
    there = x.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = transform.apply(there, drawn)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (out.cpu().int() - transform.apply(x, drawn).int()).abs().max() <= 1


def test_recipes_can_name_each_random_transform():
    made = {
        name: make(
            **{"random-resized-crop": {"size": 8}, "gaussian-noise": {"std": 2}}.get(name, {})
        )
        for name, make in TRANSFORMS.items()
    }
    assert made == {
        "random-crop": RandomCrop(padding=4, size=None),
        "random-horizontal-flip": RandomHorizontalFlip(p=0.5),
        "hls-jitter": HLSJitter(hue=36, saturation=50, lightness=50),
        "random-resized-crop": RandomResizedCrop(8, scale=(0.08, 1), ratio=(3 / 4, 4 / 3)),
        "gaussian-noise": GaussianNoise(2),
    }


# Crops.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("padding", "size"), [(4, None), (0, 5), (3, 8), (1, 11), (5, 13), (0, None)]
)
def test_a_random_crop_agrees_with_a_loop_over_padded_images(padding, size, dtype):
    crop = RandomCrop(padding=padding, size=size)
    x = images(batch=40, height=9, width=11, dtype=dtype)
    drawn = drawn_for(crop, x)
    out = crop.apply(x, drawn)
    height, width = (9, 11) if size is None else (size, size)
    for i, (top, left) in enumerate(drawn.int().tolist()):
        around = ((0, 0), (padding, padding), (padding, padding))
        whole = np.pad(x[i].float().numpy(), around)
        expected = whole[:, top : top + height, left : left + width]
        assert np.array_equal(out[i].float().numpy(), expected)


def test_all_positions_of_a_window_are_equally_likely():
    drawn = RandomCrop(padding=1, size=3).draw(70_000, (3, 3, 7), seeded())
    counts = torch.zeros(3, 7, dtype=torch.float64)
    counts.index_put_(
        tuple(drawn.long().T), torch.tensor(1.0, dtype=torch.float64), accumulate=True
    )
    expected = 70_000 / 21
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 45.3  # exceeded by chance once in 1,000 at 20 degrees of freedom


@pytest.mark.parametrize(
    ("size", "rows", "columns"), [(3, [1, 2, 3], [1, 2, 3]), (4, [0, 1, 2, 3], [1, 2, 3, 4])]
)
def test_a_center_crop_cuts_the_same_amount_on_either_side(size, rows, columns):
    x = torch.arange(30, dtype=torch.uint8).view(1, 1, 5, 6)
    expected = [[6 * row + column for column in columns] for row in rows]
    assert CenterCrop(size).apply(x, torch.empty(1, 0)).tolist() == [[expected]]


# Flips.


def test_only_the_drawn_images_are_flipped():
    x = images(batch=20)
    drawn = drawn_for(RandomHorizontalFlip(), x)
    out = RandomHorizontalFlip().apply(x, drawn)
    for i, flipped in enumerate(drawn[:, 0].tolist()):
        rows = x[i].tolist()
        expected = [[row[::-1] for row in channel] for channel in rows] if flipped else rows
        assert out[i].tolist() == expected
    assert 0 < drawn.sum() < 20


@pytest.mark.parametrize("p", [0, 0.2, 0.5, 1])
def test_p_is_the_share_of_flipped_images(p):
    drawn = RandomHorizontalFlip(p).draw(40_000, (3, 4, 4), seeded())
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    assert drawn.mean().item() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 40_000))


# Colors.


def by_colorsys(pixel, hue, saturation, lightness):
    own_hue, light, color = colorsys.rgb_to_hls(*(value / 255 for value in pixel))
    light = min(1, max(0, light + lightness / 255))
    color = min(1, max(0, color + saturation / 255))
    shifted = colorsys.hls_to_rgb((own_hue + hue / 180) % 1, light, color)
    return [255 * value for value in shifted]


def awkward_images():
    """Return random pixels, then black, white, grays, ties of two channels, and pure colors."""
    x = images(batch=24, height=5, width=6)
    levels = torch.tensor([0, 1, 2, 127, 128, 253, 254, 255])
    corners = torch.cartesian_prod(levels, levels, levels)
    some = corners[torch.randperm(len(corners), generator=seeded())[: 12 * 30]]
    x[12:] = some.view(12, 5, 6, 3).permute(0, 3, 1, 2)
    x[3] = x[3, :1]
    return x


AMOUNTS = torch.cartesian_prod(*torch.tensor([[-90.0, 17.5, 90.0], [-200, 0, 60], [-120, 0, 30]]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64], ids=str)
def test_colors_are_shifted_as_by_colorsys(dtype):
    x = awkward_images().to(dtype)
    if dtype != torch.uint8:
        x = x * 0.999
    drawn = AMOUNTS[: len(x)].double()
    out = HLSJitter().apply(x, drawn)
    off = 0.501 if dtype == torch.uint8 else 0.01
    for i, amounts in enumerate(drawn.tolist()):
        flat = x[i].flatten(1).T.tolist()
        expected = torch.tensor([by_colorsys(pixel, *amounts) for pixel in flat])
        assert (out[i].flatten(1).T - expected).abs().max() <= off


def test_amounts_of_zero_change_nothing():
    x = awkward_images()
    assert torch.equal(HLSJitter().apply(x, torch.zeros(len(x), 3)), x)


def test_full_turns_of_the_hue_change_nothing():
    x = awkward_images()
    turns = torch.tensor([[180.0, 0, 0], [-180, 0, 0], [360, 0, 0]]).repeat(8, 1)
    assert torch.equal(HLSJitter().apply(x, turns), x)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_images_of_one_channel_change_only_in_lightness(dtype):
    x = torch.tensor([10, 100, 250]).to(dtype).view(1, 1, 1, 3).expand(2, 1, 1, 3)
    drawn = torch.tensor([[50.0, 50, 20], [-50, 50, -20]])
    out = HLSJitter().apply(x, drawn)
    assert out.flatten(1).tolist() == [[30, 120, 255], [0, 80, 230]]


def test_amounts_are_uniform_around_zero_and_independent():
    drawn = HLSJitter(hue=36, saturation=50, lightness=20).draw(20_000, (3, 4, 4), seeded())
    unit = drawn / torch.tensor([36, 50, 20])
    quantiles = torch.linspace(0, 1, 11, dtype=torch.float64)
    for column in unit.T:
        assert column.quantile(quantiles).tolist() == pytest.approx(
            (2 * quantiles - 1).tolist(), abs=0.03
        )
        assert column.abs().max() <= 1
    assert (torch.corrcoef(unit.T) - torch.eye(3)).abs().max() < 0.03


# Resized crops.


@pytest.mark.parametrize("size", [1, 5, 9, 24])
def test_a_resized_crop_agrees_with_interpolate(size):
    crop = RandomResizedCrop(size)
    x = images(batch=60, height=13, width=9)
    drawn = drawn_for(crop, x)
    assert len(drawn[:, 2:].unique(dim=0)) > 10
    floats = crop.apply(x.float(), drawn)
    rounded = crop.apply(x, drawn)
    for i, (top, left, height, width) in enumerate(drawn.int().tolist()):
        box = x[i : i + 1, :, top : top + height, left : left + width].double()
        expected = nn.functional.interpolate(
            box, (size, size), mode="bilinear", align_corners=False
        )
        torch.testing.assert_close(floats[i : i + 1].double(), expected, atol=0.01, rtol=0)
        assert (rounded[i] - expected[0]).abs().max() <= 0.51


def test_a_box_of_the_whole_image_at_its_own_size_changes_nothing():
    x = images(height=9, width=9)
    whole = torch.tensor([[0.0, 0, 9, 9]]).expand(len(x), 4)
    assert torch.equal(RandomResizedCrop(9).apply(x, whole), x)


def test_area_and_log_ratio_are_uniform_if_all_boxes_fit():
    side = 1000
    crop = RandomResizedCrop(8, scale=(0.02, 0.2), ratio=(1 / 2, 4))
    _, _, height, width = crop.draw(20_000, (3, side, side), seeded()).T
    tenths = torch.linspace(0, 1, 11, dtype=torch.float64)
    areas, log_ratios = height * width / side**2, (width / height).log2()
    assert areas.quantile(tenths).tolist() == pytest.approx(
        (0.02 + 0.18 * tenths).tolist(), abs=0.004
    )
    assert log_ratios.quantile(tenths).tolist() == pytest.approx(
        (3 * tenths - 1).tolist(), abs=0.06
    )
    assert abs(torch.corrcoef(torch.stack([areas, log_ratios]))[0, 1]) < 0.03


def test_all_positions_of_a_box_are_equally_likely():
    crop = RandomResizedCrop(8, scale=(0.25, 0.25), ratio=(1, 1))
    top, left, height, width = crop.draw(20_000, (3, 8, 8), seeded()).T
    assert set(height.tolist()) == set(width.tolist()) == {4.0}
    for places in (top, left):
        shares = places.long().bincount() / 20_000
        assert shares.tolist() == pytest.approx([1 / 5] * 5, abs=0.015)
    assert abs(torch.corrcoef(torch.stack([top, left]))[0, 1]) < 0.03


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 2, 3), (1, 5, 40), (3, 31, 33)])
def test_boxes_never_leave_the_image(shape):
    drawn = RandomResizedCrop(8).draw(3_000, shape, seeded())
    corner, box = drawn[:, :2], drawn[:, 2:]
    assert (corner >= 0).all()
    assert (box >= 1).all()
    assert (corner + box <= torch.tensor(shape[1:])).all()
    assert torch.equal(drawn, drawn.round())


@pytest.mark.parametrize(
    ("shape", "ratio", "expected"),
    [
        ((3, 30, 100), (3 / 4, 4 / 3), [0, 30, 30, 40]),
        ((3, 100, 30), (3 / 4, 4 / 3), [30, 0, 40, 30]),
        ((3, 100, 1), (3, 4), [49, 0, 1, 1]),
    ],
    ids=["wide", "tall", "a third of a pixel"],
)
def test_the_middle_is_used_if_no_box_fits(shape, ratio, expected):
    crop = RandomResizedCrop(8, scale=(1, 1), ratio=ratio)
    assert crop.draw(5, shape, seeded()).tolist() == [expected] * 5


def test_the_middle_is_used_as_often_as_ten_attempts_fail():
    drawn = RandomResizedCrop(8, scale=(0.8, 1)).draw(4_000, (3, 64, 64), seeded())
    whole = (drawn[:, 2:] == 64).all(1).double().mean().item()
    generator = np.random.default_rng(0)
    failures = 0
    for _ in range(4_000):
        area = generator.uniform(0.8, 1, 10) * 64**2
        ratio = np.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3), 10))
        longest = np.sqrt(area * np.maximum(ratio, 1 / ratio)).round()
        failures += bool((longest > 64).all())
    assert whole == pytest.approx(failures / 4_000, abs=0.01)
    assert 0 < failures < 400


# Errors.


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RandomCrop(padding=-1), "padding to be an integer from 0 to .*, got -1"),
        (lambda: RandomCrop(padding=1.5), "padding to be an integer.*got 1.5"),
        (lambda: RandomCrop(padding=True), "padding to be an integer.*got True"),
        (lambda: RandomCrop(size=0), "RandomCrop: expected size.*from 1 to.*got 0"),
        (lambda: CenterCrop(0), "CenterCrop: expected size.*from 1 to.*got 0"),
        (lambda: CenterCrop("5"), "CenterCrop: expected size.*got '5'"),
        (lambda: RandomHorizontalFlip(-0.1), "p to be a number from 0 to 1, got -0.1"),
        (lambda: RandomHorizontalFlip(1.1), "p to be a number from 0 to 1, got 1.1"),
        (lambda: RandomHorizontalFlip(math.nan), "p to be a number from 0 to 1, got nan"),
        (lambda: HLSJitter(hue=-1), "hue to be a number from 0 to 180, got -1"),
        (lambda: HLSJitter(hue=181), "hue to be a number from 0 to 180, got 181"),
        (lambda: HLSJitter(saturation=256), "saturation.*from 0 to 255, got 256"),
        (lambda: HLSJitter(lightness=-3), "lightness.*from 0 to 255, got -3"),
        (lambda: RandomResizedCrop(0), "RandomResizedCrop: expected size.*got 0"),
        (lambda: RandomResizedCrop(8, scale=(0, 1)), r"scale.*above 0 and at most 1.*got \(0, 1\)"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 1.5)), r"scale.*at most 1.*got \(0.5, 1.5\)"),
        (lambda: RandomResizedCrop(8, scale=(0.9, 0.5)), r"the smaller one first.*\(0.9, 0.5\)"),
        (lambda: RandomResizedCrop(8, ratio=(2, 1, 3)), r"ratio to be two numbers.*\(2, 1, 3\)"),
        (lambda: RandomResizedCrop(8, ratio=(math.nan, 1)), r"ratio.*\(nan, 1\)"),
    ],
)
def test_settings_out_of_range_raise_an_error(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("transform", "shape", "sentence"),
    [
        (
            RandomCrop(1, size=12),
            (3, 9, 11),
            "fits in images of 9 x 11 padded by 1 pixels .* got 12 x 12",
        ),
        (RandomCrop(4), (3, 3, 11), "padding of at most 2 for images of 3 x 11 .*got 4"),
        (RandomCrop(10, size=12), (3, 9, 11), "padding of at most 9 for images of 9 x 11 .*got 10"),
        (RandomCrop(4, size=4), (3, 9, 9), "padding of at most 3 .* windows of 4 x 4, got 4"),
        (CenterCrop(10), (3, 9, 11), "images of 9 x 11, got 10 x 10\\."),
        (HLSJitter(), (2, 9, 11), "3 channels .* or 1, got 2"),
        (HLSJitter(), (4, 9, 11), "3 channels .* or 1, got 4"),
    ],
    ids=str,
)
def test_images_of_an_unsuitable_size_raise_an_error_in_draw_and_apply(transform, shape, sentence):
    with pytest.raises(UserError, match=sentence):
        transform.draw(2, shape, seeded())
    columns = {RandomCrop: 2, CenterCrop: 0, HLSJitter: 3}[type(transform)]
    with pytest.raises(UserError, match=sentence):
        transform.apply(torch.zeros(2, *shape), torch.zeros(2, columns))


@every_image_transform
def test_inputs_that_are_not_images_raise_an_error(transform):
    with pytest.raises(UserError, match=r"expected images .* got examples of shape \(13,\)"):
        transform.draw(2, (13,), seeded())
    columns = transform.draw(2, (3, 40, 40), seeded()).shape[1]
    with pytest.raises(UserError, match=r"got examples of shape \(13,\)"):
        transform.apply(torch.zeros(2, 13), torch.zeros(2, columns))
    with pytest.raises(UserError, match=r"uint8 or floating point, got torch\.int64"):
        transform.apply(torch.zeros(2, 3, 9, 9, dtype=torch.int64), torch.zeros(2, columns))


@every_transform
def test_numbers_drawn_for_another_batch_raise_an_error(transform):
    x = images()
    drawn = drawn_for(transform, x)
    for other in (drawn[1:], torch.cat([drawn, torch.zeros(len(x), 1)], dim=1)):
        with pytest.raises(ValueError, match=r"drawn= of shape \(12, \d+\), got \(1"):
            transform.apply(x, other)


@pytest.mark.parametrize("transform", [RandomCrop(), RandomResizedCrop(6)], ids=str)
@pytest.mark.parametrize("wrong", [-1.0, 30.0, math.nan])
def test_boxes_drawn_for_larger_images_raise_an_error(transform, wrong):
    x = images()
    drawn = drawn_for(transform, x)
    drawn[3, 1] = wrong
    with pytest.raises(ValueError, match="got one that is partly outside"):
        transform.apply(x, drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_beyond_the_range_by_rounding_are_accepted(dtype):
    x = awkward_images().to(dtype)
    x = torch.where(x == 255, 255.001, torch.where(x == 0, -0.001, x))
    out = HLSJitter().apply(x, AMOUNTS[: len(x)].double())
    assert out.min().item() == pytest.approx(0, abs=0.001)
    assert out.max().item() == pytest.approx(255, abs=0.001)


@pytest.mark.parametrize("wrong", [-0.5, 256.0, math.nan, math.inf])
@pytest.mark.parametrize("channels", [1, 3])
def test_normalized_images_raise_an_error(wrong, channels):
    x = images(channels=channels, dtype=torch.float32)
    x[5, 0, 2, 2] = wrong
    with pytest.raises(UserError, match=r"values from 0 to 255, got .* before Normalize"):
        HLSJitter().apply(x, drawn_for(HLSJitter(), x))


# Gaussian noise.


@pytest.mark.parametrize("shape", [(4000,), (1, 50, 80), (3, 40, 40)])
def test_noise_has_the_stated_std_for_inputs_of_any_shape(shape):
    x = torch.full((3, *shape), 128.0)
    noise = GaussianNoise(5.0).apply(x, drawn_for(GaussianNoise(5.0), x)) - x
    # The std of 12,000 or more normal numbers deviates by less than 4 / sqrt(2 * 12,000) = 2.6%.
    assert noise.std().item() == pytest.approx(5, rel=0.026)
    assert abs(noise.mean().item()) < 4 * 5 / 12_000**0.5
    assert noise[0].ne(noise[1]).float().mean() > 0.99


def test_noise_is_added_to_bytes_in_their_range():
    x = torch.tensor([[0, 255, 100, 100]], dtype=torch.uint8)
    drawn = torch.tensor([[-1.0, 1.0, 0.26, -0.24]], dtype=torch.float64)
    assert GaussianNoise(10).apply(x, drawn).tolist() == [[0, 255, 103, 98]]
    with pytest.raises(UserError, match=r"uint8 or floating point, got torch\.int64"):
        GaussianNoise(1).apply(x.long(), drawn)
