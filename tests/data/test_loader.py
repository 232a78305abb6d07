import hashlib
import os
import signal
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from vicinal.data import (
    HLSJitter,
    Loader,
    RandomCrop,
    RandomHorizontalFlip,
    ReadResult,
    Split,
    epoch_order,
    load,
)
from vicinal.errors import UserError

MXNET = Path(__file__).parent / "mxnet"
SPEC = "rec:digits_40_png.rec,digits_40_png.rec"
AUGMENT = (RandomCrop(padding=2), RandomHorizontalFlip(), HLSJitter())


def numbered(count):
    return Split(torch.arange(count)[:, None], torch.arange(count))


def rows(loader, epoch=0, start=0):
    return [y.tolist() for _, y in loader.epoch(epoch, start)]


def unbalanced(*counts):
    """Return a split with these numbers of examples of each class, in a random order."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]
    return Split(torch.arange(len(labels))[:, None], labels)


def drawn(loader, epoch=0, start=0):
    """Return the rows of each batch, which are the inputs of ``unbalanced``."""
    return [x[:, 0].tolist() for x, _ in loader.epoch(epoch, start)]


class Slow:
    """Stored inputs that say which process read them, or fail, or die."""

    dtype = torch.int64

    def __init__(self, count, bad=(), dies=()):
        self.shape, self.bad, self.dies = (count, 1), set(bad), set(dies)

    def read(self, rows):
        if self.dies & set(rows):
            os.kill(os.getpid(), signal.SIGKILL)
        kept = [k for k, row in enumerate(rows) if row not in self.bad]
        inputs = torch.tensor([[rows[k]] for k in kept]).view(-1, 1)
        skipped = [f"row {row} is bad" for row in rows if row in self.bad]
        return ReadResult(inputs, np.array(kept, np.int64), skipped)


class Failing(Slow):
    def read(self, rows):
        raise UserError(f"rows {rows} cannot be read")


def test_an_epoch_goes_through_every_example_once_and_the_next_in_another_order():
    loader = Loader(numbered(10), batch_size=4, seed=0)
    epochs = [rows(loader, k) for k in range(2)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert sorted(row for batch in batches for row in batch) == list(range(10))
    assert epochs[0] != epochs[1]
    assert len(loader) == 3
    assert rows(Loader(numbered(10), batch_size=4, seed=1)) != epochs[0]


def test_inputs_stay_with_their_targets():
    for x, y in Loader(numbered(10), batch_size=3, seed=0).epoch(0):
        assert torch.equal(x[:, 0], y)


def test_without_shuffling_the_order_is_that_of_the_split():
    assert rows(Loader(numbered(6), batch_size=4, seed=0, shuffle=False)) == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_no_rank_ever_gets_a_batch_of_one_and_no_example_is_lost(batch_size, ranks):
    for count in range(batch_size * ranks, 5 * batch_size * ranks + 2):
        settings = {"batch_size": batch_size, "seed": 0, "ranks": ranks}
        loaders = [Loader(numbered(count), rank=rank, **settings) for rank in range(ranks)]
        epochs = [rows(loader) for loader in loaders]
        assert sorted(row for epoch in epochs for batch in epoch for row in batch) == list(
            range(count)
        )
        sizes = [[len(batch) for batch in epoch] for epoch in epochs]
        assert {len(epoch) for epoch in sizes} == {len(loaders[0])}
        assert min(map(min, sizes)) >= min(2, batch_size)
        assert max(map(max, sizes)) <= batch_size + 2
        for k in range(len(loaders[0])):  # a resumed run sees the same batches
            assert [rows(loader, start=k) for loader in loaders] == [epoch[k:] for epoch in epochs]
        ends = [sum(map(sum, zip(*sizes, strict=True))) if k else 0 for k in (0, 1)]
        assert [loaders[0].seen_before(0), loaders[0].seen_before(len(loaders[0]))] == ends


def test_a_shuffle_buffer_never_looks_further_ahead_than_it_is_large():
    for size in (1, 7, 50, 200):
        order = epoch_order(100, seed=3, epoch=2, shuffle=size).tolist()
        assert sorted(order) == list(range(100))
        assert all(row < place + size for place, row in enumerate(order))
    assert epoch_order(100, seed=0, epoch=0, shuffle=1).tolist() == list(range(100))


def test_a_shuffle_buffer_gives_every_row_of_it_the_same_chance():
    firsts = Counter(int(epoch_order(30, seed=0, epoch=k, shuffle=5)[0]) for k in range(2000))
    assert set(firsts) == set(range(5))
    assert all(abs(count - 400) < 5 * 18 for count in firsts.values())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [True, False, 16])
def test_from_memory_or_from_files_the_batches_are_the_same(workers, shuffle):
    def batches(in_memory, **options):
        split = load(SPEC, root=MXNET, in_memory=in_memory).train
        assert isinstance(split.inputs, torch.Tensor) == (in_memory > 0)
        loader = Loader(split, batch_size=7, seed=5, augment=AUGMENT, shuffle=shuffle, **options)
        return [batch for epoch in (0, 1) for batch in loader.epoch(epoch)]

    inside, outside = batches(10**9), batches(0, workers=workers)
    assert len(inside) == 12
    for (x, y), (also_x, also_y) in zip(inside, outside, strict=True):
        assert torch.equal(x, also_x)
        assert torch.equal(y, also_y)


def test_augmentation_is_drawn_anew_each_step_and_epoch():
    split = Split(torch.full((4, 1, 6, 6), 9, dtype=torch.uint8), torch.arange(4))
    loader = Loader(split, batch_size=2, seed=0, augment=[RandomCrop(padding=3)])
    seen = {x.numpy().tobytes() for epoch in range(3) for x, _ in loader.epoch(epoch)}
    assert len(seen) == 6


@pytest.mark.parametrize(("ranks", "whole"), [(2, 12), (3, 15)])
@pytest.mark.parametrize("stored", [False, True])
def test_ranks_share_the_batches_that_one_process_would_see(ranks, whole, stored):
    split = load(SPEC, root=MXNET, in_memory=0 if stored else 10**9).train
    size = whole // ranks
    loaders = [
        Loader(split, batch_size=size, seed=1, augment=AUGMENT, rank=k, ranks=ranks, workers=0)
        for k in range(ranks)
    ]
    together = zip(*(loader.epoch(1) for loader in loaders), strict=True)
    alone = Loader(split, batch_size=whole, seed=1, augment=AUGMENT, workers=0).epoch(1)
    for shares, (x, y) in zip(together, alone, strict=True):
        assert torch.equal(torch.cat([share for share, _ in shares]), x)
        assert torch.equal(torch.cat([share for _, share in shares]), y)


def test_no_rank_waits_for_an_example_that_is_not_there():
    loaders = [Loader(numbered(13), batch_size=2, seed=0, rank=k, ranks=3) for k in range(3)]
    sizes = [[len(batch) for batch in rows(loader)] for loader in loaders]
    assert sizes == [[2, 3], [2, 2], [2, 2]]
    loaders = [Loader(numbered(15), batch_size=3, seed=0, rank=k, ranks=3) for k in range(3)]
    assert [[len(batch) for batch in rows(loader)] for loader in loaders] == [[3, 2]] * 3


@pytest.mark.parametrize("stored", [False, True])
def test_a_run_that_begins_at_a_step_sees_what_the_unbroken_run_saw_there(stored):
    split = load(SPEC, root=MXNET, in_memory=0 if stored else 10**9).train
    loader = Loader(split, batch_size=6, seed=2, augment=AUGMENT, shuffle=20, workers=0)
    unbroken = list(loader.epoch(3))
    resumed = list(loader.epoch(3, start=4))
    assert len(resumed) == 3
    for (x, y), (also_x, also_y) in zip(unbroken[4:], resumed, strict=True):
        assert torch.equal(x, also_x)
        assert torch.equal(y, also_y)


STREAM = """
import sys
from tests.data.test_loader import stream
for step, digest in stream(int(sys.argv[1])):
    print(step, digest, flush=True)
    if len(sys.argv) > 2:
        sys.stdin.readline()
"""


def stream(step):
    """Yield the numbers and digests of the batches of three epochs, from a step on."""
    split = load("rec:digits_40_jpg.rec,digits_40_jpg.rec", root=MXNET, in_memory=0).train
    loader = Loader(split, batch_size=4, seed=7, augment=AUGMENT, shuffle=25, workers=2)
    for epoch in range(step // len(loader), 3):
        for x, y in loader.epoch(epoch, start=step % len(loader)):
            yield step, hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
            step += 1


def test_a_stream_that_was_killed_resumes_with_the_same_batches_bit_for_bit():
    def start(step, *words):
        command = [sys.executable, "-c", STREAM, str(step), *words]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    known = [f"{step} {digest}" for step, digest in stream(0)]
    assert len({line.split()[1] for line in known}) == len(known) == 30
    with start(0, "wait") as killed:
        for line in known[:13]:
            assert killed.stdout.readline().strip() == line
            if line != known[12]:
                killed.stdin.write("\n")
                killed.stdin.flush()
        killed.kill()
    with start(13) as resumed:
        assert resumed.stdout.read().splitlines() == known[13:]


def test_an_epoch_that_is_left_early_does_not_disturb_the_next():
    loader = Loader(Split(Slow(40), torch.arange(40)), batch_size=4, seed=0, workers=2)
    whole = rows(loader, 1)
    for _ in loader.epoch(0):
        break
    assert rows(loader, 1) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_examples_make_batches_smaller_and_are_reported_once(workers):
    split = Split(Slow(12, bad=[3, 4, 9]), torch.arange(12))
    loader = Loader(split, batch_size=4, seed=0, shuffle=False, workers=workers)
    for _ in range(2):
        batches = [(x[:, 0].tolist(), y.tolist()) for x, y in loader.epoch(0)]
        assert batches == [([0, 1, 2],) * 2, ([5, 6, 7],) * 2, ([8, 10, 11],) * 2]
    assert list(loader.skipped) == ["row 3 is bad", "row 4 is bad", "row 9 is bad"]


def test_a_batch_of_which_nothing_is_left_is_passed_over():
    split = Split(Slow(6, bad=[2, 3]), torch.arange(6))
    loader = Loader(split, batch_size=2, seed=0, shuffle=False, workers=0)
    assert rows(loader) == [[0, 1], [4, 5]]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_comes_out_as_one_sentence(workers):
    split = Split(Failing(4), torch.arange(4))
    loader = Loader(split, batch_size=2, seed=0, shuffle=False, workers=workers)
    with pytest.raises(UserError, match=r"^rows \[0, 1\] cannot be read$"):
        rows(loader)


# PyTorch may notice the death again during cleanup, where nothing can catch it.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function _MultiProcessingDataLoaderIter.__del__"
    ":pytest.PytestUnraisableExceptionWarning"
)
def test_a_worker_that_is_killed_is_reported(monkeypatch):
    # PyTorch looks for dead workers every 5 seconds.
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.5)
    split = Split(Slow(4, dies=[2]), torch.arange(4))
    loader = Loader(split, batch_size=2, seed=0, shuffle=False, workers=1)
    with pytest.raises(UserError, match=r"a data-loading worker died"):
        rows(loader)


def test_nonsense_is_refused():
    for options in ({"batch_size": 0}, {"rank": 1}, {"shuffle": -1}):
        with pytest.raises(ValueError, match=r"Loader expects batch_size >= 1"):
            Loader(numbered(4), **{"batch_size": 2, "seed": 0} | options)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_continues_after_another_began_is_refused(workers):
    loader = Loader(Split(Slow(12), torch.arange(12)), batch_size=2, seed=0, workers=workers)
    first = loader.epoch(0)
    next(first)
    second = loader.epoch(1)
    next(second)
    with pytest.raises(ValueError, match=r"another epoch has begun"):
        next(first)
    assert all(torch.equal(x[:, 0], y) for x, y in second)


def test_an_empty_batch_of_one_rank_raises_so_that_the_others_do_not_wait():
    split = Split(Slow(8, bad=[2]), torch.arange(8))
    options = {"batch_size": 1, "seed": 0, "shuffle": False, "ranks": 2, "workers": 0}
    with pytest.raises(UserError, match=r"of rank 0 can be read, .* would wait .*row 2 is bad"):
        rows(Loader(split, rank=0, **options))


class Signaled(Slow):
    """Stored inputs whose process gets SIGTERM, as all processes of a job that is to stop."""

    def read(self, rows):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().read(rows)


def test_a_signal_to_all_processes_leaves_the_end_to_the_main_process():
    loader = Loader(Split(Signaled(8), torch.arange(8)), batch_size=2, seed=0, workers=2)
    assert sorted(chain(*rows(loader))) == list(range(8))


class KeepsDrawn:
    """Records what it draws, and what it gets."""

    def draw(self, size, shape, generator):
        self.drawn = torch.rand(size, 1, dtype=torch.float64, generator=generator)
        return self.drawn

    def apply(self, x, drawn):
        self.got = x.device.type, drawn
        return x


def test_random_numbers_stay_on_the_cpu_whatever_the_device_of_the_inputs():
    transform = KeepsDrawn()
    split = Split(torch.zeros(4, 3, 8, 8), torch.zeros(4))
    list(Loader(split, batch_size=4, seed=0, augment=[transform], device="meta").epoch(0))
    device, drawn = transform.got
    assert device == "meta"
    assert torch.equal(drawn, transform.drawn)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((90, 10), {50}),
        ((7, 1, 2), {3, 4}),
        ((1, 1, 1), {1}),
        ((0, 5, 3), {4}),
        ((30,), {30}),
        ((900, 30, 60, 9, 1), {200}),
    ],
)
def test_a_balanced_epoch_draws_every_class_equally_often(counts, expected):
    split = unbalanced(*counts)
    loader = Loader(split, batch_size=4, seed=0, balanced=True)
    for epoch in range(3):
        batches = drawn(loader, epoch)
        assert [len(batch) for batch in batches] == [
            len(b) for b in drawn(Loader(split, batch_size=4, seed=0))
        ]
        times = Counter(row for batch in batches for row in batch)
        assert sum(times.values()) == len(split)
        of_class = Counter()
        for row, count in times.items():
            of_class[int(split.targets[row])] += count
        assert set(of_class.values()) == expected
        # Within a class, no row is drawn twice more than another.
        for k in of_class:
            own = [times[row] for row in range(len(split)) if split.targets[row] == k]
            assert max(own) - min(own) <= 1
        for x, y in loader.epoch(epoch):
            assert torch.equal(split.targets[x[:, 0]], y)


def test_balanced_epochs_differ_and_draw_the_rows_of_a_large_class_equally_often():
    split = unbalanced(80, 20)
    loader = Loader(split, batch_size=100, seed=0, balanced=True)
    epochs = [drawn(loader, epoch)[0] for epoch in range(400)]
    assert epochs[0] != epochs[1]
    assert epochs[0] == drawn(Loader(split, batch_size=100, seed=0, balanced=True))[0]
    assert epochs[0] != drawn(Loader(split, batch_size=100, seed=1, balanced=True))[0]
    times = Counter(row for epoch in epochs for row in epoch)
    large = [times[row] for row in range(100) if split.targets[row] == 0]
    # 400 draws with a chance of 50 of 80: 250 on average, and a standard deviation below 10.
    assert 200 < min(large) <= max(large) < 300
    # The order is random too: each class is at every place about half of the time.
    firsts = sum(int(split.targets[epoch[0]]) for epoch in epochs)
    assert 150 < firsts < 250


@pytest.mark.parametrize("stored", [False, True])
def test_balanced_batches_are_the_same_for_all_ranks_after_resuming_and_from_files(stored):
    split = unbalanced(53, 9, 4)
    if stored:
        split = Split(Slow(66), split.targets)
    options = {"seed": 3, "balanced": True, "workers": 0}
    whole = drawn(Loader(split, batch_size=12, **options), 2)
    parts = [
        drawn(Loader(split, batch_size=4, rank=rank, ranks=3, **options), 2) for rank in range(3)
    ]
    assert [[*chain(*shares)] for shares in zip(*parts, strict=True)] == whole
    assert drawn(Loader(split, batch_size=12, **options), 2, start=3) == whole[3:]
    assert whole == drawn(Loader(unbalanced(53, 9, 4), batch_size=12, **options), 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shuffle": False},
        {"shuffle": 8},
        {"targets": torch.zeros(9)},
        {"targets": torch.zeros(9, 2).long()},
    ],
)
def test_balanced_expects_labels_and_a_shuffle(wrong):
    split = Split(torch.zeros(9, 1), wrong.pop("targets", torch.arange(9)))
    with pytest.raises(
        ValueError, match=r"balanced=True\) expects shuffle=True and integer labels"
    ):
        Loader(split, batch_size=3, seed=0, balanced=True, **wrong)
