import subprocess
import sys

import pytest

from vicinal.errors import out_of_memory

EARLY = """
import signal, sys

class Presses:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Presses())
from vicinal.__main__ import main
main()
"""
"""Ctrl-C while the command line is still being imported."""

TWICE = """
import signal
from vicinal import interrupts

interrupts.exit_on_interrupt()
interrupts.clean_up_first()
try:
    signal.raise_signal(signal.SIGINT)
finally:  # and again, while it is cleaned up
    signal.raise_signal(signal.SIGINT)
"""

LATE = """
import signal, sys
from vicinal import cli, interrupts
from vicinal.__main__ import main

class Slow:  # what is torn down after the sentence
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def interrupted(*_, **__):
    sys.slow = Slow()
    signal.raise_signal(signal.SIGINT)

cli._print_json = interrupted
sys.argv = ["vicinal", "data", "list", "--json"]
main()
"""

CAUSED = """
import signal, sys
from vicinal import cli
from vicinal.__main__ import main

def interrupted(*_, **__):
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        raise RuntimeError("DataLoader worker (pid 7) exited unexpectedly")

cli._print_json = interrupted
sys.argv = ["vicinal", "data", "list", "--json"]
main()
"""


@pytest.mark.parametrize("code", [EARLY, TWICE, LATE, CAUSED])
def test_ctrl_c_at_any_moment_is_one_sentence_and_130(code):
    # Tests that run in the background may ignore Ctrl-C. Named as the command, the process does
    # not wait for PyTorch.
    start = "import signal, sys; signal.signal(2, signal.default_int_handler)"
    code = f"{start}; sys.argv = ['vicinal']\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "vicinal: stopped\n")


def test_a_process_that_ignores_ctrl_c_continues_to_ignore_it():
    code = (
        "import signal, sys; sys.argv = ['vicinal']; signal.signal(2, signal.SIG_IGN);"
        "from vicinal import interrupts;"
        "interrupts.exit_on_interrupt(); signal.raise_signal(2); print('on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "on\n"


@pytest.mark.parametrize(
    ("error", "exhausted"),
    [
        (MemoryError(), True),
        (ImportError("libtorch.so: failed to map segment from shared object"), True),
        (RuntimeError("can't start new thread"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDNN_STATUS_ALLOC_FAILED"), True),
        (ValueError("memory of an elephant"), False),
    ],
)
def test_errors_of_exhausted_memory_are_recognized(error, exhausted, vicinal, monkeypatch):
    assert out_of_memory(error) is exhausted

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("vicinal.cli._print_json", fail)
    done = vicinal("data", "list", "--json")
    assert done.exit_code == (2 if exhausted else 1)
    assert ("Free some memory" in done.stderr) is exhausted
