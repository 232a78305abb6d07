import copy
import io

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vicinal.errors import UserError
from vicinal.models import build, freeze_backbone, head_names, input_format, parse_name
from vicinal.models.weights_file import load_initial_weights, read_weights

SHAPE = (3, 16, 16)


def refused(name, shape=SHAPE, classes=3):
    with pytest.raises(UserError) as caught:
        build(name, shape=shape, classes=classes)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.usefixtures("tiny_timm")
def test_pretrained_weights_of_timm_are_loaded_only_where_the_name_asks_for_them():
    log = []
    name = "timm:tiny?pretrained=true"
    network = build(name, shape=SHAPE, classes=3, log=log.append)
    assert (network.conv.weight == 0.25).all()
    assert log == ["initial weights: those of tiny in timm; its head starts from random weights"]
    assert not (build("timm:tiny", shape=SHAPE, classes=3).conv.weight == 0.25).any()
    of_a_checkpoint = build(name, shape=SHAPE, classes=3, initial_weights=False)
    assert not (of_a_checkpoint.conv.weight == 0.25).any()


def test_pretrained_weights_of_timm_that_are_not_available_are_one_sentence(tiny_timm):
    def create_model(name, *, pretrained, **settings):
        if pretrained or settings["num_classes"] == 4:
            raise OSError("Name or service not known\nretry")
        return nn.Linear(2, 3)

    tiny_timm.create_model = create_model
    message = refused("timm:tiny?pretrained=true")
    assert message.startswith("timm:tiny?pretrained=true: its pretrained weights are not available")
    assert "timm looked for timm/tiny.a1_in1k in the Hugging Face cache" in message
    assert "hf download timm/tiny.a1_in1k" in message
    assert "?weights=FILE" in message
    # It is not the weights that are missing if the network cannot be built without them.
    message = refused("timm:tiny?pretrained=true", classes=4)
    assert (
        "failed to build a network for the shape and number of classes of the data set" in message
    )


def test_weights_of_timm_that_do_not_exist_are_an_error(tiny_timm):
    def get_pretrained_cfg(name):
        raise RuntimeError("Invalid pretrained tag (b2) for tiny.")

    tiny_timm.get_pretrained_cfg = get_pretrained_cfg
    assert "timm.list_pretrained('tiny*') lists" in refused("timm:tiny.b2")


def test_a_network_of_timm_for_one_size_is_built_for_the_size_of_the_data(tiny_timm):
    asked = {}
    config = copy.copy(tiny_timm.get_pretrained_cfg("tiny"))
    config.fixed_input_size = True
    tiny_timm.get_pretrained_cfg = lambda name: config
    tiny_timm.create_model = lambda name, **how: asked.update(how) or nn.Linear(1, 3)
    build("timm:tiny", shape=(3, 32, 32), classes=3)
    assert asked["img_size"] == (32, 32)
    asked.clear()
    build("timm:tiny", shape=SHAPE, classes=3)
    assert "img_size" not in asked


def test_weights_of_torchvision_are_checked_and_loaded_except_for_the_head(tiny_torchvision):
    log = []
    name = "torchvision:tiny?weights=DEFAULT"
    network = build(name, shape=SHAPE, classes=3, log=log.append)
    assert (network.conv.weight == 0.5).all()
    assert not (network.fc.weight == 0.5).any()
    assert tiny_torchvision.asked == [{"progress": False, "check_hash": True}]
    assert "the head starts from random weights" in log[0]
    same = build(name, shape=SHAPE, classes=10)
    assert (same.fc.weight == 0.5).all()
    build(name, shape=SHAPE, classes=3, initial_weights=False)
    assert len(tiny_torchvision.asked) == 2


def test_weights_of_torchvision_that_are_unknown_or_unavailable_are_errors(tiny_torchvision):
    message = refused("torchvision:tiny?weights=IMAGES_V2")
    assert "'IMAGES_V2'. Did you mean 'IMAGES_V1'?" in message
    assert "The name of a file ends in .safetensors" in message

    def fail(self, **how):
        raise OSError("no network")

    tiny_torchvision.Weights.get_state_dict = fail
    message = refused("torchvision:tiny?weights=DEFAULT")
    assert "(OSError: no network). torchvision looked for https://example.org/tiny.pth" in message


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("nested", [None, "state_dict", "parallel", "vicinal"])
def test_weights_come_from_a_file_for_any_network(tmp_path, suffix, nested):
    trained = build("mlp", shape=(4,), classes=3)
    state, path = trained.state_dict(), tmp_path / f"weights.{suffix}"
    if nested == "parallel":
        state = {f"module.{name}": value for name, value in state.items()}
    elif nested == "vicinal":
        state = {f"/weights/{name}": value for name, value in state.items()}
        state["/inputs/mean"] = torch.zeros(4)
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if nested == "state_dict" else state, path)
    network = build(f"mlp?weights={path}", shape=(4,), classes=3)
    for name, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_a_head_for_other_classes_keeps_its_random_weights_and_is_reported(tmp_path):
    path, log = tmp_path / "weights.safetensors", []
    trained = build("mlp", shape=(4,), classes=10)
    save_file(trained.state_dict(), path)
    torch.manual_seed(0)
    plain = build("mlp", shape=(4,), classes=3)
    torch.manual_seed(0)
    network = build(f"mlp?weights={path}", shape=(4,), classes=3, log=log.append)
    assert torch.equal(network.head.weight, plain.head.weight)
    assert torch.equal(network.layer1[1].weight, trained.layer1[1].weight)
    assert "4 tensors" in log[0]
    assert "head.weight of shape (10, 128) in the weights, (3, 128) in the network" in log[0]


def test_weights_of_another_backbone_are_an_error_that_names_a_tensor(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(build("mlp", shape=(5,), classes=3).state_dict(), path)
    message = refused(f"mlp?weights={path}", shape=(4,))
    assert "layer1.1.weight of shape (128, 5) in the weights, (128, 4) in the network" in message
    state = build("mlp", shape=(4,), classes=3).state_dict()
    torch.save(state | {"layer0.bias": torch.ones(7)}, path)
    assert "layer0.bias of shape (7,) is only in the weights" in refused(
        f"mlp?weights={path}", (4,)
    )
    torch.save({"head.weight": torch.zeros(3, 128)}, path)
    assert "layer1.1.bias is missing in the weights" in refused(f"mlp?weights={path}", shape=(4,))


class Wrapped(nn.Module):
    """A network whose layers are all in one module, as in other programs."""

    def __init__(self, layers, classes=3, *, deep_head=False):
        super().__init__()
        self.net = nn.ModuleDict()
        self.net["body"] = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers)))
        last = nn.Linear(4, classes)
        self.net["fc"] = nn.Sequential(nn.Linear(4, 4), last) if deep_head else last


def test_layers_that_a_network_lacks_are_not_taken_for_its_head():
    with pytest.raises(
        UserError, match=r"net\.body\.3\.bias of shape \(4,\) is only in the weights"
    ):
        load_initial_weights(Wrapped(3), Wrapped(6).state_dict(), origin="a.pt")
    network, deeper = Wrapped(3), Wrapped(3, 10, deep_head=True)
    load_initial_weights(network, deeper.state_dict(), origin="a.pt")
    assert torch.equal(network.net["body"][2].weight, deeper.net["body"][2].weight)


def test_a_file_that_could_run_code_is_never_loaded(tmp_path):
    path, ran = tmp_path / "weights.pt", tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return ran.touch, ()

    torch.save({"state_dict": Hostile()}, path)
    assert "holds Python objects, which could run code" in refused(f"mlp?weights={path}", (4,))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        (b"nothing", "got something else"),
        ([1, 2], "expected a mapping of names to tensors"),
        ({}, "expected a mapping of names to tensors"),
        ({"a": 1}, "expected a mapping of names to tensors"),
    ],
)
def test_a_file_without_weights_is_an_error(tmp_path, content, words):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=words):
        read_weights(path)


def test_counters_that_old_files_lack_are_not_needed():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3))
    state = {k: v + 1 for k, v in network.state_dict().items() if "num_batches" not in k}
    load_initial_weights(network, state, origin="old.pt")
    assert torch.equal(network[0].running_mean, torch.ones(2))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mlp?pretrained=true", "no mlp option 'pretrained'"),
        ("timm:tiny?pretrained=yes", "no value of the option pretrained 'yes'"),
        ("timm:tiny?pretrained=true&weights=a.pt", "got both"),
        ("timm:tiny?mean=0.5", "expected both mean and std"),
        ("timm:tiny?mean=a&std=1", "expected numbers such as mean=0.5"),
        ("timm:tiny?mean=0&std=0", "expected numbers such as std=0.5"),
        ("mlp?weights", "expected option=value"),
    ],
)
def test_options_of_networks_are_checked_before_anything_is_imported(name, words):
    with pytest.raises(UserError, match=words):
        parse_name(name)


@pytest.mark.usefixtures("tiny_timm", "tiny_torchvision")
def test_the_format_of_inputs_is_that_of_the_library_of_pretrained_weights():
    for name in (
        "timm:tiny?pretrained=true",
        "timm:tiny?weights=a.pt",
        "torchvision:tiny?weights=DEFAULT",
        "torchvision:tiny?weights=a.safetensors",
    ):
        known = input_format(name)
        assert known.mean == (0.5, 0.4, 0.3)
        assert known.std == (0.2, 0.25, 0.5)
        assert known.size == (16, 16)
    for name in ("timm:tiny", "torchvision:tiny", "mlp?weights=a.pt", "small-cnn", "a.b:net"):
        assert input_format(name) is None
    assert input_format("timm:tiny?pretrained=true&mean=0,0,0&std=1,1,2").std == (1, 1, 2)


class Classified(nn.Module):
    """A network whose last linear layer has no telling name."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(2, 2), nn.Linear(2, 3)


def test_the_head_is_found_by_its_name_or_is_the_last_linear_layer(tiny_timm):
    assert head_names(build("lenet", shape=(1, 28, 28), classes=3)) == {"head.weight", "head.bias"}
    tiny = tiny_timm.create_model("tiny", pretrained=False, num_classes=3, in_chans=1)
    assert head_names(tiny) == {"fc.weight", "fc.bias"}
    assert head_names(Classified()) == {"out.weight", "out.bias"}
    several = nn.Sequential()
    several.fc, several.classifier = nn.Linear(4, 8), nn.Linear(8, 2)
    assert head_names(several) == {"classifier.weight", "classifier.bias"}
    several.head = nn.Identity()
    assert head_names(several) == {"classifier.weight", "classifier.bias"}
    with pytest.raises(UserError, match=r"ReLU: expected a network with a head.*Name its last"):
        head_names(nn.ReLU())


def test_a_frozen_backbone_does_not_learn_and_its_batch_norms_stay_in_eval_mode(tiny_timm):
    network = tiny_timm.create_model("tiny", pretrained=False, num_classes=3, in_chans=1)
    freeze_backbone(network)
    network = copy.deepcopy(network)  # as a moving average of the weights does
    before = copy.deepcopy(network.state_dict())
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.randn(4, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"fc.weight", "fc.bias"}
    assert network.training
    assert not network.norm.training
    buffer = io.BytesIO()
    torch.save(network, buffer)
    again = torch.load(io.BytesIO(buffer.getvalue()), weights_only=False).train()
    assert again.training
    assert not again.norm.training


def test_a_head_with_another_set_of_tensors_is_said_to_start_from_random_weights():
    log = []
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3, bias=False))
    trained = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    load_initial_weights(network, trained.state_dict(), origin="a.pt", log=log.append)
    assert not torch.equal(network[1].weight, trained[1].weight)
    assert "the head starts from random weights (1.bias of shape (3,) is only in the" in log[0]
