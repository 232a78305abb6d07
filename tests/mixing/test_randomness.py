import numpy as np
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


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_out_of_range_raises_an_error(number):
    with pytest.raises(ValueError, match=rf"step from 0 to 2\*\*64 - 1, got {number}"):
        generator_at(0, number)


@pytest.mark.parametrize("number", [1.0, "1", None])
def test_a_value_that_is_not_an_integer_raises_an_error(number):
    with pytest.raises(TypeError, match="rank as an integer, got"):
        generator_at(0, 0, number)


def test_integers_of_numpy_are_integers():
    assert generator_at(np.int64(3), 4).initial_seed() == generator_at(3, 4).initial_seed()


def test_large_numbers_are_not_mistaken_for_each_other():
    places = [(5 + 7 * 2**32, 9), (5, 7 + 9 * 2**32), (5, 9, 7), (9, 5 + 7 * 2**32), (5, 7, 9)]
    seeds = {generator_at(*place).initial_seed() for place in places}
    assert len(seeds) == len(places)


def test_numbers_below_32_bits_keep_the_generators_of_seed_sequence():
    # Runs that were started before large numbers were told apart can be resumed.
    (word,) = np.random.SeedSequence([3, 14, 1, 5]).generate_state(1)
    assert generator_at(3, 14, 1, 5).initial_seed() == int(word)
