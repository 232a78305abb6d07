"""The wheel: with the compiled kernel where there is a compiler, and whole without one."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KERNELS = "vicinal/mixing/kernels/"


@pytest.fixture
def project(tmp_path):
    """What a source distribution would hold of it."""
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
        names = [one.removeprefix(KERNELS) for one in archive.namelist() if KERNELS in one]
    return wheel.name, names, done.stdout + done.stderr


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64",
    reason="the kernel is compiled for Linux on x86-64",
)
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_wheel_built_with_a_compiler_holds_the_kernel_for_each_kind_of_processor(project):
    wheel, names, _ = build(project)
    assert wheel.endswith("-py3-none-linux_x86_64.whl")
    assert {"native-avx2.so", "native-avx512.so", "native.py"} <= set(names)
    assert not any(name.endswith(".so") and "/" in name for name in names)


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_a_wheel_built_without_a_compiler_is_whole_but_for_the_kernel(project, compiler):
    (project / "src" / KERNELS / "native-avx2.so").touch()  # of a build before
    wheel, names, said = build(project, CC=compiler)
    assert wheel.endswith("-py3-none-any.whl")
    assert {"native.py", "native.c", "blocked.py"} <= set(names)
    assert not any(name.endswith(".so") for name in names)
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        assert "goes without its compiled kernel" in said
