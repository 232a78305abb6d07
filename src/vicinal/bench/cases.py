"""What is measured: cases, their contenders, and what they have to reach."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import vicinal
from vicinal.bench.peers import Mixer, Peer
from vicinal.bench.timing import Pace, Run, Stopwatch, cuda_events, wall_clock
from vicinal.mixing import MixUp, Plan, Shuffle

Shape = tuple[int, ...]


class Contender(NamedTuple):
    """One of those that are timed against each other in a case."""

    name: str
    version: str
    run: Run


class Target(NamedTuple):
    """What a contender has to reach.

    Args:
        contender: its name.
        limit: which way better is.
        wanted: a number of ``words``.
        words: what is counted: "copies".
        against: names of others. The fastest of them is what "at most" counts in, and what "at
            least" is as many times as fast as. Nobody: the microseconds of a call are counted.
    """

    contender: str
    limit: Literal["at most", "at least"]
    wanted: float
    words: str
    against: tuple[str, ...] = ()


class Case(NamedTuple):
    """Contenders that do the same with the same batch; the first is what ratios count in."""

    name: str
    shape: Shape
    dtype: torch.dtype
    unit: str
    contenders: list[Contender]
    pace: Pace
    stopwatch: Stopwatch
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()


class Effort(NamedTuple):
    """How much is measured.

    Args:
        images: rows of 3x224x224 in a large batch.
        features: rows of 64x32x32 in a batch of features.
        slow: pace of cases with large batches.
        fast: pace of the others.
        point: pace of each batch size in ``sizes``.
        sizes: for each shape of a row, the batch sizes of the picture.
    """

    images: int
    features: int
    slow: Pace
    fast: Pace
    point: Pace
    sizes: dict[Shape, list[int]]


FULL = Effort(
    images=256,
    features=128,
    slow=Pace(12.0, least=7),
    fast=Pace(4.0, least=7),
    point=Pace(0.8, least=3),
    sizes={
        (3, 32, 32): [2**k for k in range(2, 13)],
        (3, 224, 224): [2**k for k in range(1, 9)],
    },
)
QUICK = Effort(
    images=8,
    features=8,
    slow=Pace(0.3, least=3, turn=2e-4),
    fast=Pace(0.1, least=3, turn=2e-4),
    point=Pace(0.05, least=3, turn=2e-4),
    sizes={(3, 32, 32): [4, 64], (3, 224, 224): [2, 8]},
)

_OURS = ("vicinal, per example", "vicinal, per batch")
_BATCHWISE = ("textbook", "torchvision", "timm batch")


def build_cases(device: torch.device, effort: Effort, peers: Sequence[Peer]) -> Iterator[Case]:
    """Build the cases, one after the other, since each holds large batches."""
    on_gpu = device.type == "cuda"
    large, small = (effort.images, 3, 224, 224), (512, 3, 32, 32)
    dtypes = _dtypes(device)
    for dtype in dtypes:
        case = in_place(large, dtype, device, effort.slow, peers)
        if on_gpu:
            words = "of the bandwidth of a copy"
            targets = [Target(ours, "at least", 0.9, words, ("copy",)) for ours in _OURS]
        else:
            targets = _in_place_targets(peers, copies=2.0, batchwise=3.0, rowwise=2.0)
        yield case._replace(targets=targets)
        case = in_place(small, dtype, device, effort.fast, peers)
        targets = _in_place_targets(peers, copies=2.5, batchwise=4.0, rowwise=50.0)
        yield case._replace(targets=[] if on_gpu else targets)
        yield in_place((128, 3, 32, 32), dtype, device, effort.fast, peers)
        yield new_tensor(large, dtype, device, effort.slow, peers)
        yield backward((effort.features, 64, 32, 32), dtype, device, effort.slow, peers)
        yield loss((256, 1000), dtype, device, effort.fast)
    for dtype in (torch.bfloat16, torch.uint8):
        if dtype not in dtypes:
            few = [peer for peer in peers if peer.key == "textbook" and dtype.is_floating_point]
            yield in_place(large, dtype, device, effort.fast, few)
    yield drawing(256, device, effort.fast)


def build_scaling(device: torch.device, effort: Effort, peers: Sequence[Peer]) -> Iterator[Case]:
    """Build one case for each batch size of the picture."""
    for dtype in _dtypes(device):
        for row, sizes in effort.sizes.items():
            for size in sizes:
                yield by_size((size, *row), dtype, device, effort.point, peers)


def in_place(
    shape: Shape, dtype: torch.dtype, device: torch.device, pace: Pace, peers: Sequence[Peer]
) -> Case:
    """Mix a batch in place, beside a copy of it into a batch that exists."""
    x, work, plan = _batch(shape, dtype, device), _batch(shape, dtype, device), _plan(shape[0])
    shared, policy = _plan(shape[0], per="batch").to(device), MixUp(1.0, per="example")
    here = plan.to(device)
    contenders = [
        Contender("copy", torch.__version__, lambda: work.copy_(x)),
        _ours("vicinal, per example", lambda: here.mix_(work)),
        _ours("vicinal, per batch", lambda: shared.mix_(work)),
        _ours("vicinal, draw + mix", lambda: policy.draw(len(work)).mix_(work)),
    ]
    others, notes = _others(peers, x, work, here)
    return Case(
        "in place",
        shape,
        dtype,
        "copies",
        [*contenders, *others],
        pace,
        _stopwatch(device),
        notes=notes,
    )


def new_tensor(
    shape: Shape, dtype: torch.dtype, device: torch.device, pace: Pace, peers: Sequence[Peer]
) -> Case:
    """Mix a batch into a new one, beside a new one that is only filled."""
    x, plan = _batch(shape, dtype, device), _plan(shape[0]).to(device)
    shared = _plan(shape[0], per="batch").to(device)
    fresh = "a new batch, filled"
    contenders = [
        Contender(fresh, torch.__version__, lambda: torch.empty_like(x).fill_(0)),
        _ours("vicinal, per example", lambda: plan.mix(x)),
        _ours("vicinal, per batch", lambda: shared.mix(x)),
    ]
    others, notes = _others([peer for peer in peers if not peer.writes], x, x, plan)
    fastest = "times as fast as the fastest peer that returns a new tensor"
    targets = [
        target
        for ours in _OURS
        for target in (
            Target(ours, "at most", 1.25, "new batches, filled", (fresh,)),
            Target(ours, "at least", 2.0, fastest, tuple(other.name for other in others)),
        )
    ]
    return Case(
        "new tensor",
        shape,
        dtype,
        "new batches",
        [*contenders, *others],
        pace,
        _stopwatch(device),
        [] if device.type == "cuda" else targets,
        notes,
    )


def backward(
    shape: Shape, dtype: torch.dtype, device: torch.device, pace: Pace, peers: Sequence[Peer]
) -> Case:
    """Mix features, then take their gradient, beside the forward pass alone."""
    x, g = _batch(shape, dtype, device).requires_grad_(), _batch(shape, dtype, device)
    plan = _plan(shape[0]).to(device)
    forward, textbook = "vicinal, forward only", "textbook expression"
    contenders = [
        _ours(forward, lambda: plan.mix(x)),
        _ours("vicinal", partial(_mix_and_back, plan.mix, x, g)),
    ]
    for peer in peers:
        if peer.key in {"textbook", "OpenMixup"}:
            run = partial(_mix_and_back, peer.formula(plan.partner, plan.lam), x, g)
            contenders.append(Contender(peer.name, peer.version, run))
    targets = [
        Target("vicinal", "at most", 2.0, "forward passes", (forward,)),
        Target("vicinal", "at least", 3.0, "times as fast as the textbook", (textbook,)),
    ]
    return Case(
        "forward + backward",
        shape,
        dtype,
        "forward passes",
        contenders,
        pace,
        _stopwatch(device),
        [] if device.type == "cuda" else targets,
    )


def loss(shape: Shape, dtype: torch.dtype, device: torch.device, pace: Pace) -> Case:
    """Take the cross-entropy of a blended batch and its gradient, beside that of a plain one."""
    output = _batch(shape, dtype, device).requires_grad_()
    y = torch.arange(shape[0], device=device) * 37 % shape[1]
    plan = _plan(shape[0]).to(device)
    partner, lam = plan.partner, plan.lam.to(dtype)

    def soft() -> Tensor:
        own, met = F.one_hot(y, shape[1]).to(dtype), F.one_hot(y[partner], shape[1]).to(dtype)
        return F.cross_entropy(output, lam[:, None] * own + (1 - lam[:, None]) * met)

    def twice() -> Tensor:
        own = F.cross_entropy(output, y, reduction="none")
        met = F.cross_entropy(output, y[partner], reduction="none")
        return (lam * own + (1 - lam) * met).mean()

    plain, one_hot = "F.cross_entropy, not mixed", "soft targets, one-hot"
    contenders = [
        Contender(plain, torch.__version__, lambda: _gradient(F.cross_entropy(output, y), output)),
        _ours(
            "vicinal, plan.loss",
            lambda: _gradient(plan.loss(F.cross_entropy, output, y), output),
        ),
        Contender(one_hot, torch.__version__, lambda: _gradient(soft(), output)),
        Contender("two cross-entropies", torch.__version__, lambda: _gradient(twice(), output)),
    ]
    targets = [
        Target("vicinal, plan.loss", "at most", 1.3, "plain cross-entropies", (plain,)),
        Target("vicinal, plan.loss", "at least", 1.5, "times as fast as one-hot", (one_hot,)),
    ]
    return Case(
        "cross-entropy + backward",
        shape,
        dtype,
        "plain losses",
        contenders,
        pace,
        _stopwatch(device),
        [] if device.type == "cuda" else targets,
    )


def drawing(size: int, device: torch.device, pace: Pace) -> Case:
    """Draw a plan: always on the CPU, and on a GPU machine moved to the GPU as well."""
    example, batch = MixUp(1.0, per="example"), MixUp(1.0, per="batch")
    generator = np.random.default_rng(0)
    contenders = [
        Contender(
            "NumPy's beta, torch.randperm",
            np.__version__,
            lambda: (torch.from_numpy(generator.beta(1.0, 1.0, size)), torch.randperm(size)),
        ),
        _ours("vicinal, per example", lambda: example.draw(size)),
        _ours("vicinal, per batch", lambda: batch.draw(size)),
    ]
    targets = [Target("vicinal, per example", "at most", 60.0, "µs")]
    if device.type == "cuda":
        name, targets = "vicinal, per example, moved to the GPU", []
        contenders.append(_ours(name, lambda: example.draw(size).to(device)))
    return Case(
        "drawing a plan",
        (size,),
        torch.float32,
        "NumPy's draws",
        contenders,
        pace,
        wall_clock(),
        targets,
    )


def by_size(
    shape: Shape, dtype: torch.dtype, device: torch.device, pace: Pace, peers: Sequence[Peer]
) -> Case:
    """Mix a batch, in place and into a new one: a point of the picture."""
    x, work, plan = _batch(shape, dtype, device), _batch(shape, dtype, device), _plan(shape[0])
    here = plan.to(device)
    contenders = [
        Contender("copy", torch.__version__, lambda: work.copy_(x)),
        _ours("vicinal, in place", lambda: here.mix_(work)),
        _ours("vicinal, new tensor", lambda: here.mix(x)),
    ]
    others, notes = _others(peers, x, work, here)
    return Case(
        "by batch size",
        shape,
        dtype,
        "copies",
        [*contenders, *others],
        pace,
        _stopwatch(device),
        notes=notes,
    )


def _in_place_targets(
    peers: Sequence[Peer], *, copies: float, batchwise: float, rowwise: float
) -> list[Target]:
    """Return the targets of mixing in place; ``rowwise`` is against timm's mode for elements."""
    names = {peer.key: peer.name for peer in peers}
    many = f"times as fast as the fastest of {', '.join(_BATCHWISE)}"
    return [
        target
        for ours in _OURS
        for target in (
            Target(ours, "at most", copies, "copies", ("copy",)),
            Target(ours, "at least", batchwise, many, tuple(names[key] for key in _BATCHWISE)),
            Target(ours, "at least", rowwise, "times as fast as timm elem", (names["timm elem"],)),
        )
    ]


def _others(
    peers: Sequence[Peer], x: Tensor, work: Tensor, plan: Plan
) -> tuple[list[Contender], list[str]]:
    """Return the peers that can mix such a batch, and a sentence for each that cannot."""
    contenders, notes = [], []
    for peer in peers:
        try:
            peer.formula(torch.zeros_like(plan.partner[:2]), plan.lam[:2])(x[:2].clone())
        except Exception as error:  # a type or a device that this library does not serve
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            notes.append(f"{peer.name} cannot mix {x.dtype} on {x.device.type} ({why})")
            continue
        run = partial(peer.formula(plan.partner, plan.lam), work if peer.writes else x)
        contenders.append(Contender(peer.name, peer.version, run))
    return contenders, notes


def _ours(name: str, run: Run) -> Contender:
    return Contender(name, vicinal.__version__, run)


def _mix_and_back(mix: Mixer, x: Tensor, g: Tensor) -> Tensor:
    return _gradient(mix(x), x, g)


def _gradient(out: Tensor, x: Tensor, g: Tensor | None = None) -> Tensor:
    return torch.autograd.grad(out, x, g)[0]


def _plan(size: int, per: Literal["example", "batch"] = "example") -> Plan:
    everybody = Shuffle(meet_self=False)  # else two rows could be left as they are, at no cost
    policy = MixUp(1.0, per=per, pairing=everybody)
    return policy.draw(size, generator=torch.Generator().manual_seed(0))


def _batch(shape: Shape, dtype: torch.dtype, device: torch.device) -> Tensor:
    values = torch.rand(shape, device=device)
    return values.mul_(255).to(dtype) if dtype == torch.uint8 else values.to(dtype)


def _dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    return (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,)


def _stopwatch(device: torch.device) -> Stopwatch:
    return cuda_events if device.type == "cuda" else wall_clock()
