"""Loggers: what is told the numbers of each epoch, beside the files of a run."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from vicinal.errors import UserError, unknown


class Logger(Protocol):
    """What is told numbers."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take the numbers of an epoch."""
        ...

    def finalize(self, status: str) -> None:
        """Take note of the end, ``"success"`` or ``"failed"``."""
        ...


def loggers_named(
    names: Sequence[str], folder: Path, *, run: str, settings: Mapping[str, Any]
) -> list[Logger]:
    """Return loggers.

    Args:
        names: of ``"tensorboard"``, ``"wandb"`` and ``"mlflow"``.
        folder: of the run; TensorBoard's events go into ``tensorboard`` in it. Weights & Biases
            writes into it, and MLflow too where its own variables say nothing.
        run: what the run is called.
        settings: what the run is done with.

    Raises:
        UserError: if there is no such logger, or its package is not installed.

    Example:
        >>> loggers_named([], Path("."), run="erm", settings={})
        []
    """
    check_loggers(names)
    return [_InWords(name, _MAKERS[name](folder, run, settings)) for name in names]


def check_loggers(names: Sequence[str]) -> None:
    """See whether loggers can be made, before anything is written.

    Raises:
        UserError: if there is no such logger, or its package is not installed.

    Example:
        >>> check_loggers(["tensorboard"])
    """
    for name in names:
        if name not in _MAKERS:
            raise UserError(unknown("logger", name, _MAKERS))
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"the logger {name} wants its package: pip install {name} ({error})"
            ) from error


class _InWords:
    """A logger whose failures, such as a full disk, name it and what to try."""

    def __init__(self, name: str, logger: Logger) -> None:
        self._name, self._logger = name, logger

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with self._in_words():
            self._logger.log_metrics(metrics, step=step)

    def finalize(self, status: str) -> None:
        with self._in_words():
            self._logger.finalize(status)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ or cause.__context__:
                cause = cause.__cause__ or cause.__context__ or cause
            raise UserError(
                f"the logger {self._name} failed ({cause}); mend that, or choose another --logger, "
                "and resume: the last checkpoint is kept"
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
