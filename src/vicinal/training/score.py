"""Scoring a checkpoint on data that are prepared as in its training: ``vicinal score``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic

from vicinal.data import MAX_BYTES, DataSet, load, parse_spec
from vicinal.errors import UserError
from vicinal.training.fingerprint import data_facts, source_hashes
from vicinal.training.origin import Form, origin_differs
from vicinal.training.recipe_data import told_of
from vicinal.training.scoring import About, Scores, read_about, score_checkpoint

_RUN_CODE = ("import", "hf", "torchvision")
"""Data sources of other libraries, which can run code that lies next to the data."""


def score_saved(
    path: Path,
    *,
    source: str | None = None,
    part: str = "test",
    root: Path | None = None,
    seed: int | None = None,
    test_fraction: float | None = None,
    skip_bad: bool = False,
    max_bytes: int = MAX_BYTES,
    accelerator: str = "auto",
    pairs: int = 5,
    allow_import: bool = False,
    say: Callable[[str], None] = lambda _sentence: None,
) -> Scores:
    """Measure a network that ``vicinal train`` or ``vicinal study`` saved.

    The data are prepared as in its training: with the columns, categories and means, or the size
    and rate, that were found there.

    Args:
        path: of the checkpoint.
        source: what names a data set; None for that of the training.
        part: ``"test"``, ``"train"`` or ``"validation"``.
        root: folder to look for the data under; None for that of the training.
        seed: of the division of a set without a test split; None for that of the training.
        test_fraction: likewise.
        skip_bad: whether examples that cannot be read are left out.
        max_bytes: most bytes that one file may take once it is decoded.
        accelerator: device.
        pairs: how many confusions are wanted.
        allow_import: whether what the checkpoint names may be imported, which runs code.
        say: takes a sentence for people, such as the notes of the data.

    Raises:
        UserError: if the checkpoint cannot be read or needs an import that is not allowed, if the
            data cannot be prepared as in the training, or if the data or the source of the network
            are not those of the training any more.
    """
    about = read_about(path)
    try:
        Form.model_validate(about.origin)
    except pydantic.ValidationError as error:
        field = ".".join(map(str, ("origin", *error.errors()[0]["loc"])))
        raise UserError(
            f"{path} does not say properly what it was made from ({field}: "
            f"{error.errors()[0]['msg']}); it is damaged, or was written by something else"
        ) from error
    seed = about.division.seed if seed is None else seed
    fraction = about.division.test_fraction if test_fraction is None else test_fraction
    named = source or about.data
    if source is None and parse_spec(named).name in _RUN_CODE and not allow_import:
        raise UserError(
            f"{path} was trained on {named!r}, and loading that can run code; name the data with "
            "--data, or allow it with --allow-import if you trust whoever wrote the checkpoint"
        )
    data = load(
        named,
        root=root or (about.root if source is None else None),
        seed=seed,
        test_fraction=fraction,
        on_bad="skip" if skip_bad or (source is None and about.skip_bad) else "raise",
        max_bytes=max_bytes,
        preparation=about.preparation,
    )
    for sentence in told_of(data):
        say(sentence)
    if about.preparation and _plain(data.preparation) != about.preparation:
        raise UserError(
            f"{named} cannot be prepared as the data that {path} was trained on ({about.data}); "
            "score it on data of the same kind"
        )
    if source is None and (seed, fraction) == (about.division.seed, about.division.test_fraction):
        _check_part(about, data, part, path)
    scores = score_checkpoint(
        path, data, part=part, accelerator=accelerator, pairs=pairs, allow_import=allow_import
    )
    there = {"network": {"source": about.origin.get("network", {}).get("source", {})}}
    here = {"network": {"source": source_hashes(about.network)}}
    if differing := origin_differs(there, here):
        raise UserError(
            f"{path} was trained with another source of its network ({differing}), so the scores "
            "would mean nothing; bring the source back, or train anew"
        )
    return scores


def _check_part(about: About, data: DataSet, part: str, path: Path) -> None:
    """Refuse the data of the training if they are not what they were."""
    known = about.origin.get("data", {})
    facts = _plain(data_facts(data))
    there, here = ({"data": {part: one[part]} if part in one else {}} for one in (known, facts))
    if differing := origin_differs(there, here):
        raise UserError(
            f"{about.data} is not what {path} was trained on any more ({differing}); to score it "
            f"all the same, name it: --data {about.data}"
        )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
