"""A small byte-level tokenizer of qwen2's kind, in both of its forms, and the texts that are encoded with it."""

from __future__ import annotations

import random
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

CHAT_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
_MERGES = (
    "h e",
    "l l",
    "he ll",
    "hell o",
    "Ġ Ġ",
    "1 2",
    "Ġ t",
    "Ġt he",
    "Ċ Ċ",
    "Ã ©",
    "i n",
    "in g",
    "a n",
    "d e",
    "de f",
)
_CONTROL, _USER = ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), ("<tool_call>", "</tool_call>")
_NORMAL, _CONTROL_TYPE, _USER_TYPE = 1, 3, 4
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _tokens() -> list[str]:
    return [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in _MERGES)]


@cache
def tiny_tokenizer() -> Tokenizer:
    """As a qwen2 model's tokenizer.json has it."""
    vocab = {token: index for index, token in enumerate(_tokens())}
    merges = [(merge.split(" ")[0], merge.split(" ")[1]) for merge in _MERGES]
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in _CONTROL]
    tokenizer.add_tokens([*special, *(AddedToken(token, special=False, normalized=False) for token in _USER)])
    return tokenizer


def gguf_lists() -> tuple[list[str], list[int], list[str]]:
    """The same as GGUF's tokens, token types and merges."""
    tokens = _tokens()
    types = [_NORMAL] * len(tokens) + [_CONTROL_TYPE] * len(_CONTROL) + [_USER_TYPE] * len(_USER)
    return [*tokens, *_CONTROL, *_USER], types, list(_MERGES)


def texts(count: int) -> list[str]:
    """Varied texts, the same every time: code, other scripts, emoji, control characters, special tokens as text."""
    parts = ["hello", " the", "def f(x):\n\treturn x", "12", " 3.14e-5", "\n\n", "  ", "\r\n", "I'LL", "n't", "ing"]
    parts += [
        "中文字",
        "日本語",
        "한국어",
        "żółć",
        "e\u0301",
        "é",
        "\U0001f642",
        "\U0001f469\u200d\U0001f467",
        "\u00a0",
    ]
    parts += ["\x00", "\x7f", "\ufeff", "\u202e", "<|im_start|>", "<|im_end|", "<tool_call>", "</tool_call>", "<|"]
    draw = random.Random(7)  # noqa: S311 - texts, not secrets
    return ["".join(draw.choices(parts, k=draw.randint(1, 12))) for _ in range(count)]
