"""Studies: arms x conditions x seeds, trained, kept, and compared."""

import vicinal.training  # noqa: F401 - first, since it names a package that is missing
from vicinal.studies.results import EpochRow, Result, Trial, condition_name
from vicinal.studies.study import Progress, Study, open_study, run_study

__all__ = [
    "EpochRow",
    "Progress",
    "Result",
    "Study",
    "Trial",
    "condition_name",
    "open_study",
    "run_study",
]
