import importlib.util
import os
from pathlib import Path

import pytest

from vicinal.data.dataset import LoadOptions


@pytest.fixture(scope="session")
def shared():
    """Answer with the folder of real data sets, which is not split of the project."""
    root = Path(os.environ.get("VICINAL_SHARED", Path(__file__).parents[3] / "shared"))
    if not (root / "data" / "unpack.py").exists():
        pytest.skip(f"no data sets in {root}; VICINAL_SHARED can name another folder")
    return root / "data"


@pytest.fixture(scope="session")
def unpack(shared):
    """Answer with the module that writes the real data sets in the forms that users know."""
    spec = importlib.util.spec_from_file_location("unpack", shared / "unpack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wanted(tmp_path):
    """Answer with what ``load`` asks of a source, under an empty root."""
    return LoadOptions(tmp_path)
