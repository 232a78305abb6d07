"""Memory of large gradients, which is used again."""

import mmap

import pytest
import torch

from vicinal.mixing import Plan, memory
from vicinal.mixing.memory import gradient_like, new_like

SHAPE = (4, 300_000)  # 4.8 MB

pytestmark = pytest.mark.skipif(
    not (hasattr(mmap, "MADV_HUGEPAGE") and hasattr(mmap, "MADV_FREE")),
    reason="the system lends memory in another way",
)


@pytest.fixture(autouse=True)
def nothing_spare(monkeypatch):
    monkeypatch.setattr(memory, "_spare", [])


def gradient(x, g):
    plan = Plan(
        torch.tensor([2, 0, 3, 1]), torch.tensor([0.75, 0.25, 1.0, 0.5], dtype=torch.float32)
    )
    return torch.autograd.grad(plan.mix(x), x, g)[0]


def by_hand(g):
    """The rows by whom each is met: 0 by 1, 1 by 3, 2 by 0, 3 by nobody, since 2 keeps all."""
    return torch.stack(
        [
            0.75 * g[0] + 0.75 * g[1],
            0.25 * g[1] + 0.5 * g[3],
            g[2] + 0.25 * g[0],
            0.5 * g[3],
        ]
    )


def test_a_gradient_takes_the_memory_of_the_last_one_that_was_freed():
    x = torch.rand(SHAPE, requires_grad=True, dtype=torch.float32)
    where = set()
    for step in range(3):
        g = torch.rand(SHAPE, generator=torch.Generator().manual_seed(step), dtype=torch.float32)
        by_x = gradient(x, g)
        torch.testing.assert_close(by_x, by_hand(g))
        where.add(by_x.data_ptr())
        del by_x
    assert len(where) == 1


@pytest.mark.parametrize("hold", [lambda t: t, lambda t: t[1:, :9], lambda t: t.numpy()])
def test_a_gradient_that_somebody_holds_keeps_its_memory(hold):
    x, g = (
        torch.rand(SHAPE, requires_grad=True, dtype=torch.float32),
        torch.rand(SHAPE, dtype=torch.float32),
    )
    held = hold(gradient(x, g))
    before = torch.as_tensor(held).clone()
    later = [gradient(x, g + 1), gradient(x, g + 2)]
    torch.testing.assert_close(torch.as_tensor(held), before, rtol=0, atol=0)
    torch.testing.assert_close(later[0], by_hand(g + 1))


def test_the_gradient_of_a_leaf_adds_up_over_steps():
    x, g = (
        torch.rand(SHAPE, requires_grad=True, dtype=torch.float32),
        torch.rand(SHAPE, dtype=torch.float32),
    )
    plan = Plan(
        torch.tensor([2, 0, 3, 1]), torch.tensor([0.75, 0.25, 1.0, 0.5], dtype=torch.float32)
    )
    for _ in range(3):
        plan.mix(x).backward(g)
    torch.testing.assert_close(x.grad, 3 * by_hand(g))


def test_one_gradient_and_no_more_is_kept():
    first, second = (
        gradient_like(torch.empty(size, dtype=torch.float32)) for size in (2_000_000, 3_000_000)
    )
    del first, second
    assert [len(block) for block in memory._spare] == [12_000_000]


def test_a_gradient_of_another_size_or_type_has_its_own_memory():
    x = torch.empty(2_000_000, dtype=torch.float32)
    kept = gradient_like(x)
    del kept
    larger = gradient_like(torch.empty(3_000_000, dtype=torch.float64))
    assert larger.shape == (3_000_000,)
    assert larger.dtype == torch.float64
    assert larger.untyped_storage().nbytes() == 24_000_000


def test_the_layout_of_a_gradient_is_that_of_what_it_is_like():
    g = torch.empty(8, 16, 128, 128, dtype=torch.float32).to(memory_format=torch.channels_last)
    for _ in range(2):
        like = gradient_like(g)
        assert like.stride() == g.stride()
        del like


def test_the_memory_of_results_and_of_small_gradients_is_not_kept():
    small, result = (
        gradient_like(torch.empty(1000, dtype=torch.float32)),
        new_like(torch.empty(SHAPE, dtype=torch.float32), torch.float32),
    )
    del small, result
    assert memory._spare == []


def test_where_the_system_lends_no_memory_pytorch_is_asked_for_it(monkeypatch):
    def refused(*args, **kwargs):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(memory.mmap, "mmap", refused)
    asked = gradient_like(torch.empty(SHAPE, dtype=torch.float32))
    assert asked.shape == SHAPE
    del asked
    assert memory._spare == []


def test_memory_that_the_system_refuses_to_have_back_is_not_kept(monkeypatch):
    kept = gradient_like(torch.empty(SHAPE, dtype=torch.float32))
    monkeypatch.setattr(mmap, "MADV_FREE", -1)
    del kept
    assert memory._spare == []


@pytest.mark.parametrize("graded", [True, False])
def test_a_large_batch_that_was_mixed_can_go_on_in_place_and_detach(graded):
    plan = Plan(
        torch.tensor([2, 0, 3, 1]), torch.tensor([0.75, 0.25, 1.0, 0.5], dtype=torch.float32)
    )
    with torch.no_grad():
        out = plan.mix(torch.rand(SHAPE, dtype=torch.float32).requires_grad_(graded))
    scale = torch.rand(SHAPE[1], requires_grad=True, dtype=torch.float32)
    expected = out * scale
    assert torch.equal(out.mul_(scale), expected)
    assert not out.detach_().requires_grad
