import pytest
import torch

from vicinal import MixUp
from vicinal.errors import UserError
from vicinal.models import NETWORKS, build, mixing_places


@pytest.mark.parametrize("name", NETWORKS)
def test_every_mixing_place_is_a_module_that_can_be_mixed(name):
    model = build(name, shape=(1, 8, 8), classes=10)
    x, plan = torch.rand(4, 1, 8, 8), MixUp(1.0).draw(4)
    for place in mixing_places(name)[1:]:
        with plan.inside(model.get_submodule(place)):
            assert model(x).shape == (4, 10)


def test_an_unknown_network_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="'smal-cnn'; did you mean 'small-cnn'"):
        build("smal-cnn", shape=(1, 8, 8), classes=10)


def test_a_network_that_does_not_take_such_examples_names_those_that_do():
    with pytest.raises(UserError, match=r"small-cnn does not take .* \(30,\); these do: mlp"):
        build("small-cnn", shape=(30,), classes=2)
