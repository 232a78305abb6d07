import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

from vicinal.training.schedules import rate_factor
from vicinal.training.settings import SGD, Constant, Cosine, Linear, OneCycle, Step, Training


def rates(make, steps):
    """What a scheduler of PyTorch makes of a rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, seen = make(optimizer), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def ours(schedule, epochs=4, steps_per_epoch=5, **warmup):
    training = Training(
        epochs=epochs,
        batch_size=8,
        optimizer=SGD(name="sgd", lr=1.0),
        schedule=schedule,
        **warmup,
    )
    return [
        rate_factor(step, training, steps_per_epoch) for step in range(epochs * steps_per_epoch)
    ]


@pytest.mark.parametrize("pct_start", [0.2, 0.3, 0.7])
def test_one_cycle_is_that_of_pytorch(pct_start):
    def make(optimizer):
        return OneCycleLR(
            optimizer, max_lr=1.0, total_steps=20, pct_start=pct_start, cycle_momentum=False
        )

    # PyTorch refuses to go on behind the last step.
    with pytest.raises(ValueError, match="Tried to step"):
        rates(make, 21)
    expected = rates(make, 19)
    assert ours(OneCycle(name="one-cycle", pct_start=pct_start))[:19] == pytest.approx(
        expected, rel=1e-6
    )
    assert ours(OneCycle(name="one-cycle", pct_start=pct_start))[19] == pytest.approx(4e-6)


def test_cosine_is_that_of_pytorch():
    expected = rates(lambda optimizer: CosineAnnealingLR(optimizer, T_max=20), 20)
    assert ours(Cosine(name="cosine")) == pytest.approx(expected)


def test_steps_are_those_of_pytorch():
    expected = rates(lambda optimizer: MultiStepLR(optimizer, [5, 15], gamma=0.2), 20)
    assert ours(Step(name="step", milestones=(1, 3), gamma=0.2)) == pytest.approx(expected)


def test_linear_falls_evenly_to_nothing():
    assert ours(Linear(name="linear"), epochs=2, steps_per_epoch=2) == [1, 0.75, 0.5, 0.25]


def test_warm_up_rises_linearly_to_the_start_of_the_schedule():
    seen = ours(Linear(name="linear"), epochs=3, steps_per_epoch=2, warmup_epochs=1.0)
    assert seen == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])


def test_warm_up_can_start_at_a_fraction_of_the_peak():
    constant = Constant(name="constant")
    seen = ours(constant, epochs=3, steps_per_epoch=2, warmup_epochs=1.5, warmup_start_factor=0.25)
    # From 0.25 of the peak, in equal steps, to the peak at the first step after the warm-up.
    assert seen == pytest.approx([0.4375, 0.625, 0.8125, 1, 1, 1])


def test_milestones_count_from_the_start_under_warm_up():
    step = Step(name="step", milestones=(2,))
    seen = ours(step, epochs=3, steps_per_epoch=1, warmup_epochs=1.0)
    assert seen == pytest.approx([1 / 2, 1, 0.1])


def test_a_training_of_one_step_has_a_learning_rate():
    for schedule in (OneCycle(name="one-cycle"), Cosine(name="cosine"), Linear(name="linear")):
        assert 0 < ours(schedule, epochs=1, steps_per_epoch=1)[0] <= 1


@pytest.mark.parametrize(("pct_start", "steps"), [(0.9, 5), (0.95, 15), (0.99, 40)])
def test_one_cycle_ends_near_zero_however_late_it_falls(pct_start, steps):
    schedule = OneCycle(name="one-cycle", pct_start=pct_start)
    assert ours(schedule, epochs=1, steps_per_epoch=steps)[-1] == pytest.approx(4e-6)
