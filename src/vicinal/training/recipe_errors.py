"""Error messages for the settings of a recipe, one line for each problem."""

import re
from collections.abc import Mapping
from typing import Any

import pydantic

from vicinal.errors import did_you_mean


def error_lines(error: pydantic.ValidationError, settings: Mapping[str, Any]) -> list[str]:
    """Return a line for each problem that pydantic found, which names the field as TOML does.

    Our own validators raise one error with a line for each problem. A line that is about a field
    of the validated table begins with the name of that field, such as ``.epochs: ...``.
    """
    lines = []
    for one in error.errors(include_url=False):
        field = "".join(f".{word}" for word in _path(one, settings))
        lines += [
            f"{field}{text if text.startswith(('.', ' ')) else f': {text}'}".removeprefix(".")
            for text in _problem(one).splitlines()
        ]
    return lines


def _problem(error: Any) -> str:
    context = error.get("ctx", {})
    tag = "." + str(context.get("discriminator", "")).strip("'")  # policy or name
    match error["type"]:
        case "value_error":  # from a validator of ours
            return str(context["error"])
        case "missing":
            return " is missing"
        case "union_tag_not_found":
            return f"{tag} is missing"
        case "union_tag_invalid":
            expected, got = context["expected_tags"], str(context["tag"])
            guess = did_you_mean(got, re.findall("'(.*?)'", expected))
            return f"{tag}: expected one of {expected}, got {got!r}{guess}"
        case "string_pattern_mismatch":  # of names, in settings.py
            words = "lowercase letters, digits and dashes"
        case _:
            words = re.sub(r"^\w+ should (be |have )?| or instance of \w+$", "", error["msg"])
            words = re.sub("^(greater|less) than", r"a number \g<0>", words)
            words = words.replace("valid dictionary", "table").replace("valid tuple", "list")
            words = words.removesuffix(" or object to extract fields from")
    return f"expected {words}, got {error['input']!r:.80}"


def _path(error: Any, settings: Any) -> list[str]:
    """Return the names on the way to a field, without the tags that pydantic adds for unions."""
    words, here = [], settings
    for word in error["loc"]:
        known = range(len(here)) if isinstance(here, list | tuple) else here
        if isinstance(known, Mapping | range) and word in known:
            words.append(str(word))
            here = here[word]
    return [*words, error["loc"][-1]] if error["type"] == "missing" else words
