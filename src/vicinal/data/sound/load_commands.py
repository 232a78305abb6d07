"""Spoken words in the layout of Google's speech commands: a folder for each word, and lists."""

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

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
from vicinal.data.formats.file_listing import (
    file_identity,
    is_litter,
    litter_notes,
    loose_notes,
    other_kinds_notes,
    without_other_kinds,
)
from vicinal.data.sound.recordings import HIGHEST_RATE, LOWEST_RATE, RecordingCounts, read_recording
from vicinal.data.sound.spectrograms import log_mel, log_spectrogram
from vicinal.data.source_spec import existing
from vicinal.data.threads import cpu_threads
from vicinal.data.train_test_split import rows_by_options
from vicinal.errors import UserError
from vicinal.escaping import visible
from vicinal.options import check_options, choice

NOISE = "_background_noise_"
LISTS = {"test": "testing_list.txt", "validation": "validation_list.txt"}

_FEATURES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "log-mel": log_mel,
    "log-spectrogram": log_spectrogram,
    "wave": lambda waves, rate: waves,
}
_MOST_SECONDS = 3600
_FIRST = 100  # recordings of a split in files that are read for notes when it is loaded


class Sound(NamedTuple):
    """The preparation of recordings.

    Args:
        features: ``log-mel``, ``log-spectrogram`` or ``wave``.
        rate: sampling rate that they are resampled to.
        seconds: length that they are padded or cut to.
    """

    features: str
    rate: int
    seconds: float

    @property
    def samples(self) -> int:
        """Return the length in samples."""
        return round(self.rate * self.seconds)


@dataclass(frozen=True, eq=False)
class StoredRecordings:
    """Recordings in files, whose features are computed when they are read.

    Args:
        folder: the folder that names are relative to.
        names: ``word/file.wav`` of each recording.
        shape: ``(n, samples)`` for waves, else ``(n, 1, bands, frames)``.
        sound: their preparation.
        skip_bad: whether recordings that cannot be read are skipped instead of raising an error.
        max_bytes: the most bytes that a decoded recording may take.
        counts: counts of the recordings that were read and changed.
    """

    folder: Path
    names: tuple[str, ...]
    shape: tuple[int, ...]
    sound: Sound
    skip_bad: bool = False
    max_bytes: int = MAX_BYTES
    counts: RecordingCounts = field(default_factory=RecordingCounts)
    dtype: torch.dtype = field(default=torch.float32, init=False)

    def identity(self, row: int) -> str:
        """Return the name and size of a recording."""
        return file_identity(self.folder, self.names[row])

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Read some recordings: ``(k, *shape[1:])`` float32.

        Raises:
            UserError: if one cannot be read and ``skip_bad`` is False.
        """
        inputs = torch.empty(len(rows), *self.shape[1:], dtype=torch.float32)
        skips = SkippedExamples(self.skip_bad)
        kept: list[int] = []
        for position, row in enumerate(rows):
            try:
                wave = read_recording(
                    self.folder / self.names[row],
                    rate=self.sound.rate,
                    samples=self.sound.samples,
                    max_bytes=self.max_bytes,
                    counts=self.counts,
                )
            except UserError as error:
                skips(error)
                continue
            # One recording and one thread at a time: the order of summation could otherwise
            # depend on the rest of the batch.
            with cpu_threads(1):
                inputs[len(kept)] = _features(torch.from_numpy(wave)[None], self.sound)[0]
            kept.append(position)
        return ReadResult(inputs[: len(kept)], np.array(kept, np.int64), skips.sentences)


def check_sound(sound: Sound) -> None:
    """Raise a ``ValueError`` if a preparation cannot be one of ``load_commands``."""
    known = sound.features in _FEATURES and isinstance(sound.rate, int)
    if not (known and LOWEST_RATE <= sound.rate <= HIGHEST_RATE and 0 < sound.seconds < 3600.5):
        raise ValueError(f"expected a preparation of recordings, got {tuple(sound)}")


def feature_shape(sound: Sound) -> tuple[int, ...]:
    """Return the shape of the features of one recording.

    Example:
        >>> feature_shape(Sound("log-mel", 16000, 1.0))
        (1, 64, 101)
    """
    return tuple(_features(torch.zeros(1, sound.samples), sound).shape[1:])


def _features(waves: Tensor, sound: Sound) -> Tensor:
    return _FEATURES[sound.features](waves, sound.rate)


def load_commands(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    r"""Load ``commands:PATH``: spoken words in the layout of Google's speech commands.

    Each folder in it is a class, and each file in that folder a recording. Hidden files and
    ``_background_noise_`` are ignored. ``testing_list.txt`` and ``validation_list.txt`` name the
    recordings of these splits (``word/file.wav``, one on each line); the others are the training
    split. Without the first list, the test split is a random fraction of the recordings,
    regardless of who speaks, with a warning if the file names tell; without the second, there is
    no validation split. The layout is that of Warden, 2018 (https://arxiv.org/abs/1804.03209,
    section 6).

    Args:
        where: the folder, looked up under ``load_options.root`` first.
        options: ``features``: ``log-mel`` (default; 64 bands), ``log-spectrogram`` (160 x 101 for a
            second at 16 kHz) or ``wave``; ``rate``: sampling rate to resample to, 16000 by default;
            ``seconds``: length to cut or pad with zeros to, 1 by default; ``group=speaker`` keeps
            the recordings of a speaker in one split, for files named ``SPEAKER_nohash_0.wav``.
        load_options: as for every source. Splits of more bytes than ``load_options.in_memory``
            stay in files and are read when they are needed, with the same result.

    Returns:
        Inputs ``(n, rate * seconds)`` in ``[-1, 1]`` for waves, else ``(n, 1, bands, frames)``,
        float32; classes in alphabetical order.

    Raises:
        UserError: if there is no such folder or option, if a word has no recordings or none to
            train on, if a line of a list names no recording, or if a recording cannot be read.
            With ``load_options.skip_bad``, unreadable recordings, such lines and empty
            folders are skipped.

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
    check_options("commands", options, (*Sound._fields, "group"))
    choice("group", options, ("speaker",))
    sound, shape = _sound_of(options, load_options.max_bytes)
    folder = existing(where, load_options.root, what="folder of spoken words")

    skips = {split: SkippedExamples(load_options.skip_bad) for split in ("train", *LISTS)}
    litter: Counter[str] = Counter()
    names, others = _recordings(folder, skips["train"], litter)
    classes = tuple(sorted({name.split("/")[0] for name in names}))
    numbers = {word: number for number, word in enumerate(classes)}
    targets = torch.tensor([numbers[name.split("/")[0]] for name in names])
    rows = _listed_rows(folder, names, skips)
    lists = [name for split, name in LISTS.items() if split in rows]
    grouped = "group" in options
    speakers = _speakers(folder, names, required=grouped)
    unlisted = np.ones(len(names), bool)
    for listed in rows.values():
        unlisted[listed] = False
    rest = np.flatnonzero(unlisted)
    fixed_test = "test" in rows
    if fixed_test:
        rows["train"] = rest
    else:
        own = speakers[rest] if grouped else None
        train, test = rows_by_options(targets[rest], load_options, classes, own)
        rows |= {"train": np.sort(rest[train]), "test": np.sort(rest[test])}
    classes = tuple(map(visible, classes))
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    notes = [Note(f"{len(classes)} classes, one for each folder: {shown}")]
    if lists:
        order = [split for split in ("train", "validation", "test") if split in rows]
        sizes = ", ".join(f"{len(rows[split]):,} {split}" for split in order)
        notes.append(Note(f"{sizes} recordings, by {' and '.join(lists)}"))
    if not grouped:
        notes += _speaker_notes(speakers[rows["train"]], speakers[rows["test"]], fixed_test)

    counts = RecordingCounts()
    splits: dict[str, Any] = {}
    every = True
    for split, chosen in rows.items():
        stored = StoredRecordings(
            folder,
            tuple(names[row] for row in chosen),
            (len(chosen), *shape),
            sound,
            load_options.skip_bad,
            load_options.max_bytes,
            counts,
        )
        skipped, y = skips[split].sentences, targets[chosen]
        ids = speakers[chosen] if grouped else None
        if 4 * math.prod(stored.shape) > load_options.in_memory:
            splits[split] = Split(stored, y, tuple(skipped), ids)
            replace(stored, skip_bad=True).read(range(min(_FIRST, len(y))))  # for the notes
            every = False
        else:
            read = stored.read(range(len(y)))
            kept = None if ids is None else ids[read.kept]
            splits[split] = Split(read.inputs, y[read.kept], (*skipped, *read.skipped), kept)
    _check_splits(folder, splits, classes)
    return DataSet(
        classes,
        **splits,
        notes=(
            *notes,
            *litter_notes(litter),
            *loose_notes(folder, "recording"),
            *other_kinds_notes(others, "recording"),
            *counts.notes(sound.rate, sound.seconds, every=every),
        ),
        preparation={"kind": "sound", **sound._asdict()},
        fixed_test=fixed_test,
    )


def _sound_of(options: Mapping[str, str], max_bytes: int) -> tuple[Sound, tuple[int, ...]]:
    """Return the preparation that the options ask for, and the shape of its features."""
    features = choice("features", options, list(_FEATURES)) or "log-mel"
    rate = _number("rate", options.get("rate", "16000"), LOWEST_RATE, HIGHEST_RATE)
    if rate % 1:
        raise UserError(f"rate: expected an integer, got {rate}.")
    longest = min(_MOST_SECONDS, max_bytes / (4 * rate))
    seconds = _number("seconds", options.get("seconds", "1"), 1 / rate, longest)
    sound = Sound(features, int(rate), seconds)
    try:
        shape = feature_shape(sound)
    except ValueError as error:
        raise UserError(
            f"rate={int(rate)}: expected a rate from about 5,200, since the 64 bands of log-mel "
            f"need as many frequencies, got {int(rate)}. Raise it (recordings are resampled), or "
            "pass features=log-spectrogram."
        ) from error
    return sound, shape


def _speaker_notes(train: Tensor, test: Tensor, fixed_test: bool) -> list[Note]:
    both = np.intersect1d(train.numpy(), test.numpy())
    if not len(both := both[both >= 0]):
        return []
    text = f"{len(both)} speakers are in both the training and the test split"
    hint = "; results for other speakers may be worse"
    if not fixed_test:
        hint = "; ?group=speaker keeps each in one split"
    return [Note(text + hint, doubtful=not fixed_test)]


def _speakers(folder: Path, names: Sequence[str], *, required: bool) -> Tensor:
    """Return the number of the speaker of each recording, -1 if its name does not tell."""
    found = [re.fullmatch(r".*/(.+)_nohash_.*", name) for name in names]
    if required and None in found:
        raise UserError(
            f"{folder / names[found.index(None)]}: group=speaker expects names such as "
            "SPEAKER_nohash_0.wav. Rename the file, or remove the option."
        )
    speakers = sorted({match[1] for match in found if match})
    numbers = {name: number for number, name in enumerate(speakers)}
    return torch.tensor([numbers[match[1]] if match else -1 for match in found])


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise UserError(f"{name}: expected a number from {low:g} to {high:g}, got {text!r}.")
    return number


def _recordings(
    folder: Path, skips: SkippedExamples, litter: Counter[str]
) -> tuple[list[str], list[str]]:
    """Return ``word/file`` of all recordings, sorted, and of files of another kind."""
    names: list[str] = []
    others: list[str] = []
    for word in _visible_names(folder, litter):
        if word == NOISE or not (folder / word).is_dir():
            continue
        every = [f"{word}/{file}" for file in _visible_names(folder / word, litter)]
        (found,), more = without_other_kinds([every], "recording")
        others += more
        if not found:
            skips(UserError(f"{folder / word}: expected recordings, got none. Delete the folder."))
        for name in found:
            if (
                "." not in name.rpartition("/")[2]
                and (folder / name).is_dir()
                and not skips.skip_bad
            ):
                raise UserError(
                    f"{folder / name}: expected recordings directly in the folder of each word, "
                    "got a folder. Move its recordings up."
                )
        names += found
    if not names:
        raise UserError(f"{folder}: expected a folder of recordings for each word, got none.")
    return sorted(names), sorted(others)


def _visible_names(folder: Path, litter: Counter[str]) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read: {error.strerror}. Check the path and permissions."
        ) from error
    litter.update(name for name in sorted(names) if is_litter(name))
    return [name for name in names if not is_litter(name)]


def _listed_rows(
    folder: Path, names: Sequence[str], skips: Mapping[str, SkippedExamples]
) -> dict[str, np.ndarray]:
    """Return the sorted rows of each split that has a list."""
    indices = {name: row for row, name in enumerate(names)}
    rows = {}
    list_of: dict[int, str] = {}
    for split, file in LISTS.items():
        path = folder / file
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            continue
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, byte {error.start}: expected UTF-8 text, got a byte that is not valid "
                "UTF-8. Save the file as UTF-8."
            ) from error
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error
        found = set()
        for number, line in enumerate(lines, 1):
            row = indices.get(str(PurePosixPath(line.strip())))
            if not line.strip() or row in found:
                continue
            if row is not None and row not in list_of:
                found.add(row)
                continue
            problem = "not a recording in this folder" if row is None else f"in {list_of[row]} too"
            skips[split](
                UserError(
                    f"{path}, line {number}: expected word/file.wav, got {line[:200]!r}, which is "
                    f"{problem}. Delete this line."
                )
            )
        list_of |= dict.fromkeys(found, file)
        rows[split] = np.array(sorted(found), np.int64)
    return rows


def _check_splits(folder: Path, splits: Mapping[str, Split], classes: Sequence[str]) -> None:
    for name, split in splits.items():
        if not len(split):
            raise UserError(
                f"{folder}: expected recordings in the {name} split, got none. Check "
                "testing_list.txt and validation_list.txt."
                + "".join(f" {sentence}" for sentence in split.skipped[:1])
            )
    missing = np.flatnonzero(splits["train"].targets.bincount(minlength=len(classes)).numpy() == 0)
    if len(missing):
        raise UserError(
            f"{folder}: the word {classes[missing[0]]!r} has no recordings in the training "
            "split. Remove some from the lists, or move its folder away."
        )
