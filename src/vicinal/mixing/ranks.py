"""Partners from another process of a distributed run."""

import torch
import torch.distributed as dist
from torch import Tensor


def rows_of_another_rank(
    x: Tensor, *, shift: int = 1, group: dist.ProcessGroup | None = None
) -> Tensor:
    """Return the batch of another rank, to take partners from it.

    All ranks have to call it with tensors of the same shape and type. A rank receives the batch of
    rank ``rank + shift``, modulo the number of ranks: ``plan.mix(x, rows_of_another_rank(x))`` with
    ``plan.loss(criterion, output, y, other=rows_of_another_rank(y))``. There is no gradient with
    respect to the other rank's batch. A single process gets its own batch.

    Args:
        x: ``(batch, ...)``. Not modified.
        shift: the other rank minus this rank.
        group: the process group; all processes if None.

    Raises:
        RuntimeError: if ``torch.distributed`` is not initialized.

    Example:
        >>> import tempfile
        >>> store = dist.FileStore(tempfile.mkdtemp() + "/store", 1)
        >>> dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> rows_of_another_rank(torch.tensor([1.0, 2.0]))  # the only rank gets its own
        tensor([1., 2.])
        >>> dist.destroy_process_group()
    """
    if not dist.is_initialized():
        raise RuntimeError(
            "rows_of_another_rank: expected a distributed run. Call torch.distributed."
            "init_process_group, or start the program with torchrun."
        )
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    if shift % size == 0:
        return x.detach().clone()

    def peer(place: int) -> int:
        return place % size if group is None else dist.get_global_rank(group, place % size)

    sent = x.detach().contiguous()
    received = torch.empty_like(sent)
    exchange = [
        dist.P2POp(dist.isend, sent, peer(rank - shift), group),
        dist.P2POp(dist.irecv, received, peer(rank + shift), group),
    ]
    for work in dist.batch_isend_irecv(exchange):
        work.wait()
    return received
