"""Probes of FALSIFY-WEIGHT-LOADING-001 and -004: what was loaded is what is in the file, each tensor once."""

from __future__ import annotations

import hashlib

import torch

from aprender.errors import FormatError
from aprender.falsify.probe import Observation, probe
from aprender.formats import load_checkpoint
from aprender.formats.checkpoint import Checkpoint
from falsifiers.threads import on_one_thread
from falsifiers.weight_checkpoints import Case
from falsifiers.weight_defects import DEFECTS
from falsifiers.weight_system import WEIGHT_LOADING, WeightLoading
from falsifiers.weight_tokenizer import CHAT_TEMPLATE, texts, tiny_tokenizer


@probe(
    system=WEIGHT_LOADING,
    observes={
        "checkpoints": "checkpoints",
        "checkpoints_loaded": "checkpoints",
        "tensors_expected": "tensors",
        "tensors_equal": "tensors",
        "elements_expected": "elements",
        "elements_equal": "elements",
        "tensors_not_asked_for": "tensors",
        "formats": "formats",
    },
    defects=DEFECTS,
)
@on_one_thread
def tensors(system: WeightLoading) -> Observation:
    """Load every checkpoint and compare each tensor with what was written: name, shape, dtype and every bit.

    What was written is known without any code under contract: seeded, or dequantized by the gguf package.
    """
    state = hashlib.sha256()
    loaded = unasked = tensors_equal = elements_equal = 0
    for case in system.cases:
        checkpoint = _load(case, state)
        if checkpoint is None:
            continue
        loaded += 1
        unasked += len(checkpoint.tensors.keys() - case.tensors.keys())
        for name, expected in case.tensors.items():
            equal = _equal_elements(checkpoint.tensors.get(name), expected)
            elements_equal += equal
            tensors_equal += equal == expected.numel()
            state.update(_raw(checkpoint.tensors.get(name)))
    return Observation(
        {
            "checkpoints": len(system.cases),
            "checkpoints_loaded": loaded,
            "tensors_expected": sum(len(case.tensors) for case in system.cases),
            "tensors_equal": tensors_equal,
            "elements_expected": sum(t.numel() for case in system.cases for t in case.tensors.values()),
            "elements_equal": elements_equal,
            "tensors_not_asked_for": unasked,
            "formats": len({case.path.suffix for case in system.cases}),
        },
        state.hexdigest(),
    )


@probe(
    system=WEIGHT_LOADING,
    observes={
        "parameters_expected": "tensors",
        "parameters_held": "tensors",
        "parameters_accounted": "tensors",
        "tensors_in_files": "tensors",
        "tensors_accounted": "tensors",
        "tied_checkpoints": "checkpoints",
        "tied_heads_shared": "checkpoints",
        "separate_tensors": "tensors",
        "most_parameters": "tensors",
        "texts": "texts",
        "texts_with_equal_ids": "texts",
        "usages_expected": "checkpoints",
        "usages_equal": "checkpoints",
    },
    defects=DEFECTS,
)
def account(system: WeightLoading, *, strings: int) -> Observation:
    """Count: parameters held, tensors consumed, heads that are the embedding itself, memory that is shared otherwise.

    Also the tokenizer of each format against the tokenizer that was written, on ``strings`` varied texts, and what
    the files say of special tokens and prompts.
    """
    state = hashlib.sha256()
    cases = [*system.cases, system.many]
    counts = dict.fromkeys(("held", "accounted", "in_files", "shared", "separate", "texts", "usages"), 0)
    in_files, varied, expected_tokenizer = 0, texts(strings), tiny_tokenizer()
    expected_ids = [expected_tokenizer.encode(text).ids for text in varied]
    for case in cases:
        in_files += len(case.tensors) + _tensors_beside(case)
        checkpoint = _load(case, state)
        if checkpoint is None:
            continue
        counts["held"] += len(checkpoint.tensors.keys() & case.tensors.keys())
        counts["accounted"] += checkpoint.account.parameters_written
        counts["in_files"] += checkpoint.account.tensors_consumed + checkpoint.account.tensors_ignored
        counts["separate"] += len({tensor.data_ptr() for tensor in checkpoint.tensors.values()})
        counts["shared"] += case.config.tie_word_embeddings and _is_embedding(checkpoint)
        counts["texts"] += sum(
            checkpoint.tokenizer.encode(text).ids == ids for text, ids in zip(varied, expected_ids, strict=True)
        )
        usage = checkpoint.usage
        counts["usages"] += (usage.context_length, usage.bos_id, usage.eos_ids, usage.chat_template) == (
            *(2048, 3, (4, 5)),
            CHAT_TEMPLATE,
        )
        state.update(repr((sorted(counts.items()), checkpoint.account)).encode())
    return Observation(
        {
            "parameters_expected": sum(len(case.tensors) for case in cases),
            "parameters_held": counts["held"],
            "parameters_accounted": counts["accounted"],
            "tensors_in_files": in_files,
            "tensors_accounted": counts["in_files"],
            "tied_checkpoints": sum(case.config.tie_word_embeddings for case in cases),
            "tied_heads_shared": counts["shared"],
            "separate_tensors": counts["separate"],
            "most_parameters": max(len(case.tensors) for case in cases),
            "texts": len(varied) * len(cases),
            "texts_with_equal_ids": counts["texts"],
            "usages_expected": len(cases),
            "usages_equal": counts["usages"],
        },
        state.hexdigest(),
    )


def _load(case: Case, state: hashlib._Hash) -> Checkpoint | None:
    """The checkpoint, or None where loading refuses what is sound."""
    try:
        return load_checkpoint(case.path)
    except FormatError as error:
        state.update(str(error).replace(str(case.path.parent), "").encode())
        return None


def _raw(tensor: torch.Tensor | None) -> bytes:
    return b"" if tensor is None else tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _equal_elements(held: torch.Tensor | None, expected: torch.Tensor) -> int:
    """How many elements are bit-equal; none where the tensor is absent or has another shape or dtype."""
    if held is None or held.shape != expected.shape or held.dtype != expected.dtype:
        return 0
    integer = torch.int32 if expected.dtype == torch.float32 else torch.int16
    same = held.contiguous().reshape(-1).view(integer) == expected.contiguous().reshape(-1).view(integer)
    return int(same.sum())


def _is_embedding(checkpoint: Checkpoint) -> bool:
    return checkpoint.head is checkpoint.tensors["model.embed_tokens.weight"]


def _tensors_beside(case: Case) -> int:
    """Those in the file that are no parameters: a stored copy of a tied head, the factors of llama3 scaling in GGUF."""
    copy = case.name == "folder-qwen3"
    return copy + (case.path.suffix == ".gguf" and case.config.rope_scaling is not None)
