"""Load the batches of a split from memory or from files, in an order that the seed determines."""

import ctypes
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vicinal.data.dataset import ReadResult, Split, StoredInputs
from vicinal.data.normalize import Normalize
from vicinal.data.order import balanced_order, epoch_order
from vicinal.data.threads import available_cores, cpu_threads
from vicinal.data.transforms import Transform
from vicinal.errors import UserError
from vicinal.mixing import generator_at

AUGMENTING = 2
"""The stream of ``generator_at`` that transforms are drawn from."""


class Loader:
    """Batches of one split of a data set, on a device.

    A split in memory is moved to the device once, and shuffled and augmented there in whole
    batches. A split in files is read ahead by worker processes, which also augment if the device
    is the CPU. The batches are the same in both cases, unless examples are skipped: order and
    augmentation depend only on ``seed``, the epoch and the step, so a resumed trial
    sees the same batches.

    Several ranks divide the batch that one process would see: ``batch_size`` times ``ranks``
    examples, augmented in the same way.

    The last batch may be smaller. If a rank would get fewer than two examples of it, it is joined
    to the previous batch, since batch norm cannot be trained on one example: with a batch size of
    64, 65 examples are one batch of 65, and 129 are batches of 64 and 65.

    Args:
        split: the examples.
        batch_size: number of examples per step and rank.
        seed: seed of order and augmentation.
        augment: transforms of the inputs, in this order.
        device: the device of the batches.
        shuffle: True for a new order in each epoch, False for the order of the split; or the size
            of a shuffle buffer, for files that have to be read nearly in order: each example is
            drawn from the next ``shuffle`` ones.
        balanced: whether each epoch draws every class equally often, see ``balanced_order``. An
            epoch has as many examples as without it.
        rank: rank of this process, from 0.
        ranks: number of processes.
        workers: number of processes that read a split in files. None for the number of processor
            cores, at most 8; 0 to read in this process.

    Raises:
        ValueError: if a number is out of range, or ``balanced`` is used without ``shuffle=True`` or
            with targets that are not labels.

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
        balanced: bool = False,
        rank: int = 0,
        ranks: int = 1,
        workers: int | None = None,
    ) -> None:
        """Move a split in memory to the device."""
        if batch_size < 1 or not 0 <= rank < ranks or shuffle < 0:
            raise ValueError(
                f"Loader expects batch_size >= 1, 0 <= rank < ranks and shuffle >= 0, got "
                f"batch_size={batch_size}, rank={rank}, ranks={ranks}, shuffle={shuffle}."
            )
        if balanced and (
            shuffle is not True or split.targets.is_floating_point() or split.targets.ndim != 1
        ):
            raise ValueError(
                "Loader(balanced=True) expects shuffle=True and integer labels (n,), got "
                f"shuffle={shuffle} and targets {split.targets.dtype} {tuple(split.targets.shape)}."
            )
        self._labels = split.targets.cpu() if balanced else None
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.device, self.shuffle = torch.device(device), shuffle
        self.rank, self.ranks = rank, ranks
        self._targets = split.targets.to(self.device)
        self._inputs = self._reader = None
        self._own_transforms: tuple[Transform, ...] = tuple(
            one.to(self.device) if isinstance(one, Normalize) else one for one in augment
        )
        if isinstance(split.inputs, Tensor):
            self._inputs = split.inputs.to(self.device)
        else:
            there: tuple[Transform, ...] = ()
            if self.device.type == "cpu":
                there, self._own_transforms = _divided(self._own_transforms)
            batches = _Batches(split.inputs, there, seed)
            workers = min(8, available_cores()) if workers is None else workers
            self._reader = _Reader(batches, workers, self.device.type == "cuda")
        self.skipped: dict[str, None] = {}

    def __len__(self) -> int:
        """Return the number of steps per epoch."""
        whole, rest = divmod(len(self.split), self.batch_size * self.ranks)
        # Each rank needs an example, since the others wait for it, and two for batch norm.
        enough = self.ranks * min(2, self.batch_size)
        return whole + (rest >= (enough if whole else self.ranks))

    def seen_before(self, step: int) -> int:
        """Return the number of examples that all ranks have seen before a step of an epoch.

        Example:
            >>> loader = Loader(Split(torch.zeros(65, 1), torch.zeros(65)), batch_size=64, seed=0)
            >>> len(loader), loader.seen_before(1)
            (1, 65)
        """
        if step >= len(self):
            return len(self.split)
        return step * self.batch_size * self.ranks

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch.

        Args:
            epoch: number of the epoch, from 0.
            start: first step, from 0, for resuming.

        Yields:
            Augmented inputs ``(b, ...)`` and targets ``(b, ...)`` on the device. ``b`` is
            ``batch_size``, or less in the last batch, minus the number of skipped examples. Their
            messages are the keys of ``skipped``. A batch of which all examples are skipped is
            skipped too; with several ranks it is an error, since the others would wait for it.

        Raises:
            UserError: if an example cannot be read, or a worker process dies.
            ValueError: if the split is read from files, and another epoch has been started since.
        """
        yield from (batch for batch in self.every_batch(epoch, start) if len(batch[1]))

    def every_batch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch, and empty ones for those that are skipped."""
        if self._labels is not None:
            order = balanced_order(self._labels, seed=self.seed, epoch=epoch)
        else:
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
                        f"no example in a batch of rank {self.rank} can be read, and the other "
                        f"ranks would wait for it. The first error: {read.skipped[0]}"
                    )
                yield read.inputs.to(self.device), self._targets[:0]
                continue
            # The other cores belong to the worker processes.
            with cpu_threads(1 if beside_workers else None):
                x = read.inputs.to(self.device, non_blocking=True)
                x = _augmented(x, read.kept, task, self._own_transforms, self.seed)
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


class _Task(NamedTuple):
    """One batch to read.

    Args:
        rows: rows of this rank, ``(b,)`` int64; NumPy arrays are cheaper to send than tensors.
        first: position of the first of them in the batch of all ranks.
        whole: size of the batch of all ranks.
        number: number of the step, over all epochs.
    """

    rows: np.ndarray
    first: int
    whole: int
    number: int


def _augmented(
    x: Tensor, kept: np.ndarray, task: _Task, steps: Sequence[Transform], seed: int
) -> Tensor:
    """Augment the examples of a rank as in the batch of all ranks."""
    if not steps:
        return x
    generator = generator_at(seed, task.number, stream=AUGMENTING)
    for step in steps:
        drawn = step.draw(task.whole, tuple(x.shape[1:]), generator)
        x = step.apply(x, drawn[task.first + kept])
    return x


def _divided(
    steps: tuple[Transform, ...],
) -> tuple[tuple[Transform, ...], tuple[Transform, ...]]:
    """Return the transforms for the workers, and those for this process.

    Normalization at the end stays in this process, since floats are four times as many bytes to
    send.
    """
    count = len(steps)
    while count and isinstance(steps[count - 1], Normalize):
        count -= 1
    return steps[:count], steps[count:]


class _Reader:
    """Reads batches ahead, in worker processes that stay alive for the next epoch."""

    def __init__(self, batches: "_Batches", workers: int, pinned: bool) -> None:
        self._tasks: list[_Task] = []
        self._run = 0
        self._loader = DataLoader(
            batches,
            batch_size=None,
            sampler=self._tasks,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            persistent_workers=workers > 0,
            pin_memory=pinned,
            collate_fn=_identity,
            worker_init_fn=_ignore_stop_signals,
        )

    def read(self, tasks: Sequence[_Task]) -> Iterator[ReadResult]:
        self._tasks[:] = tasks
        self._run += 1
        run, batches = self._run, iter(self._loader)
        for count in range(1, len(tasks) + 1):
            if run != self._run:  # the processes read another epoch now
                raise ValueError(
                    "Loader: expected one epoch at a time, since the split is read from files, but "
                    "another epoch has begun. Use a second Loader for the other epoch."
                )
            with dead_workers_named():
                read = next(batches)
            if isinstance(read, UserError):
                raise read
            yield read
            _trim_memory(count)


@contextmanager
def dead_workers_named() -> Iterator[None]:
    """Raise a ``UserError`` if a data-loading worker dies.

    PyTorch notices it in a signal handler, which can interrupt any code, so use this around all
    code that works on the batches.

    Example:
        >>> with dead_workers_named():
        ...     raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        Traceback (most recent call last):
        vicinal.errors.UserError: a data-loading worker died, most likely because memory ran out. \
Free memory or lower training.batch_size (DataLoader worker (pid 7) is killed by signal: Killed.)
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a data-loading worker died, most likely because memory ran out. Free memory or lower "
            f"training.batch_size ({str(error).strip().splitlines()[0]})"
        ) from error


class _Batches(Dataset[ReadResult | UserError]):
    """Reads and augments a batch in a worker process, and returns it or the error."""

    def __init__(self, stored: StoredInputs, steps: Sequence[Transform], seed: int) -> None:
        self._stored, self._steps, self._seed = stored, steps, seed
        self._count = 0

    def __getitem__(self, task: _Task) -> ReadResult | UserError:
        self._count += 1
        _trim_memory(self._count)
        try:
            read = self._stored.read(task.rows.tolist())
            inputs = _augmented(read.inputs, read.kept, task, self._steps, self._seed)
            return read._replace(inputs=inputs)
        except UserError as error:
            return UserError(str(error))  # without the traceback, which belongs to another process


def _trim_memory(count: int) -> None:
    """Return freed memory to the system every 64 batches.

    glibc seldom reuses PyTorch's aligned memory for the next batch: without this, a process grew by
    some megabytes per batch, up to several hundred.
    """
    if count % 64 == 0:
        with suppress(AttributeError, OSError, TypeError):  # other C libraries
            ctypes.CDLL(None).malloc_trim(0)


def _ignore_stop_signals(_worker: int) -> None:
    """Let a signal to all processes stop the main process alone, which then ends the workers."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _identity(read: Any) -> Any:
    return read
