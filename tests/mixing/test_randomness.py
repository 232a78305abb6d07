import pytest
import torch

from vicinal import generator_at


def numbers(**where):
    return torch.rand(8, generator=generator_at(**where)).tolist()


def test_the_same_numbers_give_the_same_draws():
    torch.manual_seed(1)
    first = numbers(seed=3, step=100)
    torch.manual_seed(2)
    assert numbers(seed=3, step=100, rank=0, stream=0) == first


def test_each_number_changes_the_draws_and_none_can_stand_for_another():
    places = [
        {"seed": s, "step": t, "rank": r, "stream": k}
        for s in range(3)
        for t in range(3)
        for r in range(3)
        for k in range(3)
    ]
    assert len({tuple(numbers(**place)) for place in places}) == len(places)


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="step to be 0 or more, got -1"):
        generator_at(0, -1)
