"""Mixing inside a model against the model split by hand, with the textbook formula in between."""

import copy
import gc
import pickle
import sys
import threading
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from vicinal import MixedInside, MixUp, generator_at

X = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
Y = torch.tensor([0, 1, 1, 0, 0, 1])
LAYERS = ["input", "a", "b"]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return torch.tanh(x + self.norm(self.linear(x)))


class Net(nn.Module):
    """Two blocks, which ``run`` runs: at once, or as a checkpoint does."""

    def __init__(self, run=lambda f, x: f(x), *, each=False):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.a, self.b, self.head = nn.Linear(3, 4), Block(), Block(), nn.Linear(4, 2)
        self.run, self.each = run, each
        self.double()

    def body(self, x):
        return self.b(self.a(x))

    def forward(self, x, *, scale=1.0, shift=0.0):
        x = self.stem(x)
        x = self.run(self.b, self.run(self.a, x)) if self.each else self.run(self.body, x)
        return self.head(x) * scale + shift


def again(f, x):
    return checkpoint(f, x, use_reentrant=False)


def reentrant(f, x):
    return checkpoint(f, x, use_reentrant=True)


def without_arguments(f, x):
    return checkpoint(lambda: f(x), use_reentrant=False)


def nested(f, x):
    return again(lambda x: again(f, x), x)


RUNS = [again, reentrant, without_arguments, nested]


def by_hand(model, plan=None, layer=None, *, x=X):
    def mixed(h, here):
        if here != layer:
            return h
        lam = plan.lam.double()[:, None]
        return lam * h + (1 - lam) * h[plan.partner]

    h = mixed(model.stem(mixed(x, "input")), "stem")
    return model.head(mixed(model.b(mixed(model.a(h), "a")), "b"))


def loss_by_hand(plan, output):
    own = F.cross_entropy(output, Y, reduction="none")
    met = F.cross_entropy(output, Y[plan.partner], reduction="none")
    return (plan.lam * own + (1 - plan.lam) * met).mean()


def plan_at(seed):
    return MixUp(1.0, per="example").draw(6, generator=generator_at(seed, 0))


def loss_of(plan, output):
    return plan.loss(F.cross_entropy, output, Y)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters()]


def assert_same(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


def assert_same_output_and_gradient(model, output, expected):
    torch.testing.assert_close(output, expected)
    by_us = gradients(model, loss_of(ONE, output))
    assert_same(by_us, gradients(model, loss_by_hand(ONE, expected)))


def hooks(model):
    gc.collect()
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.fixture
def compiler():
    """Forget what other tests have compiled: code is compiled once for all models of a class."""
    torch.compiler.reset()


ONE, TWO = plan_at(1), plan_at(2)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("run", [lambda f, x: f(x), *RUNS])
def test_passes_of_two_wrappers_and_unmixed_ones_before_one_backward_keep_apart(run, each):
    model, slow = Net(run, each=each), Net()
    first = MixedInside(model, MixUp(1.0), at=LAYERS)
    second = MixedInside(model, MixUp(1.0), at=LAYERS)
    ours = (
        loss_of(ONE, first(X, ONE, at="a"))
        + 2 * loss_of(TWO, second(X, TWO, at="b"))
        + 3 * loss_of(ONE, second(X, ONE, at="a"))
        + 4 * loss_of(ONE, first(X, ONE, at="input"))
        + 5 * F.cross_entropy(first(X), Y)
        + 6 * F.cross_entropy(model(X), Y)
        + 7 * loss_of(TWO, first(X, TWO, at="a"))
    )
    expected = (
        loss_by_hand(ONE, by_hand(slow, ONE, "a"))
        + 2 * loss_by_hand(TWO, by_hand(slow, TWO, "b"))
        + 3 * loss_by_hand(ONE, by_hand(slow, ONE, "a"))
        + 4 * loss_by_hand(ONE, by_hand(slow, ONE, "input"))
        + 5 * F.cross_entropy(by_hand(slow), Y)
        + 6 * F.cross_entropy(by_hand(slow), Y)
        + 7 * loss_by_hand(TWO, by_hand(slow, TWO, "a"))
    )
    assert_same(gradients(model, ours), gradients(slow, expected))
    del ours
    assert hooks(model) == 0


@pytest.mark.parametrize("run", RUNS)
def test_an_unmixed_pass_is_not_mixed_after_the_backward_of_a_mixed_one(run):
    model, slow = Net(run), Net()
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    kept = loss_of(ONE, mixed(X, ONE, at="a"))
    kept.backward(retain_graph=run is not reentrant)
    for output in (lambda: model(X), lambda: mixed(X)):
        ours = gradients(model, F.cross_entropy(output(), Y))
        assert_same(ours, gradients(slow, F.cross_entropy(by_hand(slow), Y)))
    if run is not reentrant:  # the graph that was kept still knows how it was mixed
        assert_same(
            gradients(model, kept), gradients(slow, loss_by_hand(ONE, by_hand(slow, ONE, "a")))
        )


@pytest.mark.parametrize("run", RUNS)
def test_a_block_keeps_apart_from_other_passes_and_joins_a_wrapper(run):
    model, slow = Net(run), Net()
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    before = loss_of(TWO, mixed(X, TWO, at="b")) + F.cross_entropy(model(X), Y)
    with ONE.inside(model.a):
        ours = gradients(model, before + loss_of(TWO, mixed(X, TWO, at="b")))
    h = slow.a(slow.stem(X))
    h = slow.b(ONE.lam.double()[:, None] * h + (1 - ONE.lam.double()[:, None]) * h[ONE.partner])
    h = TWO.lam.double()[:, None] * h + (1 - TWO.lam.double()[:, None]) * h[TWO.partner]
    expected = (
        loss_by_hand(TWO, by_hand(slow, TWO, "b"))
        + F.cross_entropy(by_hand(slow), Y)
        + loss_by_hand(TWO, slow.head(h))
    )
    assert_same(ours, gradients(slow, expected))


@pytest.mark.parametrize("run", RUNS)
def test_a_block_that_ends_before_the_recomputation_raises_an_error(run):
    model = Net(run)
    words = "Call backward inside the block, or use MixedInside"
    with pytest.raises(RuntimeError, match=words), ONE.inside(model.a):
        model(X)
    assert hooks(model) == 0


@pytest.mark.parametrize("run", [again, reentrant])
def test_a_checkpoint_around_the_whole_repeats_the_pass(run):
    model, slow = Net(again), Net()
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    output = run(lambda x: mixed(x, ONE, at="a"), X.clone().requires_grad_())
    expected = loss_by_hand(ONE, by_hand(slow, ONE, "a"))
    assert_same(gradients(model, loss_of(ONE, output)), gradients(slow, expected))


@pytest.mark.filterwarnings("ignore:Exception ignored in.*without_reentrant")  # PyTorch 2.6
@pytest.mark.parametrize(("outer", "inner"), [(again, reentrant), (reentrant, again)])
def test_nested_checkpoints_with_a_reentrant_one_raise_an_error(outer, inner):
    model = Net(lambda f, x: outer(lambda x: inner(f, x), x))
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    loss = loss_of(ONE, mixed(X, ONE, at="a"))
    with pytest.raises(RuntimeError, match="a is inside nested gradient checkpoints"):
        loss.backward()


def test_a_second_derivative_through_a_checkpoint_is_the_exact_one():
    found = []
    for model in (Net(again), Net()):
        if model.run is again:
            output = MixedInside(model, MixUp(1.0), at=LAYERS)(X, ONE, at="a")
        else:
            output = by_hand(model, ONE, "a")
        loss = loss_by_hand(ONE, output)
        first = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        found.append(gradients(model, sum((g**2).sum() for g in first)))
    assert_same(*found)


@pytest.mark.parametrize("run", [lambda f, x: f(x), again, reentrant])
def test_threads_that_share_a_wrapper_each_get_their_own_plan(run):
    model = Net(run, each=True)
    for module in model.modules():  # running statistics are the one thing that they do share
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    slow = copy.deepcopy(model)
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    wrong = []

    def work(number):
        for step in range(15):
            plan, layer = plan_at(100 * number + step), LAYERS[(number + step) % 3]
            x = X.clone().requires_grad_()
            loss_of(plan, mixed(x, plan, at=layer)).backward()
            z = X.clone().requires_grad_()
            loss_by_hand(plan, by_hand(slow, plan, layer, x=z)).backward()
            if not torch.allclose(x.grad, z.grad):
                wrong.append((number, step))

    def safely(number):
        try:
            work(number)
        except BaseException as error:
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=safely, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert hooks(model) == 0


def test_replicas_that_run_in_threads_have_one_backward_pass_together():
    model, slow = Net(again), Net()
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    plans, outputs = [plan_at(seed) for seed in range(3)], {}
    shallow = [replica(mixed) for _ in plans]

    def work(k):
        outputs[k] = shallow[k](X, plans[k], at=LAYERS[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ours = sum(loss_of(plans[k], outputs[k]) for k in range(3))
    expected = sum(loss_by_hand(plans[k], by_hand(slow, plans[k], LAYERS[k])) for k in range(3))
    assert_same(gradients(model, ours), gradients(slow, expected))


def replica(module):
    """Return what nn.DataParallel makes of a module; the parameters are shared."""
    made = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        made._modules[name] = replica(child)
    for name, parameter in module._parameters.items():
        setattr(made, name, parameter)
    made._buffers = {name: buffer.clone() for name, buffer in module._buffers.items()}
    return made


@pytest.mark.parametrize("run", [lambda f, x: f(x), again])
def test_tensors_that_are_saved_elsewhere_change_no_gradient(run):
    model, slow = Net(run), Net()
    expected = gradients(slow, loss_by_hand(ONE, by_hand(slow, ONE, "a")))
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    with torch.autograd.graph.save_on_cpu():
        loss = loss_of(ONE, mixed(X, ONE, at="a"))
    assert_same(gradients(model, loss), expected)
    if not hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"):
        return  # PyTorch 2.6, where a block cannot tell this from a checkpoint, and refuses it
    with torch.autograd.graph.save_on_cpu(), ONE.inside(model.a):
        ours = gradients(model, loss_of(ONE, model(X)))
    assert_same(ours, expected)


@pytest.mark.parametrize("run", [lambda f, x: f(x), *RUNS])
def test_a_wrapper_around_a_model_with_a_wrapper_mixes_twice(run):
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x, TWO, at="a")

    model, slow = Net(run), Net()
    inner = MixedInside(model, MixUp(1.0), at=["a"])
    outer = MixedInside(Outer(inner), MixUp(1.0), at=["inner.model.b"])
    ours = gradients(model, loss_of(ONE, outer(X, ONE, at="inner.model.b")))
    h = slow.a(slow.stem(X))
    h = slow.b(TWO.lam.double()[:, None] * h + (1 - TWO.lam.double()[:, None]) * h[TWO.partner])
    h = ONE.lam.double()[:, None] * h + (1 - ONE.lam.double()[:, None]) * h[ONE.partner]
    assert_same(ours, gradients(slow, loss_by_hand(ONE, slow.head(h))))


@pytest.mark.parametrize("run", [lambda f, x: f(x), again])
def test_a_model_has_no_hooks_outside_of_a_pass_even_after_an_error(run):
    model = Net(run)
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    output = mixed(X, ONE, at="a")
    loss_of(ONE, output).backward()
    del output
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        mixed(torch.rand(6, 5, dtype=torch.float64), ONE, at="a")
    with pytest.raises(ValueError, match="expected a batch of 6"):
        mixed(X[:4], ONE, at="a")
    assert hooks(model) == 0
    assert torch.equal(model(X), Net()(X))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_models_can_be_scripted_copied_and_pickled_between_passes():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    mixed = MixedInside(model, MixUp(1.0), at=["0", "1"])
    before = len(pickle.dumps(model[0]))
    output = mixed(X, ONE, at="0")
    assert len(pickle.dumps(model[0])) == before
    assert torch.equal(torch.jit.script(mixed.model)(X), model(X))
    for other in (copy.deepcopy(mixed), pickle.loads(pickle.dumps(mixed))):
        assert torch.equal(other(X, ONE, at="0"), output)
    assert torch.equal(copy.deepcopy(model[0])(X), model[0](X))


def test_a_copy_that_is_made_between_forward_and_backward_of_a_checkpoint_is_not_mixed():
    model, slow = Net(again), Net()
    loss = loss_of(ONE, MixedInside(model, MixUp(1.0), at=LAYERS)(X, ONE, at="a"))
    copied = copy.deepcopy(model)
    ours = gradients(copied, F.cross_entropy(copied(X), Y) + 0 * loss)
    assert_same(ours, gradients(slow, F.cross_entropy(by_hand(slow), Y)))


def test_further_arguments_reach_the_model():
    model = Net()
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    for layer in LAYERS:
        expected = by_hand(model, ONE, layer) * 2 + 1
        output = mixed(X, ONE, at=layer, scale=2, shift=1)
        assert_same_output_and_gradient(model, output, expected)
    torch.testing.assert_close(mixed(X, scale=2), by_hand(model) * 2)
    torch.testing.assert_close(
        mixed(plan=ONE, at="a", x=X, shift=1.0), by_hand(model, ONE, "a") + 1
    )
    alone = MixedInside(model, MixUp(1.0), at=["a"])  # the only layer need not be named
    torch.testing.assert_close(alone(X, ONE), by_hand(model, ONE, "a"))
    with pytest.raises(ValueError, match="expected at= as returned by draw, one of"):
        mixed(X, ONE)
    with pytest.raises(ValueError, match="expected a plan for at='a', got none"):
        mixed(X, at="a")

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, left=None, right=None, *, mask=1):
            return self.inner(left if right is None else left + right) * mask

    pair = MixedInside(Pair(), MixUp(1.0), at=["input", "inner"])
    mixed_sum = ONE.mix(X + 1)
    assert torch.equal(pair(X, ONE, torch.ones(()), at="inner", mask=2), mixed_sum * 2)
    assert torch.equal(pair(None, ONE, at="inner", left=X, right=torch.ones(())), mixed_sum)
    assert torch.equal(pair(X, None, torch.ones(())), X + 1)
    with pytest.raises(TypeError, match="expected a plan or None as the second argument"):
        pair(X, torch.ones(()))
    with pytest.raises(TypeError, match="expected a tensor as the first argument"):
        pair(None, ONE, at="input", left=X)


def test_frozen_modules_are_mixed_like_all_others_with_both_ways_of_mixing_inside():
    model = Net()
    model.a.norm.eval()
    model.b.eval()
    mixed = MixedInside(model, MixUp(1.0), at=["a.norm", "b"])
    norm = model.a.norm

    def frozen_norm():
        h = model.stem(X)
        z = norm(model.a.linear(h))
        lam = ONE.lam.double()[:, None]
        return model.head(model.b(torch.tanh(h + lam * z + (1 - lam) * z[ONE.partner])))

    for layer, expected in (("a.norm", frozen_norm), ("b", lambda: by_hand(model, ONE, "b"))):
        assert_same_output_and_gradient(model, mixed(X, ONE, at=layer), expected())
        with ONE.inside(model.get_submodule(layer)):
            output = model(X)
        assert_same_output_and_gradient(model, output, expected())


def test_a_plan_is_applied_in_eval_mode_too_and_nothing_is_mixed_without_one():
    model = Net().eval()
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS).eval()
    assert torch.equal(mixed(X), model(X))
    for layer in LAYERS:
        expected = by_hand(model, ONE, layer)
        assert_same_output_and_gradient(model, mixed(X, ONE, at=layer), expected)


def test_the_transforms_of_torch_func_go_through():
    model, slow = Net().eval(), Net().eval()
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)

    def loss(weights):
        return loss_of(ONE, torch.func.functional_call(mixed, weights, (X, ONE), {"at": "a"}))

    weights = {name: value.detach() for name, value in mixed.named_parameters()}
    ours = torch.func.grad(loss)(weights)
    expected = gradients(slow, loss_by_hand(ONE, by_hand(slow, ONE, "a")))
    assert_same(ours.values(), expected)


@dataclass
class Plain:
    logits: torch.Tensor
    past: object = None


@dataclass(slots=True)
class Slotted:
    logits: torch.Tensor


class Wrapping(nn.Module):
    def __init__(self, form, run):
        super().__init__()
        self.net, self.form = Net(run), form

    def forward(self, x):
        return self.form(self.net(x))


@pytest.mark.parametrize("run", [again, reentrant])
def test_outputs_of_any_form_are_searched_for_tensors_under_a_checkpoint(run):
    slow = Net()
    expected = gradients(slow, loss_by_hand(ONE, by_hand(slow, ONE, "a")))
    for form, logits in [
        (lambda z: {"z": [z, 1]}, lambda o: o["z"][0]),
        (Plain, lambda o: o.logits),
    ]:
        model = Wrapping(form, run)
        output = MixedInside(model, MixUp(1.0), at=["net.a"])(X, ONE, at="net.a")
        assert_same(gradients(model, loss_of(ONE, logits(output))), expected)
    model = Wrapping(Slotted, run)
    with pytest.raises(RuntimeError, match="the output of the model has to contain tensors, got"):
        MixedInside(model, MixUp(1.0), at=["net.a"])(X, ONE, at="net.a")
    assert hooks(model) == 0


class Keeping(Net):
    """Keeps a tensor beside its output, out of the reach of what its caller sees."""

    def body(self, x):
        h = self.a(x)
        self.kept = h.square()
        return self.b(h)


def test_a_loss_that_the_output_does_not_lead_to_is_right_or_refused():
    model = Keeping(again)
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    output = mixed(X, ONE, at="a")
    with pytest.raises(RuntimeError, match="not known whether to mix"):
        model.kept.sum().backward()
    expected = Keeping()
    gradient = gradients(expected, loss_by_hand(ONE, by_hand(expected, ONE, "a")))
    assert_same(gradients(model, loss_of(ONE, output)), gradient)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("run", [again, reentrant])
def test_a_compiled_wrapper_refuses_a_checkpoint(run):
    mixed = MixedInside(Net(run), MixUp(1.0), at=LAYERS)
    compiled = torch.compile(mixed, backend="aot_eager")
    with pytest.raises(
        RuntimeError, match="a runs under gradient checkpointing, where a compiled MixedInside"
    ):
        compiled(X, ONE, at="a")


@pytest.mark.usefixtures("compiler")
def test_compiling_leaves_hooks_that_can_be_taken_off():
    model, slow = Net(), Net()
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    compiled = torch.compile(mixed, backend="eager", fullgraph=True)
    for layer in ("input", "a", "b"):
        torch.testing.assert_close(compiled(X, ONE, at=layer), by_hand(slow, ONE, layer))
        torch.testing.assert_close(mixed(X, TWO, at=layer), by_hand(slow, TWO, layer))
    assert torch.equal(model(X), by_hand(slow))
    assert hooks(model) == 2
    mixed.remove_hooks()
    assert hooks(model) == 0
    torch.testing.assert_close(compiled(X, TWO, at="a"), by_hand(slow, TWO, "a"))
    copied = copy.deepcopy(mixed)
    torch.testing.assert_close(copied(X, ONE, at="b"), by_hand(slow, ONE, "b"))
    assert torch.equal(copied.model(X), by_hand(slow))
    copied.remove_hooks()
    assert hooks(copied.model) == 0
    assert hooks(model) == 2


class Broken(Net):
    def body(self, x):
        h = self.a(x)
        torch._dynamo.graph_break()
        return self.b(h)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.usefixtures("compiler")
def test_a_compiled_wrapper_mixes_where_the_graph_breaks_too():
    model, slow = Broken(), Net()
    compiled = torch.compile(MixedInside(model, MixUp(1.0), at=LAYERS), backend="eager")
    for plan, layer in [(ONE, "input"), (ONE, "a"), (TWO, "b"), (TWO, "a"), (ONE, "b")]:
        torch.testing.assert_close(compiled(X, plan, at=layer), by_hand(slow, plan, layer))
        torch.testing.assert_close(compiled(X), by_hand(slow))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.usefixtures("compiler")
def test_a_layer_that_was_compiled_by_itself_is_mixed_inside_or_refused():
    model, slow = Net(), Net()
    mixed = MixedInside(model, MixUp(1.0), at=["a", "a.linear"])
    model.a.compile(backend="eager")
    torch.testing.assert_close(mixed(X), by_hand(slow))
    for plan in (ONE, TWO):
        torch.testing.assert_close(mixed(X, plan, at="a"), by_hand(slow, plan, "a"))
    with pytest.raises(RuntimeError, match=r"a\.linear ran 0 times"):
        mixed(X, ONE, at="a.linear")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_fabric_trains_a_wrapper_in_every_precision_with_an_exact_lam(precision):
    fabric = pytest.importorskip("lightning_fabric").Fabric(
        accelerator="cpu", devices=1, precision=precision
    )
    found = []
    for by in (None, ONE):
        model = Net().float()
        network = fabric.setup(
            Split(model) if by is None else MixedInside(model, MixUp(1.0), at=LAYERS)
        )
        output = network(X.float()) if by is None else network(X.float(), ONE, at="a")
        fabric.backward(loss_by_hand(ONE, output))
        found.append([p.grad for p in model.parameters()])
    assert_same(*found)


class Split(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        h = self.model.a(self.model.stem(x))
        return self.model.head(self.model.b(ONE.mix(h)))


def test_inference_mode_inside_a_block_is_no_gradient_checkpointing():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.rand(3, 3)
    plan = MixUp(1.0).draw(3)
    with plan.inside(model[0]):
        expected = model(x)
    with plan.inside(model[0]), torch.inference_mode():
        output = model(x)
    torch.testing.assert_close(output, expected.detach())
