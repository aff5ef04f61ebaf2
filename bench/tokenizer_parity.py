"""Token ids of GGUF files' tokenizers against transformers' on the same files, over varied texts.

    python bench/tokenizer_parity.py [MODEL.gguf ...] [--texts N]

Default: all files in ../real, 5,000 texts each: code, CJK, emoji, control characters, special tokens as text, and texts
that are hard on purpose. Counted are texts whose ids differ from AutoTokenizer's (gguf_file=) as it comes, and with
what its GGUF path leaves out put back: of qwen2 the NFC normalizer that transformers' own Qwen2Tokenizer has, of smollm
the single digits that the model's tokenizer.json declares (Digits before ByteLevel). The latter must be none.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tokenizers import Tokenizer, normalizers, pre_tokenizers

from aprender.formats.gguf_header import read_header
from aprender.formats.gguf_tokenizer import tokenizer_from_metadata
from falsifiers.weight_tokenizer import texts

SHOWN = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--texts", type=int, default=5_000)
    arguments = parser.parse_args()
    differing = 0
    for path in arguments.models or sorted((ROOT.parent / "real").glob("*.gguf")):
        differing += compare(path, arguments.texts)
    sys.exit(1 if differing else 0)


def compare(path: Path, count: int) -> int:
    from transformers import AutoTokenizer

    metadata = read_header(path).metadata
    ours = tokenizer_from_metadata(str(path), metadata)
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
    tokens: Any = metadata["tokenizer.ggml.tokens"]
    strings = varied(count, [token for token in tokens if token.startswith("<|")][:40])
    expected = [ids(ours, text) for text in strings]
    as_it_comes = sum(ids(theirs, text) != own for text, own in zip(strings, expected, strict=True))
    if metadata["tokenizer.ggml.pre"] == "qwen2":
        theirs.normalizer = normalizers.NFC()
    else:
        digits = pre_tokenizers.Digits(individual_digits=True)
        theirs.pre_tokenizer = pre_tokenizers.Sequence([digits, theirs.pre_tokenizer])
    differing = [(text, own) for text, own in zip(strings, expected, strict=True) if ids(theirs, text) != own]
    for text, own in differing[:SHOWN]:
        print(f"  {text!r}\n    here  {own}\n    there {ids(theirs, text)}")
    print(
        f"{path.name}: of {count} texts {as_it_comes} differ from transformers' GGUF path as it comes, "
        f"{len(differing)} with what it leaves out put back",
        flush=True,
    )
    return len(differing)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return found


def varied(count: int, special: list[str]) -> list[str]:
    """A third from the falsifiers' own mixture, a third from this repository's code, a third of any characters."""
    draw = random.Random(11)  # noqa: S311 - texts, not secrets
    code = "".join(file.read_text("utf-8") for file in sorted(ROOT.glob("aprender/**/*.py"))[:60])
    ranges = [(32, 127), (32, 127), (0xA0, 0x250), (0x370, 0x600), (0x900, 0xE00), (0x3040, 0x30FF), (0x4E00, 0x9FFF)]
    ranges += [(0xAC00, 0xD7A3), (0x2000, 0x2BFF), (0x1F300, 0x1FAFF), (0, 32), (0x300, 0x36F)]

    def characters() -> str:
        parts = [chr(draw.randint(*draw.choice(ranges))) for _ in range(draw.randint(1, 30))]
        if draw.random() < 0.3:
            parts.insert(draw.randrange(len(parts)), draw.choice(special))
        return "".join(parts)

    def slice_of_code() -> str:
        at = draw.randrange(len(code) - 400)
        return code[at : at + draw.randint(5, 400)]

    mixture = texts(count - 2 * (count // 3))
    return [*mixture, *(slice_of_code() for _ in range(count // 3)), *(characters() for _ in range(count // 3))]


if __name__ == "__main__":
    main()
