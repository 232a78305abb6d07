"""Spectrograms of batches of recordings, on any device."""

import functools
import math

import torch
from torch import Tensor

FLOOR = 1e-6
"""Added to a power before its logarithm. A sine of full scale has a power of 6,400 here (20 ms at
16 kHz), the rounding of 16-bit recordings about 1e-8.
"""


def log_spectrogram(waves: Tensor, rate: int) -> Tensor:
    """Return log power by frequency and time: 160 x 101 for a second at 16 kHz.

    This is the size in section 3.3 of Zhang et al., 2018 (https://arxiv.org/abs/1710.09412), which
    does not specify the window. Here it is a Hann window of 20 ms, every 10 ms, the first centered
    on the first sample, with zeros around the recording. The frequency of 0 Hz, the DC offset of
    the microphone, is removed. The paper pads spectrograms with zeros; here recordings are padded,
    so the padding of a spectrogram is the logarithm of ``FLOOR``.

    Args:
        waves: ``(b, samples)``, float32 or float64, in ``[-1, 1]``. Not modified.
        rate: sampling rate in Hz.

    Returns:
        ``(b, 1, rate // 100, samples // hop + 1)``, natural logarithms, where ``hop`` is 10 ms;
        it is rounded to whole samples. With a rate that is no multiple of 100, there can be one
        frequency or frame less.

    Raises:
        ValueError: if ``waves`` has a different number of axes, or ``rate`` is below 1,000.

    Example:
        >>> tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)
        >>> image = log_spectrogram(tone[None], 16000)
        >>> image.shape, int(image[0, 0, :, 50].argmax())  # 20 * 50 Hz, 0 Hz is not there
        (torch.Size([1, 1, 160, 101]), 19)
    """
    width = round(rate / 50)
    return (_power(waves, rate, width=width, bins=width)[:, 1:] + FLOOR).log()[:, None]


def log_mel(waves: Tensor, rate: int, *, bands: int = 64) -> Tensor:
    """Return log power by mel band and time: 64 x 101 for a second at 16 kHz.

    There is a Hann window of 25 ms every 10 ms, padded with zeros to a power of two. The first one
    is centered on the first sample; the recording is padded with zeros at both ends.

    Args:
        waves: ``(b, samples)``, float32 or float64, in ``[-1, 1]``. Not modified.
        rate: sampling rate in Hz.
        bands: number of bands from 0 Hz to half the rate.

    Returns:
        ``(b, 1, bands, samples // hop + 1)``, natural logarithms, where ``hop`` is 10 ms.

    Raises:
        ValueError: if ``waves`` does not have two axes, ``rate`` is below 1,000, or a band contains
            no frequency of the Fourier transform.

    Example:
        >>> log_mel(torch.zeros(2, 16000), 16000, bands=40).shape
        torch.Size([2, 1, 40, 101])
    """
    width = round(rate / 40)
    bins = 1 << (width - 1).bit_length()
    power = _power(waves, rate, width=width, bins=bins)
    filters = mel_filters(rate, bands=bands, bins=bins).to(power)
    return (filters @ power + FLOOR).log()[:, None]


@functools.lru_cache
def mel_filters(rate: int, *, bands: int, bins: int) -> Tensor:
    """Return triangular filters, evenly spaced in mel, each with its peak at one.

    By the formula of HTK (The HTK Book, section 5.6): ``mel = 2595 * log10(1 + hertz / 700)``.
    Each band begins at the center of the one below and ends at the center of the one above.

    Args:
        rate: sampling rate in Hz; bands go from 0 Hz to half of it.
        bands: number of bands.
        bins: length of the Fourier transform.

    Returns:
        ``(bands, bins // 2 + 1)`` float64.

    Raises:
        ValueError: if a band has no frequency of the transform.

    Example:
        >>> mel_filters(8000, bands=2, bins=8)  # peaks at 621 and 1791 Hz, frequencies 1 kHz apart
        tensor([[0.0000, 0.6759, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.3241, 0.9055, 0.4528, 0.0000]], dtype=torch.float64)
    """
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    hertz = torch.arange(bins // 2 + 1, dtype=torch.float64) * (rate / bins)
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = torch.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak)).clamp(0)
    if bands < 1 or bool((filters.sum(1) == 0).any()):
        raise ValueError(
            f"mel_filters expects bands that all have a frequency, got {bands} bands for {bins} "
            f"bins at {rate} Hz. Use fewer bands."
        )
    return filters


def _power(waves: Tensor, rate: int, *, width: int, bins: int) -> Tensor:
    """Return ``(b, bins // 2 + 1, frames)``, squared magnitudes."""
    if waves.ndim != 2 or rate < 1000:
        raise ValueError(
            "Spectrograms expect waves of shape (batch, samples) and a rate of 1000 or more, got "
            f"{tuple(waves.shape)} and {rate}. For one wave, pass wave[None]."
        )
    spectrum = torch.stft(
        waves,
        bins,
        hop_length=round(rate / 100),
        win_length=width,
        window=torch.hann_window(width, dtype=waves.dtype, device=waves.device),
        pad_mode="constant",
        return_complex=True,
    )
    return spectrum.real**2 + spectrum.imag**2
