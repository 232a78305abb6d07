"""Compile the CPU kernel into the wheel, where a C compiler is at hand.

Without one, or if it fails, vicinal is installed all the same, and mixes by PyTorch operators.
"""

import os
import shlex
import subprocess
import sysconfig
import tempfile
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("src/vicinal/mixing/kernels")
FLAGS = ["-std=c11", "-O3", "-fPIC", "-shared"]
FLAGS += ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
PROCESSORS = {  # as PyTorch names what a processor can do
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"],
}


class CompiledKernel(BuildHookInterface):  # type: ignore[type-arg]
    """Adds ``native-*.so`` to a wheel, and says for which platform that is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files are gathered."""
        if self.target_name != "wheel":
            return
        try:
            libraries = compile_kernel(Path(self.root) / KERNELS)
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", None) or error
            self.app.display_warning(f"vicinal goes without its compiled kernel: {why}")
            return
        if libraries:
            build_data["artifacts"] += [str(KERNELS / one.name) for one in libraries]
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-linux_x86_64"


def compile_kernel(folder: Path) -> list[Path]:
    """Compile the C files of a folder for each kind of processor; return the libraries.

    Raises:
        OSError: if there is no compiler.
        subprocess.CalledProcessError: if it fails.
    """
    for old in folder.glob("native-*.so"):
        old.unlink(missing_ok=True)
    if sysconfig.get_platform() != "linux-x86_64":
        return []  # nobody has tried it elsewhere
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    # What was compiled from another text is not loaded.
    text = b"".join(one.read_bytes() for one in sorted(folder.glob("*.[ch]")))
    flags = [*FLAGS, f"-DSOURCE={zlib.crc32(text)}u"]
    sources = [str(one) for one in sorted(folder.glob("*.c"))]
    libraries = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="native-") as fresh:
        for name, processor in PROCESSORS.items():
            library = Path(fresh) / f"native-{name}.so"
            subprocess.run(
                [*compiler, *flags, *processor, *sources, "-o", str(library), "-lm"],
                check=True,
                capture_output=True,
                text=True,
                errors="replace",
            )
            libraries.append(library.replace(folder / library.name))
    return libraries
