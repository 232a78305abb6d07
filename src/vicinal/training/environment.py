"""Versions and hardware that a trial ran with."""

import functools
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on.

    Example:
        >>> sorted(versions())
        ['lightning-fabric', 'numpy', 'python', 'scikit-learn', 'torch', 'vicinal']
    """
    packages = ("vicinal", "torch", "numpy", "lightning-fabric", "scikit-learn")
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in packages}


def merged_versions(several: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Merge the versions of all trials; different versions of a package are joined."""
    names = sorted({name for one in several for name in one})
    return {n: ", ".join(sorted({one[n] for one in several if n in one})) for n in names}


def hardware() -> dict[str, str]:
    """Return the processor, its cores, the memory and the GPU of this machine."""
    import torch

    found = {"processor": _processor(), "cores": str(os.cpu_count())}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{memory / 2**30:.0f} GiB"
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
