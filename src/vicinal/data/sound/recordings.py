"""Read sound files as samples of one rate and one length."""

import math
import os
import stat
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from threading import Thread

import numpy as np

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import Note
from vicinal.errors import UserError

LOWEST_RATE, HIGHEST_RATE = 1_000, 400_000
"""Accepted sampling rates. A damaged header can claim any rate, and the memory and time of
resampling grow with it.
"""

_MOST_BYTES = 1 << 28
_MOST_CHANNELS = 16
_LOUDEST = 2.0
_UNKNOWN = (1 << 63) - 1  # libsndfile's number of frames of an MP3 stream
_PLACEHOLDER = 0x7F000000  # programs that write WAV to a pipe claim this length or a larger one


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

    def warn(self, message: str) -> None:
        """Count a recording that was read despite a wrong header."""
        self.warned += 1
        self.warning = self.warning or message

    def notes(self, rate: int, seconds: float, *, every: bool) -> tuple[Note, ...]:
        """Return notes for the user.

        Args:
            rate: sampling rate that recordings were resampled to.
            seconds: length that recordings were cut or padded to.
            every: whether all recordings were read, rather than the first ones only.
        """
        known = ", ".join(f"{own} Hz ({count})" for own, count in self.rates.most_common(5))
        length, all_or_first = f"{seconds:g} s", "" if every else "the first "
        longest = f", the longest from {self.longest:.3g} s" if self.longest else ""
        changes = (
            (self.rates.total(), f"resampled to {rate} Hz, from {known}", False),
            (
                self.cut,
                f"cut to {length}{longest}; ?seconds=N sets another length",
                2 * self.cut > self.recordings,
            ),
            (
                self.padded,
                f"padded with zeros to {length}, the shortest from {self.shortest:.3g} s",
                False,
            ),
            (self.warned, f"read despite wrong headers, such as {self.warning}", True),
        )
        of = f"of {all_or_first}{self.recordings} recordings were"
        return tuple(Note(f"{n} {of} {change}", doubtful) for n, change, doubtful in changes if n)


def read_recording(
    path: Path,
    *,
    rate: int,
    samples: int | None = None,
    max_bytes: int = MAX_BYTES,
    counts: RecordingCounts | None = None,
) -> np.ndarray:
    """Read a sound file in any format of libsndfile, such as WAV, FLAC, Ogg and MP3.

    Files whose header has no length or a wrong one, such as WAV files from pipes and MP3 files
    without a Xing or VBRI header, and Ogg files without an end mark are read to their end and
    counted in ``counts.warned``.

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
    counts = counts or RecordingCounts()
    try:
        wave, own, seconds = _decode(path, rate, samples, max_bytes, counts)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    except Exception as error:  # decoders may raise anything
        # Without the file descriptor that soundfile's own message names.
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise UserError(
            f"{path}: expected a recording, got a file that libsndfile cannot decode ({reason}). "
            "It is damaged, incomplete, or in another format. Try to convert it to WAV."
        ) from error
    counts.recordings += 1
    if own != rate:
        counts.rates[own] += 1
    ratio = _ratio(own, rate)
    if ratio != 1:
        from scipy.signal import resample_poly

        wave = resample_poly(wave, ratio.numerator, ratio.denominator)
    if samples is not None and len(wave) > samples:
        counts.cut += 1
        counts.longest = max(counts.longest, seconds)
        wave = wave[:samples]
    elif samples is not None and len(wave) < samples:
        counts.padded += 1
        counts.shortest = min(counts.shortest, seconds)
        wave = np.pad(wave, (0, samples - len(wave)))
    return wave.clip(-1, 1)


def _ratio(own: int, rate: int) -> Fraction:
    return Fraction(rate, own).limit_denominator(1000)


def _decode(
    path: Path, rate: int, samples: int | None, max_bytes: int, counts: RecordingCounts
) -> tuple[np.ndarray, int, float]:
    """Return the mean of the channels, its rate, and its seconds, which are 0 if unknown."""
    import soundfile

    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
        raise UserError(f"{path}: expected a recording, got something that is not a file.")
    if status.st_size > _MOST_BYTES:
        raise UserError(f"{path} has more than {_MOST_BYTES} bytes. Divide the recording.")
    data = path.read_bytes()
    to_stream = _check_lengths(path, data, counts)
    with (
        path.open("rb") as stored,
        _pipe(to_stream) if to_stream else nullcontext(stored.fileno()) as source,
        # Without its name, since libsndfile decodes any bytes in files named *.au or *.gsm.
        soundfile.SoundFile(source, closefd=False) as file,
    ):
        own, frames, channels = file.samplerate, file.frames, file.channels
        for name, value, low, high in (
            ("a sampling rate", own, LOWEST_RATE, HIGHEST_RATE),
            ("a number of channels", channels, 1, _MOST_CHANNELS),
        ):
            if not low <= value <= high:
                raise UserError(
                    f"{path}: expected {name} from {low} to {high}, got {value}. Its header is "
                    "damaged, or the recording has to be converted."
                )
        needed = frames
        if samples is not None:  # the result depends only on the beginning
            ratio = _ratio(own, rate)
            half_filter = math.ceil(10 * max(Fraction(1), 1 / ratio))  # of resample_poly
            needed = min(frames, math.ceil(samples / ratio) + half_filter + 1)
        most = max_bytes // (4 * channels)
        wave = file.read(min(needed, most + 1), dtype="float32", always_2d=True)
        if len(wave) > most:
            raise UserError(
                f"{path}: expected at most max_bytes = {max_bytes} bytes of decoded samples, got "
                "more. Raise max_bytes if the file is not damaged."
            )
        if frames == _UNKNOWN:
            frames = len(wave) if len(wave) < needed else 0
        elif len(wave) < needed:
            raise UserError(
                f"{path}: expected {frames} samples as its header claims, got {len(wave)}. Copy "
                "the file again; it is incomplete, or its header is damaged."
            )
        elif needed < frames and file.seekable():
            file.seek(frames - 1)  # fails in truncated files, which may be damaged elsewhere too
    _check_samples(path, wave)
    return wave.mean(1, dtype=np.float32), own, frames / own


def _check_lengths(path: Path, data: bytes, counts: RecordingCounts) -> bytes | None:
    """Check that a file is complete where libsndfile would read an incomplete one.

    Returns the bytes to read as a stream if libsndfile would not read the file to its end.
    """
    if data[:4] in {b"RIFF", b"RIFX", b"FORM"}:
        header = struct.Struct("<4sI" if data[:4] == b"RIFF" else ">4sI")
        whole = 8 + header.unpack_from(data)[1]
        at = end = 12
        samples = False
        while at + 8 <= len(data) and not (samples and whole in {at, end}):
            name, size = header.unpack_from(data, at)
            samples = samples or name in {b"data", b"SSND"}
            if name == b"data" and (size >= _PLACEHOLDER or (size == 0 and whole == 8)):
                counts.warn(f"{path} (its header has no length, so its end may be missing)")
                left = header.pack(name, len(data) - at - 8)
                return None if size else data[:at] + left + data[at + 8 :]
            end = at + 8 + size
            at = end + end % 2
        if end > len(data) or not {at, end} & {whole, len(data)}:
            raise UserError(
                f"{path}: expected {end} bytes, by the lengths in its header, got "
                f"{len(data)}. It is incomplete, or its header is damaged."
            )
        if whole not in {at, end}:
            counts.warn(f"{path} (the length of the file in its header is wrong)")
    elif data[:4] == b"OggS":
        page = data[data.rfind(b"OggS") :]
        if len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
            raise UserError(
                f"{path}: the last page of this Ogg file is incomplete. Copy the whole file again."
            )
        if not page[5] & 4:
            counts.warn(f"{path} (its last page is not marked as the last, so more may be missing)")
    elif data[:3] == b"ID3" or data[:1] == b"\xff":
        start = 0
        if data[:3] == b"ID3":  # a tag, whose header has its size: 7 bits in each of 4 bytes
            start = 10 + sum(byte << 7 * (9 - k) for k, byte in enumerate(data[6:10], 6))
        if not any(word in data[start : start + 200] for word in (b"Xing", b"Info", b"VBRI")):
            counts.warn(f"{path} (its header has no length, so its end may be missing)")
            return data
    return None


@contextmanager
def _pipe(data: bytes) -> Iterator[int]:
    """Open a pipe with the bytes of a file, which libsndfile reads to its end.

    In a file, it would stop at the end of an MP3 file that it estimates.
    """
    reading, writing = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as file:
            file.write(data)

    thread = Thread(target=write, daemon=True)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)  # ends the thread if it is still writing
        thread.join()


def _check_samples(path: Path, wave: np.ndarray) -> None:
    if not len(wave):
        raise UserError(f"{path}: the recording has no samples. Record it again.")
    finite = np.isfinite(wave).all(axis=1)
    if not finite.all():
        raise UserError(
            f"{path}: expected finite samples, got nan or infinity at sample "
            f"{int(finite.argmin())}. Save the recording again."
        )
    loudest = float(np.abs(wave).max())
    if loudest > _LOUDEST:
        raise UserError(
            f"{path}: expected samples within the full scale of 1, got {loudest:g}. Divide them "
            "by the full scale of the recording."
        )
