"""Partners from another process of a distributed run."""

import torch
import torch.distributed as dist
from torch import Tensor


def rows_of_another_rank(
    x: Tensor, *, shift: int = 1, group: dist.ProcessGroup | None = None
) -> Tensor:
    """Return the batch of another rank, so that partners come from there.

    Every rank has to call it with a tensor of one shape and type, and sends its own batch to the
    rank ``shift`` ranks before it in the ring: ``plan.mix(x, rows_of_another_rank(x))`` with
    ``plan.loss(criterion, output, y, other=rows_of_another_rank(y))``. No gradient goes back to the
    other rank. A single process gets its own batch.

    Args:
        x: ``(batch, ...)``. Not modified.
        shift: how far away the other rank is; 1 for the next.
        group: of processes; all of them if None.

    Raises:
        RuntimeError: if ``torch.distributed`` was not set up.

    Example:
        >>> import tempfile
        >>> store = dist.FileStore(tempfile.mkdtemp() + "/store", 1)
        >>> dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> rows_of_another_rank(torch.tensor([1.0, 2.0]))  # of the only rank: its own
        tensor([1., 2.])
        >>> dist.destroy_process_group()
    """
    if not dist.is_initialized():
        raise RuntimeError(
            "rows_of_another_rank needs a distributed run; call torch.distributed."
            "init_process_group, or start with torchrun."
        )
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    if shift % size == 0:
        return x.detach().clone()

    def peer(place: int) -> int:
        return place % size if group is None else dist.get_global_rank(group, place % size)

    sent, received = (
        x.detach().contiguous(),
        torch.empty_like(x, memory_format=torch.contiguous_format),
    )
    exchange = [
        dist.P2POp(dist.isend, sent, peer(rank - shift), group),
        dist.P2POp(dist.irecv, received, peer(rank + shift), group),
    ]
    for work in dist.batch_isend_irecv(exchange):
        work.wait()
    return received
