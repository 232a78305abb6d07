"""Networks of Hugging Face's library transformers that classify images or texts."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vicinal.errors import UserError
from vicinal.import_path import imported, one_line
from vicinal.models.libraries import unavailable

EMBEDDING = "embedding"
"""The layer of a text network at which tokens have become vectors, which can be mixed."""

_UNSAFE = ("auto_map", "attn_implementation", "_attn_implementation", "quantization_config")
"""Entries of a configuration that load other code or kernels; a network is rebuilt without."""


class HuggingFace(nn.Module):
    """A classifier of transformers that maps inputs to logits.

    It can be mixed at ``layers.0``, ``layers.1`` and so on, the outputs of its encoder layers (or
    of its stages, if it has stages of several layers), and a text network at ``embedding``: the
    vectors of the tokens, which are zero at padding. The attention mask is where these vectors are
    not zero. So a blend at ``embedding`` attends to each position at which one of its parents has a
    token, and other blends to the tokens of their own text.

    Args:
        model: the classifier.
        padding: the padding token, for texts; None for images.
        new: names of the parameters of ``model`` that its pretrained weights lack.
    """

    prefix = "model."
    """What names in ``state_dict()`` have before those of transformers."""

    def __init__(
        self, model: nn.Module, padding: int | None, *, new: frozenset[str] = frozenset()
    ) -> None:
        """Add a module behind each encoder layer, which has one tensor as its output."""
        super().__init__()
        self.model, self.padding, self.new = model, padding, new
        if padding is not None:
            self.embedding = _MaskedEmbedding()
        layers = _encoder_layers(_backbone(model))
        self.layers = nn.ModuleList(nn.Identity() for _ in layers)
        for layer, after in zip(layers, self.layers, strict=True):
            # A partial, and not a closure, so that a deep copy of the network runs its own modules.
            layer.register_forward_hook(partial(_through, after))

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(batch, channels, height, width)`` or tokens ``(batch, length)`` to logits.

        Tokens are int64. Logits are ``(batch, classes)``.
        """
        if self.padding is None:
            return self.model(pixel_values=x).logits  # type: ignore[no-any-return]
        if x.dtype != torch.int64:
            raise TypeError(
                f"expected int64 tokens, as the data source 'text:' has them, got {x.dtype} inputs."
            )
        vectors = self.embedding(self.tokens(x), x != self.padding)
        mask = (vectors != 0).any(-1)
        output = self.model(inputs_embeds=vectors, attention_mask=mask.long())
        return output.logits  # type: ignore[no-any-return]

    @property
    def tokens(self) -> nn.Module:
        """The module that looks up the vector of each token."""
        found: nn.Module = self.model.get_input_embeddings()  # type: ignore[operator]
        return found

    @property
    def backbone_prefix(self) -> str:
        """What the names of the backbone have in front in ``state_dict()``."""
        inner = getattr(self.model, "base_model_prefix", "")
        return f"{self.prefix}{inner}." if hasattr(self.model, inner) else self.prefix

    def head_names(self) -> set[str]:
        """Return the names of the head in ``state_dict()``; see ``vicinal.models.head_names``."""
        return {f"{self.prefix}{name}" for name in _outside_of_backbone(self.model) | self.new}


class _MaskedEmbedding(nn.Module):
    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Return ``(batch, length, size)`` vectors, zero outside of the mask."""
        return vectors * mask[..., None]


def _backbone(model: nn.Module) -> nn.Module:
    found = getattr(model, "base_model", model)
    return found if isinstance(found, nn.Module) else model


def _encoder_layers(backbone: nn.Module) -> list[nn.Module]:
    """Return the modules of the largest list; of a list in it the last module, which ends it."""
    lists = [m for m in backbone.modules() if isinstance(m, nn.ModuleList)]
    inner = {m for one in lists for m in one.modules() if m is not one}
    outer = [one for one in lists if one not in inner]
    sizes = [sum(p.numel() for p in one.parameters()) for one in outer]
    largest = outer[sizes.index(max(sizes))] if outer else ()
    return [one[-1] if isinstance(one, nn.ModuleList) else one for one in largest]


def _outside_of_backbone(model: nn.Module) -> set[str]:
    backbone = _backbone(model)
    inside = {id(tensor) for tensor in backbone.state_dict(keep_vars=True).values()}
    own = model.state_dict(keep_vars=True)
    if backbone is model:  # as CLIP, whose classifier has no module for the rest
        return {name for name in own if name.startswith(("classifier.", "fc.", "head."))}
    return {name for name, tensor in own.items() if id(tensor) not in inside}


def _through(after: nn.Module, _layer: nn.Module, _inputs: Any, output: Any) -> Any:
    """Pass the hidden state, the output of a layer or its first entry, through a module."""
    if isinstance(output, Tensor):
        return after(output)
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return (after(output[0]), *output[1:])
    return output


def build_hugging_face(
    name: str,
    where: str,
    *,
    shape: tuple[int, ...],
    classes: int,
    pretrained: bool,
    config: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = lambda _sentence: None,
) -> HuggingFace:
    """Build a classifier of transformers: of texts if ``shape`` has one entry, else of images.

    Code in a repository of weights is never run.

    Args:
        name: the name of the network in the recipe, for messages.
        where: a folder, or a name on the hub.
        shape: (length,) of a text, or (channels, height, width) of an image.
        classes: number of logits.
        pretrained: whether weights are loaded, and not only the configuration.
        config: what ``network_config`` returned, so that it is not read from ``where``.
        log: is called with a sentence on what was loaded.

    Raises:
        UserError: if transformers is not installed, a file is not available, or the network does
            not classify such inputs.
    """
    library = imported("transformers", name)
    if len(shape) not in (1, 3):
        raise UserError(
            f"{name} expects images (channels, height, width) or texts (length,), got examples of "
            f"shape {shape}. Try another network."
        )
    text = len(shape) == 1
    kind = "AutoModelForSequenceClassification" if text else "AutoModelForImageClassification"
    make = getattr(library, kind)
    settings: dict[str, Any] = {"num_labels": classes}
    if not text and not pretrained:
        settings |= {"num_channels": shape[0]}
    new: frozenset[str] = frozenset()
    try:
        with _quiet(library):
            if config is not None:
                known = {k: v for k, v in config.items() if k not in (*_UNSAFE, "model_type")}
                model = make.from_config(
                    library.AutoConfig.for_model(config["model_type"], **known)
                )
            elif pretrained:
                model, report = make.from_pretrained(
                    where, output_loading_info=True, ignore_mismatched_sizes=True, **settings
                )
                resized = [each[0] for each in report["mismatched_keys"]]
                new = frozenset([*report["missing_keys"], *resized])
            else:
                model = make.from_config(library.AutoConfig.from_pretrained(where, **settings))
    except OSError as error:
        raise unavailable(
            name,
            error,
            tried=f"transformers looked for {where!r} as a folder, in the cache and on the hub",
            get=f"hf download {where}",
        ) from error
    except Exception as error:  # the library raises errors of every kind
        raise UserError(
            f"{name} cannot be built to classify {'texts' if text else 'images'} "
            f"({one_line(error)}). Choose another network."
        ) from error
    padding = getattr(model.config, "pad_token_id", None) if text else None
    if text and padding is None:
        raise UserError(
            f"{name}: expected a network with a padding token, got none in its configuration. "
            "Set pad_token_id in its config.json, or choose a network such as DistilBERT."
        )
    network = HuggingFace(model.float(), padding, new=new)
    if text:
        _check_masks(name, network, shape[0])
    if pretrained and config is None:
        outside = _outside_of_backbone(model)
        extra = sorted(new - outside)
        if len(extra) > (backbone := len(model.state_dict().keys() - outside)) // 2:
            raise UserError(
                f"{name}: expected weights of {type(model).__name__}, got a file that lacks "
                f"{len(extra)} of {backbone} tensors or has them in another shape, such as "
                f"{extra[0]}. Choose other weights."
            )
        start = "its head starts from random weights" if new else "including its head"
        also = f", and so do {len(extra)} tensors such as {extra[0]}" if extra else ""
        log(f"initial weights: those of {where}; {start}{also}")
    return network


def _check_masks(name: str, network: HuggingFace, length: int) -> None:
    """Raise an error if a network needs to know the tokens, and not only their vectors and mask."""
    weight, padding = next(network.tokens.parameters()), network.padding or 0
    if weight.is_meta:
        return
    x = torch.full((2, min(8, length)), (padding + 1) % len(weight))
    x[0, x.shape[1] // 2 + 1 :] = padding
    mask = torch.ne(x, padding).long()
    network.eval()
    try:
        with torch.inference_mode():
            expected = network.model(input_ids=x, attention_mask=mask).logits
            torch.testing.assert_close(network(x), expected, rtol=1e-3, atol=1e-4)
    except Exception as error:  # of the network, or of the comparison
        raise UserError(
            f"{name}: expected a network whose logits depend on the vectors of tokens and on their "
            f"mask alone, so that vectors can be mixed, got another ({one_line(error):.100}). "
            "Choose an encoder such as BERT, RoBERTa or DistilBERT."
        ) from error
    finally:
        network.train()


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Silence the reports and progress bars of transformers, which vicinal replaces by one line."""
    level = library.logging.get_verbosity()
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    try:
        yield
    finally:
        library.logging.set_verbosity(level)
        library.logging.enable_progress_bar()


def network_config(network: nn.Module) -> dict[str, Any]:
    """Return what is needed to build a network without its files, as values for JSON.

    It is the configuration of a Hugging Face network; other networks need none.
    """
    if not isinstance(network, HuggingFace):
        return {}
    config: dict[str, Any] = network.model.config.to_dict()  # type: ignore[union-attr, operator]
    kept = {name: value for name, value in config.items() if name not in _UNSAFE}
    return dict(json.loads(json.dumps(kept)))  # keys of classes become strings, as in any file
