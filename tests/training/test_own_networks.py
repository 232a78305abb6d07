"""Networks of the user's own code: what their checkpoints hold, and what is refused."""

import json
import math
import sys
from contextlib import suppress

import pytest
import torch
from torch import nn

import vicinal as package
from vicinal.errors import UserError
from vicinal.training.devices import make_fabric
from vicinal.training.loop import make_learner, train
from vicinal.training.settings import SGD, Linear, Training
from vicinal.training.trial_setup import _check_state

pytestmark = pytest.mark.usefixtures("without_figures")

NETWORKS = """
import numpy as np
import torch
from torch import nn

class Body(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.body, self.head = nn.Linear(shape[0], 16), nn.Linear(16, classes)
    def forward(self, x):
        return self.head(self.changed(torch.relu(self.body(x))))
    def changed(self, x):
        return x

class Plain(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.scale = torch.randn(16)
    def changed(self, x):
        return x * self.scale

class NotSaved(Plain):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        del self.scale
        self.register_buffer("scale", torch.randn(16), persistent=False)

class Complex(Plain):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.scale = nn.Parameter(torch.randn(16, dtype=torch.cfloat))
    def changed(self, x):
        return (x * self.scale).real

class Extra(Body):
    def get_extra_state(self):
        return {"k": 3}
    def set_extra_state(self, state):
        pass

class Sparse(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.table = nn.Embedding(4, 16, sparse=True)
    def changed(self, x):
        return x + self.table(torch.zeros(len(x), dtype=torch.int64))

class Auxiliary(Body):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)

class Caching(Body):
    scale = None
    def changed(self, x):
        if self.scale is None:
            self.scale = torch.linspace(0.5, 1.5, 16)
        return x * self.scale

class Lazy(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.body = nn.LazyLinear(16)

class LazyInTraining(Lazy):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.more = nn.LazyLinear(16)
    def changed(self, x):
        return self.more(x) if self.training else x

class HiddenByZero(Plain):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        nn.init.zeros_(self.head.weight)

class RunningMean(Body):
    mean = 0.0
    def changed(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean

class Counted(Body):
    count = 0
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        Counted.count += 1
        self.register_buffer(f"buffer{Counted.count}", torch.zeros(1))

SHARED = nn.Linear(4, 16)

class Sharing(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.body = SHARED.requires_grad_(False)

class Centered(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))
    def forward(self, x):
        if self.training:
            self.mean = (self.mean + x.detach().mean(0)) / 2
        return x - self.mean

CENTERED = Centered()

class SharingBuffers(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.center = CENTERED
    def changed(self, x):
        return self.center(x)

class Bank(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("bank", torch.zeros(0, 16))
    def forward(self, x):
        if self.training:
            self.bank = torch.cat([self.bank, x.detach()])
        return x

BANK = Bank()

class SharingBanks(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.bank = BANK
    def changed(self, x):
        return self.bank(x)

class SparseBuffer(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("graph", torch.eye(16).to_sparse())

class Integers(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.order = nn.Parameter(torch.arange(16), requires_grad=False)
    def changed(self, x):
        return x[:, self.order]

class Positive(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.spread = nn.Parameter(torch.full((16,), 0.05))
    def changed(self, x):
        return x * torch.distributions.Normal(0.0, self.spread).variance.sqrt()

class ClearedByTrain(Body):
    cache = None
    def train(self, mode=True):
        self.cache = None
        return super().train(mode)
    def changed(self, x):
        self.cache = x.mean(0) if self.cache is None else self.cache
        return x - self.cache.detach() * 0

class HiddenByRoot(Plain):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.small = nn.Parameter(torch.full((16,), 0.01))
    def changed(self, x):
        return x * self.scale * self.small.sqrt()

class FirstBatch(Body):
    mean = None
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("ready", torch.tensor(False))
    def changed(self, x):
        if self.training and not self.ready:
            self.mean, self.ready[...] = x.detach().mean(0), True
        return x - self.mean if self.ready else x

class Dropped(Body):
    def state_dict(self, *args, **kept):
        state = super().state_dict(*args, **kept)
        return {key: value for key, value in state.items() if "body" not in key}

class NoisyByNumPy(Body):
    def changed(self, x):
        return x + float(np.random.default_rng().normal())

class CalledSparse(Body):
    sparse = True

class Noisy(Body):
    def changed(self, x):
        return x + torch.randn_like(x)
"""


@pytest.fixture
def own(tmp_path, monkeypatch, small_recipe, vicinal):
    """Return a function that trains a network of the user's own module by the command line."""
    (tmp_path / "networks_of_one.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    changes = {"data.source": "iris", "arms.mixup-features": None, "corrupted_labels": [0.0]}

    def run(name):
        recipe = small_recipe(changes | {"model.name": f"networks_of_one:{name}"})
        out = tmp_path / f"run-{name}"
        return vicinal("train", recipe, "--arm", "mixup", "--out", out, "--logger", "none"), out

    return run


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Plain", "Plain computes with tensors that its state_dict lacks"),
        ("NotSaved", "NotSaved computes with tensors that its state_dict lacks"),
        (
            "Complex",
            "expected real tensors as the state of networks_of_one:Complex, got torch.comp",
        ),
        (
            "Extra",
            "expected real tensors as the state of networks_of_one:Extra, got <class 'dict'>",
        ),
        ("SparseBuffer", "expected dense tensors as the state of networks_of_one:SparseBuffer"),
        ("SharingBanks", "SharingBanks gets other parameters or buffers in a training step"),
        ("LazyInTraining", "did not initialize (some of them did not run)"),
        ("HiddenByZero", "computes with tensors that its state_dict lacks"),
        ("FirstBatch", "computes with tensors that its state_dict lacks"),
        ("Dropped", "a second networks_of_one:Dropped does not take the state of the first one"),
        ("HiddenByRoot", "computes with tensors that its state_dict lacks"),
        ("RunningMean", "computes with tensors that its state_dict lacks"),
        ("Counted", "a second networks_of_one:Counted does not take the state of the first one"),
        ("Sparse", "has an embedding with sparse gradients"),
        ("Auxiliary", "expected one tensor of outputs in train mode, got <class 'tuple'>"),
    ],
)
def test_networks_whose_training_or_checkpoint_would_be_wrong_are_refused(own, name, sentence):
    done, _ = own(name)
    assert done.exit_code == 2, done.output
    assert sentence in done.stderr


GOOD = [
    *("Body", "CalledSparse", "Caching", "ClearedByTrain", "Integers", "Lazy", "Noisy"),
    *("NoisyByNumPy", "Positive", "Sharing"),
]


@pytest.mark.parametrize("name", GOOD)
def test_other_networks_are_trained_and_their_checkpoints_give_the_same_metric(own, vicinal, name):
    done, out = own(name)
    assert done.exit_code == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    scored = vicinal("score", out, "--allow-import", "--json")
    assert scored.exit_code == 0, scored.stderr
    if not name.startswith("Noisy"):
        found = json.loads(scored.stdout)["metrics"]["accuracy"]
        assert found == pytest.approx(result["test_metric"])


class Permuted(nn.Linear):
    def __init__(self):
        super().__init__(2000, 2)
        self.register_buffer("order", torch.arange(2000).flip(0))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x):
        self.seen += self.training
        return super().forward(x[:, self.order])


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_buffers_of_integers_are_copied_into_a_moving_average(decay):
    settings = Training(
        epochs=2,
        batch_size=4,
        optimizer=SGD(name="sgd", lr=0.01),
        schedule=Linear(name="linear"),
        ema_decay=decay,
    )
    model = Permuted()
    learner = make_learner(model, settings, fabric=make_fabric(accelerator="cpu"))
    x, y = torch.randn(80, 2000), torch.arange(80) % 2
    from vicinal.data import Loader, Split

    for _ in train(learner, Loader(Split(x, y), batch_size=4, seed=0), seed=0):
        pass
    assert torch.equal(learner.trained.order, torch.arange(2000).flip(0))
    assert int(learner.trained.seen) == int(model.seen) == 40
    assert not torch.equal(learner.trained.weight, model.weight)


def test_a_head_that_shares_its_weight_with_the_backbone_is_trained():
    from vicinal.models import freeze_backbone

    network = nn.Sequential()
    network.body, network.head = nn.Linear(4, 4), nn.Linear(4, 4)
    network.other, network.head.weight = nn.Linear(4, 4), network.body.weight
    freeze_backbone(network)
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert trained == ["body.weight", "head.bias"]


def accuracy_on_iris(out):
    words = {"arms": ["erm"], "seeds": 1, "epochs": 1, "out": out, "quiet": True}
    return package.study("iris", **words).rows[0]["metrics"]["accuracy"]


@pytest.fixture(scope="module")
def usual_accuracy_on_iris(tmp_path_factory):
    return accuracy_on_iris(tmp_path_factory.mktemp("iris") / "study")


@pytest.mark.parametrize("changed", ["dtype", "device", "gradients", "autocast"])
def test_global_settings_of_pytorch_do_not_change_a_study(
    changed, usual_accuracy_on_iris, tmp_path
):
    before = torch.get_default_dtype()
    try:
        if changed == "dtype":
            torch.set_default_dtype(torch.float64)
        elif changed == "device":
            torch.set_default_device("meta")
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=changed == "autocast")
        with torch.set_grad_enabled(changed != "gradients"), autocast:
            found = accuracy_on_iris(tmp_path / "study")
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)
    assert found == usual_accuracy_on_iris


@pytest.mark.parametrize("start", [0.0, math.nan, math.inf])
def test_the_check_of_a_network_restores_buffers_that_builds_share(own, start):
    assert own("Body")[0].exit_code == 0  # which imports the module
    module = sys.modules["networks_of_one"]
    module.CENTERED.mean.fill_(start)
    model = module.SharingBuffers((4,), 3).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with suppress(UserError):  # outputs that are not finite
        _check_state(model, "networks_of_one:SharingBuffers", torch.randn(2, 4), 3)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)


def test_modules_that_builds_share_keep_their_weights(own):
    assert own("Body")[0].exit_code == 0  # which imports the module
    shared = sys.modules["networks_of_one"].SHARED
    before = shared.weight.detach().clone()
    assert own("Sharing")[0].exit_code == 0
    assert torch.equal(shared.weight, before)
