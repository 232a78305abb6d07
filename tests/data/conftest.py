import importlib.util
import os
from pathlib import Path

import pytest

from vicinal.data.dataset import LoadOptions


@pytest.fixture(scope="session")
def shared():
    """Return the folder of real data sets, which is not part of the project."""
    root = Path(os.environ.get("VICINAL_SHARED", Path(__file__).parents[3] / "shared"))
    if not (root / "data" / "unpack.py").exists():
        pytest.skip(f"no data sets in {root}; VICINAL_SHARED can name another folder")
    return root / "data"


@pytest.fixture(scope="session")
def unpack(shared):
    """Return the module that writes the real data sets in the formats that users have."""
    spec = importlib.util.spec_from_file_location("unpack", shared / "unpack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wanted(tmp_path):
    """Return the options of ``load`` for an empty root."""
    return LoadOptions(tmp_path)
