import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from vicinal.errors import UserError
from vicinal.models import build, check_name, mixing_layers

NAMES = ["resnet18", "resnet18d", "resnet34", "vit_tiny_patch16_224"]


class Made(nn.Linear):
    """Records its arguments."""

    def __init__(self, name, **settings):
        super().__init__(2, settings["num_classes"])
        self.asked = (name, settings)


@pytest.fixture
def timm(monkeypatch):
    """Replace timm by a module with the functions that vicinal calls."""
    module = ModuleType("timm")
    module.is_model = lambda name: name.partition(".")[0] in NAMES
    module.list_models = lambda: NAMES
    module.create_model = Made
    module.get_pretrained_cfg = lambda name: None
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


@pytest.fixture
def torchvision(monkeypatch):
    """Replace torchvision by a module with the functions that vicinal calls."""
    module, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    module.models = models
    everything = ["googlenet", "resnet18", "resnet50", "fasterrcnn_resnet50_fpn"]
    models.list_models = lambda module=None: everything[:3] if module is models else everything
    models.get_model = Made
    monkeypatch.setitem(sys.modules, "torchvision", module)
    return models


@pytest.fixture
def networks_of_mine(monkeypatch, tmp_path):
    """Put a module of networks into the current folder, which is not on Python's path."""
    (tmp_path / "networks_of_mine.py").write_text(
        "from torch import nn\n"
        "class Wide(nn.Module):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__()\n"
        "        self.asked = (shape, classes)\n"
        "class Family:\n"
        "    narrow = Wide\n"
        "def failing(shape, classes):\n"
        "    raise RuntimeError('no such\\nkernel')\n"
        "def name_of_one(shape, classes):\n"
        "    return 'wide'\n"
        "depth = 3\n"
    )
    (tmp_path / "broken_network.py").write_text("import a_module_that_is_nowhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    yield
    sys.modules.pop("networks_of_mine", None)


def refused(name, shape=(3, 32, 32)):
    with pytest.raises(UserError) as caught:
        build(name, shape=shape, classes=10)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k"])
def test_a_network_of_timm_is_built_for_the_channels_and_classes_without_weights(timm, name):
    network = build(f"timm:{name}", shape=(1, 28, 28), classes=7)
    assert network.asked == (name, {"pretrained": False, "num_classes": 7, "in_chans": 1})


def test_a_network_of_torchvision_is_built_for_the_classes_without_weights(torchvision):
    network = build("torchvision:resnet18", shape=(3, 28, 28), classes=7)
    assert network.asked == ("resnet18", {"weights": None, "num_classes": 7})


def test_a_network_of_torchvision_returns_only_logits_in_training_mode(torchvision):
    _, settings = build("torchvision:googlenet", shape=(3, 96, 96), classes=7).asked
    assert settings["aux_logits"] is False


def test_torchvision_takes_only_three_channels(torchvision):
    message = refused("torchvision:resnet18", (1, 28, 28))
    assert "expects 3 channels, got 1. Try timm:resnet18" in message


def test_libraries_do_not_take_rows_of_tables(timm, torchvision):
    for name in ("timm:resnet18", "torchvision:resnet18"):
        assert "got examples of shape (30,)" in refused(name, (30,))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_missing_library_is_an_error_with_the_pip_command(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    message = refused(f"{library}:resnet18")
    assert message.startswith(f"{library}:resnet18 requires the library {library}, which is not")
    assert f"Run pip install {library}." in message


def test_a_library_with_a_missing_dependency_is_called_broken(monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text("import a_module_that_is_nowhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = refused("timm:resnet18")
    assert "which is broken (ModuleNotFoundError: No module named 'a_module" in message
    assert "pip install --upgrade timm" in message


def test_the_error_of_a_library_for_another_torch_is_shown(monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "(RuntimeError: operator nms does not exist)" in refused("timm:resnet18")


def test_an_unknown_network_of_a_library_raises_an_error_with_the_nearest_names(timm, torchvision):
    assert refused("timm:resnet81") == (
        "timm has no classification network 'resnet81'. The nearest of 4 are resnet18, resnet18d, "
        "resnet34."
    )
    assert "'resnet5'. The nearest of 3 are resnet50, resnet18" in refused("torchvision:resnet5")


def test_a_network_of_torchvision_for_another_task_raises_an_error(torchvision):
    message = refused("torchvision:fasterrcnn_resnet50_fpn")
    assert "no classification network 'fasterrcnn_resnet50_fpn'" in message


def test_the_error_of_a_library_that_fails_to_build_a_network_is_shown(timm):
    def create_model(name, **settings):
        raise TypeError("unexpected keyword argument 'in_chans'")

    timm.create_model = create_model
    message = refused("timm:resnet18")
    assert "timm:resnet18 failed to build" in message
    assert "(TypeError: unexpected keyword argument 'in_chans')" in message


@pytest.mark.usefixtures("networks_of_mine")
def test_a_callable_of_the_current_folder_gets_the_shape_and_the_classes():
    assert build("networks_of_mine:Wide", shape=[1, 8, 8], classes=7).asked == ((1, 8, 8), 7)
    assert build("networks_of_mine:Family.narrow", shape=(4,), classes=2).asked == ((4,), 2)


def test_networks_of_vicinal_can_be_built_by_their_import_path():
    network = build("vicinal.models.small_cnn:SmallCNN", shape=(1, 8, 8), classes=10)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.usefixtures("networks_of_mine")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "nowhere.at_all:net",
            "nowhere.at_all cannot be imported (ModuleNotFoundError",
        ),
        ("nowhere.at_all:net", "Run the command in the folder that contains nowhere, or"),
        ("broken_network:net", "No module named 'a_module_that_is_nowhere'"),
        ("networks_of_mine:wide", "no name in networks_of_mine 'wide'. Did you mean 'Wide'"),
        ("networks_of_mine:Family.wide", "no name in networks_of_mine 'wide' (available: narrow)"),
        (
            "networks_of_mine:depth",
            "number of classes of the data set (TypeError: 'int' object is",
        ),
        ("networks_of_mine:failing", "(RuntimeError: no such kernel). Call it in Python"),
        (
            "networks_of_mine:name_of_one",
            "expected a torch.nn.Module from the call with (shape, classes)",
        ),
        ("networks_of_mine:name_of_one", "got str. Return the network itself"),
    ],
)
def test_a_callable_that_builds_no_network_raises_an_error_in_one_line(name, words):
    assert words in refused(name)


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18", "nowhere.at_all:net"])
def test_external_names_are_checked_without_importing_anything(monkeypatch, name):
    for library in ("timm", "torchvision"):
        monkeypatch.setitem(sys.modules, library, None)
    check_name(name)
    assert mixing_layers(name) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:", "timm: lacks the name of a network. Try timm:resnet18."),
        ("torchvision: ", "Try torchvision:resnet18"),
        ("hf:", "hf: lacks the name of a network. Try hf:distilbert-base-uncased."),
        (":net", "network ':net': expected a name of the form timm:NAME, torchvision:NAME"),
        ("my networks:net", "and package.module:callable"),
        ("networks:", "expected a name of the form"),
        ("networks:a:b", "expected a name of the form"),
        ("smal-cnn", "'smal-cnn'. Did you mean 'small-cnn'"),
        (
            "smal-cnn",
            "External networks are timm:NAME, torchvision:NAME, hf:PATH_OR_NAME and package",
        ),
    ],
)
def test_an_invalid_name_raises_an_error_before_anything_is_built(name, words):
    for asked in (check_name, mixing_layers):
        with pytest.raises(UserError) as caught:
            asked(name)
        assert words in str(caught.value)
    assert words in refused(name)
