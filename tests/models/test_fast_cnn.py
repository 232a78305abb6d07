import itertools

import pytest
import torch
import torch.nn.functional as F

from vicinal.models import build
from vicinal.models.fast_cnn import FastCNN


def pictures(count=300, channels=3, side=10):
    """Return pictures whose neighboring pixels and channels are alike, of mean zero."""
    noise = torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))
    x = noise.cumsum(2).cumsum(3) + noise.sum(1, keepdim=True)
    return (x - x.mean()) / x.std()


def patches(x):
    """Cut all 2x2 patches one by one, each written out as a row."""
    places = itertools.product(range(x.shape[2] - 1), range(x.shape[3] - 1))
    return torch.cat([x[:, :, i : i + 2, j : j + 2].flatten(1) for i, j in places])


def test_it_is_the_published_network_layer_by_layer():
    model = build("fast-cnn", shape=(3, 32, 32), classes=10)
    x = torch.randn(4, 3, 32, 32)
    y = F.gelu(F.conv2d(x, model.whiten.weight, model.whiten.bias))
    assert y.shape[1:] == (24, 31, 31)
    weights = [p for n, p in model.named_parameters() if n.startswith("block") and p.dim() == 4]
    shapes = [(64, 24), (64, 64), (256, 64), (256, 256), (256, 256), (256, 256)]
    assert [tuple(w.shape[:2]) for w in weights] == shapes
    for k, w in enumerate(weights):
        y = F.conv2d(y, w, padding=1)
        y = F.max_pool2d(y, 2) if k % 2 == 0 else y
        y = F.gelu(F.batch_norm(y, None, None, training=True, eps=1e-12))
    scores = F.max_pool2d(y, 3).flatten(1) @ model.head.weight.T * 12.64**0.5 / 256
    torch.testing.assert_close(model(x), scores, rtol=1e-4, atol=1e-5)


def test_convolutions_begin_by_passing_their_inputs_on():
    model = FastCNN((3, 9, 9), 10)
    x = torch.randn(2, 24, 5, 5)
    out = model.block1[0](x)
    assert torch.equal(out[:, :24], x)
    assert out.shape[1] == 64
    assert out[:, 24:].std() > 0.1


def test_the_head_times_its_factor_begins_with_standard_deviation_one():
    std = FastCNN((3, 9, 9), 10).head.weight.std().item()
    assert std * 12.64**0.5 == pytest.approx(1)


def test_the_whitening_and_the_scales_of_norms_do_not_learn():
    frozen = {n for n, p in FastCNN((3, 9, 9), 10).named_parameters() if not p.requires_grad}
    norms = {f"block{k}.{j}.weight" for k in (1, 2, 3) for j in (2, 5)}
    assert frozen == {"whiten.weight"} | norms


def test_norms_take_four_tenths_of_each_batch():
    model = FastCNN((1, 9, 9), 2)
    norm = model.block1[2]
    x = torch.randn(32, 64, 4, 4) * 3 + 5
    norm(x)
    torch.testing.assert_close(norm.running_mean, 0.4 * x.mean((0, 2, 3)))


def test_norms_bring_the_faintest_picture_to_full_contrast():
    out = FastCNN((1, 9, 9), 2).block1[2](torch.randn(32, 64, 4, 4) * 1e-4)
    torch.testing.assert_close(out.std((0, 2, 3), correction=0), torch.ones(64), rtol=1e-3, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated_and_half_of_the_filters_are_the_others_negated(channels):
    model, x = FastCNN((channels, 10, 10), 10), pictures(channels=channels)
    model.whiten_by(x)
    filters, size = model.whiten.weight.flatten(1), 4 * channels
    assert filters.shape == (2 * size, size)
    assert torch.equal(filters[size:], -filters[:size])
    rows = patches(x)
    out = rows @ filters[:size].T
    moments = out.T @ out / len(out)
    # What an eigenvalue v leaves is v / (v + 5e-4).
    values = torch.linalg.eigvalsh((rows.T @ rows / len(rows)).double())
    expected = torch.diag(values / (values + 5e-4)).float()
    torch.testing.assert_close(moments, expected, rtol=1e-3, atol=1e-3)


def test_whitening_leaves_its_inputs_and_whether_it_learns_as_they_were():
    model, x = FastCNN((3, 10, 10), 10), pictures()
    before = x.clone()
    model.whiten_by(x)
    assert torch.equal(x, before)
    assert not model.whiten.weight.requires_grad
    assert model.whiten.weight.dtype == torch.float32
    F.cross_entropy(model(x[:8]), torch.arange(8)).backward()


def test_whitening_is_the_same_with_any_threads_and_in_any_order_of_the_inputs():
    def whitened(x, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        model = FastCNN((3, 10, 10), 10)
        model.whiten_by(x)
        torch.set_num_threads(before)
        return model.whiten.weight

    x = pictures(600)
    first = whitened(x, 1)
    torch.testing.assert_close(whitened(x, 2), first, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whitened(x.flip(0), 1), first, rtol=1e-6, atol=1e-6)


def test_eigenvectors_have_the_same_sign_whichever_they_come_with(monkeypatch):
    x, once, again = pictures(), FastCNN((3, 10, 10), 10), FastCNN((3, 10, 10), 10)
    once.whiten_by(x)
    eigh = torch.linalg.eigh

    def other(moments):
        values, vectors = eigh(moments)
        return values, vectors * torch.tensor([1.0, -1.0] * 6)

    monkeypatch.setattr(torch.linalg, "eigh", other)
    again.whiten_by(x)
    assert torch.equal(again.whiten.weight, once.whiten.weight)


def test_inputs_without_any_contrast_whiten_to_finite_filters():
    model = FastCNN((3, 10, 10), 10)
    model.whiten_by(torch.zeros(4, 3, 10, 10))
    assert torch.isfinite(model.whiten.weight).all()


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(4, 3, 10),
        torch.zeros(4, 1, 10, 10),
        torch.zeros(4, 3, 1, 10),
        torch.zeros(0, 3, 10, 10),
        torch.zeros(4, 3, 10, 10, dtype=torch.uint8),
    ],
    ids=["recordings", "channels", "a row", "none", "raw bytes"],
)
def test_unsuitable_inputs_to_whiten_by_raise_an_error(x):
    model = FastCNN((3, 10, 10), 10)
    with pytest.raises(ValueError, match=r"shape \(n, 3, height, width\).* got \(.*Pass some"):
        model.whiten_by(x)
