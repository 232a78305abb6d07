"""Stand-ins for the libraries of networks, with the functions that vicinal calls."""

import enum
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

CONFIG = SimpleNamespace(
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.5),
    input_size=(3, 16, 16),
    fixed_input_size=False,
    num_classes=10,
    hf_hub_id="timm/tiny.a1_in1k",
)


class Tiny(nn.Module):
    """A convolutional network with a batch norm, whose head is ``fc``."""

    def __init__(self, channels, classes):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))

    def get_classifier(self):
        return self.fc


@pytest.fixture
def tiny_timm(monkeypatch):
    """Replace timm by a module with one network, whose pretrained backbone is all 0.25."""

    def create_model(name, *, pretrained, num_classes, in_chans):
        network = Tiny(in_chans, num_classes)
        if pretrained:
            with torch.no_grad():
                for p in (*network.conv.parameters(), *network.norm.parameters()):
                    p.fill_(0.25)
        return network

    module = ModuleType("timm")
    module.is_model = lambda name: name.partition(".")[0] == "tiny"
    module.list_models = lambda: ["tiny"]
    module.create_model = create_model
    module.get_pretrained_cfg = lambda name: CONFIG
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


@pytest.fixture
def tiny_torchvision(monkeypatch):
    """Replace torchvision by a module with one network, whose pretrained weights are all 0.5."""

    class Weights(enum.Enum):
        IMAGES_V1 = "https://example.org/tiny.pth"
        DEFAULT = "https://example.org/tiny.pth"

        @property
        def url(self):
            return self.value

        def transforms(self):
            return SimpleNamespace(mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.5], crop_size=[16])

        def get_state_dict(self, **how):
            asked.append(how)
            state = Tiny(3, 10).state_dict()
            return {name: torch.full_like(value, 0.5) for name, value in state.items()}

    asked = []
    module, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    module.models, models.asked, models.Weights = models, asked, Weights
    models.list_models = lambda module=None: ["tiny"]
    models.get_model_weights = lambda name: Weights
    models.get_model = lambda name, *, weights, num_classes: Tiny(3, num_classes)
    monkeypatch.setitem(sys.modules, "torchvision", module)
    return models
