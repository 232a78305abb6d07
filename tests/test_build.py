"""The wheel has the compiled kernel if there is a compiler, and is complete without it."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NATIVE = "vicinal/mixing/kernels/native/"


@pytest.fixture
def project(tmp_path):
    """Return a copy of the files that a source distribution holds."""
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(
        ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    return tmp_path


def build(project, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
        cwd=project,
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (project / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = [one.removeprefix(NATIVE) for one in archive.namelist() if NATIVE in one]
    return wheel.name, names, done.stdout + done.stderr


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64",
    reason="the kernel is compiled for Linux on x86-64",
)
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_wheel_built_with_a_compiler_contains_a_library_of_its_source(project):
    wheel, names, _ = build(project)
    assert wheel.endswith("-py3-none-linux_x86_64.whl")
    checksum = zlib.crc32((project / "src" / NATIVE / "mixing.c").read_bytes())
    assert [name for name in names if name.endswith(".so")] == [f"mixing-{checksum:08x}.so"]


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_a_wheel_built_without_a_compiler_is_complete_but_for_the_library(project, compiler):
    (project / "src" / NATIVE / "mixing-12345678.so").touch()  # of an earlier build
    wheel, names, output = build(project, CC=compiler)
    assert wheel.endswith("-py3-none-any.whl")
    assert {"__init__.py", "mixing.c"} == set(names)
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        assert "installed without its compiled kernel" in output
