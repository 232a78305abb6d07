"""One hostile name, through every output."""

import base64
import csv
import hashlib
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from vicinal.data import load
from vicinal.reports.image_figures import blends_figure
from vicinal.reports.svg import standalone_svg
from vicinal.reports.table_files import csv_text, markdown
from vicinal.reports.terminal import Terminal
from vicinal.training.recipe import read_recipe

OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]"
)


def test_the_terminal_shows_it_and_obeys_none_of_it(hostile_study):
    _, done, _ = hostile_study
    assert not OBEYED.search(done.stdout)
    assert not OBEYED.search(done.stderr)
    assert "[b]bold[/b] :skull:" in done.stdout
    assert r"\x1b[31m" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("report: ")
    assert not re.search("^vicinal: fine", done.stdout + done.stderr, re.M)


def test_the_page_shows_it_and_runs_none_of_it(hostile_study):
    out, _, _ = hostile_study
    page = (out / "report.html").read_text("utf-8")
    tags, policies = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags.append(tag)
            assert not [name for name, _ in attributes if name.startswith("on")]
            if ("http-equiv", "Content-Security-Policy") in attributes:
                policies.append(dict(attributes)["content"])

    Reader().feed(page)
    assert not {"img", "iframe", "a"} & set(tags)
    assert tags.count("script") == 1
    script = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policies[0]
    assert f"script-src 'sha256-{digest}'" in policies[0]
    assert policies[0].count("script-src") == 1
    assert page.index("Content-Security-Policy") < page.index("<title>")
    assert not OBEYED.search(page)


def test_every_figure_is_valid_xml(hostile_study):
    out, _, _ = hostile_study
    figures = sorted((out / "figures").glob("*.svg"))
    assert {"metric.svg", "examples.svg"} < {path.name for path in figures}
    for path in figures:
        words = "".join(ElementTree.parse(path).getroot().itertext())
        assert not OBEYED.search(words)
        assert "\\x1b[31m" in words


def test_tables_in_markdown_keep_their_columns(hostile_study):
    out, _, _ = hostile_study
    text = (out / "table.md").read_text("utf-8")
    assert not OBEYED.search(text)
    assert not re.search(r"(?<!\\)<", text)
    for table in text.split("\n\n"):
        if table.startswith("|"):
            columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(columns) == 1
    for sign in "[]`*_":
        cells = [line for line in text.splitlines() if "alert" in line and line.startswith("|")]
        assert len(cells) >= 3
        ours = "\n".join(re.sub(r"\d+\.\d+ \[[^]]*\]", "", cell) for cell in cells)
        assert not re.search(rf"(?<!\\)\{sign}", ours)


@pytest.mark.parametrize("name", ["table.csv", "published.csv"])
def test_no_cell_of_a_csv_is_a_formula(hostile_study, name):
    out, _, _ = hostile_study
    rows = list(csv.reader(io.StringIO((out / name).read_text("utf-8"))))
    assert len({len(row) for row in rows}) == 1
    cells = [cell for row in rows for cell in row]
    assert not any(cell.lstrip()[:1] in set("=+@") for cell in cells)
    assert not any(cell.startswith("-") and "cmd" in cell for cell in cells)
    assert name == "table.csv" or any("cmd" in cell for cell in cells)
    assert not OBEYED.search("".join(cells))


def test_every_other_command_shows_it_too(hostile_study, tmp_path, vicinal, hostile):
    out, _, root = hostile_study
    name = root.name
    drawn = tmp_path / "strip.svg"
    (checkpoint,) = (out / "trials").glob("erm-true*/checkpoint.safetensors")
    commands = [
        ("data", "info", f"folder:{root}", "--figure", drawn),
        ("data", "info", f"folder:{root}", "--figure", tmp_path / f"{name}.svg"),
        ("data", "info", f"folder:{root}/nowhere"),
        ("data", "convert", f"folder:{root}", tmp_path / f"{name}.npz"),
        ("score", checkpoint, "--data", f"folder:{root}", "--split", "train"),
        ("score", tmp_path / name, "--data", "digits"),
        ("study", tmp_path / f"{name}.toml"),
        ("show", "--size", 2, "--policy", "mixup", "--out", tmp_path / f"{name} show.svg"),
        ("train", out / "recipe.toml", "--arm", hostile, "--out", tmp_path / "o"),
    ]
    for words in commands:
        done = vicinal(*words)
        assert done.exit_code in {0, 2}, done.output
        assert not OBEYED.search(done.stdout + done.stderr), words
        assert "cmd" in done.stdout + done.stderr
        assert not re.search("^vicinal: fine", done.stdout + done.stderr, re.M)
    ElementTree.parse(drawn)


def test_a_name_that_is_not_utf_8_is_shown_by_its_bytes(tmp_path, vicinal):
    name = b"caf\xe9".decode(errors="surrogateescape")
    done = vicinal("study", tmp_path / f"{name}.toml")
    assert done.exit_code == 2
    assert rf"{tmp_path}/caf\xe9.toml" in done.stderr


def test_classes_of_any_name_can_be_drawn(tmp_path, hostile):
    path = tmp_path / "examples.npz"
    pixels, names = np.zeros((1, 1, 2, 2), np.uint8), np.array([hostile])
    np.savez(
        path,
        own=pixels,
        met=pixels,
        blend=pixels.astype(float),
        lam=np.array([0.5]),
        own_class=names,
        met_class=np.array(["猫 ก \ue000"]),
        brightest=np.array(255),
    )
    root = ElementTree.fromstring(standalone_svg(blends_figure(path)))
    assert "猫 ก \ue000" in "".join(root.itertext())


def test_our_own_styles_are_the_only_escape_sequences(hostile):
    console = Terminal(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=200)
    console.print(Text(f"ours {hostile}", "bold red"))
    shown = console.file.getvalue()
    assert re.findall("\x1b\\[[^m]*m", shown) == ["\x1b[1;31m", "\x1b[0m"] * 2
    assert isinstance(console, Console)


def test_ordinary_text_is_not_escaped(small_recipe, summary_of):
    title = "Größe 猫 (α = 0.2), 50 %; x -> y"
    plain = title.replace(">", "")
    recipe = read_recipe(str(small_recipe({"arms.erm.title": plain, "seeds": 1})))
    data = load("digits")
    summary = summary_of(recipe, data, lambda _trial: np.zeros((len(data.test), 10)))
    assert f"| {plain} |" in markdown(summary)
    assert title in csv_text([{"arm": title, "difference": -1.5}])
    assert "-1.5" in csv_text([{"arm": title, "difference": -1.5}])
