"""Errors if only the core is installed: PyTorch and NumPy."""

import re
import subprocess
import sys
from importlib import metadata

import pytest

from vicinal.extras import MissingExtraError, extras_named

PACKAGES = {
    line.partition(">")[0].lower()
    for line in metadata.requires("vicinal")
    if "extra ==" in line and "study" in line.partition(";")[2]
}
MODULES = [
    module
    for module, names in metadata.packages_distributions().items()
    if PACKAGES & {name.lower().replace("_", "-") for name in names}
]

BLOCKED = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MODULES}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""
COMMAND = "pip install 'vicinal[study]'"


def run(code):
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, check=False
    )


def test_an_error_about_any_package_of_the_extra_has_the_pip_command():
    assert {"PIL", "sklearn", "tomlkit", "zlib_ng"} < set(MODULES)
    modules = {"PIL": "pillow", "sklearn": "scikit-learn"}
    for package in PACKAGES:
        module = next((k for k, v in modules.items() if v == package), package.replace("-", "_"))
        assert module in MODULES
        with pytest.raises(MissingExtraError, match=re.escape(COMMAND)), extras_named():
            raise ModuleNotFoundError(name=f"{module}.part")


def test_an_import_error_of_another_package_is_not_changed():
    with pytest.raises(ModuleNotFoundError, match="no datasets") as caught, extras_named():
        raise ModuleNotFoundError("no datasets", name="datasets")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize("words", [[], ["--help"], ["study", "digits"]])
def test_the_command_line_prints_the_pip_command(words):
    # Named as the command, the process does not wait for PyTorch.
    done = run(f"sys.argv = ['vicinal', *{words}]; from vicinal.__main__ import main; main()")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("vicinal: the Python package typer is not installed. ")
    assert COMMAND in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_library_raises_an_import_error_with_the_pip_command():
    done = run(
        """
import vicinal, vicinal.data, vicinal.models, vicinal.mixing
from vicinal.data import Loader, SOURCES

def report(call):
    try:
        call()
    except ImportError as error:
        print(type(error).__mro__[1].__name__, error)

report(lambda: vicinal.data.load("digits"))
report(lambda: vicinal.data.load("iris"))
report(lambda: vicinal.study("digits"))
"""
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("UserError the Python package ")
        assert COMMAND in line


def test_the_command_line_names_a_package_that_is_missing_later():
    code = BLOCKED.replace(str(MODULES), "['sklearn']")
    code += "sys.argv = ['vicinal', 'data', 'info', 'digits']; "
    code += "from vicinal.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("vicinal: the Python package sklearn is not installed. ")
    assert COMMAND in done.stderr
    assert done.stderr.count("\n") == 1
