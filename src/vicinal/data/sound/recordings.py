"""Decoding recordings: from the bytes of a sound file to samples of one rate and one length."""

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
"""Recordings that claim another number of samples a second are refused: damaged headers claim
anything, and the filter that resamples grows with it.
"""

_MOST_BYTES = 1 << 28
_MOST_CHANNELS = 16
_LOUDEST = 2.0
_BLOCK = 1 << 16
_HALF_FILTER = 10


_UNKNOWN = (1 << 63) - 1  # frames, as libsndfile counts those of a stream
_PLACEHOLDER = 0x7F000000
"""Lengths from here on are what pipes write into a WAV header whose end they do not know."""


@dataclass
class Heard:
    """What was changed in the recordings that were read, counted.

    Args:
        recordings: how many were read.
        rates: how many had each other sampling rate.
        cut: how many were longer than was asked for.
        padded: how many were shorter.
        longest: of those that were cut, in seconds; 0 if none says its length.
        shortest: of those that were padded, in seconds.
        warned: how many were read though their header is wrong.
        warning: a sentence about the first of them.
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
        """Count a recording that was read with a warning."""
        self.warned += 1
        self.warning = self.warning or sentence

    def notes(self, rate: int, seconds: float, *, every: bool) -> tuple[Note, ...]:
        """Return what a user should know.

        Args:
            rate: samples a second that recordings were brought to.
            seconds: length that they were brought to.
            every: whether all were read, not only the first ones.
        """
        looked = "" if every else "the first "
        of = f"of {looked}{self.recordings} recordings{'' if every else ' looked at'}"
        notes = []
        if self.rates:
            known = ", ".join(f"{own} Hz ({count})" for own, count in self.rates.most_common(5))
            total = self.rates.total()
            notes.append(Note(f"{total} {of} were resampled to {rate} Hz, from {known}"))
        if self.cut:
            known = f", the longest from {self.longest:.3g} s" if self.longest else ""
            notes.append(
                Note(
                    f"{self.cut} {of} were cut to {seconds:g} s{known}; seconds=N in the data's "
                    "name sets another length",
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
                    f"{self.warned} {of} were read though their headers are wrong, such as "
                    f"{self.warning}",
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
    heard: Heard | None = None,
) -> np.ndarray:
    """Read a sound file: WAV, FLAC, Ogg, MP3 and whatever else libsndfile reads.

    A WAV file whose header has no length, as pipes write it, an Ogg file without an end mark and an
    MP3 file without a Xing header are read to their end, and counted in ``heard.warned``.

    Channels are averaged. Another sampling rate is brought to the wanted one by a polyphase filter
    (``scipy.signal.resample_poly``); the ratio of the rates is rounded to a fraction whose
    denominator is at most 1,000, which is exact for the usual rates and keeps frequencies to a few
    millionths else. What goes beyond full scale by the filter is clipped.

    Args:
        path: of the file.
        rate: wanted samples a second.
        samples: wanted length. Longer recordings lose their end, shorter ones get zeros behind.
            None leaves the length as it is.
        max_bytes: the most bytes that the decoded samples may take.
        heard: counts what was changed.

    Returns:
        ``(samples,)`` float32, in ``[-1, 1]``.

    Raises:
        UserError: if the file cannot be read or is no sound file, if it holds no samples, fewer
            than it claims, or some that are not finite or far beyond full scale, or if it claims a
            rate or a number of channels that recordings don't have.

    Example:
        >>> import soundfile, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     soundfile.write(Path(folder) / "step.wav", np.full(3, 0.5), 8000)
        ...     read_recording(Path(folder) / "step.wav", rate=8000, samples=5).tolist()
        [0.5, 0.5, 0.5, 0.0, 0.0]
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path}: recordings of more than {_MOST_BYTES} bytes are not read")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check the path") from error
    seen = heard or Heard()
    wave, own, seconds = _decoded(data, rate, samples, str(path), max_bytes=max_bytes, heard=seen)
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
    data: bytes, rate: int, samples: int | None, where: str, *, max_bytes: int, heard: Heard
) -> tuple[np.ndarray, int, float]:
    """Return the samples, channels averaged, how many make a second, and the seconds or 0."""
    soundfile = _soundfile()
    if not data:
        raise UserError(f"{where}: wanted a recording, found an empty file; record it again")
    data = _checked(data, where, heard)
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
                heard.warn(f"{where} (it does not say its length, so its end may be missing)")
            elif found == needed < file.frames:
                # The end isn't wanted, but a file that lacks it is not to be trusted.
                file.seek(file.frames - 1)
                found = file.frames - 1 + len(file.read(1))
            claimed, own = file.frames, file.samplerate
            whole = not endless or samples is None or found < _needed(samples, own, rate)
            seconds = (found if endless else claimed) / own if whole else 0.0
    except UserError:
        raise
    except Exception as error:  # decoders of foreign bytes raise what they like
        # soundfile's own sentence names an object in memory where ours names the file
        reason = getattr(error, "error_string", "") or str(error) or type(error).__name__
        raise UserError(
            f"{where}: wanted a recording, found {_kind(data)} that cannot be decoded "
            f"({reason.rstrip('.')}); it is damaged, incomplete or no sound file"
        ) from error
    if found < needed or len(wave) < needed:
        raise UserError(
            f"{where}: it claims {claimed} samples, of which {found} are there; it is incomplete "
            "or its header is damaged"
        )
    if not len(wave):
        raise UserError(f"{where}: the recording holds no samples; record it again")
    _check_samples(wave, where)
    return wave.mean(1, dtype=np.float32), own, seconds


def _too_large(where: str, frames: int, channels: int, max_bytes: int) -> UserError:
    return UserError(
        f"{where}: {frames} samples of {channels} channels take {4 * frames * channels} bytes once "
        f"they are decoded, more than max_bytes = {max_bytes}; raise max_bytes if the file is "
        "genuine"
    )


@contextmanager
def _opened(soundfile: Any, data: bytes) -> Iterator[Any]:
    """Open a sound file; one that does not say its length as a stream, to be read to its end.

    libsndfile guesses the length of an MP3 from the first frame and reads no further than that.
    """
    if _says_length(data):
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
        os.close(reading)  # the thread may still be writing, and ends now
        thread.join()


def _says_length(data: bytes) -> bool:
    mp3 = data[:3] == b"ID3" or data[:1] == b"\xff"
    return not mp3 or any(word in data[: 1 << 16] for word in (b"Xing", b"Info", b"VBRI"))


def _write(descriptor: int, data: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _frames(file: Any, count: int) -> np.ndarray:
    """Read in blocks, so that memory is taken for what is there rather than what is claimed."""
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
    """Bytes that answer a seek to before the beginning as C files do, without an exception.

    libsndfile seeks by offsets that damaged files hold, and no exception gets through it.
    """

    def seek(self, offset: int, whence: int = 0, /) -> int:
        start = (0, self.tell(), len(self.getbuffer()))[whence]
        if not 0 <= start + offset < 1 << 62:
            return -1
        return super().seek(offset, whence)


def _check_claims(file: Any, where: str) -> None:
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        raise UserError(
            f"{where}: it claims {file.samplerate} samples a second, where {LOWEST_RATE} to "
            f"{HIGHEST_RATE} are read; its header is damaged, or save it with another rate"
        )
    if not 0 < file.channels <= _MOST_CHANNELS:
        raise UserError(
            f"{where}: it claims {file.channels} channels, where at most {_MOST_CHANNELS} are "
            "read; its header is damaged, or save it as mono"
        )
    if file.frames <= 0:
        raise UserError(f"{where}: the recording holds no samples; record it again")


def _check_samples(wave: np.ndarray, where: str) -> None:
    finite = np.isfinite(wave).all(axis=1)
    if not finite.all():
        raise UserError(
            f"{where}: sample {int(finite.argmin())} is not a finite number; save it again"
        )
    loudest = float(np.abs(wave).max())
    if loudest > _LOUDEST:
        raise UserError(
            f"{where}: samples reach {loudest:g}, where full scale is 1; divide them by what was "
            "full scale when they were recorded"
        )


def _checked(data: bytes, where: str, heard: Heard) -> bytes:
    """Return a file whose lengths are right.

    Raises:
        UserError: if it is shorter than its own structure, which libsndfile passes over.
    """
    if data[:4] in {b"RIFF", b"RIFX", b"FORM"}:
        order = "<" if data[:4] == b"RIFF" else ">"
        if data[:4] != b"FORM" and (mended := _mended(data, order)):
            heard.warn(f"{where} (the lengths in its header are wrong)")
            return mended
        _check_chunks(data, order, where)
    elif data[:4] == b"fLaC" and not (data[21:22] and (data[21] & 15 or any(data[22:26]))):
        raise UserError(
            f"{where}: this FLAC file does not say its length, as those from pipes, and libsndfile "
            "cannot read it; decode it to WAV with another program, or encode it again"
        )
    elif data[:4] == b"OggS":
        at = data.rfind(b"OggS")
        head = data[at : at + 27]
        lengths = data[at + 27 : at + 27 + head[-1]]
        ends = at + 27 + head[-1] + sum(lengths) if len(head) == 27 else len(data) + 1
        if ends > len(data):
            raise UserError(
                f"{where}, byte {at}: the last page of this Ogg file is cut; it is incomplete"
            )
        if not head[5] & 4:
            heard.warn(f"{where} (its last page is not marked as the last; its end may be missing)")
    return data


def _mended(data: bytes, order: str) -> bytes | None:
    """Return a WAV file with right lengths, where they are wrong and all samples are there.

    Only the length of the whole file is wrong, or both lengths are those that programs write which
    do not know the end yet: 0, or nearly 2 or 4 GB.
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
        raise UserError(f"{where}: wanted a recording, found {len(data)} bytes; it is incomplete")
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
            f"{len(data)} bytes; it is incomplete or its header is damaged"
        )


def _ratio(own: int, rate: int) -> Fraction:
    return Fraction(rate, own).limit_denominator(1000)


def _needed(samples: int, own: int, rate: int) -> int:
    """Return how many samples of its own rate decide the first ones of the wanted rate."""
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
    """Return the filter that resample_poly designs by itself, for every file anew."""
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
            f"recordings are read by soundfile, which is missing ({error}); "
            "try: pip install soundfile"
        ) from error
    return soundfile
