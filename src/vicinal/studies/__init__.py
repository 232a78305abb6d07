"""Studies: arms x conditions x seeds, trained and compared."""

import vicinal.training  # noqa: F401 - first, since it reports missing packages
from vicinal.studies.study import Study, StudyCallbacks, open_study, run_study
from vicinal.training.trial_result import EpochRow, Result, Trial, condition_name

__all__ = [
    "EpochRow",
    "Result",
    "Study",
    "StudyCallbacks",
    "Trial",
    "condition_name",
    "open_study",
    "run_study",
]
