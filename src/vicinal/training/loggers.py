"""Loggers, which receive the metrics of each epoch."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from vicinal.errors import UserError, unknown


class Logger(Protocol):
    """The methods of Lightning's loggers that are used."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record the metrics of an epoch."""
        ...

    def finalize(self, status: str) -> None:
        """Finish with the status ``"success"`` or ``"failed"``."""
        ...


def make_loggers(
    names: Sequence[str], folder: Path, *, run: str, settings: Mapping[str, Any]
) -> list[Logger]:
    """Return loggers.

    Args:
        names: any of ``"tensorboard"``, ``"wandb"`` and ``"mlflow"``.
        folder: of the trial. TensorBoard writes into ``tensorboard`` in it, Weights & Biases into
            it, and MLflow too, unless its environment variables name another place.
        run: the name of the run.
        settings: the settings of the run.

    Raises:
        UserError: if there is no such logger, or its package is not installed.

    Example:
        >>> make_loggers([], Path("."), run="erm", settings={})
        []
    """
    check_loggers(names)
    return [_ExplainedErrors(name, _MAKERS[name](folder, run, settings)) for name in names]


def check_loggers(names: Sequence[str]) -> None:
    """Raise if a logger is not available, before anything is written.

    Raises:
        UserError: if there is no such logger, or its package is not installed.

    Example:
        >>> check_loggers(["tensorbord"])
        Traceback (most recent call last):
        vicinal.errors.UserError: there is no logger 'tensorbord'; did you mean 'tensorboard'? ...
    """
    for name in names:
        if name not in _MAKERS:
            raise UserError(unknown("logger", name, _MAKERS))
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"--logger: {name} requires its package: pip install {name} ({error})"
            ) from error


class _ExplainedErrors:
    """A logger whose errors, such as a full disk, name it and say what to try."""

    def __init__(self, name: str, logger: Logger) -> None:
        self._name, self._logger = name, logger

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with self._explained():
            self._logger.log_metrics(metrics, step=step)

    def finalize(self, status: str) -> None:
        with self._explained():
            self._logger.finalize(status)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ or cause.__context__:
                cause = cause.__cause__ or cause.__context__ or cause
            raise UserError(
                f"--logger: {self._name} failed ({cause}); fix that or choose another, and resume: "
                "the last checkpoint is kept"
            ) from error


def _tensorboard(folder: Path, run: str, settings: Mapping[str, Any]) -> Logger:
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")


class _WeightsAndBiases:
    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(project="vicinal", name=run, dir=str(folder), config=dict(settings))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._run.log(metrics, step=step)

    def finalize(self, status: str) -> None:
        self._run.finish(exit_code=int(status != "success"))


class _MLflow:
    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow = mlflow
        if not mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        mlflow.set_experiment("vicinal")
        mlflow.start_run(run_name=run)
        mlflow.log_dict(dict(settings), "settings.json")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._mlflow.log_metrics(metrics, step=step)

    def finalize(self, status: str) -> None:
        self._mlflow.end_run("FINISHED" if status == "success" else "FAILED")


_MAKERS = {"tensorboard": _tensorboard, "wandb": _WeightsAndBiases, "mlflow": _MLflow}
