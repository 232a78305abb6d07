"""Spoken words in the layout of Google's speech commands: a folder for each word, and lists."""

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import (
    DataSet,
    LoadOptions,
    Note,
    ReadResult,
    SkippedExamples,
    Split,
)
from vicinal.data.formats.file_listing import file_identity, is_litter, litter_notes
from vicinal.data.sound.recordings import HIGHEST_RATE, LOWEST_RATE, RecordingCounts, read_recording
from vicinal.data.sound.spectrograms import log_mel, log_spectrogram
from vicinal.data.threads import cpu_threads
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError, unknown

NOISE = "_background_noise_"
LISTS = {"test": "testing_list.txt", "validation": "validation_list.txt"}

_FEATURES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "log-mel": log_mel,
    "log-spectrogram": log_spectrogram,
    "wave": lambda waves, rate: waves,
}
_MOST_SECONDS = 3600
_FIRST = 100  # recordings of a split in files that are read for notes when it is loaded


class _Sound(NamedTuple):
    """The preparation of a recording."""

    features: str = "log-mel"
    rate: int = 16000
    seconds: float = 1.0

    @property
    def samples(self) -> int:
        return round(self.rate * self.seconds)


@dataclass(frozen=True, eq=False)
class StoredRecordings:
    """Recordings in files, whose features are computed when they are read.

    Args:
        folder: the folder that names are relative to.
        names: ``word/file.wav`` of each recording.
        shape: ``(n, samples)`` for waves, else ``(n, 1, bands, frames)``.
        features: ``log-mel``, ``log-spectrogram`` or ``wave``.
        rate: sampling rate that recordings are resampled to.
        samples: length that they are padded or cut to.
        skip_bad: whether recordings that cannot be read are skipped instead of raising an error.
        max_bytes: the most bytes that a decoded recording may take.
        counts: counts of the recordings that were read and changed.
    """

    folder: Path
    names: tuple[str, ...]
    shape: tuple[int, ...]
    features: str
    rate: int
    samples: int
    skip_bad: bool = False
    max_bytes: int = MAX_BYTES
    counts: RecordingCounts = field(default_factory=RecordingCounts)
    dtype: torch.dtype = field(default=torch.float32, init=False)

    def identity(self, row: int) -> str:
        """Return the name and size of a recording."""
        return file_identity(self.folder, str(self.names[row]))

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Read some recordings: ``(k, *shape[1:])`` float32.

        Raises:
            UserError: if one cannot be read and ``skip_bad`` is False.
        """
        features = _FEATURES[self.features]
        inputs = torch.empty(len(rows), *self.shape[1:])
        skips = SkippedExamples(self.skip_bad)
        kept: list[int] = []
        for position, row in enumerate(rows):
            path = self.folder / self.names[row]
            try:
                wave = read_recording(
                    path,
                    rate=self.rate,
                    samples=self.samples,
                    max_bytes=self.max_bytes,
                    counts=self.counts,
                )
            except UserError as error:
                skips(error)
                continue
            # One at a time, since a batch may be summed in another order, and the features of a
            # recording should not depend on the rest of the batch.
            with cpu_threads(1):
                inputs[len(kept)] = features(torch.from_numpy(wave)[None], self.rate)[0]
            kept.append(position)
        return ReadResult(inputs[: len(kept)], np.array(kept, np.int64), skips.sentences)


def load_commands(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    r"""Load spoken words from a folder in the layout of Google's speech commands.

    Each folder in it is a class, and each file in that folder a recording. Hidden files and
    ``_background_noise_`` are ignored. ``testing_list.txt`` and ``validation_list.txt`` name the
    recordings of these splits (``word/file.wav``, one on each line); the others are the training
    split. Without the first list, the test split is a random fraction of the recordings, whoever
    speaks in them; without the second, there is no validation split. The layout is that of Warden,
    2018 (https://arxiv.org/abs/1804.03209, section 6).

    Args:
        where: the folder, looked for under ``wanted.root`` first.
        options: ``features``: ``log-mel`` (default; 64 bands), ``log-spectrogram`` (160 x 101 for a
            second at 16 kHz) or ``wave``; ``rate``: sampling rate to resample to, 16000 by default;
            ``seconds``: length to cut or pad with zeros to, 1 by default.
        wanted: what any source is asked. Parts of more bytes than ``wanted.in_memory`` stay in
            files and are read when they are asked for: the same numbers either way.

    Returns:
        Inputs ``(n, rate * seconds)`` in ``[-1, 1]`` for waves, else ``(n, 1, bands, frames)``,
        float32; classes in alphabetical order.

    Raises:
        UserError: if there is no such folder or option, if a word has no recordings or none to
            train on, if a list names what is not there, or if a recording cannot be read; with
            ``wanted.skip_bad``, single recordings, lines of lists and empty folders are left
            out.

    Example:
        >>> import soundfile, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("no/a", "no/b", "yes/a", "yes/b"):
        ...         path = Path(folder, name).with_suffix(".wav")
        ...         path.parent.mkdir(exist_ok=True)
        ...         soundfile.write(path, np.zeros(8000), 8000)
        ...     _ = Path(folder, "testing_list.txt").write_text("no/b.wav\nyes/b.wav\n")
        ...     words = load_commands(folder, {}, LoadOptions(Path()))
        >>> words.classes, words.test.targets.tolist(), words.train.inputs.shape
        (('no', 'yes'), [0, 1], torch.Size([2, 1, 64, 101]))
    """
    sound = _sound(options)
    folder = wanted.root / where if (wanted.root / where).is_dir() else Path(where)
    if not where or not folder.is_dir():
        raise UserError(
            f"expected a folder of spoken words, got {where or 'an empty path'!r}, which is not a "
            f"folder, also not below {wanted.root}. Check the path."
        )
    skips = {split: SkippedExamples(wanted.skip_bad) for split in ("train", "validation", "test")}
    counts = RecordingCounts()
    litter: Counter[str] = Counter()
    words = _recordings(folder, skips["train"], litter)
    classes = tuple(sorted({name.split("/")[0] for name in words}))
    rows = _split_rows(folder, words, classes, wanted, skips)
    splits = {
        split: _make_split(
            folder,
            [words[row] for row in chosen],
            classes,
            sound=sound,
            wanted=wanted,
            skips=skips[split],
            counts=counts,
        )
        for split, chosen in rows.items()
    }
    _check_splits(folder, splits, classes)
    return DataSet(
        classes,
        splits["train"],
        splits["test"],
        splits.get("validation"),
        notes=_notes(splits, classes, sound=sound, counts=counts, litter=litter),
        preparation={"kind": "sound", **sound._asdict()},
    )


def _notes(
    splits: Mapping[str, Split],
    classes: Sequence[str],
    *,
    sound: _Sound,
    counts: RecordingCounts,
    litter: Counter[str],
) -> tuple[Note, ...]:
    every = True
    for split in splits.values():
        if isinstance(split.inputs, StoredRecordings):
            every = False
            first = replace(split.inputs, skip_bad=True, counts=counts)
            first.read(range(min(_FIRST, len(split))))
    several = f"{len(classes)} classes, one for each folder: {', '.join(classes[:10])}"
    notes = [Note(several + (", ..." if len(classes) > 10 else ""))]
    return (*notes, *litter_notes(litter), *counts.notes(sound.rate, sound.seconds, every=every))


def background_noise(folder: Path, rate: int) -> Tensor:
    """Read and concatenate the background noise of Google's speech commands.

    Args:
        folder: folder of the data set; it has ``_background_noise_/*.wav``.
        rate: sampling rate to resample to.

    Returns:
        ``(m,)`` float32 in ``[-1, 1]``, in the alphabetical order of the files.

    Raises:
        UserError: if there are none, or one cannot be read.
    """
    paths = sorted((folder / NOISE).glob("*.wav"))
    if not paths:
        raise UserError(
            f"{folder / NOISE}: expected WAV files of background noise, got none. Add some, or "
            "train without added noise."
        )
    for path in paths:
        _check_inside(path, folder)
    return torch.from_numpy(np.concatenate([read_recording(path, rate=rate) for path in paths]))


def _sound(options: Mapping[str, str]) -> _Sound:
    for name in options:
        if name not in _Sound._fields:
            raise UserError(unknown("option of commands", name, _Sound._fields))
    features = options.get("features", "log-mel")
    if features not in _FEATURES:
        raise UserError(unknown("kind of features", features, _FEATURES))
    rate = _number(options, "rate", 16000, LOWEST_RATE, HIGHEST_RATE)
    if rate != int(rate):
        raise UserError(f"rate: expected a whole number of samples per second, got {rate}")
    seconds = _number(options, "seconds", 1.0, 1 / rate, _MOST_SECONDS)
    return _Sound(features, int(rate), seconds)


def _number(
    options: Mapping[str, str], name: str, default: float, least: float, most: float
) -> float:
    text = options.get(name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise UserError(f"{name}: expected a number from {least:g} to {most:g}, got {text!r}")
    return number


def _recordings(folder: Path, skips: SkippedExamples, litter: Counter[str]) -> list[str]:
    """Return ``word/file`` of all recordings, sorted; count what is skipped."""
    names = []
    for word in _entries(folder, litter):
        if not word.is_dir() or word.name == NOISE:
            continue
        found = []
        for file in _entries(Path(word.path), litter):
            try:
                _check_inside(Path(file.path), folder)
                if not file.is_file():
                    raise UserError(
                        f"{file.path}: expected a recording, which is a file. Move it away."
                    )
            except UserError as error:
                skips(error)
            else:
                found.append(f"{word.name}/{file.name}")
        if not found:
            skips(
                UserError(
                    f"{word.path}: expected recordings of a word, got none. Delete the folder."
                )
            )
        names.extend(found)
    if not names:
        raise UserError(f"{folder}: expected a folder of recordings for each word, got none")
    return sorted(names)


def _entries(folder: Path, litter: Counter[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda e: e.name)
            litter.update(e.name for e in found if is_litter(e.name))
            return [e for e in found if not is_litter(e.name)]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def _check_inside(path: Path, folder: Path) -> None:
    if path.is_symlink() or path.parent.is_symlink():
        try:
            inside = path.resolve().is_relative_to(folder.resolve())
        except (OSError, RuntimeError):  # a cycle of links
            inside = False
        if not inside:
            raise UserError(f"{path} links to outside {folder}. Copy the recording instead.")


def _split_rows(
    folder: Path,
    names: Sequence[str],
    classes: Sequence[str],
    wanted: LoadOptions,
    skips: Mapping[str, SkippedExamples],
) -> dict[str, np.ndarray]:
    """Return the rows of each split."""
    indices = {name: row for row, name in enumerate(names)}
    rows = {}
    taken: dict[int, str] = {}
    for split, file in LISTS.items():
        listed = _listed(folder / file, indices, taken, skips[split])
        if listed is not None:
            rows[split] = listed
    rest = np.array([row for row in range(len(names)) if row not in taken], np.int64)
    if "test" not in rows:
        targets = _targets([names[row] for row in rest], classes)
        train, test = train_test_rows(
            targets, fraction=wanted.test_fraction, seed=wanted.seed, classes=classes
        )
        return rows | {"train": np.sort(rest[train]), "test": np.sort(rest[test])}
    return rows | {"train": rest}


def _listed(
    file: Path, indices: Mapping[str, int], taken: dict[int, str], skips: SkippedExamples
) -> np.ndarray | None:
    """Return the sorted rows of the recordings in a list, or None if there is no list."""
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}, byte {error.start}: expected a list of paths as UTF-8 text"
        ) from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    rows = set()
    for number, line in enumerate(lines, 1):
        path = PurePosixPath(line.strip())
        row = indices.get(str(path))
        if not path.parts or row in rows:
            continue
        try:
            if path.is_absolute() or ".." in path.parts:
                raise UserError(
                    f"{file}, line {number}: {line[:200]!r} points outside the folder. "
                    "Expected word/file.wav."
                )
            if row is None:
                raise UserError(
                    f"{file}, line {number}: {line[:200]!r} does not exist. Expected word/file.wav."
                )
            if row in taken:
                raise UserError(
                    f"{file}, line {number}: {line[:200]!r} is in {taken[row]} too. Delete it here."
                )
        except UserError as error:
            skips(error)
        else:
            rows.add(row)
    taken |= dict.fromkeys(rows, file.name)
    return np.array(sorted(rows), np.int64)


def _targets(names: Sequence[str], classes: Sequence[str]) -> Tensor:
    numbers = {word: number for number, word in enumerate(classes)}
    return torch.tensor([numbers[name.split("/")[0]] for name in names], dtype=torch.int64)


def _make_split(
    folder: Path,
    names: Sequence[str],
    classes: Sequence[str],
    *,
    sound: _Sound,
    wanted: LoadOptions,
    skips: SkippedExamples,
    counts: RecordingCounts,
) -> Split:
    if 4 * sound.samples > wanted.max_bytes:
        raise UserError(
            f"{sound.seconds:g} s at {sound.rate} Hz take {4 * sound.samples} bytes a recording, "
            f"more than max_bytes = {wanted.max_bytes}. Use fewer seconds."
        )
    shape = _FEATURES[sound.features](torch.zeros(1, sound.samples), sound.rate).shape[1:]
    stored = StoredRecordings(
        folder,
        tuple(names),
        (len(names), *shape),
        sound.features,
        sound.rate,
        sound.samples,
        wanted.skip_bad,
        wanted.max_bytes,
        counts,
    )
    targets = _targets(names, classes)
    if 4 * math.prod(stored.shape) > wanted.in_memory:
        return Split(stored, targets, tuple(skips.sentences))
    read = stored.read(range(len(names)))
    return Split(read.inputs, targets[read.kept], (*skips.sentences, *read.skipped))


def _check_splits(folder: Path, splits: Mapping[str, Split], classes: Sequence[str]) -> None:
    for name, split in splits.items():
        if not len(split):
            raise UserError(
                f"{folder}: its {name} split has no recordings. Check its lists."
                + "".join(f" {sentence}" for sentence in split.skipped[:1])
            )
    missing = np.flatnonzero(splits["train"].targets.bincount(minlength=len(classes)).numpy() == 0)
    if len(missing):
        raise UserError(
            f"{folder}: the word {classes[missing[0]]!r} has no recordings in the training "
            "split. Remove some from the lists, or move its folder away."
        )
