"""Notes for the user on what was guessed about the columns of a table."""

import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from urllib.parse import quote

import numpy as np
from torch import Tensor

from vicinal.data.dataset import Note
from vicinal.data.source_spec import encoded
from vicinal.data.tables.columns import Column, Spelling
from vicinal.data.tables.table import listed, number

_PART = r"(?:0?[1-9]|[12]\d|3[01])"  # a month or a day
_MONTH = r"(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-zA-Z]*\.?"

_FORMS = {
    "of dates or times": rf"(\d{{4}}|\d\d)([-/.]){_PART}\2{_PART}([T ]\d.*)?"
    rf"|{_PART}([-/.]){_PART}\4(\d{{4}}|\d\d)([T ]\d.*)?|\d{{1,2}}:\d\d(:\d\d.*)?"
    rf"|\d{{4}}[-/](?:0?[1-9]|1[0-2])|{_PART}[-. ]?{_MONTH}[-, ]*(\d{{4}}|\d\d)"
    rf"|{_MONTH}[- ]?({_PART},? )?\d{{4}}",
    "of numbers with a decimal comma": r"[+-]?\d[\d.]*,\d{1,2}|[+-]?\d[\d.]*,\d{4,}",
    "of numbers with separators of thousands": r"[+-]?\d{1,3}([, '_\u00a0\u202f]\d{3})+(\.\d+)?",
    "of percentages": r"[+-]?\d[\d.,]*\s?%",
    "of amounts of money": r"[-+(]?\s?[$€£¥]\s?[-+]?\d[\d.,]*\)?|[-+]?\d[\d.,]*\s?[$€£¥]",
}
"""Regular expressions of values that look like numbers and are read as categories."""

_DECIMAL = "of numbers with a decimal comma"
_THOUSANDS = "of numbers with separators of thousands"
_FIXES = {
    _DECIMAL: "Add the option 'decimal=,' (and 'thousands=.' if digits are grouped)",
    _THOUSANDS: "Add the option 'thousands=,' (or with the character that separates the digits)",
}
_OTHER_FIX = "Write them as plain numbers"
_POINTS = "of integers, some with a point before the last three digits"
_DATES = "of integers that look like dates (YYYYMMDD), which were read as numbers"
_NUMBERED = "of different integers almost without gaps, as if rows were numbered"
_NAMED = "of different integers with the name of an identifier"
_NINES = "of numbers with a far value that repeats, which may mark missing values"
_MARKED = "of numbers and a few texts, which are read as categories"

_MARKERS = 2
"""The most texts in a column of numbers that may mark missing values."""

_FAR = 100
_SAMPLE = 1000
_DETAILED = 12
FEW = 10
"""The fewest rows in which a column, or a label, is called an identifier."""


def column_notes(
    columns: Sequence[Column],
    rows: np.ndarray,
    declared: Collection[str] = (),
    typed: Collection[str] = (),
    spelling: Spelling = Spelling(),  # noqa: B008 (immutable)
) -> list[Note]:
    """Report the kinds of the columns, and warn about what is doubtful in them.

    Args:
        columns: the inputs.
        rows: ``(k,)`` int64, the rows of the training split.
        declared: names of columns that the user declared as categories, without a warning.
        typed: names of columns whose type the file declares.
        spelling: how cells are written.
    """
    notes, everywhere = [_summary(columns, rows)], [column.name for column in columns]
    found: dict[str, list[Column]] = {}
    for column in columns:
        doubt = _doubt(column, rows)
        known = column.name in declared or (doubt == _POINTS and column.name in typed)
        if doubt and not known:
            found.setdefault(doubt, []).append(column)
    if _DECIMAL in found and any("," in c.levels[0] for c in found.get(_THOUSANDS, ())):
        found[_DECIMAL] += found.pop(_THOUSANDS)  # numbers with three decimals
    for doubt, doubted in found.items():
        names = [column.name for column in doubted]
        text = f"columns {doubt}: {listed(names)}"
        drop = _drop_option(names[:5], everywhere)
        count = max(_count(column, rows) for column in doubted)
        if doubt == _MARKED:
            marked = sorted({text for column in doubted for text in _markers(column)})
            text += (
                f". If {listed(marked)} means that a value is missing, pass "
                f"{missing_option(marked, spelling)}; otherwise list the columns in categories="
            )
        elif doubt in _FORMS:
            text += (
                f". Values such as {doubted[0].levels[0][:40]!r} are read as up to {count:,} "
                f"categories. {_FIXES.get(doubt, _OTHER_FIX)}, or ignore the columns with {drop}, "
                "or list them in categories= to keep them"
            )
        elif doubt == "with nearly one category per row":
            text += (
                f" (up to {count:,} categories in {len(rows):,} training rows). Pass {drop} if "
                "they are identifiers, or list them in categories= to keep them"
            )
        elif doubt == _POINTS:
            text += ", which was read as a decimal point. If it separates thousands, pass "
            text += "'thousands=.' and 'decimal=,'"
        elif doubt == _NINES:
            nines = sorted({str(_nines(one.values[rows][~one.missing[rows]])) for one in doubted})
            text += f". If {listed(nines)} means that a value is missing, pass "
            text += missing_option(nines, spelling)
        elif doubt == _DATES:
            text += f". Ignore the columns with {drop}, or write months or seasons instead"
        elif doubt in (_NUMBERED, _NAMED):
            text += f". Pass {drop} if they are identifiers"
        notes.append(Note(f"{text}.", doubtful=True))
    return notes


def _drop_option(names: Sequence[str], everywhere: Sequence[str]) -> str:
    if "" in names:
        return "drop= with their names, after naming them in the header,"
    if any(everywhere.count(name) > 1 for name in names):
        return "drop= with the numbers of these columns, from 0,"
    return f"drop={','.join(map(encoded, names))}"


def _doubt(column: Column, rows: np.ndarray) -> str:
    values, missing = column.values[rows], column.missing[rows]
    known = values[~missing]
    if not len(known):
        return "without a value in the training split"
    if (known == known[0]).all() and (column.kind == "number" or not missing.any()):
        return "with only one value in the training split"
    if column.kind == "number":
        return _doubt_about_numbers(column, known)
    if form := form_of(column.levels):
        return form
    if _markers(column):
        return _MARKED
    many = len(known) >= FEW and 2 * len(np.unique(known)) > len(known)
    return "with nearly one category per row" if many else ""


def _doubt_about_numbers(column: Column, known: np.ndarray) -> str:
    if _may_have_thousands(column):
        return _POINTS
    if _nines(known) is not None:
        return _NINES
    year, month, day = known // 10_000, known // 100 % 100, known % 100
    if (
        (known == np.floor(known)).all()
        and ((year >= 1900) & (year < 2100) & (month >= 1) & (month <= 12)).all()
        and ((day >= 1) & (day <= 31)).all()
    ):
        return _DATES
    if len(known) >= FEW and (known == np.round(known)).all():
        dense = np.ptp(known) < 3 * len(known)
        named = re.search(r"(^|[\W_])(id|ID|Id|[Ii]ndex|INDEX)$|[a-z]I[Dd]$", column.name)
        if (dense or named) and len(np.unique(known)) == len(known):
            return _NUMBERED if dense else _NAMED
    return ""


def _nines(values: np.ndarray) -> str | None:
    """Return a value such as -999 that repeats, farther from the others than they are apart."""
    for extreme in (values.min(), values.max()):
        others = values[values != extreme]
        text = f"{extreme:.0f}"
        repeats = 0 < len(others) < len(values) - 1
        nines = re.fullmatch(r"-?9{2,}", text) and float(text) == extreme
        if repeats and nines and np.abs(others - extreme).min() > np.ptp(others):
            return text
    return None


def _may_have_thousands(column: Column) -> bool:
    """Return whether all numbers are either below 1,000 or have points only as ``1.234`` has."""
    import pyarrow.compute as pc

    if not np.nanmax(np.abs(column.values)) < 1000:  # also if they were read as thousands
        return False
    grouped = pc.match_substring_regex(column.text, r"^[+-]?[1-9]\d{0,2}(\.\d{3})+$")
    small = pc.match_substring_regex(column.text, r"^[+-]?\d{1,3}$")
    each = pc.all(pc.or_(grouped, small)).as_py()
    return bool(each and pc.any(grouped).as_py() and pc.any(small).as_py())


def form_of(values: Sequence[str]) -> str:
    """Return what most of the values look like, such as ``"of dates or times"``, or ``""``.

    Example:
        >>> form_of(["1,5", "20,25", "none"])
        'of numbers with a decimal comma'
    """
    sample = values[:_SAMPLE]
    if any(re.fullmatch(r"[+-]?0,\d+", value) for value in sample):  # no thousands
        sample = [re.sub(r"(,\d\d)\d$", r"\1", value) for value in sample]
    for form, pattern in _FORMS.items():
        if 2 * sum(re.fullmatch(pattern, value) is not None for value in sample) > len(sample):
            return form
    return ""


def _markers(column: Column) -> list[str]:
    """Return the few categories that are not numbers, if all others are."""
    if len(column.levels) < FEW:
        return []
    texts = [level for level in column.levels if number(level) is None]
    return texts if len(texts) <= _MARKERS else []


def missing_option(more: Sequence[str], spelling: Spelling) -> str:
    """Return the option ``missing`` with the markers of a spelling and some more.

    Example:
        >>> missing_option(["None", "a,b"], Spelling())
        'missing=?,NA,N/A,n/a,#N/A,<NA>,NaN,nan,null,NULL,None,a%2Cb'
    """
    markers = dict.fromkeys((*spelling.missing, *more))
    return f"missing={','.join(quote(one, safe='?/#<> ') for one in markers)}"


def label_hint(classes: Sequence[str], task: str | None = None) -> str:
    """Return what to do if the classes look like numbers in another form, or ``""``.

    ``task`` is what the user asked for, if anything: classes need no hint then.

    Example:
        >>> label_hint(["1,5", "2,0", "3,5"])
        "The labels look like a column of numbers with a decimal comma. Add the option 'decimal=,' \
(and 'thousands=.' if digits are grouped), or pass task=classification if they are classes."
    """
    if task is not None or not (form := form_of(classes)):
        return ""
    fix = _FIXES.get(form, _OTHER_FIX)
    return (
        f"The labels look like a column {form}. {fix}, or pass task=classification if they are "
        "classes."
    )


def _count(column: Column, rows: np.ndarray) -> int:
    """Return the number of different values in the rows."""
    return len(np.unique(column.values[rows][~column.missing[rows]]))


def _summary(columns: Sequence[Column], rows: np.ndarray) -> Note:
    described = []
    for column in columns[:_DETAILED]:
        values, missing = column.values[rows], column.missing[rows]
        about = f"{_count(column, rows):,} categories"
        if column.kind == "number":
            about = "numbers"
            if not missing.all():
                about += f" from {np.nanmin(values):.6g} to {np.nanmax(values):.6g}"
        if missing.any():
            about += f", {missing.mean():.1%} missing"
        described.append(f"{column.name[:60]!r} ({about})")
    if rest := columns[_DETAILED:]:
        numbers = sum(column.kind == "number" for column in rest)
        counts = f"{numbers:,} of numbers, {len(rest) - numbers:,} of categories"
        described.append(f"and {len(rest):,} more ({counts})")
    filled = ""
    if any(column.missing[rows].any() for column in columns):
        filled = ". A missing number becomes the training mean, a missing category one of its own"
    return Note(f"inputs: {', '.join(described)}{filled}")


def label_notes(
    target: Column, classes: Sequence[str], train: Tensor, test: Tensor, *, guessed: bool
) -> list[Note]:
    """Report the task, and warn about what is doubtful in it.

    Args:
        target: the label.
        classes: their names; empty if the label is a real value.
        train: ``(k,)`` targets of the training split.
        test: ``(m,)`` targets of the test split.
        guessed: whether the task was guessed.
    """
    name = repr(target.name[:60])
    if not classes:
        both = np.concatenate([train, test])
        text = f"label {name}: real values from {both.min():.6g} to {both.max():.6g}"
        different = len(np.unique(both))
        if guessed and (both == np.floor(both)).all() and 2 * different <= len(both):
            advice = (
                "If they are classes, add the option task=classification, as in "
                f"'?label={target.name[:60]}&task=classification'"
            )
            return [Note(f"{text}, {different:,} different integers. {advice}", doubtful=True)]
        return (
            [Note(text)]
            if not _may_have_thousands(target)
            else [
                Note(
                    f"{text}. They are {_POINTS.removeprefix('of ')}, which was read as a decimal "
                    "point. If it separates thousands, pass 'thousands=.' and 'decimal=,'",
                    doubtful=True,
                )
            ]
        )
    notes = [Note(f"label {name}: {len(classes):,} classes, {listed(classes)}")]
    if guessed and (hint := label_hint(classes)):
        notes.append(Note(f"label {name}: {hint}", doubtful=True))
    folded: dict[str, list[str]] = {}
    equal: dict[Decimal, list[str]] = {}
    for text in classes:
        folded.setdefault(text.casefold(), []).append(text)
        if (value := number(text)) is not None:
            equal.setdefault(value, []).append(text)
    for alike in [alike for alike in folded.values() if len(alike) > 1][:5]:
        text = f"label {name}: the classes {listed(alike)} differ only in upper and lower case"
        notes.append(Note(f"{text}; are they one class?", doubtful=True))
    for same in [same for same in equal.values() if len(same) > 1][:5]:
        notes.append(
            Note(f"label {name}: the classes {listed(same)} are the same number", doubtful=True)
        )
    return notes


def missing_notes(columns: Sequence[Column], rows: np.ndarray) -> list[Note]:
    """Report columns of numbers in which some of the rows have no value, if there are any."""
    counts = {column.name: int(column.missing[rows].sum()) for column in columns}
    if not any(counts.values()):
        return []
    text = "missing numbers become the mean of the training split"
    return [Note(f"{text}: {_worst(counts, len(rows))}")]


def unseen_notes(unseen: Mapping[str, tuple[int, str]], rows: int) -> list[Note]:
    """Warn about categories that the training split lacks, if there are any.

    Example:
        >>> unseen_notes({"color": (12, "'teal'")}, 100)[0].text
        "categories that are not in the training split, such as 'teal', are encoded as zeros: \
'color' in 12 of 100 rows"
    """
    if not unseen:
        return []
    _, example = max(unseen.values())
    text = f"categories that are not in the training split, such as {example}, are encoded as zeros"
    counts = {name: count for name, (count, _) in unseen.items()}
    return [Note(f"{text}: {_worst(counts, rows)}", doubtful=True)]


def far_notes(inputs: np.ndarray, names: Sequence[str]) -> list[Note]:
    """Warn about numbers that are far from those of the training split.

    Args:
        inputs: ``(n, features)``, normalized, the columns of numbers first.
        names: names of the columns of numbers.

    Example:
        >>> far_notes(np.array([[0.5], [1000.0]]), ["area"])[0].text
        "numbers more than 100 standard deviations from the mean of the training split: 'area' in \
1 of 2 rows. Check how they are written"
    """
    far = (np.abs(inputs[:, : len(names)]) > _FAR).sum(0)
    counts = dict(zip(names, far.tolist(), strict=True))
    if not any(counts.values()):
        return []
    shown = _worst(counts, len(inputs))
    text = f"numbers more than {_FAR} standard deviations from the mean of the training split"
    return [Note(f"{text}: {shown}. Check how they are written", doubtful=True)]


def _worst(counts: Mapping[str, int], rows: int) -> str:
    """Return in how many rows the columns with the largest counts are affected."""
    worst = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    shown = ", ".join(f"{name[:60]!r} in {counts[name]:,} of {rows:,} rows" for name in worst[:5])
    return shown + (f", and {len(worst) - 5:,} more columns" if len(worst) > 5 else "")
