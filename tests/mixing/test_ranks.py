"""Two processes joined by gloo, which are started once for all that is tested here."""

import os
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vicinal import MixUp, generator_at

RANK = """
import os
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FullyShardedDataParallel, MixedPrecision, MixedPrecisionPolicy, fully_shard
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from vicinal import MixedInside, MixUp, Plan, rows_of_another_rank

rank, folder = int(sys.argv[1]), sys.argv[2]
store = torch.distributed.FileStore(f"{folder}/store", 2)
torch.distributed.init_process_group("gloo", rank=rank, world_size=2, store=store)
weights, batches = torch.load(f"{folder}/begin")
x, y, partner, lam = batches[rank]
found = {"lam": set(), "met": rows_of_another_rank(x)}


class Spy(Plan):
    def mix(self, h, *args, **kwargs):
        found["lam"].add((self.lam.dtype, torch.equal(self.lam, lam)))
        return super().mix(h, *args, **kwargs)


class Net(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.reentrant = reentrant
        self.load_state_dict(weights)

    def body(self, h):
        return self.c(torch.tanh(self.b(h)))

    def forward(self, x):
        h = torch.tanh(self.a(x))
        if self.reentrant is None:
            return self.body(h)
        return checkpoint(self.body, h, use_reentrant=self.reentrant)


def fsdp(mixed, dtype):
    return FullyShardedDataParallel(
        mixed,
        device_id=torch.device("cpu"),
        use_orig_params=True,
        mixed_precision=MixedPrecision(param_dtype=dtype, cast_forward_inputs=True),
    )


def fsdp2(mixed, dtype):
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for module in (mixed.model.b, mixed):
        fully_shard(module, mesh=init_device_mesh("cpu", (2,)), mp_policy=policy)
    return mixed


WAYS = {
    "ddp": (DistributedDataParallel, None),
    "fsdp": (lambda mixed: fsdp(mixed, torch.float32), None),
    "fsdp bf16": (lambda mixed: fsdp(mixed, torch.bfloat16), torch.bfloat16),
}
WAYS["fsdp2"] = (lambda mixed: fsdp2(mixed, None), None)
WAYS["fsdp2 bf16"] = (lambda mixed: fsdp2(mixed, torch.bfloat16), torch.bfloat16)
for way, (wrap, dtype) in WAYS.items():
    for reentrant in (None, False, True):
        plan = Spy(partner, lam)
        network = wrap(MixedInside(Net(reentrant), MixUp(1.0), at=["input", "b"]))
        output = network(x, plan, at="b")
        assert output.dtype == (dtype or torch.float32)
        plan.loss(F.cross_entropy, output.float(), y).backward()
        if way.startswith("fsdp2"):
            gradients = [p.grad.full_tensor() for p in network.parameters()]
        elif way.startswith("fsdp"):
            with FullyShardedDataParallel.summon_full_params(network, with_grads=True):
                gradients = [p.grad.clone() for p in network.parameters()]
        else:
            gradients = [p.grad for p in network.parameters()]
        found[way, reentrant] = torch.cat([gradient.flatten() for gradient in gradients])
torch.save(found, f"{folder}/end{rank}")
store.set(f"done{rank}", "")  # who leaves first closes the connection under the other
store.wait(["done0", "done1"])
os._exit(0)  # gloo's threads, when they end in both processes at once, can abort one of them
"""


def network():
    torch.manual_seed(0)
    layers = {"a": nn.Linear(3, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 2)}
    return nn.ModuleDict(layers).float()


@pytest.fixture(scope="module")
def batches():
    chance, batches = torch.Generator().manual_seed(8), []
    for rank in range(2):
        x = torch.randn(16, 3, dtype=torch.float32, generator=chance)
        y = torch.randint(2, (16,), generator=chance)
        plan = MixUp(1.0, per="example").draw(16, generator=generator_at(0, 0, rank))
        batches.append((x, y, plan.partner, plan.lam))
    return batches


@pytest.fixture(scope="module")
def found(batches, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.save((network().state_dict(), batches), folder / "begin")
    logs = [folder / f"log{rank}" for rank in range(2)]
    ranks = []
    for rank, log in enumerate(logs):
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", RANK, str(rank), str(folder)],
                stderr=errors,
                # Two processes with several threads each would take the cores from each other.
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        ranks.append(process)
    end = time.monotonic() + 600  # on a busy machine it can take minutes to import PyTorch
    try:  # stop when one has failed: the other would wait for it
        while None in (codes := [rank.poll() for rank in ranks]) and time.monotonic() < end:
            if any(codes):
                break
            time.sleep(0.1)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert codes == [0, 0], "\n".join(log.read_text() for log in logs)
    return [torch.load(folder / f"end{rank}") for rank in range(2)]


def by_hand(batches, *, mixed=True):
    """Return the mean of the gradients of both ranks, in float64."""
    layers, losses = network().double(), []
    for x, y, partner, lam in batches:
        share = lam.double()[:, None] if mixed else torch.ones(len(x), 1).double()
        h = layers["b"](torch.tanh(layers["a"](x.double())))
        output = layers["c"](torch.tanh(share * h + (1 - share) * h[partner]))
        own = F.cross_entropy(output, y, reduction="none")
        met = F.cross_entropy(output, y[partner], reduction="none")
        losses.append((lam * own + (1 - lam) * met).mean())
    (sum(losses) / 2).backward()
    return torch.cat([p.grad.flatten() for p in layers.parameters()]).float()


@pytest.mark.parametrize("reentrant", [None, False, True])
@pytest.mark.parametrize("way", ["ddp", "fsdp", "fsdp bf16", "fsdp2", "fsdp2 bf16"])
def test_two_ranks_have_the_gradient_of_both_in_every_wrapper_and_precision(
    found, batches, way, reentrant
):
    if "fsdp2" in way and torch.__version__.startswith("2.8."):
        pytest.skip("FSDP2 of PyTorch 2.8 sums gradients on CPUs that it should average")
    expected = by_hand(batches)
    error = 2e-2 * expected.abs().max() if "bf16" in way else 1e-6
    assert (by_hand(batches, mixed=False) - expected).abs().max() > 4 * error
    for rank in range(2):
        torch.testing.assert_close(found[rank][way, reentrant], expected, rtol=0, atol=float(error))


def test_no_wrapper_casts_the_shares_of_a_plan(found):
    for rank in range(2):
        assert found[rank]["lam"] == {(torch.float32, True)}


def test_two_ranks_receive_the_rows_of_each_other(found, batches):
    for rank in range(2):
        assert torch.equal(found[rank]["met"], batches[1 - rank][0])
