"""Decoding recordings: from the bytes of a sound file to samples of one rate and one length."""

import io
import math
import struct
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

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


def read_recording(path: Path, *, rate: int, samples: int | None = None) -> np.ndarray:
    """Read a sound file: WAV, FLAC, Ogg and whatever else libsndfile reads.

    Channels are averaged. Another sampling rate is brought to the wanted one by a polyphase filter
    (``scipy.signal.resample_poly``); the ratio of the rates is rounded to a fraction whose
    denominator is at most 1,000, which is exact for the usual rates and keeps frequencies to a few
    millionths else. What goes beyond full scale by the filter is clipped.

    Args:
        path: of the file.
        rate: wanted samples a second.
        samples: wanted length. Longer recordings lose their end, shorter ones get zeros behind.
            None leaves the length as it is.

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
    wave, own = _decoded(data, rate, samples, str(path))
    wave = _resampled(wave, own, rate)[:samples]
    if samples is not None and len(wave) < samples:
        wave = np.pad(wave, (0, samples - len(wave)))
    return wave.clip(-1, 1)


def _decoded(data: bytes, rate: int, samples: int | None, where: str) -> tuple[np.ndarray, int]:
    """Return the samples, channels averaged, and how many of them make a second."""
    soundfile = _soundfile()
    if not data:
        raise UserError(f"{where}: wanted a recording, found an empty file; record it again")
    _check_complete(data, where)
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            _check_claims(file, where)
            needed = file.frames
            if samples is not None:
                needed = min(needed, _needed(samples, file.samplerate, rate))
            wave = _frames(file, needed)
            found = len(wave)
            if found == needed < file.frames:
                # The end isn't wanted, but a file that lacks it is not to be trusted.
                file.seek(file.frames - 1)
                found = file.frames - 1 + len(file.read(1))
            claimed, own = file.frames, file.samplerate
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
    _check_samples(wave, where)
    return wave.mean(1, dtype=np.float32), own


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


def _check_complete(data: bytes, where: str) -> None:
    """Raise where the file is shorter than its own structure, which libsndfile passes over."""
    if data[:4] in {b"RIFF", b"RIFX", b"FORM"}:
        _check_chunks(data, "<" if data[:4] == b"RIFF" else ">", where)
    elif data[:4] == b"OggS":
        at = data.rfind(b"OggS")
        head = data[at : at + 27]
        lengths = data[at + 27 : at + 27 + head[-1]]
        ends = at + 27 + head[-1] + sum(lengths) if len(head) == 27 else len(data) + 1
        if ends > len(data) or not head[5] & 4:
            raise UserError(
                f"{where}, byte {at}: the last page of this Ogg file is cut or is not marked as "
                "the last one; it is incomplete"
            )


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
