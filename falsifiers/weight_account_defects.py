"""Planted defects of accounts and of tokenizers: counts that aren't of the file, ids that aren't the model's."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from unittest.mock import patch

import torch
from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from aprender.falsify.probe import Defects
from aprender.formats import accounting, gguf_tokenizer, load, model_file
from aprender.formats.accounting import Account, Plan
from aprender.formats.model_file import ModelFile
from falsifiers.weight_system import WeightLoading

Planting = Generator[None]
DEFECTS = Defects()


def _accounted_otherwise(change: Callable[[Plan, Account], Account]) -> Planting:
    original = accounting.take_tensors

    def take(plan: Plan) -> tuple[dict[str, torch.Tensor], Account]:
        tensors, account = original(plan)
        return tensors, change(plan, account)

    with patch.object(load, "take_tensors", take):
        yield


def _opened_otherwise(change: Callable[[ModelFile], ModelFile]) -> Planting:
    original = model_file.open_model
    with patch.object(load, "open_model", lambda path, files: change(original(path, files))):
        yield


@DEFECTS.plant("parameters_counted_without_biases")
def parameters_counted_without_biases(_: WeightLoading) -> Planting:
    """The count that is reported is of the names that somebody remembered."""

    def change(plan: Plan, account: Account) -> Account:
        return replace(account, parameters_written=sum(not name.endswith("bias") for name in plan.shapes))

    return _accounted_otherwise(change)


@DEFECTS.plant("tensors_left_unconsumed")
def tensors_left_unconsumed(_: WeightLoading) -> Planting:
    """A stored copy of a tied head isn't looked at, and nobody counts it."""
    return _accounted_otherwise(lambda plan, account: replace(account, tensors_consumed=len(plan.shapes)))


def _gguf_tokenizers(change: Callable[[Tokenizer], Tokenizer]) -> Planting:
    original = gguf_tokenizer.tokenizer_from_metadata
    with patch.object(model_file, "tokenizer_from_metadata", lambda *args: change(original(*args))):
        yield


@DEFECTS.plant("digits_not_split")
def digits_not_split(_: WeightLoading) -> Planting:
    """GPT-2's split for everybody: runs of digits stay together."""

    def change(tokenizer: Tokenizer) -> Tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return tokenizer

    return _gguf_tokenizers(change)


@DEFECTS.plant("text_not_composed")
def text_not_composed(_: WeightLoading) -> Planting:
    """Qwen2's normalizer is left out: e with a combining accent stays two characters."""

    def change(tokenizer: Tokenizer) -> Tokenizer:
        tokenizer.normalizer = None
        return tokenizer

    return _gguf_tokenizers(change)


@DEFECTS.plant("special_tokens_as_text")
def special_tokens_as_text(_: WeightLoading) -> Planting:
    """Control and user-defined tokens are entries of the vocabulary, and nothing cuts them out of the text."""
    with patch.object(gguf_tokenizer, "AddedToken", lambda _, **how: AddedToken("\N{SNOWMAN}" * 9, **how)):
        yield


@DEFECTS.plant("end_of_turn_ignored")
def end_of_turn_ignored(_: WeightLoading) -> Planting:
    """Of several ids that end a text, the first is enough."""

    def change(model: ModelFile) -> ModelFile:
        return replace(model, usage=replace(model.usage, eos_ids=model.usage.eos_ids[:1]))

    return _opened_otherwise(change)


@DEFECTS.plant("chat_template_dropped")
def chat_template_dropped(_: WeightLoading) -> Planting:
    """An instruct model without its template: prompts go in raw."""
    return _opened_otherwise(lambda model: replace(model, usage=replace(model.usage, chat_template=None)))
