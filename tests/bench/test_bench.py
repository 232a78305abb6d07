import contextlib
import importlib.metadata
import io
import json
import sys
import types
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from vicinal import bench
from vicinal.bench import cases, peers, timing
from vicinal.errors import UserError
from vicinal.reports import bench_report

CPU = torch.device("cpu")
PACE = timing.Pace(0.0, least=2)


class FakeClock:
    """Time that passes only where somebody says so; ``speed`` is how slow the machine is."""

    def __init__(self):
        self.seconds = 0.0
        self.speed = 1.0
        self.calls = []

    def now(self):
        return self.seconds

    def contender(self, name, *, seconds, first=None):
        def run():
            took = first if first is not None and name not in self.calls else seconds
            self.calls.append(name)
            self.seconds += self.speed * took

        return run


def interleaved(clock, contenders, pace):
    return timing.interleave(
        contenders, pace=pace, stopwatch=timing.wall_clock(clock.now), now=clock.now
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Measure once, quickly; answer with the folder, what was printed, and what was told."""
    folder = tmp_path_factory.mktemp("bench") / "made" / "on the way"
    printed, told, threads = io.StringIO(), io.StringIO(), torch.get_num_threads()
    # Threads that wait for each other crawl where another process takes a core.
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
        bench_report.run_bench(out=folder, device="cpu", quick=True, json=True)
    torch.set_num_threads(threads)
    return folder, printed.getvalue(), told.getvalue()


@pytest.fixture
def result(quick):
    return json.loads(quick[1])


# Timing


def test_rounds_are_interleaved_so_that_a_slow_spell_falls_on_everybody():
    clock = FakeClock()
    contenders = {
        name: clock.contender(name, seconds=seconds) for name, seconds in [("a", 1), ("b", 2)]
    }
    slower = contenders["a"]

    def growing():
        slower()
        clock.speed *= 1.5

    timings = interleaved(clock, contenders | {"a": growing}, timing.Pace(0, least=9))
    # Each call of a makes the machine half as slow again: run one after the other, a would see
    # ten of these steps and b none.
    assert 1 < timings["b"].median / timings["a"].median < 4
    counted = clock.calls[4:]
    rounds = [counted[k : k + 2] for k in range(0, len(counted), 2)]
    assert len(rounds) == 9
    assert all(sorted(names) == ["a", "b"] for names in rounds)
    assert {tuple(names) for names in rounds} == {("a", "b"), ("b", "a")}


def test_everybody_is_first_and_last_equally_often():
    orders = [timing.in_turn("abcd", done) for done in range(8)]
    for place in (0, -1):
        assert sorted(order[place] for order in orders) == list("aabbccdd")


def test_the_round_that_warms_up_counts_nowhere():
    clock = FakeClock()
    run = clock.contender("a", seconds=1, first=1000)
    assert interleaved(clock, {"a": run}, timing.Pace(0, least=2))["a"] == (1, 1, 1)


def test_median_and_quartiles_are_those_of_the_rounds():
    clock = FakeClock()
    durations = iter([9.0, 9.0, 5.0, 1.0, 4.0, 2.0, 3.0])

    def run():
        clock.seconds += next(durations)

    assert interleaved(clock, {"a": run}, timing.Pace(0, least=5))["a"] == (3, 2, 4)


def test_short_calls_are_repeated_after_one_that_is_not_timed():
    clock = FakeClock()
    contenders = {
        "long": clock.contender("long", seconds=1.0),
        "short": clock.contender("short", seconds=0.001),
    }
    timings = interleaved(clock, contenders, timing.Pace(0, least=2, turn=0.0019))
    assert timings["short"].median == pytest.approx(0.001)
    assert clock.calls.count("long") == 2 + 2
    assert clock.calls.count("short") == 2 + 2 * (1 + 2)


def test_a_case_ends_with_its_budget_but_not_before_the_fewest_rounds():
    clock = FakeClock()
    run = clock.contender("a", seconds=1)
    interleaved(clock, {"a": run}, timing.Pace(10, least=2))
    assert len(clock.calls) == 2 + 10
    clock.calls.clear()
    interleaved(clock, {"a": run}, timing.Pace(10, least=2, most=4))
    assert len(clock.calls) == 2 + 4
    clock.calls.clear()
    interleaved(clock, {"a": run}, timing.Pace(0, least=2))
    assert len(clock.calls) == 2 + 2


# Peers

FORMULAS = {
    "textbook": (peers.textbook, lambda i, n, partner: partner[i], "row", False),
    "OpenMixup": (peers.one_share, lambda i, n, partner: partner[i], "batch", False),
    "torchvision": (peers.rolled, lambda i, n, partner: (i - 1) % n, "batch", False),
    "timm batch": (peers.flipped, lambda i, n, partner: n - 1 - i, "batch", True),
    "timm elem": (peers.row_by_row, lambda i, n, partner: n - 1 - i, "row", True),
}


@pytest.mark.parametrize("key", FORMULAS)
def test_the_peers_formulas_agree_with_a_slow_loop(key):
    formula, meets, per, writes = FORMULAS[key]
    x = torch.rand(5, 2, 3, dtype=torch.float64)
    partner = torch.tensor([3, 0, 4, 1, 2])
    lam = torch.tensor([0.1, 0.35, 0.5, 0.8, 1.0], dtype=torch.float64)
    expected = torch.empty_like(x)
    for i in range(5):
        kept = lam[i] if per == "row" else lam[0]
        for j in range(2):
            for k in range(3):
                other = x[meets(i, 5, partner.tolist()), j, k]
                expected[i, j, k] = kept * x[i, j, k] + (1 - kept) * other
    given = x.clone()
    mixed = formula(partner, lam)(given)
    torch.testing.assert_close(mixed, expected)
    assert (mixed is given) == writes
    assert torch.equal(given, x) != writes
    found = next(peer for peer in peers.find_peers()[0] if peer.key == key)
    assert found.writes == writes


@pytest.fixture
def no_libraries(monkeypatch):
    for name in ("torchvision", "timm", "kornia"):
        monkeypatch.setitem(sys.modules, name, None)


def library(monkeypatch, name, version, module, **contents):
    """Put a library where import finds it, with one module."""
    top, made = types.ModuleType(name), types.ModuleType(f"{name}.{module}")
    vars(made).update(contents)
    monkeypatch.setattr(importlib.metadata, "version", {name: version}.__getitem__)
    monkeypatch.setitem(sys.modules, name, top)
    monkeypatch.setitem(sys.modules, f"{name}.{module}", made)


def test_a_missing_library_is_labeled_a_stand_in_or_left_out(no_libraries):
    found, absent = peers.find_peers()
    assert [(peer.key, peer.name, peer.version) for peer in found[1:]] == [
        (key, f"{key}'s formula (stand-in)", "stand-in")
        for key in ("OpenMixup", "torchvision", "timm batch", "timm elem")
    ]
    assert [key for key, _ in absent] == ["torchvision", "timm batch", "timm elem", "kornia"]
    assert all("ModuleNotFoundError: " in why for _, why in absent)


def test_a_library_that_works_takes_part_itself_under_its_version(no_libraries, monkeypatch):
    class RandomMixUpV2:
        def __init__(self, p, data_keys):
            assert (p, data_keys) == (1.0, ["input", "class"])

        def __call__(self, x, labels):
            assert len(labels) == len(x)
            return [x + 1, labels]

    library(monkeypatch, "kornia", "8.9", "augmentation", RandomMixUpV2=RandomMixUpV2)
    found, absent = peers.find_peers()
    assert found[-1][:4] == ("kornia", "kornia", "8.9", False)
    assert "kornia" not in [key for key, _ in absent]
    mixed = found[-1].formula(torch.arange(3), torch.ones(3))(torch.zeros(3, 2))
    assert mixed.tolist() == [[1, 1]] * 3


def test_timm_takes_part_where_the_library_it_needs_for_the_rest_does_not_work(
    no_libraries, monkeypatch, tmp_path
):
    package, about = tmp_path / "timm", tmp_path / "timm-9.7.dist-info"
    for folder in (package, package / "data", about):
        folder.mkdir()
        (folder / "__init__.py").write_text("raise ImportError('torchvision')")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 9.7\n")
    (package / "data" / "mixup.py").write_text(
        "class Mixup:\n"
        "    def __init__(self, mixup_alpha, mode, num_classes, label_smoothing):\n"
        "        self.added = {'batch': 2, 'elem': 3}[mode]\n"
        "    def __call__(self, x, labels):\n"
        "        return x + self.added, labels\n"
    )
    monkeypatch.delitem(sys.modules, "timm")
    monkeypatch.syspath_prepend(tmp_path)
    found, absent = peers.find_peers()
    assert [key for key, _ in absent] == ["torchvision", "kornia"]
    for key, added in [("timm batch", 2), ("timm elem", 3)]:
        peer = next(peer for peer in found if peer.key == key)
        assert peer[:4] == (key, key, "9.7", True)
        mixed = peer.formula(torch.arange(3), torch.ones(3))(torch.zeros(3, 2))
        assert mixed.tolist() == [[added, added]] * 3


class Raises:
    def __init__(self, **settings):
        raise RuntimeError("operator torchvision::nms does not exist\nand more")


class AnswersOtherwise:
    def __init__(self, **settings):
        pass

    def __call__(self, x, labels):
        return "no", "batch"


@pytest.mark.parametrize(
    ("mixup", "why"),
    [
        (Raises, "RuntimeError: operator torchvision::nms does not exist"),
        (AnswersOtherwise, "TypeError: its mixup answers with str"),
    ],
)
def test_a_library_that_is_broken_is_replaced_and_the_reason_kept(
    no_libraries, monkeypatch, mixup, why
):
    library(monkeypatch, "torchvision", "0.1", "transforms.v2", MixUp=mixup)
    found, absent = peers.find_peers()
    assert ("torchvision", why) in absent
    assert "torchvision's formula (stand-in)" in [peer.name for peer in found]


def test_a_peer_that_cannot_mix_a_type_is_left_out_of_that_case_with_a_note():
    def formula(partner, lam):
        def mix(x):
            if x.dtype == torch.bfloat16:
                raise TypeError("no bfloat16")
            return x

        return mix

    peer = peers.Peer("picky", "picky", "1", False, formula)
    for dtype, there in [(torch.float32, True), (torch.bfloat16, False)]:
        case = cases.in_place((4, 3, 8, 8), dtype, CPU, PACE, [peer])
        assert ("picky" in [contender.name for contender in case.contenders]) == there
        assert len(case.notes) == (not there)
    assert case.notes == ["picky cannot mix torch.bfloat16 on cpu (TypeError: no bfloat16)"]


# Targets


@pytest.mark.parametrize(
    ("limit", "wanted", "against", "expected"),
    [
        ("at most", 1.6, ("slow", "fast"), (1.5, "fast", True)),
        ("at most", 1.4, ("slow", "fast"), (1.5, "fast", False)),
        ("at least", 2.0, ("slow",), (2.0, "slow", True)),
        ("at least", 1.0, ("slow", "fast"), (2 / 3, "fast", False)),
        ("at most", 31.0, (), (30.0, None, True)),
        ("at most", 29.0, (), (30.0, None, False)),
    ],
)
def test_a_target_is_judged_by_the_fastest_rival(limit, wanted, against, expected):
    measured, rival, met = expected
    seconds = {"ours": 30e-6, "fast": 20e-6, "slow": 60e-6}
    case = cases.Case("a case", (2, 3), torch.float32, "copies", [], PACE, timing.wall_clock())
    target = cases.Target("ours", limit, wanted, "units", against)
    row = bench.judge(case, target, {name: timing.Timing(s, s, s) for name, s in seconds.items()})
    assert row == {
        "name": "a case, 2x3 float32: ours",
        "wanted": f"{limit} {wanted:g} units",
        "against": rival,
        "measured": pytest.approx(measured),
        "met": met,
    }


# The result

BATCHWISE = "times as fast as the fastest of textbook, torchvision, timm batch"
NEW = "times as fast as the fastest peer that returns a new tensor"
OURS = ["vicinal, per example", "vicinal, per batch"]
LOSS = "cross-entropy + backward, 256x1000 float32: vicinal, plan.loss"
TARGETS = [
    *((f"in place, 8x3x224x224 float32: {ours}", wanted) for ours in OURS for wanted in (
        "at most 2 copies", f"at least 3 {BATCHWISE}", "at least 2 times as fast as timm elem"
    )),
    *((f"in place, 512x3x32x32 float32: {ours}", wanted) for ours in OURS for wanted in (
        "at most 2.5 copies", f"at least 4 {BATCHWISE}", "at least 50 times as fast as timm elem"
    )),
    *((f"new tensor, 8x3x224x224 float32: {ours}", wanted) for ours in OURS for wanted in (
        "at most 1.25 new batches, filled", f"at least 2 {NEW}"
    )),
    ("forward + backward, 8x64x32x32 float32: vicinal", "at most 2 forward passes"),
    (
        "forward + backward, 8x64x32x32 float32: vicinal",
        "at least 3 times as fast as the textbook",
    ),
    (LOSS, "at most 1.3 plain cross-entropies"),
    (LOSS, "at least 1.5 times as fast as one-hot"),
    ("drawing a plan, 256 float32: vicinal, per example", "at most 60 µs"),
]  # fmt: skip


def test_the_json_of_a_quick_run_has_the_documented_keys_and_every_target(result):
    assert result.keys() == {
        *("device", "quick", "hardware", "versions", "threads", "kernel", "others_cores"),
        *("peers", "cases", "targets", "scaling", "notes"),
    }
    assert (result["device"], result["quick"]) == ("cpu", True)
    assert result["threads"] == 1
    assert {"processor", "cores"} <= result["hardware"].keys()
    assert {"torch", "vicinal"} <= result["versions"].keys()
    milliseconds = ("median_ms", "low_ms", "high_ms")
    for row in result["cases"]:
        assert set(row) == {
            *("case", "shape", "dtype", "contender", "version", *milliseconds, "ratio", "unit")
        }
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
    for row in result["scaling"]:
        assert set(row) == {"row", "batch", "dtype", "contender", "version", *milliseconds}
    assert [(row["name"], row["wanted"]) for row in result["targets"]] == TARGETS
    for row in result["targets"]:
        assert set(row) == {"name", "wanted", "against", "measured", "met"}
        assert row["measured"] > 0
        assert isinstance(row["met"], bool)


def test_ratios_and_targets_follow_from_the_medians_beside_them(result):
    medians = {}
    for row in result["cases"]:
        key = f"{row['case']}, {'x'.join(map(str, row['shape']))} {row['dtype']}"
        medians.setdefault(key, {})[row["contender"]] = row["median_ms"]
        first = next(iter(medians[key].values()))
        assert row["ratio"] == pytest.approx(row["median_ms"] / first)
    for row in result["targets"]:
        key, _, ours = row["name"].rpartition(": ")
        measured = medians[key][ours] / medians[key].get(row["against"], 1e-3)
        if row["wanted"].startswith("at least"):
            measured = 1 / measured
        assert row["measured"] == pytest.approx(measured)


def test_every_peer_of_a_result_is_a_version_or_says_that_it_is_a_stand_in(result):
    versions = {row["name"]: row["version"] for row in result["peers"]}
    for row in result["cases"] + result["scaling"]:
        assert row["version"] == versions.get(row["contender"], row["version"])
        assert ("stand-in" in row["contender"]) == (row["version"] == "stand-in")
    assert len(versions) >= 5


def test_no_quick_batch_is_large(result):
    for row in result["cases"]:
        assert torch.Size(row["shape"]).numel() <= 512 * 3 * 32 * 32
    assert max(row["batch"] for row in result["scaling"]) <= 64


def test_the_full_run_measures_the_batches_that_the_targets_are_for():
    assert (cases.FULL.images, cases.FULL.features) == (256, 128)
    assert cases.FULL.sizes[3, 224, 224][-1] == 256
    sizes = [size for found in cases.FULL.sizes.values() for size in found]
    assert all(size & (size - 1) == 0 for size in sizes)


def test_other_processes_are_told_of_in_a_note(monkeypatch):
    monkeypatch.setattr(bench, "build_cases", lambda *settings: iter(()))
    monkeypatch.setattr(bench, "build_scaling", lambda *settings: iter(()))
    for cores, told in [(0.0, False), (0.5, True), (None, False)]:
        clock = iter([0.0, 10.0])
        monkeypatch.setattr(bench.time, "perf_counter", clock.__next__)
        seconds = iter([7.0, 7.0 + 10 * cores] if cores is not None else [None, None])
        monkeypatch.setattr(bench, "others_seconds", seconds.__next__)
        result = bench.measure(CPU, quick=True)
        assert result["others_cores"] == cores
        assert any("0.5 cores" in note for note in result["notes"]) == told


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_is_measured_in_two_types_and_by_the_bandwidth_of_a_copy():
    result = bench.measure(torch.device("cuda"), quick=True)
    assert {row["dtype"] for row in result["scaling"]} == {"float32", "bfloat16"}
    assert {row["wanted"] for row in result["targets"]} == {
        "at least 0.9 of the bandwidth of a copy"
    }
    assert len(result["targets"]) == 4


# The report


def tables(text):
    """Return the tables of a Markdown text: for each its head, and its rows as lists of words."""
    found = []
    for block in text.strip().split("\n\n"):
        if block.startswith("| "):
            head, _, *rows = (
                [c.strip() for c in line[2:-2].split(" | ")] for line in block.split("\n")
            )
            found.append((head, rows))
    return found


def shows(words, *numbers):
    return [float(word) for word in words] == pytest.approx(numbers, rel=0.006)


def test_the_markdown_holds_what_the_json_holds(quick, result):
    text = (quick[0] / "mixing-cpu.md").read_text()
    (_, targets), *found = tables(text)
    for row, target in zip(targets, result["targets"], strict=True):
        assert row[:2] == [target["name"], target["wanted"]]
        assert shows(row[2:3], target["measured"])
        assert row[3:] == [target["against"] or "—", "met" if target["met"] else "missed"]
    rows = [row for head, rows in found if head[0] == "contender" for row in rows]
    for row, case in zip(rows, result["cases"], strict=True):
        assert row[:2] == [case["contender"], case["version"]]
        low, _, high = row[3].partition(" to ")
        numbers = (case[name] for name in ("median_ms", "low_ms", "high_ms", "ratio"))
        assert shows([row[2], low, high, row[4]], *numbers)
        shape = "x".join(map(str, case["shape"]))
        assert f"{shape} {case['dtype']}, ratio in {case['unit']}\n" in text
    points = {
        (head[0], row[0], int(size)): milliseconds
        for head, rows in found
        if head[0] != "contender"
        for row in rows
        for size, milliseconds in zip(head[1:], row[1:], strict=True)
    }
    assert len(points) == len(result["scaling"])
    for point in result["scaling"]:
        head = f"{'x'.join(map(str, point['row']))} {point['dtype']}, ms"
        assert shows([points[head, point["contender"], point["batch"]]], point["median_ms"])
    for value in [*result["versions"].values(), *result["hardware"].values(), *result["notes"]]:
        assert value in text


def test_json_is_printed_alone_and_written_as_printed(quick):
    folder, printed, told = quick
    assert (folder / "mixing-cpu.json").read_text() == printed
    assert sorted(path.name for path in folder.iterdir()) == [
        f"mixing-cpu.{ending}" for ending in ("json", "md", "svg")
    ]
    assert told.splitlines()[0] == "measuring: in place, 8x3x224x224 float32"


def test_the_terminal_shows_every_contender_and_target_within_80_columns(result):
    from rich.console import Console

    file = io.StringIO()
    bench_report.print_result(result, Console(file=file, width=80))
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for row in result["cases"]:
        assert row["contender"] in text
    verdicts = [line.split()[-1] for line in text.splitlines() if line.split()]
    assert verdicts.count("missed") + verdicts.count("met") == len(TARGETS)
    met = sum(row["met"] for row in result["targets"])
    assert f"{met} of 21 targets are met." in text
    assert "A quick run" in text


def test_the_picture_has_a_line_for_each_contender_words_and_the_pages_colors(quick, result):
    text = (quick[0] / "mixing-cpu.svg").read_text()
    root = ET.fromstring(text)
    namespace = "{http://www.w3.org/2000/svg}"
    words = root.find(f"{namespace}title").text
    for contender in {row["contender"] for row in result["scaling"]}:
        assert contender in words
        assert text.count(f">{contender.replace('>', '&gt;')}</text>") == 1
    assert "3x32x32 float32" in words
    assert "3x224x224 float32" in words
    drawn = text.partition("</style>")[2]
    assert "var(--arm1)" in drawn
    assert "#01000" not in drawn


def test_a_result_of_two_types_gets_a_panel_for_each(result):
    twice = [row | {"dtype": "bfloat16"} for row in result["scaling"]]
    picture = bench_report.scaling_picture(result | {"scaling": result["scaling"] + twice})
    for dtype in ("float32", "bfloat16"):
        for shape in ("3x32x32", "3x224x224"):
            assert f">rows of {shape} {dtype}</text>" in picture.svg


@pytest.fixture
def nothing_is_measured(monkeypatch):
    monkeypatch.setattr(bench_report, "measure", lambda *words, **settings: pytest.fail("measured"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"device": "tpu"}, "--device should be cpu or cuda, but is 'tpu'; leave it out"),
        ({"device": "cuda"}, "--device cuda needs a GPU that PyTorch can use.*try --device cpu"),
        ({"out": Path("/dev/null")}, "the folder /dev/null cannot be written.*another with --out"),
        ({"out": Path("/proc/no")}, "the folder /proc/no cannot be written.*another with --out"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_before_anything_is_measured(
    settings, sentence, nothing_is_measured, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=sentence) as caught:
        bench_report.run_bench(**settings)
    assert "\n" not in str(caught.value)


def test_a_gpu_is_measured_where_there_is_one_unless_told_otherwise(monkeypatch):
    for there, expected in [(True, "cuda"), (False, "cpu")]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert bench.measured_on(None).type == expected
        assert bench.measured_on("cpu").type == "cpu"


def test_json_can_be_printed_in_any_encoding():
    stored = json.loads(
        (Path(__file__).parents[2] / "benchmarks/results/mixing-cpu.json").read_text("utf-8")
    )
    assert any("µ" in row["wanted"] for row in stored["targets"])
    text = bench_report.json_text(stored)
    assert json.loads(text.encode("ascii")) == stored
