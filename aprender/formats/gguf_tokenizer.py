"""Tokenizer of a GGUF file: byte-level BPE, rebuilt from the metadata."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from aprender.errors import FormatError
from aprender.formats.fields import Fields

# tokenizer.ggml.token_type; control and user-defined tokens are cut out of the text before it is split into words
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

# The split that Qwen2's own tokenizer.json declares: contractions, a word with at most one leading mark, single
# digits, punctuation with its line breaks, line breaks, and spaces up to the last one before a word.
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)


def _qwen2(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _smollm(tokenizer: Tokenizer) -> None:
    # Every digit stands alone before GPT-2's split: after two spaces, the first digit must not claim one of them.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _gpt2(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


PRE_TOKENIZERS: dict[str, Callable[[Tokenizer], None]] = {"gpt-2": _gpt2, "qwen2": _qwen2, "smollm": _smollm}


def tokenizer_from_metadata(where: str, metadata: Mapping[str, object]) -> Tokenizer:
    """The tokenizer that ``metadata`` describes.

    Kind ``gpt2`` with the pre-tokenizers ``gpt-2``, ``qwen2`` and ``smollm`` is supported. Ids are positions in the
    list of tokens. Text that spells a control token becomes that token, as in Hugging Face's tokenizers. Raises
    FormatError for other kinds and for lists that are missing or don't fit together.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise FormatError(f"{where}: the tokenizer is of kind {reprlib.repr(kind)}, only gpt2 is supported")
    fields = Fields(where, metadata)
    pre = fields.text("tokenizer.ggml.pre")
    tokens = fields.texts("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in fields.texts("tokenizer.ggml.merges")]
    token_types = fields.integers("tokenizer.ggml.token_type")
    _refuse_unsupported(fields, metadata, pre)
    fields.check()
    if len(set(tokens)) < len(tokens):
        fields.refuse("tokenizer.ggml.tokens holds a token twice")
    if len(token_types) != len(tokens):
        fields.refuse(f"tokenizer.ggml.token_type has {len(token_types)} entries for {len(tokens)} tokens")
    if any(len(merge) != 2 for merge in merges):
        fields.refuse("tokenizer.ggml.merges has an entry that isn't two tokens with one space between")
    fields.check()
    tokenizer = Tokenizer(_byte_pair_model(where, tokens, merges))
    PRE_TOKENIZERS[pre](tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == CONTROL, normalized=False)
            for token, kind in zip(tokens, token_types, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return tokenizer


def _refuse_unsupported(fields: Fields, metadata: Mapping[str, object], pre: str) -> None:
    if pre and pre not in PRE_TOKENIZERS:
        fields.refuse(f"tokenizer.ggml.pre is {reprlib.repr(pre)}; supported are {', '.join(PRE_TOKENIZERS)}")
    for key in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        if metadata.get(f"tokenizer.ggml.{key}") not in (None, False):
            fields.refuse(f"tokenizer.ggml.{key} is true, which is not supported: text is encoded as it stands")


def _byte_pair_model(where: str, tokens: list[str], merges: list[tuple[str, ...]]) -> models.BPE:
    vocab = {token: index for index, token in enumerate(tokens)}
    try:
        return models.BPE(vocab, merges)  # type: ignore[arg-type]  # each merge was checked to be a pair
    except Exception as error:  # the library raises plain Exception for a merge of unknown tokens
        raise FormatError(f"{where}: tokenizer.ggml.merges doesn't fit the tokens ({error})") from error
