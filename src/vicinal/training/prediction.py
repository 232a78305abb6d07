"""Predictions of one or several trained networks for raw examples: ``vicinal predict``."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vicinal.data.dataset import SkippedExamples
from vicinal.data.raw_examples import RawExamples
from vicinal.errors import UserError
from vicinal.training.trained_network import TrainedNetwork


class Prediction(NamedTuple):
    """The prediction for one example.

    Args:
        place: where the example comes from: its ``file``, its ``row``, or both.
        prediction: the name of the most probable class; the numbers of the labels with a
            probability above one half; a real value, or a list of several.
        probabilities: probabilities of the classes by name, or of all labels; None for real values.
    """

    place: Mapping[str, Any]
    prediction: Any
    probabilities: dict[str, float] | list[float] | None


def predict_examples(
    networks: Sequence[TrainedNetwork],
    examples: Iterable[RawExamples],
    log: Callable[[str], None] = lambda _sentence: None,
    *,
    skip_bad: bool = False,
) -> Iterator[list[Prediction]]:
    """Yield the predictions for each batch of examples as soon as they are computed.

    Args:
        networks: whose probabilities or values are averaged.
        examples: prepared as those of the training.
        log: reports to the user: notes, and examples that were skipped.
        skip_bad: skip examples for which the output is not finite, instead of raising an error.

    Raises:
        UserError: if an example cannot be read, or if none can, or if the networks were not trained
            on examples that were prepared in the same way.
    """
    first = networks[0]
    for other in networks[1:]:
        if (other.task, other.classes, _prepared(other)) != (
            first.task,
            first.classes,
            _prepared(first),
        ):
            raise UserError(
                f"{other.path} was trained on data that were prepared in another way than those of "
                f"{first.path}, so their predictions cannot be averaged. Choose one of them."
            )
    count, skips, infinite = 0, SkippedExamples(skip_bad=True), SkippedExamples(skip_bad)
    for raw in examples:
        for note in raw.notes:
            log(("warning: " if note.doubtful else "") + note.text)
        skips.sentences = list(raw.skipped)
        both = [first.outputs_of(raw, skips), *(other.outputs_of(raw) for other in networks[1:])]
        for batch in zip(*both, strict=True):
            values = [
                network.targets.predicted(found.outputs).float()
                for network, found in zip(networks, batch, strict=True)
            ]
            mean = torch.stack(values).mean(0).cpu()
            places = [raw.places[row] for row in batch[0].targets.tolist()]
            finite = _finite(mean, places, infinite)
            if kept := [place for place, one in zip(places, finite.tolist(), strict=True) if one]:
                yield _predictions(first, kept, mean[finite])
            count += len(kept)
        for sentence in (*skips.sentences, *infinite.sentences):
            log(f"skipped: {sentence}")
        infinite.sentences.clear()
    if not count:
        raise UserError("none of the examples can be read, so there is no prediction.")


def _finite(values: Tensor, places: Sequence[Mapping[str, Any]], skips: SkippedExamples) -> Tensor:
    """Return which rows are finite, ``(n,)`` bool; raise an error for the others, or skip them."""
    finite = values.isfinite().all(1)
    for row in (~finite).nonzero().flatten().tolist():
        where = ", ".join(f"{name} {value}" for name, value in places[row].items())
        skips(
            UserError(
                f"{where}: the network returns {values[row].tolist()} for this example, so there "
                "is no prediction. Check its values, which may be too large."
            )
        )
    return finite


def _prepared(network: TrainedNetwork) -> str:
    return json.dumps(network.info.preparation, sort_keys=True)


def _predictions(
    network: TrainedNetwork, places: Sequence[Mapping[str, Any]], values: Tensor
) -> list[Prediction]:
    # Nine digits are enough for float32.
    rows = [[float(f"{value:.9g}") for value in row] for row in values.tolist()]
    if network.task == "regression":
        found: list[Prediction] = []
        for place, row in zip(places, rows, strict=True):
            found.append(Prediction(place, row[0] if len(row) == 1 else row, None))
        return found
    if network.task == "multi-label":
        labels = [[k for k, value in enumerate(row) if value > 0.5] for row in rows]
        return [Prediction(*each) for each in zip(places, labels, rows, strict=True)]
    names = [network.classes[k] for k in values.argmax(1).tolist()]
    by_name = [dict(zip(network.classes, row, strict=True)) for row in rows]
    return [Prediction(*each) for each in zip(places, names, by_name, strict=True)]
