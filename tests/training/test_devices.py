import subprocess
import sys

import pytest
import torch

from vicinal.errors import UserError
from vicinal.training.devices import check_processes, hardware_errors_explained, make_fabric


def test_out_of_memory_says_what_to_lower():
    # More than any machine has; the system's own words are in the sentence.
    with (
        pytest.raises(
            UserError, match=r"out of memory with training\.batch_size = 64 \(.*\)\. Lower it"
        ),
        hardware_errors_explained(64),
    ):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_other_errors_are_not_changed():
    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        hardware_errors_explained(64),
    ):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_unavailable_devices_raise():
    with pytest.raises(
        UserError, match=r'training.accelerator: "cuda" is not available .* Try "cpu" or "auto"'
    ):
        make_fabric(accelerator="cuda")


def test_float16_on_the_cpu_stays_float16_beside_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    precision = make_fabric(accelerator="cpu", precision="float16").strategy.precision
    assert (precision.precision, precision.device) == ("16-mixed", "cpu")
    assert precision.scaler.is_enabled()


FAULTS = """
import torch
from vicinal.training.memory import memory_kept

def faults():
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[7])

def counted():
    for step in range(8):
        if step == 3:
            before = faults()
        torch.ones(1 << 24).add(1)
    return faults() - before

plain = counted()
with memory_kept():
    kept = counted()
print(plain, kept)
"""


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="for Linux on x86")
def test_memory_that_was_freed_is_there_for_the_next_step():
    # In a process of its own: what was set before decides what happens now.
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    plain, kept = map(int, done.stdout.split())
    assert kept < plain / 2  # the kernel may reclaim some of the memory meanwhile


def test_a_parameter_without_a_gradient_is_named_with_several_devices():
    with (
        pytest.raises(UserError, match=r"all parameters .* Freeze them .* or use one device"),
        hardware_errors_explained(64),
    ):
        raise RuntimeError("Expected to have finished reduction in the prior iteration before ...")


def test_the_number_of_processes_of_torchrun_is_checked_in_training_only(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert make_fabric(accelerator="cpu").world_size == 1
    with pytest.raises(UserError, match=r"expected WORLD_SIZE = 2 processes in all, got 1 devices"):
        check_processes(1, 1)
    check_processes(2, 1)
