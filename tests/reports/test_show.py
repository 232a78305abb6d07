import base64
import importlib.util
import io
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import vicinal
from vicinal.errors import UserError
from vicinal.mixing import CutMix, DirichletMixUp, FMix, MixUp, Plan, ResizeMix, Shuffle
from vicinal.reports.show import Batch, mixing_svg, run_show

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "policies.md").read_text("utf-8")
SVG = "{http://www.w3.org/2000/svg}"
NAMES = {
    "mixup": "MixUp",
    "cutmix": "CutMix",
    "resizemix": "ResizeMix",
    "fmix": "FMix",
    "dirichlet": "DirichletMixUp",
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Draw all policies once; return the numbers and the parsed figure."""
    out = tmp_path_factory.mktemp("shown") / "mixed.svg"
    numbers = run_show(seed=5, size=4, alpha=0.7, out=out)
    return json.loads(json.dumps(numbers)), ElementTree.parse(out).getroot()


def tiles(figure):
    """Return the pixels of every embedded image, in order."""
    links = [e.get("{http://www.w3.org/1999/xlink}href") for e in figure.iter(f"{SVG}image")]
    files = [io.BytesIO(base64.b64decode(link.partition(",")[2])) for link in links]
    return [np.asarray(Image.open(file).convert("L")) for file in files]


def words(figure):
    return [element.text for element in figure.iter(f"{SVG}text")]


def test_there_is_an_image_for_each_example_partner_and_policy(shown):
    _, figure = shown
    # The examples, their partners, four policies, the third parents, and their blend.
    assert len(tiles(figure)) == 4 * (1 + 1 + 4 + 1 + 1)
    assert {tile.shape for tile in tiles(figure)} == {(8, 8)}


def test_one_policy_has_three_rows(tmp_path):
    run_show(["fmix", "fmix"], size=3, out=tmp_path / "one.svg")
    figure = ElementTree.parse(tmp_path / "one.svg").getroot()
    assert len(tiles(figure)) == 3 * 3
    assert "FMix" in words(figure)
    assert "MixUp" not in words(figure)


def test_the_numbers_are_those_of_plans_drawn_by_hand(shown):
    alone = {"per": "example", "pairing": Shuffle(meet_self=False)}
    by_hand = {
        "mixup": MixUp(0.7, **alone),
        "cutmix": CutMix(0.7, **alone),
        "resizemix": ResizeMix(**alone),
        "fmix": FMix(0.7, **alone),
        "dirichlet": DirichletMixUp(0.7, **alone),
    }
    rows, _ = shown
    assert [row["policy"] for row in rows["rows"]] == list(by_hand)
    for row in rows["rows"]:
        generator = torch.Generator().manual_seed(5)
        plan = by_hand[row["policy"]].draw(4, generator=generator, image_size=(8, 8))
        assert row["lam"] == plan.lam.tolist()
        met = np.array(row["own"])[plan.partner.reshape(-1, 4).T.numpy()]
        assert row["partner"] == met.tolist()
        for lam, share in zip(row["lam"], row["share"], strict=True):
            assert lam + sum(share) == pytest.approx(1)


def test_blended_images_equal_a_calculation_from_the_scans(shown):
    numbers, figure = shown
    own, partner, blend = (np.stack(tiles(figure)[4 * k : 4 * k + 4]) for k in range(3))
    scans = {np.round(scan * 255 / 16).astype(np.uint8).tobytes() for scan in load_digits().images}
    assert all(tile.tobytes() in scans for tile in own)
    lam = np.array(numbers["rows"][0]["lam"])[:, None, None]
    # The scans have 17 shades, and blends are rounded to them: 16 of 255 a step.
    np.testing.assert_allclose(blend, lam * own + (1 - lam) * partner, atol=8.5)


def test_lam_and_the_label_are_below_each_image(tmp_path):
    images = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    batch = Batch(images, torch.tensor([1, 0]), ("temple", "flower"))
    plan = Plan(partner=torch.tensor([1, 0]), lam=torch.tensor([0.625, 1.0]))
    same = Plan(partner=torch.tensor([0, 1]), lam=torch.tensor([0.3, 0.3]))
    svg = mixing_svg("two", batch, {"first": plan, "second": same})
    text = words(ElementTree.fromstring(svg.encode()))
    assert [line for line in text if line.startswith("lam")] == [
        "lam 0.62",
        "lam 1.00",
        "lam 0.30",
        "lam 0.30",
    ]
    assert text.count("0.62 · flower") == text.count("+ 0.38 · temple") == 1
    # Whoever meets itself keeps its label whole; such partners get no row.
    assert text.count("1.00 · flower") == text.count("1.00 · temple") - 1 == 1
    assert text.count("partner") == 1


def test_the_outline_surrounds_the_pixels_of_the_partner():
    region = torch.zeros(1, 6, 6, dtype=torch.bool)
    region[0, 1:3, 2:6] = True
    batch = Batch(torch.zeros(1, 1, 6, 6, dtype=torch.uint8), torch.tensor([0]), ("a",))
    plan = Plan(torch.tensor([0]), torch.tensor([28 / 36]), region=region)
    svg = mixing_svg("one", batch, {"box": plan})
    (line,) = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--arm2\)', svg)
    points = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", line), dtype=float)
    spread = np.ptp(points, axis=0)
    # Two pixels high and four wide, at the right place in the second tile.
    assert spread[0] / spread[1] == pytest.approx(2, abs=0.01)
    matrix = re.findall(r'transform="matrix\(([^)]*)\)"', svg)[1].split()
    pixel, left, top = float(matrix[0]), float(matrix[4]), float(matrix[5])
    corner = (points.min(0) - [left, top]) / pixel
    np.testing.assert_allclose(corner, [2, 1], atol=0.02)


def test_the_text_of_the_figure_names_every_policy(shown):
    _, figure = shown
    title = figure.find(f"{SVG}title")
    assert title.get("id") == figure.get("aria-labelledby")
    for name in NAMES.values():
        assert f"{name}: " in title.text
        assert name in words(figure)


def test_no_two_elements_share_a_name(shown):
    _, figure = shown
    names = [element.get("id") for element in figure.iter() if element.get("id")]
    assert len(names) == len(set(names)) > 32


def test_the_same_seed_draws_the_same_file_and_another_seed_another(tmp_path):
    files = [tmp_path / f"{k}.svg" for k in range(3)]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        run_show(["cutmix"], size=2, seed=seed, out=file)
    one, again, other = (file.read_bytes() for file in files)
    assert one == again != other


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"policies": ["cutmixx"]}, "there is no policy 'cutmixx'. Did you mean 'cutmix'?"),
        ({"alpha": 0.0}, "--alpha: expected a positive .*, got 0.0. Try 1"),
        ({"alpha": math.nan}, "--alpha: expected .* got nan"),
        ({"alpha": math.inf}, "--alpha: expected a positive finite .* got inf"),
        ({"out": Path("mixed.jpg")}, r"--out: expected .* \.svg, got mixed.jpg"),
    ],
)
def test_a_bad_value_is_an_error_of_one_line(tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        run_show(**({"out": tmp_path / "mixed.svg"} | options))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_error_names_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"mixed\.svg cannot be written: .*--out"):
        run_show(["mixup"], size=2, out=tmp_path / "file" / "mixed.svg")


def test_the_page_names_every_public_policy_and_pairing():
    others = {"MixUpLayer", "MixedInside", "generator_at", "mix", "rows_of_another_rank"}
    others |= {"load", "study"}
    for name in set(vicinal.__all__) - others:
        assert f"`{name}" in PAGE, name
    assert others <= set(vicinal.__all__)


def test_the_snippets_of_the_page_run():
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(snippets) == 1 + 8 + 2  # the batch, the policies, targets and pairings
    names = {}
    for snippet in snippets:
        exec(snippet, names)
        if "loss" in snippet:
            assert names.pop("loss").isfinite()


def test_every_figure_of_the_page_exists_is_small_and_in_use():
    named = re.findall(r"!\[[^\]]{40,}\]\(([^)]+)\)", PAGE)
    assert len(named) == PAGE.count("![") == 7
    assert {DOCS / name for name in named} == set((DOCS / "figures").iterdir())
    for name in named:
        assert (DOCS / name).stat().st_size < 150_000


def test_the_figures_of_the_page_show_what_the_script_draws():
    path = DOCS / "draw_figures.py"
    spec = importlib.util.spec_from_file_location("draw_figures", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    drawn = script.figures()
    assert {f"{name}.svg" for name in drawn} == {p.name for p in (DOCS / "figures").iterdir()}
    for name, svg in drawn.items():
        kept = (DOCS / "figures" / f"{name}.svg").read_text("utf-8")
        # Words, not bytes: another matplotlib may place them otherwise.
        both = [words(ElementTree.fromstring(text.encode())) for text in (kept, svg)]
        assert both[0] == both[1], name
