"""Loaders: batches of a split, from memory or from files, the same ones for the same seed."""

import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vicinal.data.dataset import ReadResult, Split, StoredInputs
from vicinal.data.normalize import Normalize
from vicinal.data.threads import cpu_threads
from vicinal.data.transforms import Transform
from vicinal.errors import UserError
from vicinal.mixing import generator_at

ORDER, AUGMENTING = 1, 2
"""The streams of ``generator_at`` that loaders draw from; mixing draws from 0."""


class Loader:
    """Batches of one split of a data set, on a device.

    A split in memory is brought to the device once, and shuffled and augmented there in whole
    batches. A split in files is read by worker processes ahead of its use; they also augment where
    the device is the CPU. Which of the two it is decides nothing else, as long as
    no example had to be left out: order and augmentation come from ``seed``, the epoch and the step
    alone, so the batches are the same, and so are those of a run that is resumed at a step.

    Several ranks take their shares of the batch that one process would see: ``batch_size`` times
    ``ranks`` examples, augmented as they would be there.

    The last batch is smaller where the examples run out. If it would leave some rank with one
    example, or none, it is joined to the batch before it, since batch norm cannot be trained on one
    example; so 65 examples in batches of 64 are one batch of 65, and 129 are 64 and 65.

    Args:
        split: what to take batches of.
        batch_size: examples a step and rank.
        seed: decides order and augmentation.
        augment: what is done to the inputs, in this order.
        device: where batches are load_options.
        shuffle: True for a fresh order each epoch, False for the order of the split; or the number
            of examples in a shuffle buffer, for files that have to be read nearly in their order:
            each example is drawn from the next so many.
        drop_last: whether a last batch that is smaller is left out.
        rank: of this process, from 0.
        ranks: how many there are.
        workers: processes that read a split in files; as many as there are processor cores, at
            most 8, where it is None. 0 reads in this process.

    Example:
        >>> split = Split(torch.arange(6).view(6, 1), torch.arange(6))
        >>> [y.tolist() for x, y in Loader(split, batch_size=4, seed=0).epoch(0)]
        [[1, 5, 3, 0], [2, 4]]
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        augment: Sequence[Transform] = (),
        device: torch.device | str = "cpu",
        shuffle: bool | int = True,
        drop_last: bool = False,
        rank: int = 0,
        ranks: int = 1,
        workers: int | None = None,
    ) -> None:
        """Bring a split in memory to the device."""
        if batch_size < 1 or not 0 <= rank < ranks or shuffle < 0:
            raise ValueError(
                f"Loader wants batch_size from 1, rank from 0 below ranks, and shuffle from 0, got "
                f"batch_size={batch_size}, rank={rank}, ranks={ranks}, shuffle={shuffle}."
            )
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.device, self.shuffle, self.drop_last = torch.device(device), shuffle, drop_last
        self.rank, self.ranks = rank, ranks
        self._targets = split.targets.to(self.device)
        self._inputs = self._reader = None
        self._here: tuple[Transform, ...] = tuple(augment)
        if isinstance(split.inputs, Tensor):
            self._inputs = split.inputs.to(self.device)
        else:
            there: tuple[Transform, ...] = ()
            if self.device.type == "cpu":
                there, self._here = _divided(self._here)
            batches = _Batches(split.inputs, there, seed)
            self._reader = _Reader(batches, _worker_count(workers), self.device.type == "cuda")
        self.skipped: dict[str, None] = {}

    def __len__(self) -> int:
        """Return the number of steps of an epoch."""
        whole, rest = divmod(len(self.split), self.batch_size * self.ranks)
        if self.drop_last:
            return whole
        # Each rank needs an example, since others would wait for it, and two for batch norm.
        enough = self.ranks * min(2, self.batch_size)
        return whole + (rest >= (enough if whole else self.ranks))

    def seen_before(self, step: int) -> int:
        """Return how many examples all ranks together have seen before a step of an epoch.

        Example:
            >>> loader = Loader(Split(torch.zeros(65, 1), torch.zeros(65)), batch_size=64, seed=0)
            >>> len(loader), loader.seen_before(1)
            (1, 65)
        """
        if step >= len(self) and not self.drop_last:
            return len(self.split)
        return step * self.batch_size * self.ranks

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the split once.

        Args:
            epoch: which pass this is, from 0.
            start: step to begin with, from 0: a resumed run goes on there.

        Yields:
            Inputs ``(b, ...)`` as augmentation leaves them, and targets ``(b, ...)``. ``b`` is
            ``batch_size``, except in the last batch, and less by those that had to be skipped,
            whose sentences are the keys of ``skipped``; a batch of which nothing is left is passed
            over (an error with several ranks, of which the others would wait).

        Raises:
            UserError: if an example cannot be read, or a worker process dies.
            ValueError: if another epoch of a split in files was begun meanwhile.
        """
        order = epoch_order(len(self.split), seed=self.seed, epoch=epoch, shuffle=self.shuffle)
        tasks = []
        for step in range(start, len(self)):
            batch = order[self.seen_before(step) : self.seen_before(step + 1)]
            shares = batch.tensor_split(self.ranks)
            first = sum(len(share) for share in shares[: self.rank])
            number = epoch * len(self) + step
            tasks.append(_Task(shares[self.rank].numpy(), first, len(batch), number))
        beside_workers = self._reader is not None and self.device.type == "cpu"
        for task, read in zip(tasks, self._read(tasks), strict=True):
            self.skipped.update(dict.fromkeys(read.skipped))
            if not len(read.kept):
                if self.ranks > 1:
                    raise UserError(
                        f"no example of a batch of rank {self.rank} can be read, and the other "
                        f"ranks would wait for it; {read.skipped[0]}"
                    )
                continue
            # Worker processes have the other cores.
            with cpu_threads(1 if beside_workers else None):
                x = read.inputs.to(self.device, non_blocking=True)
                x = _augmented(x, read.kept, task, self._here, self.seed)
            yield x, self._targets[self._there(task.rows[read.kept])]

    def _there(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.device, non_blocking=True)

    def _read(self, tasks: Sequence["_Task"]) -> Iterator[ReadResult]:
        if self._reader is not None:
            yield from self._reader.read(tasks)
            return
        assert self._inputs is not None
        for task in tasks:
            inputs = self._inputs.index_select(0, self._there(task.rows))
            yield ReadResult(inputs, np.arange(len(task.rows)), [])


def epoch_order(count: int, *, seed: int, epoch: int, shuffle: bool | int = True) -> Tensor:
    """Return in which order an epoch goes through the rows of a split, ``(count,)`` int64.

    Args:
        count: how many rows there are.
        seed: of the run.
        epoch: which pass, from 0.
        shuffle: as for ``Loader``.

    Example:
        >>> epoch_order(8, seed=0, epoch=0, shuffle=3)
        tensor([1, 0, 2, 5, 4, 7, 3, 6])
    """
    if not shuffle:
        return torch.arange(count)
    generator = generator_at(seed, epoch, stream=ORDER)
    if shuffle is True or shuffle >= count:
        return torch.randperm(count, generator=generator)
    # A buffer of the next rows, one of which is drawn and replaced by the row behind them.
    buffer = list(range(shuffle))
    drawn = torch.randint(shuffle, (count - shuffle,), generator=generator).tolist()
    order = []
    for following, place in enumerate(drawn, shuffle):
        order.append(buffer[place])
        buffer[place] = following
    rest = torch.randperm(shuffle, generator=generator).tolist()
    return torch.tensor(order + [buffer[place] for place in rest])


class _Task(NamedTuple):
    """One batch to be made.

    Args:
        rows: of this rank, ``(b,)`` int64; of NumPy, which are cheaper to send than tensors.
        first: place of the first of them in what one process would see.
        whole: how many that would be.
        number: of the step, over all epochs.
    """

    rows: np.ndarray
    first: int
    whole: int
    number: int


def _augmented(
    x: Tensor, kept: np.ndarray, task: _Task, steps: Sequence[Transform], seed: int
) -> Tensor:
    """Augment what was read of a batch as it would be among the whole batch of all ranks."""
    if not steps:
        return x
    generator = generator_at(seed, task.number, stream=AUGMENTING)
    for step in steps:
        drawn = step.draw(task.whole, tuple(x.shape[1:]), generator)
        x = step.apply(x, drawn[task.first + kept].to(x.device, non_blocking=True))
    return x


def _divided(
    steps: tuple[Transform, ...],
) -> tuple[tuple[Transform, ...], tuple[Transform, ...]]:
    """Divide augmentation between workers and this process.

    What comes last and only makes bytes into floats stays here: four times as much would have to
    be handed over.
    """
    count = len(steps)
    while count and isinstance(steps[count - 1], Normalize):
        count -= 1
    return steps[:count], steps[count:]


class _Reader:
    """Makes batches ahead of their use, in processes that stay for the next epoch."""

    def __init__(self, batches: "_Batches", workers: int, pinned: bool) -> None:
        self._tasks = _Tasks()
        self._run = 0
        self._loader = DataLoader(
            batches,
            batch_size=None,
            sampler=self._tasks,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            persistent_workers=workers > 0,
            pin_memory=pinned,
            collate_fn=_as_it_is,
        )

    def read(self, tasks: Sequence[_Task]) -> Iterator[ReadResult]:
        self._tasks.left = tasks
        self._run += 1
        run, batches = self._run, iter(self._loader)
        for count in range(1, len(tasks) + 1):
            if run != self._run:  # the processes work for another epoch now
                raise ValueError(
                    "another epoch of this Loader was begun, and a split in files is read for "
                    "one at a time; make a second Loader for the second epoch."
                )
            with dead_workers_named():
                read = next(batches)
            if isinstance(read, UserError):
                raise read
            yield read
            _give_back(count)


@contextmanager
def dead_workers_named() -> Iterator[None]:
    """Raise a ``UserError`` if a data-loading worker dies.

    PyTorch notices it in a signal handler, so the error is raised by whatever code runs then: put
    this around all of the work on the batches.

    Example:
        >>> with dead_workers_named():
        ...     raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        Traceback (most recent call last):
        vicinal.errors.UserError: a data-loading worker died, most likely because memory ran out: \
free memory or lower training.batch_size (DataLoader worker (pid 7) is killed by signal: Killed.)
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a data-loading worker died, most likely because memory ran out: free memory or lower "
            f"training.batch_size ({str(error).strip().splitlines()[0]})"
        ) from error


class _Tasks:
    """The batches to come."""

    left: Sequence[_Task] = ()

    def __iter__(self) -> Iterator[_Task]:
        return iter(self.left)

    def __len__(self) -> int:
        return len(self.left)


class _Batches(Dataset[ReadResult | UserError]):
    """What a worker process does: rows in, a batch or an error out."""

    def __init__(self, stored: StoredInputs, steps: Sequence[Transform], seed: int) -> None:
        self._stored, self._steps, self._seed = stored, steps, seed
        self._count = 0

    def __getitem__(self, task: _Task) -> ReadResult | UserError:
        self._count += 1
        _give_back(self._count)
        try:
            read = self._stored.read(task.rows.tolist())
            inputs = _augmented(read.inputs, read.kept, task, self._steps, self._seed)
            return read._replace(inputs=inputs)
        except UserError as error:
            return UserError(str(error))  # without the traceback, which is of another process


def _give_back(count: int) -> None:
    """Return freed memory to the system, now and then.

    PyTorch asks glibc for aligned memory, and of what was freed little fits the next batch: without
    this a process grew by some megabytes a batch, up to several hundred.
    """
    if count % 64 == 0 and (trim := _malloc_trim()) is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's function; None where the C library has none."""
    try:
        return cast(Callable[[int], int], ctypes.CDLL(None).malloc_trim)
    except (AttributeError, OSError, TypeError):
        return None


def _as_it_is(read: Any) -> Any:
    return read


def _worker_count(workers: int | None) -> int:
    if workers is not None:
        return workers
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
