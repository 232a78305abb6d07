import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vicinal.errors import UserError
from vicinal.training.loggers import make_loggers


def test_tensorboard_logs_each_epoch(small_recipe, tmp_path, vicinal):
    done = vicinal("train", small_recipe(), "--arm", "mixup", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    told = events.Scalars("test_accuracy")
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [event.step for event in told] == [1, 2]
    place = rows[0].split(",").index("test_accuracy")
    expected = [float(row.split(",")[place]) for row in rows[1:]]
    assert [event.value for event in told] == pytest.approx(expected)


class Heard(types.ModuleType):
    """Stands for a package, and writes down what it is told."""

    def __init__(self, name):
        super().__init__(name)
        self.heard = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **options):
            self.heard.append((name, args, options))
            return False if name == "is_tracking_uri_set" else self

        return call


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_other_loggers_log_settings_metrics_and_the_status(name, tmp_path, monkeypatch):
    package = Heard(name)
    monkeypatch.setitem(sys.modules, name, package)
    (logger,) = make_loggers([name], tmp_path, run="erm-seed0", settings={"epochs": 3})
    logger.log_metrics({"test_accuracy": 0.5}, 7)
    logger.finalize("failed")
    told = repr(package.heard)
    for words in ("'erm-seed0'", "{'epochs': 3}", "{'test_accuracy': 0.5}", "'step': 7"):
        assert words in told
    last = package.heard[-1]
    assert last in (("finish", (), {"exit_code": 1}), ("end_run", ("FAILED",), {}))


def test_a_logger_that_is_not_installed_or_unknown_raises(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"requires its package .*\. Run pip install wandb"):
        make_loggers(["wandb"], tmp_path, run="x", settings={})
    with pytest.raises(UserError, match=r"no logger 'tensorbord'. Did you mean 'tensorboard'"):
        make_loggers(["tensorbord"], tmp_path, run="x", settings={})


def test_the_error_of_a_logger_names_it_and_the_root_cause(tmp_path, monkeypatch):
    def full(*_args, **_options):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise ValueError("you tried to log 1 which is not supported") from error

    (logger,) = make_loggers(["tensorboard"], tmp_path, run="erm", settings={})
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    with pytest.raises(UserError, match=r"--logger: tensorboard failed .*No space.*choose another"):
        logger.log_metrics({"loss": 1.0}, 1)


def test_a_logger_that_cannot_start_is_an_error_of_one_sentence(tmp_path, monkeypatch):
    class NotLoggedIn(types.ModuleType):
        def init(self, **_):
            raise RuntimeError("api_key not configured")

    monkeypatch.setitem(sys.modules, "wandb", NotLoggedIn("wandb"))
    with pytest.raises(UserError, match=r"--logger: wandb failed \(.*api_key not configured.*\)"):
        make_loggers(["wandb"], tmp_path, run="x", settings={})
