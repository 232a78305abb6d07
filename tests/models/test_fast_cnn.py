import itertools

import pytest
import torch
import torch.nn.functional as F

from vicinal.models import build
from vicinal.models.fast_cnn import FastCNN


def images(count=300, channels=3, side=10):
    """Return images whose neighboring pixels and channels are alike, of mean zero."""
    noise = torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))
    x = noise.cumsum(2).cumsum(3) + noise.sum(1, keepdim=True)
    return (x - x.mean()) / x.std()


def patches(x):
    """Cut all 2x2 patches one by one, each written out as a row."""
    places = itertools.product(range(x.shape[2] - 1), range(x.shape[3] - 1))
    return torch.cat([x[:, :, i : i + 2, j : j + 2].flatten(1) for i, j in places])


def test_the_network_agrees_with_the_published_one_layer_by_layer():
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


def test_convolutions_are_initialized_as_the_identity():
    model = FastCNN((3, 9, 9), 10)
    x = torch.randn(2, 24, 5, 5)
    out = model.block1[0](x)
    assert torch.equal(out[:, :24], x)
    assert out.shape[1] == 64
    assert out[:, 24:].std() > 0.1


def test_the_initial_weights_of_the_head_times_its_factor_have_std_one():
    std = FastCNN((3, 9, 9), 10).head.weight.std().item()
    assert std * 12.64**0.5 == pytest.approx(1)


def test_the_whitening_and_the_weights_of_norms_are_frozen():
    frozen = {n for n, p in FastCNN((3, 9, 9), 10).named_parameters() if not p.requires_grad}
    norms = {f"block{k}.{j}.weight" for k in (1, 2, 3) for j in (2, 5)}
    assert frozen == {"whiten.weight"} | norms


def test_norms_have_a_momentum_of_four_tenths():
    model = FastCNN((1, 9, 9), 2)
    norm = model.block1[2]
    x = torch.randn(32, 64, 4, 4) * 3 + 5
    norm(x)
    torch.testing.assert_close(norm.running_mean, 0.4 * x.mean((0, 2, 3)))


def test_norms_scale_the_faintest_images_to_unit_variance():
    out = FastCNN((1, 9, 9), 2).block1[2](torch.randn(32, 64, 4, 4) * 1e-4)
    torch.testing.assert_close(out.std((0, 2, 3), correction=0), torch.ones(64), rtol=1e-3, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated_and_each_filter_has_its_negative(channels):
    model, x = FastCNN((channels, 10, 10), 10), images(channels=channels)
    model.whiten_by(x)
    filters, size = model.whiten.weight.flatten(1), 4 * channels
    assert filters.shape == (2 * size, size)
    assert torch.equal(filters[size:], -filters[:size])
    rows = patches(x)
    out = rows @ filters[:size].T
    moments = out.T @ out / len(out)
    # The second moment along an eigenvector with eigenvalue v becomes v / (v + 5e-4).
    values = torch.linalg.eigvalsh((rows.T @ rows / len(rows)).double())
    expected = torch.diag(values / (values + 5e-4)).float()
    torch.testing.assert_close(moments, expected, rtol=1e-3, atol=1e-3)


def test_whitening_does_not_modify_its_inputs_and_stays_frozen():
    model, x = FastCNN((3, 10, 10), 10), images()
    before = x.clone()
    model.whiten_by(x)
    assert torch.equal(x, before)
    assert not model.whiten.weight.requires_grad
    assert model.whiten.weight.dtype == torch.float32
    F.cross_entropy(model(x[:8]), torch.arange(8)).backward()


def test_whitening_does_not_depend_on_the_threads_or_the_order_of_the_inputs():
    def whitened(x, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        model = FastCNN((3, 10, 10), 10)
        model.whiten_by(x)
        torch.set_num_threads(before)
        return model.whiten.weight

    x = images(600)
    first = whitened(x, 1)
    torch.testing.assert_close(whitened(x, 2), first, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whitened(x.flip(0), 1), first, rtol=1e-6, atol=1e-6)


def test_filters_do_not_depend_on_the_signs_of_the_eigenvectors(monkeypatch):
    x, once, again = images(), FastCNN((3, 10, 10), 10), FastCNN((3, 10, 10), 10)
    once.whiten_by(x)
    eigh = torch.linalg.eigh

    def other(moments):
        values, vectors = eigh(moments)
        return values, vectors * torch.tensor([1.0, -1.0] * 6)

    monkeypatch.setattr(torch.linalg, "eigh", other)
    again.whiten_by(x)
    assert torch.equal(again.whiten.weight, once.whiten.weight)


def test_constant_inputs_give_finite_filters():
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
def test_whitening_by_unsuitable_inputs_raises_an_error(x):
    model = FastCNN((3, 10, 10), 10)
    with pytest.raises(
        ValueError, match=r"shape \(n, 3, height, width\).* got shape \(.*Pass some"
    ):
        model.whiten_by(x)
