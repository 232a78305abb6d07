"""Turn texts into tokens with the tokenizer of a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vicinal.errors import UserError
from vicinal.import_path import imported, one_line

LENGTH = 128
"""The most tokens of a text by default."""

_CHUNK = 1000


class Tokenizer(NamedTuple):
    """A tokenizer as plain values, which a checkpoint stores.

    Args:
        content: as in a ``tokenizer.json``, without truncation and padding.
        padding: the token that fills up short texts.
    """

    content: str
    padding: int


class Tokens(NamedTuple):
    """Texts as tokens.

    Args:
        ids: ``(n, length)`` int64, filled up with padding on the right.
        counts: ``(n,)`` int64, the number of tokens of each text, at most ``length``.
        cut: how many texts were cut to ``length`` tokens.
    """

    ids: np.ndarray
    counts: np.ndarray
    cut: int


def read_tokenizer(where: str, root: Path) -> Tokenizer:
    """Read the tokenizer of a Hugging Face network; no code next to it is run.

    Args:
        where: a folder, under the root or the working directory, or a name on the hub.
        root: folder of data sets.

    Raises:
        UserError: if transformers is not installed, the tokenizer is not available, or it has no
            ``tokenizer.json`` or no padding token.
    """
    library = imported("transformers", "text:")
    folders = [path for path in (root / where, Path(where).expanduser()) if path.is_dir()]
    try:
        found = library.AutoTokenizer.from_pretrained(str(folders[0]) if folders else where)
    except Exception as error:  # the library raises errors of every kind
        raise UserError(
            f"tokenizer={where} is not available ({one_line(error).removesuffix('.')}). "
            "transformers looked for a folder of that name, in its cache and on the hub. Run hf "
            f"download {where} on a machine with internet access, or pass the path of a folder "
            "with the tokenizer."
        ) from error
    fast = getattr(found, "backend_tokenizer", None)
    if fast is None or found.pad_token_id is None:
        lacking = "a tokenizer.json" if fast is None else "a padding token"
        raise UserError(
            f"tokenizer={where}: expected {lacking}, but this tokenizer has none. Choose the "
            "tokenizer of an encoder such as BERT, RoBERTa or DistilBERT."
        )
    fast.no_truncation()
    fast.no_padding()
    return Tokenizer(fast.to_str(), int(found.pad_token_id))


def encode(texts: Sequence[str], tokenizer: Tokenizer, *, length: int) -> Tokens:
    """Turn texts into tokens, with the special tokens of the tokenizer.

    Args:
        texts: any number.
        tokenizer: tokenizer of the network.
        length: the most tokens of a text, special ones included; longer texts are truncated.

    Raises:
        UserError: if the library tokenizers is not installed, or the tokenizer is damaged.
    """
    library = imported("tokenizers", "text:")
    try:
        made = library.Tokenizer.from_str(tokenizer.content)
        special = made.num_special_tokens_to_add(False)
        made.enable_truncation(length)
    except Exception as error:  # the library raises errors of every kind
        raise UserError(
            f"length={length}: the tokenizer cannot be used ({one_line(error)}). It may be "
            "damaged. Copy it again."
        ) from error
    if length <= special:
        raise UserError(
            f"length={length}: expected more than the {special} special tokens of the tokenizer, "
            "which would leave nothing of the text. Raise length."
        )
    ids = np.full((len(texts), length), tokenizer.padding, dtype=np.int64)
    counts, cut = np.zeros(len(texts), dtype=np.int64), 0
    for start in range(0, len(texts), _CHUNK):
        for k, one in enumerate(made.encode_batch(list(texts[start : start + _CHUNK])), start):
            counts[k] = len(one.ids)
            ids[k, : counts[k]] = one.ids
            cut += bool(one.overflowing)
    return Tokens(ids, counts, cut)
