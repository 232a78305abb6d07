"""Predictions as CSV or JSON, written batch by batch."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from vicinal.errors import UserError
from vicinal.escaping import spreadsheet_cell, with_text
from vicinal.training.prediction import Prediction


def write_predictions(
    batches: Iterable[list[Prediction]], file: TextIO, *, as_json: bool = False
) -> None:
    """Write predictions; those of each batch are in the file before the next is computed.

    CSV has a row for each example: where it is, the prediction, and the probability of each class
    or label. JSON is a list of objects, which is valid even if an error stops the computation.

    Args:
        batches: the predictions.
        file: to write to.
        as_json: whether to write JSON.

    Example:
        >>> import sys
        >>> one = Prediction({"file": "a.png"}, "cat", {"cat": 0.75, "dog": 0.25})
        >>> write_predictions([[one]], sys.stdout)
        file,prediction,probability_cat,probability_dog
        a.png,cat,0.75,0.25
    """
    if as_json:
        _write_json(batches, file)
        return
    head: list[str] = []
    for batch in batches:
        rows = [_flat(one) for one in batch]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not head:
            head = list(rows[0])
            writer.writerow(with_text(head, spreadsheet_cell))
        # A row may lack a place, such as the file of rows in memory.
        writer.writerows(with_text([[row[k] for k in head] for row in rows], spreadsheet_cell))
        file.write(text.getvalue())
        file.flush()


def _write_json(batches: Iterable[list[Prediction]], file: TextIO) -> None:
    before = "[\n"
    try:
        for batch in batches:
            texts = [json.dumps(_object(one)) for one in batch]
            file.write(before + ",\n".join(texts))
            file.flush()
            before = ",\n"
    finally:
        if before != "[\n":
            file.write("\n]\n")


def _object(one: Prediction) -> dict[str, Any]:
    found = {**one.place, "prediction": one.prediction}
    return found if one.probabilities is None else found | {"probabilities": one.probabilities}


def _flat(one: Prediction) -> dict[str, Any]:
    """Return the cells of a row by the names of their columns."""
    cells, prediction = dict(one.place), one.prediction
    if isinstance(one.probabilities, dict):  # of classes
        cells["prediction"], named = prediction, one.probabilities.items()
        return cells | {f"probability_{name}": value for name, value in named}
    if one.probabilities is not None:  # of labels
        cells["prediction"] = " ".join(map(str, prediction))
        return cells | {f"probability_{k}": value for k, value in enumerate(one.probabilities)}
    if isinstance(prediction, list):
        return cells | {f"prediction_{k}": value for k, value in enumerate(prediction)}
    return cells | {"prediction": prediction}


@contextmanager
def opened(path: Path | None) -> Iterator[TextIO]:
    """Open a new text file for writing, in a folder that is created; None is the standard output.

    Raises:
        UserError: if the file exists, or cannot be written.
    """
    if path is None:
        yield sys.stdout
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("x", encoding="utf-8", newline="")
    except FileExistsError as error:
        raise UserError(
            f"{path} exists already. Choose another name, or delete it first."
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}. Choose another file with --out."
        ) from error
    try:
        with file:
            yield file
    finally:
        if not path.stat().st_size:  # an error came before the first prediction
            path.unlink()
