"""Spoken words in the layout of Google's speech commands: a folder a word, the parts in lists."""

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
    OnBad,
    ReadResult,
    SkippedExamples,
    Split,
)
from vicinal.data.formats.file_listing import file_identity, is_litter, litter_notes
from vicinal.data.sound.recordings import HIGHEST_RATE, LOWEST_RATE, Heard, read_recording
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
_FIRST = 100  # recordings of a split in files that are looked at when it is loaded


class _Sound(NamedTuple):
    """What becomes of a recording."""

    features: str = "log-mel"
    rate: int = 16000
    seconds: float = 1.0

    @property
    def samples(self) -> int:
        return round(self.rate * self.seconds)


@dataclass(frozen=True, eq=False)
class StoredRecordings:
    """Recordings that stay in files; read, and their features worked out, when asked for.

    Args:
        folder: that the names are relative to.
        names: ``word/file.wav`` of each.
        shape: ``(n, samples)`` for waves, else ``(n, 1, bands, frames)``.
        features: ``log-mel``, ``log-spectrogram`` or ``wave``.
        rate: samples a second, to which recordings are resampled.
        samples: to which they are padded or cut.
        on_bad: what is done about a recording that cannot be read.
        max_bytes: the most bytes that a decoded recording may take.
        heard: what was changed in the recordings that were read, counted.
    """

    folder: Path
    names: tuple[str, ...]
    shape: tuple[int, ...]
    features: str
    rate: int
    samples: int
    on_bad: OnBad = "raise"
    max_bytes: int = MAX_BYTES
    heard: Heard = field(default_factory=Heard)
    dtype: torch.dtype = field(default=torch.float32, init=False)

    def identity(self, row: int) -> str:
        """Return the name of a recording below the folder, and its size."""
        return file_identity(self.folder, str(self.names[row]))

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Read some recordings: ``(k, *shape[1:])`` float32.

        Raises:
            UserError: if one cannot be read, and is not to be skipped.
        """
        features = _FEATURES[self.features]
        inputs = torch.empty(len(rows), *self.shape[1:])
        skips = SkippedExamples(self.on_bad)
        kept: list[int] = []
        for position, row in enumerate(rows):
            path = self.folder / self.names[row]
            try:
                wave = read_recording(
                    path,
                    rate=self.rate,
                    samples=self.samples,
                    max_bytes=self.max_bytes,
                    heard=self.heard,
                )
            except UserError as error:
                skips(error)
                continue
            # One at a time, since a batch may be summed in another order: a recording's numbers
            # are not to depend on its company.
            with cpu_threads(1):
                inputs[len(kept)] = features(torch.from_numpy(wave)[None], self.rate)[0]
            kept.append(position)
        return ReadResult(inputs[: len(kept)], np.array(kept, np.int64), skips.sentences)


def load_commands(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    r"""Load spoken words from a folder in the layout of Google's speech commands.

    Each folder in it is a class, each file in that a recording, but for names that begin with a
    dot and ``_background_noise_``. ``testing_list.txt`` and ``validation_list.txt`` name the
    recordings of those parts (``word/file.wav``, one a line); the others are trained on. Without
    the first list, a share of the recordings is drawn to test on, whoever speaks in them; without
    the second, there is no validation part. The layout is Warden's, 2018
    (https://arxiv.org/abs/1804.03209, section 6).

    Args:
        where: the folder, looked for under ``wanted.root`` first.
        options: ``features``: ``log-mel`` (default; 64 bands), ``log-spectrogram`` (160 x 101 for a
            second at 16 kHz) or ``wave``; ``rate``: samples a second, to which recordings are
            resampled, 16000 by default; ``seconds``: their length, 1 by default: the end of longer
            ones is cut, shorter ones get zeros behind.
        wanted: what any source is asked. Parts of more bytes than ``wanted.in_memory`` stay in
            files and are read when they are asked for: the same numbers either way.

    Returns:
        Inputs ``(n, rate * seconds)`` in ``[-1, 1]`` for waves, else ``(n, 1, bands, frames)``,
        float32; classes in alphabetical order.

    Raises:
        UserError: if there is no such folder or option, if a word has no recordings or none to
            train on, if a list names what is not there, or if a recording cannot be read; with
            ``wanted.on_bad="skip"``, single recordings, lines of lists and empty folders are left
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
            f"wanted a folder of spoken words, found none at {where or 'an empty path'!r}, neither "
            f"under {wanted.root} nor as it stands; check the path"
        )
    skips = {part: SkippedExamples(wanted.on_bad) for part in ("train", "validation", "test")}
    heard = Heard()
    litter: Counter[str] = Counter()
    words = _recordings(folder, skips["train"], litter)
    classes = tuple(sorted({name.split("/")[0] for name in words}))
    rows = _parts(folder, words, classes, wanted, skips)
    parts = {
        part: _part(
            folder,
            [words[row] for row in chosen],
            classes,
            sound=sound,
            wanted=wanted,
            skips=skips[part],
            heard=heard,
        )
        for part, chosen in rows.items()
    }
    _check_parts(folder, parts, classes)
    return DataSet(
        classes,
        parts["train"],
        parts["test"],
        parts.get("validation"),
        notes=_notes(parts, classes, sound=sound, heard=heard, litter=litter),
        preparation={"kind": "sound", **sound._asdict()},
    )


def _notes(
    parts: Mapping[str, Split],
    classes: Sequence[str],
    *,
    sound: _Sound,
    heard: Heard,
    litter: Counter[str],
) -> tuple[Note, ...]:
    every = True
    for part in parts.values():
        if isinstance(part.inputs, StoredRecordings):
            every = False
            first = replace(part.inputs, on_bad="skip", heard=heard)
            first.read(range(min(_FIRST, len(part))))
    several = f"{len(classes)} classes, a folder each: {', '.join(classes[:10])}"
    notes = [Note(several + (", ..." if len(classes) > 10 else ""))]
    return (*notes, *litter_notes(litter), *heard.notes(sound.rate, sound.seconds, every=every))


def background_noise(folder: Path, rate: int) -> Tensor:
    """Read the recordings of noise that come with Google's speech commands, joined.

    Args:
        folder: of the data set; those are its ``_background_noise_/*.wav``.
        rate: samples a second, to which they are resampled.

    Returns:
        ``(m,)`` float32 in ``[-1, 1]``, in the alphabetical order of the files.

    Raises:
        UserError: if there is none, or one cannot be read.
    """
    paths = sorted((folder / NOISE).glob("*.wav"))
    if not paths:
        raise UserError(
            f"{folder / NOISE}: wanted WAV files of background noise, found none; train without "
            "added noise, or put some there"
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
        raise UserError(f"rate: wanted a whole number of samples a second, found {rate}")
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
        raise UserError(f"{name}: wanted a number from {least:g} to {most:g}, found {text!r}")
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
                    raise UserError(f"{file.path}: wanted a recording, found no file; move it away")
            except UserError as error:
                skips(error)
            else:
                found.append(f"{word.name}/{file.name}")
        if not found:
            skips(UserError(f"{word.path}: wanted recordings of a word, found none; delete it"))
        names.extend(found)
    if not names:
        raise UserError(f"{folder}: wanted a folder of recordings for each word, found none")
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
        except (OSError, RuntimeError):  # a circle of links
            inside = False
        if not inside:
            raise UserError(f"{path} links to outside {folder}; copy the recording instead")


def _parts(
    folder: Path,
    names: Sequence[str],
    classes: Sequence[str],
    wanted: LoadOptions,
    skips: Mapping[str, SkippedExamples],
) -> dict[str, np.ndarray]:
    """Return the rows of each part."""
    places = {name: row for row, name in enumerate(names)}
    rows = {}
    taken: dict[int, str] = {}
    for part, file in LISTS.items():
        listed = _listed(folder / file, places, taken, skips[part])
        if listed is not None:
            rows[part] = listed
    rest = np.array([row for row in range(len(names)) if row not in taken], np.int64)
    if "test" not in rows:
        targets = _targets([names[row] for row in rest], classes)
        train, test = train_test_rows(
            targets, fraction=wanted.test_fraction, seed=wanted.seed, classes=classes
        )
        return rows | {"train": np.sort(rest[train]), "test": np.sort(rest[test])}
    return rows | {"train": rest}


def _listed(
    file: Path, places: Mapping[str, int], taken: dict[int, str], skips: SkippedExamples
) -> np.ndarray | None:
    """Return the rows of the recordings that a list names, sorted; None where there is no list."""
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}, byte {error.start}: wanted a list of paths as text") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    rows = set()
    for number, line in enumerate(lines, 1):
        path = PurePosixPath(line.strip())
        row = places.get(str(path))
        if not path.parts or row in rows:
            continue
        try:
            if path.is_absolute() or ".." in path.parts:
                raise UserError(
                    f"{file}, line {number}: {line[:200]!r} points outside the folder; wanted "
                    "word/file.wav"
                )
            if row is None:
                raise UserError(
                    f"{file}, line {number}: {line[:200]!r} is not there; wanted word/file.wav"
                )
            if row in taken:
                raise UserError(
                    f"{file}, line {number}: {line[:200]!r} is in {taken[row]} too; delete it here"
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


def _part(
    folder: Path,
    names: Sequence[str],
    classes: Sequence[str],
    *,
    sound: _Sound,
    wanted: LoadOptions,
    skips: SkippedExamples,
    heard: Heard,
) -> Split:
    if 4 * sound.samples > wanted.max_bytes:
        raise UserError(
            f"{sound.seconds:g} s at {sound.rate} Hz take {4 * sound.samples} bytes a recording, "
            f"more than max_bytes = {wanted.max_bytes}; take fewer seconds"
        )
    shape = _FEATURES[sound.features](torch.zeros(1, sound.samples), sound.rate).shape[1:]
    stored = StoredRecordings(
        folder,
        tuple(names),
        (len(names), *shape),
        sound.features,
        sound.rate,
        sound.samples,
        wanted.on_bad,
        wanted.max_bytes,
        heard,
    )
    targets = _targets(names, classes)
    if 4 * math.prod(stored.shape) > wanted.in_memory:
        return Split(stored, targets, tuple(skips.sentences))
    read = stored.read(range(len(names)))
    return Split(read.inputs, targets[read.kept], (*skips.sentences, *read.skipped))


def _check_parts(folder: Path, parts: Mapping[str, Split], classes: Sequence[str]) -> None:
    for name, part in parts.items():
        if not len(part):
            raise UserError(
                f"{folder}: its {name} part has no recordings; look into its lists"
                + "".join(f"; {sentence}" for sentence in part.skipped[:1])
            )
    missing = np.flatnonzero(parts["train"].targets.bincount(minlength=len(classes)).numpy() == 0)
    if len(missing):
        raise UserError(
            f"{folder}: the word {classes[missing[0]]!r} has no recordings to train on; take some "
            "out of the lists, or move its folder away"
        )
