"""What a data set is: splits with inputs and targets, in memory or read when they are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vicinal.data.catalog import MAX_BYTES, TEST_FRACTION
from vicinal.errors import UserError

OnBad = Literal["raise", "skip"]

IN_MEMORY = 2_000_000_000
"""Inputs of at most as many bytes are read into memory; larger ones when they are asked for."""


class Note(NamedTuple):
    """Something that a source guessed or changed, which its user has to be able to see.

    Args:
        text: a sentence that names the file, column or folder, such as ``"column 'date' holds 450
            categories in 450 rows"``.
        doubtful: whether it is a warning rather than information.
    """

    text: str
    doubtful: bool = False


class ReadResult(NamedTuple):
    """What was read.

    Args:
        inputs: ``(k, ...)``, in the order that was asked for.
        kept: ``(k,)`` int64, for each the position among the rows that were asked for.
        skipped: a sentence for each row that is missing, where bad examples are skipped.
    """

    inputs: Tensor
    kept: np.ndarray
    skipped: list[str]


class StoredInputs(Protocol):
    """Inputs that stay in files, and are read when they are asked for.

    Has to be picklable, since worker processes read too.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them: ``(n, ...)``."""

    @property
    def dtype(self) -> torch.dtype:
        """Of what is read, such as uint8 for images."""

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Read the inputs of some rows.

        Raises:
            UserError: if one cannot be read, and is not to be skipped.
        """


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set, such as its training examples.

    Args:
        inputs: ``(n, ...)``: images ``(n, channels, height, width)`` uint8, rows of a table
            ``(n, features)`` float32, or spectrograms ``(n, 1, bands, frames)`` float32. A tensor
            if it is in memory, else what reads it.
        targets: ``(n,)`` int64 classes, ``(n,)`` float32 real values, or ``(n, k)`` float32.
        skipped: a sentence for each example that was left out since it could not be read.
    """

    inputs: Tensor | StoredInputs
    targets: Tensor
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.targets)

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Return the inputs of some rows, wherever they are.

        Raises:
            UserError: if one cannot be read, and is not to be skipped.
        """
        if not isinstance(self.inputs, Tensor):
            return self.inputs.read(rows)
        chosen = torch.as_tensor(rows, dtype=torch.int64, device=self.inputs.device)
        return ReadResult(self.inputs[chosen], np.arange(len(rows)), [])

    def to(self, device: torch.device | str) -> "Split":
        """Return the same split on a device; inputs in files stay there."""
        inputs = self.inputs.to(device) if isinstance(self.inputs, Tensor) else self.inputs
        return Split(inputs, self.targets.to(device), self.skipped)

    def share(self, rank: int, ranks: int) -> "Split":
        """Return the share of one of several processes: rows that follow each other.

        Example:
            >>> split = Split(torch.zeros(5, 1), torch.arange(5))
            >>> [split.share(rank, 2).targets.tolist() for rank in range(2)]
            [[0, 1, 2], [3, 4]]
        """
        if ranks == 1:
            return self
        rows = torch.arange(len(self)).tensor_split(ranks)[rank].to(self.targets.device)
        inputs: Tensor | StoredInputs
        if isinstance(self.inputs, Tensor):
            inputs = self.inputs[rows.to(self.inputs.device)]
        else:
            inputs = _Rows(self.inputs, rows.tolist())
        return Split(inputs, self.targets[rows])


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

    def read(self, rows: Sequence[int]) -> ReadResult:
        return self.whole.read([self.rows[row] for row in rows])


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set.

    Args:
        classes: the name of each class; empty where targets are real values.
        train: what is learned from.
        test: what is asked about; never trained on.
        validation: what settings are chosen by, where the set has such a split.
        brightest: the value that stands for white, such as 255; None where inputs are no images.
        notes: what the source guessed or changed, in the order in which a user should read it.
        preparation: how raw examples become inputs, in plain values that JSON can hold. Passed to
            ``load`` as ``preparation``, it prepares other data in exactly the same way.
    """

    classes: tuple[str, ...]
    train: Split
    test: Split
    validation: Split | None = None
    brightest: int | None = None
    notes: tuple[Note, ...] = ()
    preparation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


class LoadOptions(NamedTuple):
    """What a caller of ``load`` asks of any source.

    Args:
        root: folder that relative paths and downloaded archives are found under.
        seed: decides the splits of a set that comes in one.
        test_fraction: share of the examples to test on, of a set that comes in one split.
        on_bad: what is done about an example that cannot be read.
        in_memory: the most bytes of inputs of a split that are read into memory.
        max_bytes: the most bytes that one file may take once it is decoded; a source checks this
            before it allocates memory.
        preparation: the ``DataSet.preparation`` of an earlier call, to be applied exactly; None to
            fit a new one to the training split.
    """

    root: Path
    seed: int = 0
    test_fraction: float = TEST_FRACTION
    on_bad: OnBad = "raise"
    in_memory: int = IN_MEMORY
    max_bytes: int = MAX_BYTES
    preparation: Mapping[str, Any] | None = None


@dataclass
class SkippedExamples:
    """What is done about an example that cannot be read: raised, or written down and left out.

    Example:
        >>> skips = SkippedExamples("skip")
        >>> skips(UserError("cat.jpg: stops early"))
        >>> skips.sentences
        ['cat.jpg: stops early']
    """

    on_bad: OnBad
    sentences: list[str] = field(default_factory=list)

    def __call__(self, error: UserError) -> None:
        """Raise the error, or keep its sentence."""
        if self.on_bad == "raise":
            raise UserError(
                f"{error}; to leave such examples out, pass --skip-bad, or set "
                "skip_bad = true in a recipe"
            ) from error
        self.sentences.append(str(error))
