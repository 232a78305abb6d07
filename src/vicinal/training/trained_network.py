"""A trained network with the preparation of its inputs, from its checkpoint."""

import math
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vicinal.data import MAX_BYTES, CenterCrop, Loader, Normalize, Split
from vicinal.data.dataset import SkippedExamples
from vicinal.data.loader import dead_workers_named
from vicinal.data.raw_examples import TOGETHER, RawExamples, Reading, raw_examples
from vicinal.data.threads import cpu_threads
from vicinal.errors import UserError
from vicinal.models import build, check_name, imported_module
from vicinal.training.checkpoints import (
    Checkpoint,
    CheckpointInfo,
    check_weights,
    load_weights,
    read_checkpoint,
)
from vicinal.training.devices import make_fabric, pytorch_defaults
from vicinal.training.evaluation import Predictions, predict_batches
from vicinal.training.origin import origin_differences, source_hashes
from vicinal.training.settings import Training
from vicinal.training.task import Task
from vicinal.training.trial_setup import center_crops, cropped, evaluation_batch


class TrainedNetwork:
    """A trained network that predicts from raw examples, prepared as those of its training.

    ``vicinal.load`` returns it. Call it with examples: paths of images, recordings or tables, or of
    folders of them; Pillow images; arrays; rows of a table as dictionaries or as a frame. Rows need
    all input columns of the training table, but not the label.

    Args:
        path: path of the checkpoint.
        checkpoint: its content.
        network: with the weights of the checkpoint.
        fabric: its device and precision.

    Attributes:
        network: the ``nn.Module``, in eval mode. It maps prepared inputs to logits, or to
            standardized values.
        info: what the checkpoint records about the training.
        normalize: the normalization of inputs.
        crops: their crops before that, if there are any.
    """

    def __init__(
        self, path: Path, checkpoint: Checkpoint, network: nn.Module, fabric: Fabric
    ) -> None:
        """Move the network to its device."""
        self.path = path
        self.info: CheckpointInfo = checkpoint.info
        self._fabric, self._settings = fabric, _settings(checkpoint.info)
        self.network = network.to(fabric.device).eval()
        if self._settings.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalize: Normalize = checkpoint.inputs
        self.crops: list[CenterCrop] = center_crops(self.info.recipe.data)
        targets = checkpoint.targets
        self.targets = Task(self.info.task, self.info.outputs, targets.mean, targets.std)

    def __repr__(self) -> str:
        what = (
            f"{self.info.outputs} outputs" if not self.classes else f"{len(self.classes)} classes"
        )
        return f"TrainedNetwork({str(self.path)!r}, {self.task} with {what})"

    @property
    def task(self) -> str:
        """The task: ``"classification"``, ``"multi-label"`` or ``"regression"``."""
        return self.info.task

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities; empty for other tasks."""
        return self.info.classes

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._fabric.device

    @property
    def tta(self) -> bool:
        """Whether outputs are averaged over an image and its horizontal flip."""
        return self._settings.tta

    def __call__(
        self, examples: Any, *, skip_bad: bool = False, max_bytes: int = MAX_BYTES
    ) -> Tensor:
        """Return the predictions for examples.

        Args:
            examples: see ``vicinal.data.raw_examples.raw_examples``.
            skip_bad: leave out examples that cannot be read, instead of raising an error.
            max_bytes: the most bytes that one file may take once it is decoded.

        Returns:
            ``(n, k)`` float32 on the CPU: the probabilities of the classes, which sum to one; that
            of each label; or real values in the units of the targets.

        Raises:
            UserError: if an example cannot be read, or does not fit the training.

        Warns:
            UserWarning: if something was guessed that is doubtful, such as a category that the
                training split lacks.
        """
        reading = self.reading(skip_bad=skip_bad, max_bytes=max_bytes)
        found = []
        with pytorch_defaults():
            for raw in raw_examples(examples, reading):
                for note in raw.notes:
                    if note.doubtful:
                        warnings.warn(note.text, stacklevel=2)
                found += [self.targets.predicted(outputs) for outputs, _ in self.outputs_of(raw)]
            return torch.cat(
                [one.float().cpu() for one in found] or [torch.empty(0, self.info.outputs)]
            )

    def reading(self, *, skip_bad: bool, max_bytes: int = MAX_BYTES) -> Reading:
        """Return how raw examples are read; see ``vicinal.data.raw_examples``."""
        return Reading(self.info.preparation, self.info.shape, skip_bad, max_bytes)

    def outputs_of(
        self, raw: RawExamples, skips: SkippedExamples | None = None
    ) -> Iterator[Predictions]:
        """Yield the outputs for batches of raw examples, and their rows as targets.

        Args:
            raw: the examples.
            skips: gets a sentence for each example that is skipped when it is read.
        """
        count = len(raw.places)
        if not count:
            return
        rows = Split(raw.inputs, torch.arange(count))
        loader = self._loader(rows, workers=0 if count <= TOGETHER else None)
        yield from self._outputs(loader)
        if skips is not None:
            skips.sentences += loader.skipped

    def predictions(self, split: Split, skips: SkippedExamples | None = None) -> Predictions:
        """Return the outputs for a split of a data set that is prepared as for the training.

        Args:
            split: the split.
            skips: gets a sentence for each example that is skipped when it is read.

        Returns:
            Logits, or real values in the units of the targets; and the targets of the split.

        Raises:
            UserError: if examples have another shape than in the training, or if none can be read.
        """
        shape = cropped(split.inputs.shape[1:], self.info.recipe.data)
        if shape != self.info.shape:
            raise UserError(
                f"{self.path}: expected examples of shape {self.info.shape}, got {shape}. Choose "
                "data like those that it was trained on."
            )
        loader = self._loader(split)
        pairs = list(self._outputs(loader))
        if not pairs:
            raise UserError(
                f"none of {len(split)} examples can be read. {next(iter(loader.skipped), '')}"
            )
        if skips is not None:
            skips.sentences += loader.skipped
        return Predictions(*(torch.cat(each) for each in zip(*pairs, strict=True)))

    def batches(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the inputs of a split as the network takes them, and their targets.

        The inputs are ``(batch, ...)``, cropped and normalized, on the device of the network.
        """
        return self._loader(split).epoch(0)

    def _loader(self, split: Split, workers: int | None = None) -> Loader:
        return Loader(
            split,
            batch_size=evaluation_batch(split),
            seed=0,
            augment=(*self.crops, self.normalize),
            device=self._fabric.device,
            shuffle=False,
            workers=workers,
        )

    def _outputs(self, loader: Loader) -> Iterator[Predictions]:
        with cpu_threads(self._settings.threads), dead_workers_named():
            for raw, targets in predict_batches(
                self.network,
                loader.epoch(0),
                fabric=self._fabric,
                settings=self._settings,
                task=self.task,
            ):
                yield Predictions(self.targets.outputs_of(raw), targets)


def load_network(
    path: Path, *, allow_import: bool = False, accelerator: str = "auto"
) -> TrainedNetwork:
    """Load the network of a checkpoint, with the preparation of its inputs.

    Args:
        path: the checkpoint.
        allow_import: import what the checkpoint names, which runs its code.
        accelerator: the device.

    Raises:
        UserError: if the file is not a checkpoint, needs an import that is not allowed, has weights
            of a different network than it says, or was trained with different source code.
    """
    checkpoint = read_checkpoint(path)
    network = _build(path, checkpoint, allow_import=allow_import)
    _check_preparation(path, checkpoint.info)
    fabric = make_fabric(accelerator=accelerator, precision=_settings(checkpoint.info).precision)
    return TrainedNetwork(path, checkpoint, network, fabric)


def _check_preparation(path: Path, info: CheckpointInfo) -> None:
    """Raise unless examples get the shape in a checkpoint by the preparation in it."""
    try:
        shape = Reading(info.preparation, info.shape).input_shape
        small = 4 * math.prod(shape) <= MAX_BYTES
        if not small or cropped(shape, info.recipe.data) != info.shape:
            raise ValueError(f"prepared examples have the shape {shape}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected a trained network of this version of vicinal, got something else "
            f"({error}). Choose a checkpoint.safetensors."
        ) from error


def _settings(info: CheckpointInfo) -> Training:
    return info.recipe.training_of(info.arm)


def _build(path: Path, checkpoint: Checkpoint, *, allow_import: bool) -> nn.Module:
    """Return the network of a checkpoint, with its weights."""
    info, name = checkpoint.info, checkpoint.info.recipe.model.name
    module = imported_module(name)
    if module is not None and not allow_import:
        raise UserError(
            f"{path} uses the network {name!r}, and importing {module} runs code. If you "
            "trust the author of the checkpoint and that module, pass --allow-import."
        )
    make = partial(
        build,
        name,
        shape=checkpoint.network_shape,
        classes=info.outputs,
        initial_weights=False,
        config=info.network,
    )
    if check_name(name).library in ("", "hf"):
        # Compare shapes first: a hostile file may describe a network that needs all the memory.
        with torch.device("meta"):
            shapes = make()
        check_weights(shapes, checkpoint.weights, str(path))
    model = make()
    # After the import, since only then its files are known.
    old, new = info.origin["network"]["source"], source_hashes(name)
    if changed := origin_differences(*({"network": {"source": one}} for one in (old, new))):
        raise UserError(
            f"{path} was trained with different source code of its network ({changed}), so its "
            "predictions could be wrong. Restore the code, or train again."
        )
    model.to(torch.float64 if _settings(info).precision == "float64" else torch.float32)
    load_weights(model, checkpoint.weights, str(path))
    return model
