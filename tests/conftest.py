import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomlkit
from matplotlib.backends.backend_svg import FigureCanvasSVG
from typer.testing import CliRunner

from vicinal.cli import app
from vicinal.studies.summary import summarize
from vicinal.training.metrics import metric_values, primary_metric
from vicinal.training.origin import data_facts
from vicinal.training.recipe import read_recipe, resolved_text
from vicinal.training.task import task_of
from vicinal.training.trial_result import Outputs, Result, trials_of

# Whoever starts the tests in the background of a shell lets them ignore Ctrl-C, and the processes
# that they start inherit that; those that have a handler of their own do not hand it on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

os.environ["VICINAL_CACHE"] = ""  # no test writes into the cache of the user

SLOW_FILES = (
    "training/test_ranks.py",
    "studies/test_faults.py",
    "studies/test_prepare.py",
    "studies/test_probing.py",
    "reports/test_report_in_a_browser.py",
    "training/test_single_trial.py",
    "test_cli.py",
    "training/test_own_networks.py",
    "models/test_networks.py",
)
"""Files that take longest; they run first, so that no process waits for another one at the end."""


def pytest_collection_modifyitems(items):
    """Put the slow files first."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(SLOW_FILES))


SMALL = {"seeds": 2, "training.epochs": 2}


@pytest.fixture(scope="session")
def recipe_text():
    """Return a function that changes fields of the digits recipe: small("a.b", 3) -> TOML."""

    def changed(changes):
        settings = tomllib.loads(resolved_text(read_recipe("digits")))
        for field, value in (SMALL | changes).items():
            table, *names = settings, *field.split(".")
            for name in names[:-1]:
                table = table[name]
            if value is None:
                del table[names[-1]]
            else:
                table[names[-1]] = value
        return tomlkit.dumps(settings)

    return changed


@pytest.fixture
def small_recipe(tmp_path, recipe_text):
    """Return a function that writes a small recipe, with changes, and answers with its path."""

    def write(changes=None):
        path = tmp_path / "small.toml"
        path.write_text(recipe_text(changes or {}))
        return path

    return write


@pytest.fixture
def vicinal():
    """Return a function that runs the command line in this process."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def start():
    """Return a function that starts the command line in a process of its own."""
    started = []

    def run(*words, **options):
        process = subprocess.Popen(
            [sys.executable, "-m", "vicinal", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            **options,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()
        if process.stdout:
            process.stdout.close()


@pytest.fixture
def without_figures(monkeypatch):
    """Leave the figures of reports empty: drawing them takes longer than a small study."""

    def empty(_canvas, file, **_settings):
        file.write("<svg></svg>")

    monkeypatch.setattr(FigureCanvasSVG, "print_svg", empty)


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory, recipe_text):
    """Run a small study once; answer with its folder, which must be left as it is."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = folder / "small.toml"
    recipe.write_text(recipe_text({}))
    out = folder / "study"
    done = CliRunner().invoke(app, ["study", str(recipe), "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture
def copied_study(finished_study, tmp_path):
    """Answer with a copy of the finished study, to do anything with."""
    return Path(shutil.copytree(finished_study, tmp_path / "copy"))


@pytest.fixture
def summary_of():
    """Return a function that summarizes a study whose trials returned made-up outputs.

    ``outputs_of`` maps a trial to ``(n, k)`` outputs for the test split; to None if it failed.
    ``targets_of`` maps a trial to its targets, if they are not those of the data.
    """

    def summarized(recipe, data, outputs_of, targets_of=None, **changes):
        task, facts = task_of(data, recipe.task), data_facts(data, recipe.task)
        metric, targets = primary_metric(recipe.metrics, task.name), data.test.targets.numpy()
        outputs = {trial: outputs_of(trial) for trial in trials_of(recipe)}
        results = {}
        for trial, found in outputs.items():
            if found is None:
                continue
            values = {
                "epochs": recipe.training_of(trial.arm).epochs,
                "metric": metric,
                "test_examples": len(targets),
                "test_metric": metric_values(metric, found, targets, task.name).mean(),
                "constant_metric": 0.0,
                "train_metric": 1.0,
                "peak_epoch": 1,
                "test_loss": 1.0,
                "best_epoch": None,
                "memorized": None,
                "seconds": 1.0,
                "peak_memory": 1,
                "settings": {},
                "origin": {"data": facts, "network": NETWORK, "versions": {}},
                "outputs": "",
                "versions": {},
                "hardware": {},
            }
            own = {k: v(trial) if callable(v) else v for k, v in changes.items()}
            results[trial] = Result(**trial._asdict(), **values | own)
        failures = {trial: "a test" for trial, found in outputs.items() if found is None}
        return summarize(
            recipe,
            results,
            lambda one: Outputs(outputs[one], None, targets_of(one) if targets_of else targets),
            failures,
        )

    return summarized


NETWORK = {"name": "mlp", "parameters": 3, "tensors": "", "source": {}}


@pytest.fixture
def logits_with():
    """Return a function: logits of classes ``(n,)``, of which those ``(n,)`` booleans are right."""

    def made(classes, right, count=None):
        classes = np.asarray(classes)
        count = count or int(classes.max()) + 1
        return 4.0 * np.eye(count)[np.where(right, classes, (classes + 1) % count)]

    return made
