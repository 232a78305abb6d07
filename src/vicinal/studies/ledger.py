"""The ledger of trials: who claimed which, and what has come of it. Kept by Optuna."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from vicinal.errors import UserError
from vicinal.training.trial_result import Trial


class Ledger:
    """The trials of one study in a SQLite file that ``optuna-dashboard`` can show.

    What has been finished is said by the result files alone; the ledger says what is waiting and
    what is being worked on. It can be deleted without harm.

    Args:
        path: of the file; made if it is not there.
        name: of the study in it.

    Raises:
        UserError: if the file is not a ledger or cannot be written.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Open the ledger, or make it."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._path = path

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(path, check_same_thread=False)

        with self._in_words():
            self._study = optuna.create_study(
                study_name=name,
                # No path in the URL: "?", "%" and "{" have a meaning there.
                storage=RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect}),
                direction="maximize",
                load_if_exists=True,
            )

    def begin(self, wanted: Iterable[Trial]) -> None:
        """Let these trials wait, and close the books on claims whose owner is gone.

        To be called only by who holds the lock of the folder: nobody else can be at work then.
        """
        with self._in_words():
            waiting = set()
            for entry in self._study.get_trials(deepcopy=False):
                if entry.state is TrialState.RUNNING:
                    self._study.tell(entry.number, state=TrialState.FAIL)
                elif entry.state is TrialState.WAITING:
                    waiting.add(Trial(**entry.user_attrs))
            for trial in wanted:
                if trial not in waiting:
                    self._study.enqueue_trial({}, user_attrs=trial._asdict())

    def claim(self) -> tuple[int, Trial] | None:
        """Take the next trial that waits: its number in the ledger and itself; None at the end."""
        with self._in_words():
            if not self._study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
                return None
            entry = self._study.ask()
            return entry.number, Trial(**entry.user_attrs)

    def finish(self, number: int, accuracy: float | None) -> None:
        """Close a claim: with its test accuracy, or with None where it is not wanted any more."""
        with self._in_words():
            if accuracy is None:
                self._study.tell(number, state=TrialState.FAIL)
            else:
                self._study.tell(number, accuracy)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # a damaged data base raises all kinds
            reason = (str(error.__cause__ or error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"the ledger {self._path} cannot be used: {reason}; free some space, or delete "
                "this file: finished trials are kept beside it, in trials/"
            ) from error
