"""Data sets: splits of inputs and targets, in memory or in files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vicinal.data.catalog import MAX_BYTES, TEST_FRACTION
from vicinal.errors import UserError

IN_MEMORY = 2_000_000_000
"""Default of ``in_memory``: the most bytes of the inputs of a split that are read into memory."""


class Note(NamedTuple):
    """Something that a source guessed or changed, for the user.

    Args:
        text: a sentence that names the file, column or folder, such as ``"column 'date' holds 450
            categories in 450 rows"``.
        doubtful: whether it is a warning rather than information.
    """

    text: str
    doubtful: bool = False


class ReadResult(NamedTuple):
    """Inputs that were read.

    Args:
        inputs: ``(k, ...)``, in the order of the rows.
        kept: ``(k,)`` int64, their positions among the rows.
        skipped: a sentence for each row that was skipped.
    """

    inputs: Tensor
    kept: np.ndarray
    skipped: list[str]


class StoredInputs(Protocol):
    """Inputs that stay in files until they are read; picklable, since worker processes read too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of all inputs, ``(n, ...)``."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the inputs, such as uint8 for images."""

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Read the inputs of some rows.

        Raises:
            UserError: if one cannot be read and bad examples are not skipped.
        """


@dataclass(frozen=True, eq=False)
class Split:
    """A split of a data set, such as its training examples.

    Args:
        inputs: ``(n, ...)``: images ``(n, channels, height, width)`` uint8, rows of a table
            ``(n, features)`` float32, spectrograms ``(n, 1, bands, frames)`` float32, or tokens of
            texts ``(n, length)`` int64. A tensor if they are in memory, else ``StoredInputs``.
        targets: ``(n,)`` int64 classes, ``(n,)`` float32 real values, or ``(n, k)`` float32.
        skipped: a sentence for each example that was skipped because it could not be read.
        groups: ``(n,)`` int64, the group of each example, such as a patient or speaker; examples
            of different splits with the same number are of the same group. None if each example is
            independent of the others.
    """

    inputs: Tensor | StoredInputs
    targets: Tensor
    skipped: tuple[str, ...] = ()
    groups: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.targets)

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Return the inputs of some rows, from memory or from files.

        Raises:
            UserError: if one cannot be read and bad examples are not skipped.
        """
        if not isinstance(self.inputs, Tensor):
            return self.inputs.read(rows)
        chosen = torch.as_tensor(rows, dtype=torch.int64, device=self.inputs.device)
        return ReadResult(self.inputs[chosen], np.arange(len(rows)), [])

    def to(self, device: torch.device | str) -> "Split":
        """Move the split to a device; inputs in files stay in files."""
        inputs = self.inputs.to(device) if isinstance(self.inputs, Tensor) else self.inputs
        groups = None if self.groups is None else self.groups.to(device)
        return Split(inputs, self.targets.to(device), self.skipped, groups)

    def share(self, rank: int, ranks: int) -> "Split":
        """Return the share of one of several processes: consecutive rows.

        Example:
            >>> split = Split(torch.zeros(5, 1), torch.arange(5))
            >>> [split.share(rank, 2).targets.tolist() for rank in range(2)]
            [[0, 1, 2], [3, 4]]
        """
        if ranks == 1:
            return self
        return self.subset(torch.arange(len(self)).tensor_split(ranks)[rank])

    def subset(self, rows: Tensor) -> "Split":
        """Return some of the examples, without the messages of those that were skipped.

        Example:
            >>> Split(torch.zeros(5, 1), torch.arange(5)).subset(torch.tensor([3, 1])).targets
            tensor([3, 1])
        """
        inputs: Tensor | StoredInputs
        if isinstance(self.inputs, Tensor):
            inputs = self.inputs[rows.to(self.inputs.device)]
        else:
            inputs = _Rows(self.inputs, rows.tolist())
        there = rows.to(self.targets.device)
        groups = None if self.groups is None else self.groups[there]
        return Split(inputs, self.targets[there], groups=groups)


@dataclass(frozen=True)
class _Rows:
    """Some rows of inputs in files."""

    whole: StoredInputs
    rows: list[int]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.whole.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.whole.dtype

    @property
    def identity(self) -> Callable[[int], str] | None:
        of_whole = getattr(self.whole, "identity", None)
        return of_whole and (lambda row: of_whole(self.rows[row]))

    def read(self, rows: Sequence[int]) -> ReadResult:
        return self.whole.read([self.rows[row] for row in rows])


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set of up to three splits.

    Args:
        classes: the name of each class; empty where targets are real values.
        train: the training examples.
        test: the test examples, never used for training.
        validation: examples for choosing settings, if the data set has this split.
        brightest: the value of white pixels, such as 255; None if inputs are not images.
        notes: what the source guessed or changed.
        preparation: how raw examples become inputs, as JSON values. Passed to ``load``, it
            prepares other data in the same way.
        fixed_test: whether the data set has a test split of its own. Otherwise ``load`` drew it,
            and draws another one for another ``seed`` or ``fold``.
    """

    classes: tuple[str, ...]
    train: Split
    test: Split
    validation: Split | None = None
    brightest: int | None = None
    notes: tuple[Note, ...] = ()
    preparation: Mapping[str, Any] = field(default_factory=dict)
    fixed_test: bool = True

    @property
    def splits(self) -> dict[str, Split]:
        """The existing splits by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


class LoadOptions(NamedTuple):
    """The options of ``load`` that every source gets; see there."""

    root: Path
    seed: int = 0
    test_fraction: float = TEST_FRACTION
    skip_bad: bool = False
    in_memory: int = IN_MEMORY
    max_bytes: int = MAX_BYTES
    preparation: Mapping[str, Any] | None = None
    fold: tuple[int, int] | None = None
    validation_fraction: float = 0.0
    train_fraction: float = 1.0


@dataclass
class SkippedExamples:
    """Raises the errors of examples that cannot be read, or skips them and keeps their messages.

    Example:
        >>> skips = SkippedExamples(skip_bad=True)
        >>> skips(UserError("cat.jpg: stops early"))
        >>> skips.sentences
        ['cat.jpg: stops early']
    """

    skip_bad: bool
    sentences: list[str] = field(default_factory=list)

    def __call__(self, error: UserError) -> None:
        """Raise the error, or keep its message."""
        if not self.skip_bad:
            raise UserError(
                f"{str(error).removesuffix('.')}. To skip such examples, pass --skip-bad (in a "
                "study, --set data.skip_bad=true; in Python, skip_bad=True)."
            ) from error
        self.sentences.append(str(error))
