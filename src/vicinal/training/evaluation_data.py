"""Data sets to evaluate a trained network on, prepared as those of its training."""

import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vicinal.data import MAX_BYTES, DataSet, Split, data_root, load, parse_spec
from vicinal.data.raw_examples import RawExamples
from vicinal.data.recognize import recognized
from vicinal.data.source_spec import existing
from vicinal.errors import UserError
from vicinal.training.checkpoints import CheckpointInfo
from vicinal.training.origin import data_facts, origin_differences
from vicinal.training.recipe_warnings import note_lines

_RUN_CODE = ("import", "hf", "torchvision")
"""Sources of other libraries, which can run code that lies next to the data."""

_OTHER_SPLIT = (
    "warning: this is another split of the data of the training, so some of its test examples were "
    "trained on"
)


def load_as_trained(
    path: Path,
    info: CheckpointInfo,
    *,
    source: str | None = None,
    split: str = "test",
    root: Path | None = None,
    seed: int | None = None,
    test_fraction: float | None = None,
    skip_bad: bool = False,
    max_bytes: int = MAX_BYTES,
    allow_import: bool = False,
    log: Callable[[str], None] = lambda _sentence: None,
) -> DataSet:
    """Load a data set whose examples are prepared as during the training of a checkpoint.

    The checkpoint has the columns, categories and statistics of a table, the size of images, and
    the sampling rate of recordings. It also has the defaults of ``source``, ``root``, ``seed`` and
    ``test_fraction``: those that were used for training.

    Args:
        path: the checkpoint.
        info: what it records.
        source: the data set.
        split: the split that is used. If the data set is that of the training, the split has to be
            the same as then.
        root: folder of the data sets.
        seed: seed of the train/test split.
        test_fraction: fraction held out for testing.
        skip_bad: skip examples that cannot be read.
        max_bytes: largest size of a decoded file, in bytes.
        allow_import: load a data set that the checkpoint names although that can run code.
        log: reports to the user, such as notes on the data.

    Raises:
        UserError: if the data cannot be prepared as during training, or have changed since then, or
            if loading them can run code and is not allowed.
    """
    recorded = info.recipe.data
    own_split = (info.recipe.seed, recorded.test_fraction)
    folds = info.recipe.splits
    named = source or recorded.source
    usual = seed in (None, own_split[0]) and test_fraction in (None, own_split[1])
    data, same_path = None, False
    if source:
        spec, same_path = _as_recorded(source, recorded.source, root, recorded.root)
        others = [spec, source] if usual and source != recorded.source else []
        data = _training_data(others, info, root=root, max_bytes=max_bytes)
    if data is not None:
        log(f"{source} is the data set of the training, and is split as it was")
    known = source is None or data is not None or (same_path and usual)
    named = recorded.source if known else named
    same_data = named == recorded.source
    if same_data and folds > 1 and test_fraction is not None:
        raise UserError(
            f"--test-fraction: expected none, since {path} was trained on fold {info.split + 1} "
            f"of {folds}, got {test_fraction}. Leave it out; --seed draws other folds."
        )
    seed = own_split[0] if seed is None else seed
    if source is None and parse_spec(named).name in _RUN_CODE and not allow_import:
        raise UserError(
            f"{path} was trained on {named!r}, and loading that can run code. Choose the data with "
            "--data, or, if you trust the author of the checkpoint, pass --allow-import."
        )
    options: dict[str, Any] = {
        "root": root or (recorded.root if known else None),
        "seed": seed,
        "skip_bad": skip_bad or (same_data and recorded.skip_bad),
        "max_bytes": max_bytes,
        "preparation": info.preparation,
        "validation_fraction": recorded.validation_fraction if same_data else 0.0,
        "train_fraction": recorded.train_fraction if same_data else 1.0,
    }
    if data is None:
        fraction = own_split[1] if test_fraction is None else test_fraction
        options["fold"] = (info.split, folds) if same_data and folds > 1 else None
        try:
            data = load(named, **options, test_fraction=fraction)
        except UserError as error:
            if source is not None or not str(error).startswith("there is no"):
                raise
            raise UserError(
                f"{error} {path} was trained on it; if it is elsewhere now, name it with --data."
            ) from error
    same_name = source in (None, recorded.source) and root is None
    # A table that is loaded for a network has training rows only if it is that of the training.
    same_rows = data.preparation.get("kind") in ("table", "text")
    other_split = not usual and (same_path or same_name or same_rows) and not data.fixed_test
    other_split &= len(data.train) > 0
    for sentence in (*note_lines(data), *[_OTHER_SPLIT] * other_split):
        log(sentence)
    both = data.preparation, info.preparation
    prepared, expected = (json.dumps(dict(one), sort_keys=True) for one in both)
    if info.preparation and prepared != expected:
        raise UserError(
            f"{named}: expected data like those that {path} was trained on ({recorded.source}), "
            "got data that cannot be prepared in the same way. Choose other data."
        )
    _check_split(data, split, named)
    if same_data and seed == own_split[0] and test_fraction in (None, own_split[1]):
        facts = info.origin["data"], data_facts(data, info.recipe.task)
        changed = origin_differences(*({"data": {split: one.get(split)}} for one in facts))
        if changed and source is not None:
            log(
                f"warning: {named} has changed since {path} was trained ({changed}), so that "
                "examples of the training may be in other splits now"
            )
        elif changed:
            words = ["--data", named, *(["--root", str(at)] if (at := options["root"]) else [])]
            raise UserError(
                f"{named} has changed since {path} was trained ({changed}). To use it anyway, "
                f"pass {shlex.join(words)}."
            )
    return data


def _check_split(data: DataSet, split: str, named: str) -> None:
    if split not in data.splits:
        raise UserError(f"--split: expected one of {', '.join(data.splits)}, got {split!r}.")
    if not len(data.splits[split]):
        raise UserError(
            f"--split: {named} has no examples in the {split} split, since it is not the data set "
            "of the training. Leave --split out."
        )


def _as_recorded(
    source: str, recorded: str, root: str | Path | None, recorded_root: str | None
) -> tuple[str, bool]:
    """Return a source with the options of the training, and whether it is at the same path.

    The source is returned as it is if it cannot name the data set of the training.
    """
    known = parse_spec(recorded)
    try:
        own = parse_spec(recognized(source, root=data_root(root), guess=False).spec)
    except UserError:
        return source, False
    if own.name != known.name or not own.options.items() <= known.options.items():
        return source, False
    # Other files may be meant if these are missing.
    if {"train", "test", "classes"} & (known.options.keys() - own.options.keys()):
        return source, False
    same_path = False
    with suppress(UserError):  # the path of the training may be relative to another folder
        there = existing(known.where, data_root(root or recorded_root), what="data set")
        same_path = existing(own.where, data_root(root), what="data set").samefile(there)
    options = "&".join(f"{name}={value}" for name, value in known.options.items())
    return f"{own.name}:{own.where}{'?' * bool(options)}{options}", same_path


def _training_data(
    sources: Iterable[str], info: CheckpointInfo, *, root: Path | None, max_bytes: int
) -> DataSet | None:
    """Return the first data set that has the test split of the training; None if none has it."""
    recorded, folds = info.recipe.data, info.recipe.splits
    for source in dict.fromkeys(sources):
        with suppress(UserError):
            found = load(
                source,
                root=root,
                seed=info.recipe.seed,
                test_fraction=recorded.test_fraction,
                skip_bad=recorded.skip_bad,
                max_bytes=max_bytes,
                preparation=info.preparation,
                validation_fraction=recorded.validation_fraction,
                train_fraction=recorded.train_fraction,
                fold=(info.split, folds) if folds > 1 else None,
            )
            facts = data_facts(found, info.recipe.task)
            if facts["test"]["sha256"] == info.origin["data"]["test"]["sha256"]:
                return found
    return None


def examples_as_trained(
    path: Path, info: CheckpointInfo, *, split: str, **loading: Any
) -> Iterator[RawExamples]:
    """Yield the examples of a split of a data set; see ``load_as_trained``."""
    rows = load_as_trained(path, info, split=split, **loading).splits[split]
    places = [{"example": k} for k in range(len(rows))]
    yield RawExamples(rows.inputs, places, skipped=rows.skipped)


def targets_as_trained(info: CheckpointInfo, data: DataSet, rows: Split) -> Tensor:
    """Return the targets of a split as those of a training: the classes may be in another order.

    Raises:
        UserError: if they are of another task, or of classes that the network does not know.
    """
    if info.task == "classification":
        return _in_order_of(info.classes, data.classes, rows.targets)
    targets = rows.targets
    if not targets.is_floating_point() or targets[:1].numel() != info.outputs:
        kind = "labels that are 0 or 1" if info.task == "multi-label" else "real values"
        got = "classes" if data.classes else f"targets of shape {tuple(targets.shape[1:])}"
        hint = " For a table, add task=regression to its options." if data.classes else ""
        raise UserError(
            f"--data: expected {info.outputs} {kind} for each example, as in training, got {got}."
            f"{hint}"
        )
    if info.task == "multi-label" and not bool(((targets == 0) | (targets == 1)).all()):
        raise UserError("--data: expected labels that are 0 or 1, as in training, got others.")
    return targets


def _in_order_of(known: tuple[str, ...], classes: tuple[str, ...], targets: Tensor) -> Tensor:
    """Return targets as indices of the classes of the network."""
    if not classes:
        raise UserError(
            "--data: expected a data set with classes, since the network is a classifier, got "
            "real-valued targets. Choose another data set."
        )
    missing = [name for name in classes if name not in known]
    if missing:
        raise UserError(
            f"expected only classes of the network ({', '.join(known[:20])}), but {len(missing)} "
            f"of the {len(classes)} classes are others, such as {missing[0]!r}. Choose other data."
        )
    if list(classes) == list(known):
        return targets
    return torch.tensor([known.index(name) for name in classes], dtype=torch.int64)[targets]
