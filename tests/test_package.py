import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import torch

import vicinal
from vicinal import data


def loaded_after(code):
    """Return the top-level packages that a fresh interpreter has loaded after some code."""
    end = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code + end], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


AS_COMMAND = "import sys; sys.argv = ['bin/vicinal']; "

HEAVY = {
    "jinja2",
    "lightning_fabric",
    "matplotlib",
    "pandas",
    "pydantic",
    "rich",
    "scipy",
    "sklearn",
    "typer",
}


def test_the_core_brings_in_torch_and_numpy_and_nothing_of_the_study():
    names = ", ".join(vicinal.__all__)
    added = loaded_after(
        "import sys, torch, numpy; core = set(sys.modules); "
        f"from vicinal import {names}; MixUp(0.2).draw(4); "
        "[sys.modules.pop(name) for name in core if name != 'sys']"
    )
    assert "vicinal" in added
    assert not added & HEAVY
    assert added <= {"vicinal", "torch", "numpy"} | {
        name for name in added if name.startswith("_")
    } | set(sys.stdlib_module_names)


def test_the_command_line_answers_help_without_anything_heavy():
    loaded = loaded_after(AS_COMMAND + "import vicinal.cli")
    assert "typer" in loaded
    assert not loaded & (HEAVY - {"typer", "rich"} | {"torch", "numpy"})


def test_the_list_of_data_sources_is_printed_without_anything_heavy():
    loaded = loaded_after(
        AS_COMMAND + "from typer.testing import CliRunner; from vicinal.cli import app; "
        "assert CliRunner().invoke(app, ['data', 'list']).exit_code == 0"
    )
    # Typer itself imports pydantic where it is installed.
    assert not loaded & (HEAVY - {"typer", "rich", "pydantic"} | {"torch", "numpy"})


def test_every_public_name_of_the_data_package_is_there_and_no_other():
    for name in data.__all__:
        assert getattr(data, name) is not None
    assert set(data.__all__) <= set(dir(data))
    assert not hasattr(data, "Lodaer")


def test_every_public_name_can_be_imported_and_has_a_docstring_of_its_own():
    for name in vicinal.__all__:
        found = getattr(vicinal, name)
        assert found.__doc__, name
        assert found.__doc__ != type(found).__doc__, name
    assert set(vicinal.__all__) <= set(dir(vicinal))
    assert set(vicinal.mixing.__all__) <= set(vicinal.__all__)


def imports_between(modules):
    """Return which modules each module imports, anywhere in its text.

    Imports under ``TYPE_CHECKING`` and inside functions count too. ``from a import b`` is an import
    of ``a.b`` where that is a module.

    Args:
        modules: the source of each module, by name.
    """
    graph = {}
    for name, source in modules.items():
        found = graph[name] = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name} uses a relative import"
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {one if one in modules else node.module for one in whole}
        found &= set(modules)
    return graph


def sources():
    """Return the source of each module of the package, by its name."""
    folder, found = Path(vicinal.__file__).parent, {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text("utf-8")
    return found


def cycle_in(graph):
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_another_in_a_cycle():
    graph = imports_between(sources())
    assert len(graph) > 50
    assert "vicinal.mixing.plan" in graph["vicinal.mixing.policies"]
    assert cycle_in(graph) == []


def test_a_cycle_is_found_under_type_checking_and_inside_functions():
    modules = {
        "p.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import b",
        "p.b": "def f():\n    import p.c",
        "p.c": "from p.a import thing",
    }
    assert set(cycle_in(imports_between(modules))) == set(modules)
    assert cycle_in(imports_between(modules | {"p.c": "import os"})) == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    assert not hasattr(vicinal, "CutMixUp")


class Net(torch.nn.Module):
    def forward(self, x):
        return vicinal.Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.5])).mix(x)


LOAD = """
import sys, vicinal
import torch
program = torch.export.load(sys.argv[1])
print(program.module()(torch.tensor([[0.0] * 3, [8.0] * 3])).tolist())
"""


def test_importing_the_package_is_enough_to_load_an_exported_program(tmp_path):
    file = str(tmp_path / "program.pt2")
    program = torch.export.export(Net(), (torch.zeros(2, 3, requires_grad=True),))
    assert "vicinal.mix" in str(program.graph)
    torch.export.save(program, file)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, file], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([[2.0] * 3, [4.0] * 3])


def test_a_package_run_with_python_m_registers_the_operators_too(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import vicinal")
    (tmp_path / "mine" / "__main__.py").write_text("import sys; print('torch' in sys.modules)")
    done = subprocess.run(
        [sys.executable, "-m", "mine"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "True"


def test_python_m_vicinal_answers_without_torch():
    words = [sys.executable, "-X", "importtime", "-m", "vicinal", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("vicinal ")
    assert " torch\n" not in done.stderr
