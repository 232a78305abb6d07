"""The inputs that pretrained weights expect: normalization, channels and size."""

from typing import Any, NamedTuple

from vicinal.errors import UserError
from vicinal.import_path import imported
from vicinal.models.external import timm_config, torchvision_weights
from vicinal.models.network_name import NetworkName, parse_name


class InputFormat(NamedTuple):
    """The images that the weights of a network were trained with.

    Args:
        mean: mean of each channel, for pixels from 0 to 1.
        std: likewise.
        size: height and width, if they are known.
        origin: who says so.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    origin: str


def input_format(name: str) -> InputFormat | None:
    """Return the format of images that a network expects, or None if it starts from random weights.

    The options ``mean`` and ``std`` of the name come first; then what the library says about its
    own weights, also if other weights are loaded from a file into a network of that library. None
    too if the library says nothing.

    Raises:
        UserError: if the library is not installed or has no such network, or the file with its
            format is damaged.

    Example:
        >>> input_format("small-cnn") is None
        True
        >>> input_format("small-cnn?weights=a.pt&mean=0.5&std=0.25").std
        (0.25,)
    """
    parsed = parse_name(name)
    if "mean" in parsed.options:
        mean, std = (_numbers(parsed.options[key].split(",")) for key in ("mean", "std"))
        return InputFormat(mean, std, None, "the options mean and std")
    if not parsed.pretrained and parsed.weights_file is None:
        return None
    return _FORMATS[parsed.library](parsed) if parsed.library in _FORMATS else None


def _of_timm(name: NetworkName) -> InputFormat | None:
    config = timm_config(imported("timm", name.text), name)
    if config is None:
        return None
    height, width = config.input_size[1:]
    return InputFormat(_numbers(config.mean), _numbers(config.std), (height, width), "timm")


def _of_torchvision(name: NetworkName) -> InputFormat | None:
    models = imported("torchvision", name.text).models
    weights = torchvision_weights(models, name)
    if weights is None:
        weights = models.get_model_weights(name.where).DEFAULT
    shown = weights.transforms()
    size = shown.crop_size[0]
    return InputFormat(_numbers(shown.mean), _numbers(shown.std), (size, size), "torchvision")


def _of_hugging_face(name: NetworkName) -> InputFormat | None:
    library = imported("transformers", name.text)
    try:
        known, _ = library.ImageProcessingMixin.get_image_processor_dict(name.where)
    except (OSError, ValueError):  # a network of texts, or without that file
        return None
    if known.get("do_flip_channel_order"):
        raise UserError(
            f"{name.text}: its weights expect the channels in the order blue, green, red, which is "
            "not supported. Choose another network."
        )
    try:
        factor = known.get("rescale_factor", 1 / 255) if known.get("do_rescale", True) else 1.0
        offset = 1.0 if known.get("rescale_offset") else 0.0  # subtracted from rescaled pixels
        normalized = known.get("do_normalize", True)
        mean = _numbers(known["image_mean"] if normalized else [0.0])
        std = _numbers(known["image_std"] if normalized else [1.0])
        if normalized and known.get("include_top"):  # EfficientNet divides by std twice
            std = tuple(one**2 for one in std)
        size = known.get("size")
        square = isinstance(size, dict) and {"height", "width"} <= size.keys()
        return InputFormat(
            tuple((one + offset) / (255 * factor) for one in mean),
            tuple(one / (255 * factor) for one in std),
            (size["height"], size["width"]) if square else None,
            name.where,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{name.text}: expected mean and std in its preprocessor_config.json, got something "
            "else. Pass them as options, such as ?mean=0.5&std=0.5."
        ) from error


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in ([values] if isinstance(values, float) else values))


_FORMATS = {"timm": _of_timm, "torchvision": _of_torchvision, "hf": _of_hugging_face}
