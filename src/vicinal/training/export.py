"""Export of trained networks to ONNX and to programs of ``torch.export``."""

import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vicinal.errors import UserError, unknown
from vicinal.files import write_whole
from vicinal.import_path import one_line
from vicinal.training.environment import versions
from vicinal.training.evaluation import averaged
from vicinal.training.trained_network import TrainedNetwork

FORMATS = ("onnx", "exported")
INPUT, OUTPUTS = "inputs", {"regression": "values"}
TOLERANCE = 1e-4
"""The largest difference of an exported network's probabilities that is accepted, or relative
difference of its values."""


class Deployed(nn.Module):
    """Maps inputs like those of the training data to probabilities, or to real values.

    It crops, normalizes, runs the network, averages over flips if the training did, and applies the
    softmax or the sigmoid, in float32 or the float64 of the network.

    Args:
        trained: the network, which is moved to the CPU.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trained: TrainedNetwork) -> None:
        """Copy the normalization into buffers."""
        super().__init__()
        self.network = trained.network.cpu().eval()
        self.targets, self.tta = trained.targets, trained.tta
        self.crops = [crop.size for crop in trained.crops]
        floats = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        self.dtype = next(floats, torch.float32)
        self.register_buffer("mean", trained.normalize.mean.cpu().clone())
        self.register_buffer("std", trained.normalize.std.cpu().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(batch, ...)`` inputs to ``(batch, k)``."""
        x = inputs
        for size in self.crops:
            top, left = ((side - size) // 2 for side in x.shape[2:])
            x = x[:, :, top : top + size, left : left + size]
        if x.dtype != torch.int64:
            x = ((x.to(torch.float32) - self.mean) / self.std).to(self.dtype)
        outputs: Tensor = self.network(x)
        if self.tta and x.dim() == 4:
            outputs = averaged(outputs, self.network(x.flip(3)), self.targets.name)
        return self.targets.predicted(self.targets.outputs_of(outputs))


def export_network(trained: TrainedNetwork, out: Path, to: str) -> str:
    """Write a trained network into a file that needs no vicinal to run.

    The file maps a batch of any size, of inputs like those of the training data, to probabilities,
    or to real values. Inputs are decoded images ``(n, channels, height, width)`` uint8, or the
    prepared rows or spectrograms. Classes and preparation are in its metadata: for ONNX in
    ``metadata_props`` under ``vicinal``, for ``torch.export`` in the extra file ``vicinal.json``.
    The exported network is run once and compared with the original one; for ONNX only if
    onnxruntime is installed.

    Args:
        trained: the network.
        out: the file to write.
        to: ``"onnx"``, or ``"exported"`` for ``torch.export.load``.

    Returns:
        A sentence without a full stop on the comparison.

    Raises:
        UserError: if the file exists, a library is not installed, the network cannot be exported,
            or the exported network computes something else.
    """
    if to not in FORMATS:
        raise UserError(unknown("format", to, FORMATS))
    if out.exists():
        raise UserError(f"{out} exists already. Choose another name, or delete it first.")
    module = Deployed(trained).eval()
    example, other = (_inputs(trained, size) for size in (2, 16))
    write = _onnx if to == "onnx" else _exported
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of PyTorch about itself
            content, run = write(module, example, metadata(trained))
            expected = module(other)
            found = run(other) if run is not None else None
    except UserError:
        raise
    except Exception as error:  # of anyone's network
        raise UserError(
            f"{trained.path}: the network cannot be exported to {to} ({one_line(error)}). Try the "
            "other format, or change the layer that is named."
        ) from error
    if found is None:
        write_whole(out, content)
        return "not compared with the original network, since onnxruntime is not installed"
    scale = expected.abs().clamp(min=1.0) if trained.task == "regression" else 1.0
    difference = float(((found - expected).abs() / scale).max())
    if not difference <= TOLERANCE:
        raise UserError(
            f"{trained.path}: expected the same outputs from the network after its export to {to}, "
            f"got a difference of {difference:.2g}. Try the other format."
        )
    write_whole(out, content)
    return (
        f"the outputs for {len(other)} examples differ from those of the original network by at "
        f"most {difference:.1g}"
    )


def expected_inputs(trained: TrainedNetwork) -> str:
    """Return shape, type and kind of the inputs of an exported network, as words."""
    inputs = _inputs(trained, 1)
    shape = ", ".join(["n", *map(str, inputs.shape[1:])])
    kind = _KINDS.get(str(trained.info.preparation.get("kind")), "prepared as in training")
    return f"({shape}) {str(inputs.dtype).removeprefix('torch.')}, {kind}"


_KINDS = {
    "image": "decoded and resized images",
    "table": "rows of standardized numbers, then one-hot categories, as its metadata describe them",
    "sound": "spectrograms or waveforms",
    "text": "tokens",
}


def metadata(trained: TrainedNetwork) -> dict[str, Any]:
    """Return what a user of an exported network has to know, as plain values for JSON."""
    info = trained.info
    return {
        "task": info.task,
        "classes": list(info.classes),
        "preparation": info.preparation,
        "network": info.recipe.model.name,
        "arm": info.arm,
        "seed": info.seed,
        "epoch": info.epoch,
        "versions": versions(),
    }


def _inputs(trained: TrainedNetwork, size: int) -> Tensor:
    """Return random inputs like those of the training data."""
    reading = trained.reading(skip_bad=False)
    generator = torch.Generator().manual_seed(0)
    shape = (size, *reading.input_shape)
    mean, std = trained.normalize.mean.cpu(), trained.normalize.std.cpu()
    if shape[1] == 1 and mean.dim() == 3:  # a pretrained network repeats the channel
        mean, std = mean[:1], std[:1]
    if reading.kind == "image":
        # Smooth ones: for noise, most networks are so certain that all probabilities are 0 or 1.
        coarse = torch.randn(*shape[:2], 4, 4, generator=generator)
        smooth = F.interpolate(coarse, shape[2:], mode="bilinear", align_corners=False)
        white = float(reading.preparation.get("white") or 255)
        return (smooth * std + mean).round().clamp(0, white).to(torch.uint8)
    if reading.kind == "text":  # every vocabulary has these
        return torch.randint(0, 4, shape, generator=generator)
    return torch.randn(shape, generator=generator) * std + mean


def _onnx(module: Deployed, example: Tensor, about: dict[str, Any]) -> tuple[bytes, Any]:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"the Python package {error.name} is not installed. The export to ONNX needs it. Run: "
            "pip install onnx onnxscript onnxruntime"
        ) from error
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision's operators
    program = torch.onnx.export(
        module,
        (example,),
        input_names=[INPUT],
        output_names=[OUTPUTS.get(module.targets.name, "probabilities")],
        dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props["vicinal"] = json.dumps(about)
    content = program.model_proto.SerializeToString()
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return content, None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {INPUT: inputs.numpy()})[0])

    return content, run


def _exported(module: Deployed, example: Tensor, about: dict[str, Any]) -> tuple[bytes, Any]:
    shapes = {INPUT: {0: torch.export.Dim("batch")}}
    program = torch.export.export(module, (example,), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"vicinal.json": json.dumps(about)})
    return file.getvalue(), program.module()
