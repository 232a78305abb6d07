"""Devices, precision and processes, which Lightning Fabric manages."""

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.launchers import subprocess_script

from vicinal.data.loader import dead_workers_named
from vicinal.errors import TrialError, UserError, out_of_memory

PATIENCE = timedelta(seconds=50)
"""How long a process waits for the others before it assumes that they died."""

_PRECISIONS = {"float32": "32-true", "float64": "64-true"}
_MIXED: dict[str, Any] = {"bfloat16": "bf16-mixed", "float16": "16-mixed"}


class _Autocast(MixedPrecision):
    """Mixed precision that does not round the inputs, so that blends are rounded only once."""

    def convert_input(self, data: Any) -> Any:
        return data


@contextlib.contextmanager
def pytorch_defaults() -> Iterator[None]:
    """Undo what a program has set for all of PyTorch: type, device, gradients, autocast."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    if device.type != "cpu":
        torch.set_default_device("cpu")
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda", "mps"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        torch.set_default_dtype(dtype)
        if device.type != "cpu":
            torch.set_default_device(device)


def check_processes(devices: int, nodes: int) -> None:
    """Raise if torchrun has started another number of processes."""
    started = os.environ.get("WORLD_SIZE")
    if started is not None and started != str(devices * nodes):
        raise UserError(
            f"--devices, --nodes: expected WORLD_SIZE = {started} processes in all, got {devices} "
            f"devices on {nodes} machines. Set --devices to the number of processes per machine."
        )


def make_fabric(
    *,
    accelerator: str = "auto",
    precision: str = "float32",
    devices: int = 1,
    nodes: int = 1,
) -> Fabric:
    """Return Fabric for these devices, with its processes started.

    Torchrun and SLURM have started the processes already; otherwise Fabric starts those of this
    machine, as copies of this command.

    Args:
        accelerator: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` for the best one available.
        precision: ``"float32"`` or ``"float64"``; or ``"bfloat16"`` or ``"float16"`` with float32
            weights, where the loss of float16 is scaled so that small gradients do not underflow.
        devices: number of devices per machine.
        nodes: number of machines.

    Raises:
        UserError: if the devices are not available, or do not support the precision.

    Example:
        >>> make_fabric(accelerator="cpu").world_size
        1
    """
    # Fabric reports only processes that died.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger(subprocess_script.__name__).setLevel(logging.INFO)
    settings: dict[str, Any] = {"precision": _PRECISIONS.get(precision)}
    if precision in _MIXED:
        kinds = {"cuda": torch.cuda, "mps": torch.backends.mps}
        found = next((kind for kind, one in kinds.items() if one.is_available()), "cpu")
        device = found if accelerator == "auto" else accelerator
        settings = {"plugins": [_Autocast(_MIXED[precision], device)]}
    how: Any = DDPStrategy(timeout=PATIENCE) if devices * nodes > 1 else "auto"
    try:
        fabric = Fabric(
            accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=how, **settings
        )
        fabric.launch()
    except Exception as error:  # each accelerator of Fabric has its own exceptions
        raise UserError(
            f'training.accelerator: "{accelerator}" is not available with precision {precision} '
            f"and --devices {devices} ({str(error).splitlines()[0]}). "
            'Try "cpu" or "auto", or lower --devices.'
        ) from error
    return fabric


@contextlib.contextmanager
def hardware_errors_explained(batch_size: int) -> Iterator[None]:
    """Replace errors that mean too little memory or a lost process with ones that say what to try.

    Args:
        batch_size: the batch size of the recipe, which the message names.

    Raises:
        TrialError: if memory ran out.
        UserError: if another process died.

    Example:
        >>> with hardware_errors_explained(64):
        ...     raise torch.OutOfMemoryError("CUDA out of memory")
        Traceback (most recent call last):
        vicinal.errors.TrialError: out of memory with training.batch_size = 64 (CUDA out of \
memory). Lower it, or raise training.accumulation_steps, or choose precision "bfloat16".
    """
    try:
        with dead_workers_named():
            yield
    except (RuntimeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "Expected to have finished reduction" in reason:  # of DistributedDataParallel
            raise UserError(
                "model.name: with several devices, all parameters of a network have to take part "
                "in the loss, got some that do not. Freeze them (requires_grad_(False)), or use "
                "one device."
            ) from error
        if isinstance(error, torch.OutOfMemoryError) or out_of_memory(error):
            raise TrialError(
                f"out of memory with training.batch_size = {batch_size} ({reason}). Lower it, or "
                'raise training.accumulation_steps, or choose precision "bfloat16".'
            ) from error
        lost = isinstance(error, torch.distributed.DistError) or any(
            word in reason for word in ("gloo", "NCCL", "Connection", "Timed out")
        )
        if lost and torch.distributed.is_initialized():
            rank = torch.distributed.get_rank()
            raise UserError(
                f"rank {rank} stops, since another rank has died or does not respond ({reason}). "
                "See its message, then resume with --resume."
            ) from error
        raise
