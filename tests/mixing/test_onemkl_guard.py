import json
import subprocess
import sys

import pytest

RECORDED = """
import json
import torch
from torch.utils._python_dispatch import TorchDispatchMode

class Record(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if args and isinstance(args[0], torch.Tensor):
            one = args[0]
            calls.append([function._opname, str(one.dtype), one.device.type, one.numel()])
        return result

calls = []
torch.set_default_device("meta")
with Record():
    import vicinal.mixing
print(json.dumps(calls))
"""


@pytest.fixture(scope="module")
def calls_of_the_import():
    done = subprocess.run(
        [sys.executable, "-c", RECORDED], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("dtype", ["torch.float32", "torch.float64"])
@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "erf", "tanh", "sin"])
def test_no_function_of_onemkl_is_first_called_by_several_threads(name, dtype, calls_of_the_import):
    # Several first calls at once lose half of the digits in one process of thousands, too seldom
    # for a test: so it looks for the call with one number, which takes one thread.
    assert [name, dtype, "cpu", 1] in calls_of_the_import
