"""Exported networks give the probabilities that the trained ones give."""

import builtins
import json
import subprocess
import sys

import numpy as np
import pytest
import tomlkit
import torch
from PIL import Image
from typer.testing import CliRunner

import vicinal
from vicinal.cli import app
from vicinal.errors import UserError
from vicinal.training.export import Deployed, _inputs, export_network


def trained(folder, source, network, **data):
    """Train a network for an epoch, and return its checkpoint."""
    recipe = {
        "name": "small",
        "baseline": "erm",
        "data": {"source": source, **data},
        "model": {"name": network},
        "training": {
            "epochs": 1,
            "batch_size": 16,
            "tta": network != "mlp",
            "optimizer": {"name": "adamw", "lr": 0.01},
            "schedule": {"name": "cosine"},
            "accelerator": "cpu",
            "threads": 1,
        },
        "arms": {"erm": {"title": "ERM", "policy": "none"}},
    }
    (folder / "small.toml").write_text(tomlkit.dumps(recipe))
    words = ["train", str(folder / "small.toml"), "--arm", "erm", "--out", str(folder / "run")]
    done = CliRunner().invoke(app, [*words, "--logger", "none"])
    assert done.exit_code == 0, done.output
    return folder / "run" / "checkpoint.safetensors"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Train on images that are cropped; return the checkpoint."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name in ("rose", "tulip"):
        (folder / "data" / name).mkdir(parents=True)
        for k in range(10):
            pixels = generator.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{k}.png")
    crop = [{"name": "random-crop", "padding": 1, "size": 9}]
    return trained(folder, f"folder:{folder / 'data'}?size=12", "small-cnn", augment=crop)


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    """Train a regression on a table; return the checkpoint."""
    folder = tmp_path_factory.mktemp("prices")
    rows = [f"{k % 7},{'ab'[k % 2]},{1000 + 3 * (k % 7) + 0.5 * k}" for k in range(40)]
    (folder / "a.csv").write_text("\n".join(["size,color,y", *rows]))
    return trained(folder, f"table:{folder / 'a.csv'}?label=y&task=regression", "mlp")


def pixels(count, generator):
    return generator.integers(0, 256, (count, 3, 12, 12), np.uint8)


LOAD = """
import json, sys, numpy, torch
about = {"vicinal.json": ""}
program = torch.export.load(sys.argv[1], extra_files=about).module()
for path in sys.argv[2:]:
    numpy.save(path, program(torch.from_numpy(numpy.load(path))).detach().numpy())
assert "vicinal" not in sys.modules
print(about["vicinal.json"])
"""


def test_an_exported_program_needs_only_torch_and_takes_batches_of_any_size(images, tmp_path):
    out = tmp_path / "net.pt2"
    done = CliRunner().invoke(app, ["export", str(images), "--to", "exported", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "the outputs for 16 examples differ from those of the original network by" in done.stdout
    assert "inputs: (n, 3, 12, 12) uint8, decoded and resized images" in done.stdout
    generator = np.random.default_rng(1)
    batches = {str(tmp_path / f"{n}.npy"): pixels(n, generator) for n in (1, 5)}
    for path, batch in batches.items():
        np.save(path, batch)
    words = [sys.executable, "-W", "ignore", "-c", LOAD, str(out), *batches]
    ran = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    about = json.loads(ran.stdout)
    assert about["classes"] == ["rose", "tulip"]
    assert about["preparation"]["size"] == 12
    network = vicinal.load(images)
    for path, batch in batches.items():
        np.testing.assert_allclose(np.load(path), network(batch).numpy(), atol=1e-5)


def test_generated_images_have_one_channel_where_a_pretrained_network_repeats_it(images):
    network = vicinal.load(images)
    one_channel = network.info.preparation | {"channels": 1, "shape": [1, 12, 12]}
    network.info = network.info.model_copy(
        update={"shape": (1, 12, 12), "preparation": one_channel}
    )
    found = _inputs(network, 4)
    assert found.shape == (4, 1, 12, 12)
    assert found.dtype == torch.uint8
    assert len(found.unique()) > 20


@pytest.mark.filterwarnings("ignore")  # of PyTorch's exporter
@pytest.mark.parametrize("kind", ["images", "prices"])
def test_an_onnx_file_gives_the_same_outputs(kind, tmp_path, request):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path, out = request.getfixturevalue(kind), tmp_path / "net.onnx"
    network = vicinal.load(path)
    export_network(network, out, "onnx")
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["vicinal"])
    assert about["classes"] == (["rose", "tulip"] if kind == "images" else [])
    generator = np.random.default_rng(2)
    for count in (1, 5):
        batch = pixels(count, generator)
        if kind == "prices":
            batch = generator.normal(size=(count, 3)).astype(np.float32)
            x = network.normalize.apply(torch.from_numpy(batch), torch.empty(count, 0))
            raw = network.network(x).detach()
            expected = raw * network.targets.std + network.targets.mean
        else:
            expected = network(batch)
        (found,) = session.run(None, {"inputs": batch})
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-4)


def test_without_the_packages_for_onnx_the_error_has_the_command_that_installs_them(
    images, tmp_path, monkeypatch
):
    real = builtins.__import__

    def without(name, *rest):
        if name == "onnx":
            raise ModuleNotFoundError(name="onnx")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install onnx onnxscript onnxruntime"):
        export_network(vicinal.load(images), tmp_path / "net.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_is_changed_by_its_export_is_refused(images, tmp_path, monkeypatch):
    forward, calls = Deployed.forward, []

    def other(self, inputs):
        calls.append(inputs)
        return forward(self, inputs) if len(calls) == 1 else forward(self, inputs).flip(1)

    monkeypatch.setattr(Deployed, "forward", other)
    with pytest.raises(UserError, match="after its export to exported, got a difference of"):
        export_network(vicinal.load(images), tmp_path / "net.pt2", "exported")
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_named(images, tmp_path, vicinal):
    refused = vicinal("export", images, "--to", "onxx", "--out", tmp_path / "net")
    assert refused.exit_code == 2
    assert "Did you mean 'onnx'?" in refused.stderr


def test_the_deployed_module_is_differentiable_in_its_inputs(prices):
    inputs = torch.zeros(2, 3, requires_grad=True)
    Deployed(vicinal.load(prices))(inputs).sum().backward()
    assert inputs.grad is not None
    assert bool(inputs.grad.abs().sum() > 0)
