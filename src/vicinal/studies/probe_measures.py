"""What the probes of a study measure."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from vicinal.training.metrics import Metric
from vicinal.training.probe_settings import Probes

Array = NDArray[Any]

ATTACKS = ("noise", "fgsm", "i-fgsm-10", "i-fgsm-20", "pgd-20", "pgd-margin-20")
"""The attacks with the gradients of the network itself."""

TRANSFERRED = ("fgsm", "i-fgsm-10")
"""Those with the gradients of another network."""

LAMS = tuple(k / 10 for k in range(11))
"""Where lines between examples are probed."""


class Measure(NamedTuple):
    """A number that a probe measures.

    Args:
        probe: the section of the report.
        series: what is measured; measures of one series differ in ``x``.
        x: such as the epsilon of an attack; None if there is only one number.
        x_title: what ``x`` is.
        metric: the metric that has its unit and direction.
    """

    probe: str
    series: str
    x: float | None
    x_title: str
    metric: Metric

    @property
    def key(self) -> str:
        """Its name in the file of a trial."""
        return self.series if self.x is None else f"{self.series} at {self.x:g}"


class Probed(NamedTuple):
    """What the probes of a trial found.

    Args:
        values: one value per example by the key of the measure; the mean is the measure.
        checks: checks of attacks, for masked gradients; ``(name, whether it passed, sentence)``.
    """

    values: dict[str, Array]
    checks: list[tuple[str, bool | None, str]]


_CLASSES = ("classification",)
_COUNT = Metric("share", _CLASSES, counted=True)
_ERROR = Metric("share", _CLASSES, counted=True, higher=False)
_SHARE = Metric("share", _CLASSES, higher=False)
_NORM = Metric("norm", _CLASSES, percent=False, higher=False, highest=float("inf"))


def measures_of(probes: Probes) -> list[Measure]:
    """Return what is measured on each trial.

    Example:
        >>> [one.key for one in measures_of(Probes(calibration=True))][:2]
        ['ECE', 'ECE, temperature-scaled']
    """
    found = []
    if probes.attacks is not None:
        tops = {1, probes.attacks.top}
        found += [
            Measure("attacks", accuracy_under(name, of, top), epsilon, "epsilon, 255ths", _COUNT)
            for of, names in (("", ATTACKS), (", transferred", TRANSFERRED))
            for name in names
            for top in sorted(tops)
            for epsilon in (0.0, *probes.attacks.epsilons)
        ]
    if probes.between is not None:
        for series, metric in ((MISSES, _ERROR), (GRADIENTS, _NORM)):
            found += [Measure("between", series, lam, "lam", metric) for lam in LAMS]
    if probes.calibration:
        for title, metric in (
            ("ECE", _SHARE),
            ("NLL", _NORM),
            ("Brier score", _NORM._replace(highest=2.0)),
        ):
            names = (title, f"{title}, temperature-scaled")
            found += [Measure("calibration", name, None, "", metric) for name in names]
    if probes.memorization:
        found += [Measure("memorization", name, None, "", _ERROR) for name in (REAL, CORRUPTED)]
    if probes.ood is not None:
        for name, metric in ((AUROC, Metric("AUROC", _CLASSES)), (FPR, _SHARE)):
            found.append(Measure("ood", name, None, "", metric))
    return found


MISSES = "predictions of neither class"
GRADIENTS = "norm of the gradient"
REAL = "error on real labels"
CORRUPTED = "error on corrupted labels"
AUROC = "AUROC against the other data"
FPR = "false positives at 95% true positives"


def smaller_of(key: str) -> str:
    """Return the name of an array that is as long as the smaller data set of a measure of two."""
    return f"{key}, smaller data set"


_TITLES = {
    "noise": "noise",
    "fgsm": "FGSM",
    "i-fgsm-10": "I-FGSM, 10 steps",
    "i-fgsm-20": "I-FGSM, 20 steps",
    "pgd-20": "PGD, 20 steps",
    "pgd-margin-20": "PGD, 20 steps, margin loss",
}


def accuracy_under(name: str, of: str, top: int) -> str:
    """Return the series of the accuracy under an attack."""
    accuracy = "accuracy" if top == 1 else f"top-{top} accuracy"
    return f"{accuracy} under {_TITLES[name]}{of}"
