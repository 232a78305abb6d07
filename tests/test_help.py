"""The examples that --help shows, run as they are written."""

import pickle
import shlex

import numpy as np
import pytest
import typer
from PIL import Image

from vicinal.cli import app
from vicinal.data import fetch
from vicinal.training import recipe

pytestmark = pytest.mark.usefixtures("without_figures")


def commands(group, *path):
    """Return each command with its path, groups too."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, *path, name)


COMMANDS = dict(commands(typer.main.get_command(app)))
EXAMPLES = [command.epilog.split(": ", 1)[1] for command in COMMANDS.values()]
ORDER = ["init", "study", "report", "train", "score", "predict", "export", "show", "data"]
"""What is reported, scored or used has to be trained before."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the data sets that the examples name, each as small as can be."""
    root = tmp_path_factory.mktemp("help")
    generator = np.random.default_rng(0)
    for name in ("rose", "tulip"):
        for k in range(10):
            path = root / "data" / "flowers" / name / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    batches = root / "data" / "cifar-10-batches-py"
    batches.mkdir()
    for name in [*(f"data_batch_{k + 1}" for k in range(5)), "test_batch"]:
        pixels = generator.integers(0, 256, (10, 3072), np.uint8)
        content = {b"data": pixels, b"labels": list(range(10))}
        (batches / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer"]
    names += [b"dog", b"frog", b"horse", b"ship", b"truck"]
    (batches / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return root


def test_every_command_has_an_example_that_is_a_command():
    assert len(EXAMPLES) == len(COMMANDS) == 14
    for example in EXAMPLES:
        assert example.startswith("vicinal ")


def test_every_example_in_the_help_runs(folder, vicinal, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("VICINAL_DATA", raising=False)
    # Instead of a download, check what the command line asks for.
    monkeypatch.setattr(fetch, "fetch", fetch_nothing)
    for example in sorted(EXAMPLES, key=lambda one: ORDER.index(one.split()[1])):
        _, *words = shlex.split(example)
        shorter = {"study": ["--seeds", "1", "--epochs", "1"], "train": ["--epochs", "1"]}
        words += shorter.get(words[0], [])
        done = vicinal(*words)
        assert done.exit_code == 0, f"{example}: {done.output}"
        for option in ("--out", "--figure"):
            if option in words:
                assert (folder / words[words.index(option) + 1]).exists()


def fetch_nothing(name, root, *, progress):
    assert name in fetch.ARCHIVES
    assert root.is_dir()
    return [root / name]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_each_help_page_fits_80_columns_and_describes_every_option(path, vicinal):
    page = vicinal(*path, "--help").stdout
    assert max(map(len, page.splitlines())) <= 80
    for option in COMMANDS[path].params:
        assert option.help, option.name


def test_no_summary_of_a_command_is_truncated(vicinal):
    for path in ((), ("data",)):
        page = vicinal(*path, "--help").stdout
        assert not [line for line in page.splitlines()[1:] if line.endswith("...")]


def test_the_shipped_recipes_are_listed(vicinal):
    shown = vicinal("study", "--list").stdout
    for name in recipe.shipped():
        assert name in shown
    for path in ("study", "train"):
        (argument,) = (one for one in COMMANDS[path,].params if one.name in ("recipe", "what"))
        assert "vicinal study --list" in argument.help


def test_the_data_sets_that_can_be_fetched_are_listed():
    (argument,) = (one for one in COMMANDS["data", "fetch"].params if one.name == "name")
    assert argument.help.rstrip(".").replace(" or ", ", ").split(", ") == list(fetch.ARCHIVES)
