"""The engine: devices, precision and processes, which Lightning Fabric looks after."""

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.launchers import subprocess_script
from torch import Tensor

from vicinal.data.loader import dead_workers_named
from vicinal.errors import TrialError, UserError, out_of_memory, unknown

PATIENCE = timedelta(seconds=50)
"""How long a process waits for the others before it takes them for dead."""

_PRECISIONS = {"float32": "32-true", "float64": "64-true", "bfloat16": "bf16-mixed"}


def engine(
    *,
    accelerator: str = "auto",
    precision: str = "float32",
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "ddp",
) -> Fabric:
    """Return Fabric for these devices, with its processes started.

    Under torchrun and SLURM the processes are there already; else Fabric starts those of this
    machine, as copies of this command.

    Args:
        accelerator: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` for the best that there is.
        precision: ``"float32"``, ``"float64"``, or with float32 weights ``"bfloat16"`` and
            ``"float16"``, whose loss is scaled so that small gradients survive.
        devices: of each node.
        nodes: machines.
        strategy: of several devices: ``"ddp"`` has all weights on each, ``"fsdp"`` a share of them.

    Raises:
        UserError: if there are no such devices here, or the precision is not for them.

    Example:
        >>> engine(accelerator="cpu").world_size
        1
    """
    # Quiet, but for what it says when a process has died.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger(subprocess_script.__name__).setLevel(logging.INFO)
    if strategy not in ("ddp", "fsdp"):
        raise UserError(unknown("strategy", strategy, ["ddp", "fsdp"]))
    started = os.environ.get("WORLD_SIZE")
    if started is not None and int(started) != devices * nodes:
        raise UserError(
            f"{started} processes were started (WORLD_SIZE), but devices = {devices} times nodes = "
            f"{nodes} was asked for: give --devices as the processes of a machine, and --nodes"
        )
    several = devices * nodes > 1
    settings: dict[str, Any] = {"precision": _PRECISIONS.get(precision, "16-mixed")}
    if precision == "float16" and accelerator in ("cpu", "auto") and not _has_gpu():
        scaler = torch.amp.GradScaler("cpu")
        settings = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}
    how: Any = "auto"
    if several and strategy == "ddp":
        how = DDPStrategy(timeout=PATIENCE)
    elif several:
        if not torch.cuda.is_available():
            raise UserError("the strategy fsdp wants GPUs, and there is none here; try ddp")
        how = "fsdp"
    try:
        fabric = Fabric(
            accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=how, **settings
        )
        fabric.launch()
    except Exception as error:  # each accelerator of Fabric has an exception of its own
        if several:
            raise UserError(
                f'devices = {devices} "{accelerator}" on nodes = {nodes} are not to be had here: '
                f"{str(error).splitlines()[0]}"
            ) from error
        raise UserError(
            f'training.accelerator = "{accelerator}" is not to be had on this machine with '
            f'precision {precision}; try "cpu" or "auto" ({str(error).splitlines()[0]})'
        ) from error
    return fabric


def _has_gpu() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def total(values: Tensor, *, fabric: Fabric) -> Tensor:
    """Add up numbers over all processes.

    Example:
        >>> total(torch.ones(2), fabric=engine(accelerator="cpu"))
        tensor([1., 1.])
    """
    if fabric.world_size == 1:
        return values
    return cast(Tensor, fabric.all_reduce(values.to(fabric.device), reduce_op="sum"))


@contextlib.contextmanager
def troubles_in_words(batch_size: int) -> Iterator[None]:
    """Turn memory that runs out, and processes that die, into one sentence.

    Args:
        batch_size: for the sentence.

    Raises:
        UserError: in place of errors of memory and of communication.

    Example:
        >>> with troubles_in_words(64):
        ...     raise torch.OutOfMemoryError("CUDA out of memory")
        Traceback (most recent call last):
        vicinal.errors.TrialError: out of memory with training.batch_size = 64: lower it, or raise \
training.accumulation_steps, or choose precision "bfloat16" (CUDA out of memory)
    """
    try:
        with dead_workers_named():
            yield
    except (RuntimeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, torch.OutOfMemoryError) or out_of_memory(error):
            raise TrialError(
                f"out of memory with training.batch_size = {batch_size}: lower it, or raise "
                f'training.accumulation_steps, or choose precision "bfloat16" ({reason})'
            ) from error
        lost = isinstance(error, torch.distributed.DistError) or any(
            word in reason for word in ("gloo", "NCCL", "Connection", "Timed out")
        )
        if lost and torch.distributed.is_initialized():
            rank = torch.distributed.get_rank()
            raise UserError(
                f"rank {rank} stops, since another rank has died or does not answer: look for its "
                f"message, then go on with --resume ({reason})"
            ) from error
        raise
