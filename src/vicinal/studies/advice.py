"""Should you mix at all? Measurements of a study that speak for or against it, with sources."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vicinal.models.registry import check_name
from vicinal.training.metrics import METRICS, metric_text
from vicinal.training.settings import Recipe
from vicinal.training.trial_result import Result, Trial

RULE_OF_THUMB = "the first author's rule of thumb (moskomule/mixup.pytorch#1)"


class Advice(NamedTuple):
    """One consideration.

    Args:
        question: what was asked.
        measured: the answer in numbers.
        reading: what that means for mixing.
        source: who found so.
    """

    question: str
    measured: str
    reading: str
    source: str


def advice(
    recipe: Recipe, results: Mapping[Trial, Result], third_class: float | None
) -> list[Advice]:
    """Return what a study says about whether mixing suits its data and network.

    Args:
        recipe: recipe of the study.
        results: results of its finished trials.
        third_class: as ``vicinal.studies.third_class.third_class_share`` returns it.
    """
    least = min(recipe.corrupted_labels)
    plain = [
        one for one in results.values() if one.arm == recipe.baseline and one.corrupted == least
    ]
    found = []
    # With corrupted labels, the metrics are those of different labels; the calibration error of a
    # network that has learned nothing is small.
    if plain and not least and plain[0].metric != "ece":
        found.append(_overfitting(plain))
    if plain:
        found.append(_length(plain))
    found += _label_noise(recipe, results)
    if recipe.training_of(recipe.baseline).freeze != "backbone":  # else most weights are fixed
        found.append(_capacity(next(iter(results.values()))))
    if recipe.model.name != "mlp":  # what is known is about networks for images
        found.append(_pretraining(recipe))
    if third_class is not None:
        found.append(_third_class(third_class))
    return found


def _overfitting(plain: Sequence[Result]) -> Advice:
    metric = METRICS[plain[0].metric]
    fraction = metric.percent or plain[0].metric == "r2"
    train, test = (
        float(np.mean([getattr(one, name) for one in plain]))
        for name in ("train_metric", "test_metric")
    )
    sign = 1 if metric.higher else -1
    gap, constant = sign * (train - test), float(np.mean([one.constant_metric for one in plain]))
    learned = sign * (train - constant)
    wide = gap > 0.05 if fraction else gap > 0.2 * abs(test)
    # Most of what was learned does not hold for other examples.
    wide |= gap > max(learned / 2, 0.005 if fraction else 0.05 * abs(constant))
    most = fraction and gap > max(0.005, 0.5 * abs((1 if metric.higher else 0) - test))
    reading = "Hardly. Mixing regularizes, which a network that does not overfit may not need."
    if learned <= 0:
        reading = (
            "No: even on training examples, it is not better than a constant prediction. First "
            "find settings with which it learns them, such as more epochs or another learning rate."
        )
    elif wide:
        reading = "Yes. Mixing tends to help networks that overfit."
    elif most:
        reading = (
            "A little. Not much is left to gain, but most of that lies in the gap between the two."
        )
    return Advice(
        "Does the baseline overfit?",
        f"{metric_text(plain[0].metric, train)} on training examples, "
        f"{metric_text(plain[0].metric, test)} on test examples",
        reading,
        RULE_OF_THUMB,
    )


def _length(plain: Sequence[Result]) -> Advice:
    peak, epochs = float(np.mean([one.peak_epoch for one in plain])), plain[0].epochs
    sign = 1 if METRICS[plain[0].metric].higher else -1
    reading = "No: its best epoch was late. Mixing often needs longer training to pay off."
    learned = np.mean([sign * (one.test_metric - one.constant_metric) for one in plain])
    if learned <= 0 and plain[0].metric != "ece":
        reading = "Unclear: in the end, it is not better than a constant prediction."
    elif peak < 2 / 3 * epochs:
        reading = (
            "Perhaps: it got worse later. Mixing or fewer epochs may help; but mixing for too long "
            "can hurt too."
        )
    return Advice(
        "Is training too long?",
        f"the baseline was best on test examples after epoch {peak:.0f} of {epochs}",
        reading,
        "Over-Training with Mixup May Hurt Generalization (ICLR 2023)",
    )


def _label_noise(recipe: Recipe, results: Mapping[Trial, Result]) -> list[Advice]:
    found = []
    for corrupted in recipe.corrupted_labels:
        wrong = [
            one.memorized
            for one in results.values()
            if one.arm == recipe.baseline
            and one.corrupted == corrupted
            and one.memorized is not None
        ]
        if wrong:
            share = float(np.mean(wrong))
            found.append(
                Advice(
                    "Does it learn wrong labels?",
                    f"with {100 * corrupted:g}% corrupted labels, the baseline learned "
                    f"{100 * share:.0f}% of the wrong ones",
                    "Yes. Mixing with a large alpha reduces memorization."
                    if share > 0.2
                    else "Hardly, so mixing has little to prevent.",
                    "Zhang et al., arXiv 1710.09412, section 3.4",
                )
            )
    return found


def _capacity(result: Result) -> Advice:
    weights = result.origin["network"]["parameters"]
    examples = result.origin["data"]["train"]["examples"]
    large = weights > examples
    return Advice(
        "Can the network memorize the data?",
        f"{weights:,} parameters for {examples:,} training examples",
        "Yes, there are more parameters than examples."
        if large
        else "Not easily. Small networks do best with an alpha of 0.2 to 0.4, or without mixing.",
        RULE_OF_THUMB,
    )


def _pretraining(recipe: Recipe) -> Advice:
    name = recipe.model.name
    parsed = check_name(name)
    if parsed.pretrained or parsed.weights_file is not None:
        return Advice(
            "Is the network pretrained?",
            f"yes: {name}",
            "Published recipes that fine-tune strong vision networks mix little or not at all.",
            "ConvNeXt (arXiv 2201.03545), DeiT III (arXiv 2204.07118)",
        )
    return Advice(
        "Is the network pretrained?",
        f"no: {name} starts from random weights",
        "For images: published recipes that train networks from scratch mix, for example mixup "
        "0.8 and CutMix 1.0 in turn.",
        "DeiT (arXiv 2012.12877), ConvNeXt (arXiv 2201.03545)",
    )


def _third_class(share: float) -> Advice:
    return Advice(
        "Do blends fall on a third class?",
        f"{100 * share:.1f}% of the blends of the first mixing arm lie nearest to a training "
        "example of a third class",
        "Often: their labels contradict the examples around them. Try a smaller alpha, or mixing "
        "in feature maps."
        if share > 0.1
        else "Rarely.",
        "Guo et al., arXiv 1809.02499",
    )
