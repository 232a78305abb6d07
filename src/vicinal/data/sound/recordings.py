"""Decode sound files to samples of one rate and one length."""

import io
import math
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import Note
from vicinal.errors import UserError

LOWEST_RATE, HIGHEST_RATE = 1_000, 400_000
"""Sampling rates that are accepted. The resampling filter grows with the rate, and damaged headers
claim anything.
"""

_MOST_BYTES = 1 << 28
_MOST_CHANNELS = 16
_LOUDEST = 2.0
_BLOCK = 1 << 16
_HALF_FILTER = 10


_UNKNOWN = (1 << 63) - 1  # the number of frames of a stream, in libsndfile
_PLACEHOLDER = 0x7F000000
"""Programs that write WAV to a pipe put this length or a larger one into the header."""


@dataclass
class RecordingCounts:
    """Counts of the recordings that were read, and of how they were changed.

    Args:
        recordings: number of recordings that were read.
        rates: number of recordings of each other sampling rate.
        cut: number of recordings that were longer than requested.
        padded: number of recordings that were shorter than requested.
        longest: seconds of the longest of those that were cut; 0 if unknown.
        shortest: seconds of the shortest of those that were padded.
        warned: number of recordings that were read despite a wrong header.
        warning: a message about the first of them.
    """

    recordings: int = 0
    rates: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    padded: int = 0
    longest: float = 0.0
    shortest: float = math.inf
    warned: int = 0
    warning: str = ""

    def warn(self, sentence: str) -> None:
        """Count a recording that was read despite a wrong header."""
        self.warned += 1
        self.warning = self.warning or sentence

    def notes(self, rate: int, seconds: float, *, every: bool) -> tuple[Note, ...]:
        """Return notes for the user.

        Args:
            rate: sampling rate that recordings were resampled to.
            seconds: length that recordings were cut or padded to.
            every: whether all recordings were read, rather than the first ones only.
        """
        of = f"of {'' if every else 'the first '}{self.recordings} recordings"
        notes = []
        if self.rates:
            known = ", ".join(f"{own} Hz ({count})" for own, count in self.rates.most_common(5))
            total = self.rates.total()
            notes.append(Note(f"{total} {of} were resampled to {rate} Hz, from {known}"))
        if self.cut:
            known = f", the longest from {self.longest:.3g} s" if self.longest else ""
            notes.append(
                Note(
                    f"{self.cut} {of} were cut to {seconds:g} s{known}; ?seconds=N sets another "
                    "length",
                    doubtful=2 * self.cut > self.recordings,
                )
            )
        if self.padded:
            notes.append(
                Note(
                    f"{self.padded} {of} were padded with zeros to {seconds:g} s, the shortest "
                    f"from {self.shortest:.3g} s"
                )
            )
        if self.warned:
            notes.append(
                Note(
                    f"{self.warned} {of} were read despite wrong headers, such as {self.warning}",
                    doubtful=True,
                )
            )
        return tuple(notes)


def read_recording(
    path: Path,
    *,
    rate: int,
    samples: int | None = None,
    max_bytes: int = MAX_BYTES,
    counts: RecordingCounts | None = None,
) -> np.ndarray:
    """Read a sound file in any format of libsndfile, such as WAV, FLAC, Ogg and MP3.

    WAV files from pipes, whose header has no length, Ogg files without an end mark, and MP3 files
    without a Xing header are read to their end and counted in ``counts.warned``.

    Channels are averaged. Recordings are resampled by a polyphase filter
    (``scipy.signal.resample_poly``). The ratio of the rates is rounded to a fraction with a
    denominator of at most 1,000: this is exact for common rates and changes frequencies by a few
    millionths otherwise. Values that the filter moves beyond full scale are clipped.

    Args:
        path: path of the file.
        rate: sampling rate to resample to.
        samples: length to cut or pad to, at the end. None keeps the length.
        max_bytes: the most bytes that the decoded samples may take.
        counts: counts the changes.

    Returns:
        ``(samples,)`` float32, in ``[-1, 1]``.

    Raises:
        UserError: if the file cannot be read or decoded, if it has no samples, fewer samples than
            its header claims, or samples that are not finite or far beyond full scale, or if its
            rate or number of channels is out of range.

    Example:
        >>> import soundfile, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     soundfile.write(Path(folder) / "step.wav", np.full(3, 0.5), 8000)
        ...     read_recording(Path(folder) / "step.wav", rate=8000, samples=5).tolist()
        [0.5, 0.5, 0.5, 0.0, 0.0]
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path} has more than {_MOST_BYTES} bytes. Divide the recording.")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    seen = counts or RecordingCounts()
    wave, own, seconds = _decoded(data, rate, samples, str(path), max_bytes=max_bytes, counts=seen)
    wave = _resampled(wave, own, rate)
    seen.recordings += 1
    if own != rate:
        seen.rates[own] += 1
    if samples is not None and len(wave) > samples:
        seen.cut += 1
        seen.longest = max(seen.longest, seconds)
        wave = wave[:samples]
    elif samples is not None and len(wave) < samples:
        seen.padded += 1
        seen.shortest = min(seen.shortest, seconds)
        wave = np.pad(wave, (0, samples - len(wave)))
    return wave.clip(-1, 1)


def _decoded(
    data: bytes,
    rate: int,
    samples: int | None,
    where: str,
    *,
    max_bytes: int,
    counts: RecordingCounts,
) -> tuple[np.ndarray, int, float]:
    """Return the samples with averaged channels, their rate, and the seconds or 0."""
    soundfile = _soundfile()
    if not data:
        raise UserError(f"{where}: expected a recording, got an empty file. Record it again.")
    data = _checked(data, where, counts)
    try:
        with _opened(soundfile, data) as file:
            _check_claims(file, where)
            endless = file.frames == _UNKNOWN
            needed = file.frames
            if samples is not None:
                needed = min(needed, _needed(samples, file.samplerate, rate))
            most = max_bytes // (4 * file.channels)
            if needed > most and not endless:
                raise _too_large(where, needed, file.channels, max_bytes)
            wave = _frames(file, min(needed, most + 1))
            if len(wave) > most:
                raise _too_large(where, len(wave), file.channels, max_bytes)
            found = len(wave)
            if endless:
                needed = found
                counts.warn(f"{where} (its header has no length, so its end may be missing)")
            elif found == needed < file.frames:
                # A file whose end is missing may be damaged elsewhere too.
                file.seek(file.frames - 1)
                found = file.frames - 1 + len(file.read(1))
            claimed, own = file.frames, file.samplerate
            whole = not endless or samples is None or found < _needed(samples, own, rate)
            seconds = (found if endless else claimed) / own if whole else 0.0
    except UserError:
        raise
    except Exception as error:  # decoders may raise anything
        # soundfile's own message names an object in memory instead of the file
        reason = getattr(error, "error_string", "") or str(error) or type(error).__name__
        raise UserError(
            f"{where}: expected a recording, got {_kind(data)} that cannot be decoded "
            f"({reason.rstrip('.')}). It is damaged, incomplete, or not a sound file."
        ) from error
    if found < needed or len(wave) < needed:
        raise UserError(
            f"{where}: expected {claimed} samples as its header claims, got {found}. It is "
            "incomplete, or its header is damaged."
        )
    if not len(wave):
        raise UserError(f"{where}: the recording has no samples. Record it again.")
    _check_samples(wave, where)
    return wave.mean(1, dtype=np.float32), own, seconds


def _too_large(where: str, frames: int, channels: int, max_bytes: int) -> UserError:
    return UserError(
        f"{where}: {frames} samples of {channels} channels take {4 * frames * channels} bytes once "
        f"they are decoded, more than max_bytes = {max_bytes}. Raise max_bytes if the file is "
        "not damaged."
    )


@contextmanager
def _opened(soundfile: Any, data: bytes) -> Iterator[Any]:
    """Open a sound file; as a stream if its header has no length.

    libsndfile estimates the length of such an MP3 file from its first frame and stops there.
    """
    if _has_length(data):
        with soundfile.SoundFile(_Bytes(data)) as file:
            yield file
        return
    reading, writing = os.pipe()
    thread = Thread(target=_write, args=(writing, data), daemon=True)
    thread.start()
    try:
        with soundfile.SoundFile(reading, closefd=False) as file:
            yield file
    finally:
        os.close(reading)  # ends the thread if it is still writing
        thread.join()


def _has_length(data: bytes) -> bool:
    mp3 = data[:3] == b"ID3" or data[:1] == b"\xff"
    return not mp3 or any(word in data[: 1 << 16] for word in (b"Xing", b"Info", b"VBRI"))


def _write(descriptor: int, data: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _frames(file: Any, count: int) -> np.ndarray:
    """Read in blocks, so that a wrong length in the header allocates no memory."""
    blocks = []
    left = count
    while left > 0:
        block = file.read(min(left, _BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block)
        left -= len(block)
    return np.concatenate(blocks) if blocks else np.empty((0, 1), np.float32)


class _Bytes(io.BytesIO):
    """Bytes whose ``seek`` returns -1 for invalid offsets instead of raising.

    libsndfile seeks to offsets from damaged files, and exceptions cannot pass through it.
    """

    def seek(self, offset: int, whence: int = 0, /) -> int:
        start = (0, self.tell(), len(self.getbuffer()))[whence]
        if not 0 <= start + offset < 1 << 62:
            return -1
        return super().seek(offset, whence)


def _check_claims(file: Any, where: str) -> None:
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        raise UserError(
            f"{where}: expected a sampling rate from {LOWEST_RATE} to {HIGHEST_RATE} Hz, got "
            f"{file.samplerate}. Its header is damaged, or resample it."
        )
    if not 0 < file.channels <= _MOST_CHANNELS:
        raise UserError(
            f"{where}: expected at most {_MOST_CHANNELS} channels, got {file.channels}. Its header "
            "is damaged, or save it as mono."
        )
    if file.frames <= 0:
        raise UserError(f"{where}: the recording has no samples. Record it again.")


def _check_samples(wave: np.ndarray, where: str) -> None:
    finite = np.isfinite(wave).all(axis=1)
    if not finite.all():
        raise UserError(
            f"{where}: sample {int(finite.argmin())} is not a finite number. Save it again."
        )
    loudest = float(np.abs(wave).max())
    if loudest > _LOUDEST:
        raise UserError(
            f"{where}: expected samples within the full scale of 1, got {loudest:g}. Divide them "
            "by the full scale of the recording."
        )


def _checked(data: bytes, where: str, counts: RecordingCounts) -> bytes:
    """Return a file with the right lengths in its header.

    Raises:
        UserError: if it is truncated, which libsndfile ignores.
    """
    if data[:4] in {b"RIFF", b"RIFX", b"FORM"}:
        order = "<" if data[:4] == b"RIFF" else ">"
        if data[:4] != b"FORM" and (corrected := _corrected(data, order)):
            counts.warn(f"{where} (the lengths in its header are wrong)")
            return corrected
        _check_chunks(data, order, where)
    elif data[:4] == b"fLaC" and not (data[21:22] and (data[21] & 15 or any(data[22:26]))):
        raise UserError(
            f"{where}: this FLAC file has no length in its header, as those from pipes, and "
            "libsndfile cannot read it. Decode it to WAV with another program, or encode it again."
        )
    elif data[:4] == b"OggS":
        at = data.rfind(b"OggS")
        head = data[at : at + 27]
        lengths = data[at + 27 : at + 27 + head[-1]]
        ends = at + 27 + head[-1] + sum(lengths) if len(head) == 27 else len(data) + 1
        if ends > len(data):
            raise UserError(f"{where}, byte {at}: the last page of this Ogg file is cut off.")
        if not head[5] & 4:
            counts.warn(
                f"{where} (its last page is not marked as the last; its end may be missing)"
            )
    return data


def _corrected(data: bytes, order: str) -> bytes | None:
    """Return a WAV file with corrected lengths, or None if they are right or data are missing.

    Lengths are corrected if only that of the whole file is wrong, or if both are placeholders of
    programs that do not know the length yet: 0, or nearly 2 or 4 GB.
    """
    number = struct.Struct(f"{order}I")
    at = 12
    while at + 8 <= len(data) and data[at : at + 4] != b"data":
        at += 8 + number.unpack_from(data, at + 4)[0]
        at += at & 1
    if at + 8 > len(data):
        return None
    whole, samples = (number.unpack_from(data, k)[0] for k in (4, at + 4))
    left = len(data) - at - 8
    if samples >= _PLACEHOLDER or (samples == 0 and (whole == 0 or whole >= _PLACEHOLDER)):
        if not left:
            return None
        return (
            data[:4]
            + number.pack(len(data) - 8)
            + data[8 : at + 4]
            + number.pack(left)
            + data[at + 8 :]
        )
    while at + 8 <= len(data):
        at += 8 + number.unpack_from(data, at + 4)[0]
        at += at & 1
    if at not in {len(data), len(data) + 1} or whole + 8 in {at, at - 1}:
        return None
    return data[:4] + number.pack(len(data) - 8) + data[8:]


def _check_chunks(data: bytes, order: str, where: str) -> None:
    """Check that the chunks of a WAV or AIFF file fill it; a byte may pad each of odd length."""
    read = struct.Struct(f"{order}4sI")
    if len(data) < 12:
        raise UserError(f"{where}: expected a recording, got {len(data)} bytes. It is incomplete.")
    end = 8 + read.unpack_from(data)[1]
    before, at = 0, 12
    while at + read.size <= min(end, len(data)):
        before = at
        at += read.size + read.unpack_from(data, at)[1]
        at += at & 1
    if end > len(data) + 1 or not end <= at <= end + 1 or at > len(data) + 1:
        name = data[before : before + 4].decode("ascii", "replace")
        raise UserError(
            f"{where}, byte {before}: chunk {name!r} should end with the file at byte "
            f"{min(end, len(data))}, but claims to end at {at}, and the whole file at {end}, of "
            f"{len(data)} bytes. It is incomplete, or its header is damaged."
        )


def _ratio(own: int, rate: int) -> Fraction:
    return Fraction(rate, own).limit_denominator(1000)


def _needed(samples: int, own: int, rate: int) -> int:
    """Return how many input samples determine the first output samples."""
    ratio = _ratio(own, rate)
    return math.ceil(samples / ratio) + math.ceil(_HALF_FILTER * max(Fraction(1), 1 / ratio)) + 1


def _resampled(wave: np.ndarray, own: int, rate: int) -> np.ndarray:
    ratio = _ratio(own, rate)
    if ratio == 1:
        return wave
    from scipy.signal import resample_poly

    up, down = ratio.numerator, ratio.denominator
    resampled: np.ndarray = resample_poly(wave, up, down, window=_filter(max(up, down)))
    return resampled


@lru_cache(maxsize=4)
def _filter(most: int) -> Any:
    """Return the default filter of resample_poly, which would design it anew for each file."""
    from scipy.signal import firwin

    taps = firwin(2 * _HALF_FILTER * most + 1, 1 / most, window=("kaiser", 5.0))
    return taps.astype(np.float32)


def _kind(data: bytes) -> str:
    kinds = {b"RIFF": "a WAV file", b"fLaC": "a FLAC file", b"OggS": "an Ogg file"}
    return kinds.get(data[:4], f"a file that begins with {data[:8].hex(' ')}")


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise UserError(
            f"reading recordings requires soundfile, which cannot be imported ({error}). "
            "Run pip install soundfile."
        ) from error
    return soundfile
