"""Compile the C kernel into the wheel if there is a C compiler.

Without one, or if it fails, vicinal is installed without the kernel, and PyTorch operators mix.
"""

import os
import shlex
import subprocess
import sysconfig
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/vicinal/mixing/kernels/native/mixing.c")
FLAGS = ["-std=c11", "-O3", "-mavx2", "-mfma", "-fPIC", "-shared"]
FLAGS += ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]


class CompiledKernel(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled kernel to a wheel, and marks the wheel with its platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before hatchling collects the files."""
        if self.target_name != "wheel":
            return
        try:
            library = compile_kernel(Path(self.root) / SOURCE)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            self.app.display_warning(f"vicinal is installed without its compiled kernel: {reason}")
            return
        if library is not None:
            build_data["artifacts"].append(str(SOURCE.with_name(library.name)))
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-linux_x86_64"


def compile_kernel(source: Path) -> Path | None:
    """Compile a C file next to it, and return the library; None on a platform without support.

    Its name holds the checksum of the source, so that a library of another version is not loaded.

    Raises:
        OSError: if there is no compiler.
        subprocess.CalledProcessError: if the compiler fails.
    """
    for old in source.parent.glob("*.so"):
        old.unlink(missing_ok=True)
    if sysconfig.get_platform() != "linux-x86_64":
        return None
    library = source.with_name(f"mixing-{zlib.crc32(source.read_bytes()):08x}.so")
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    subprocess.run(
        [*compiler, *FLAGS, str(source), "-o", str(library), "-lm"],
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
    )
    return library
