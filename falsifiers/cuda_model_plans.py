"""Legal bfloat16 runs of a whole model: the oracle's operators one after the other, each rounded as its plans allow.

Plans of a stage are those of ``oracle_stages``, ``oracle_attention_stage`` and ``cuda_operator_references``. Run ``n``
of a model takes plan ``n`` of every stage, from the front again where a stage has fewer. Nothing is shared with the
CUDA path but the names of stages; tensors are on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aprender.parity.stages import Operator, ReferenceStage
from aprender.transformer.config import TransformerConfig
from aprender.transformer.oracle import Batch, operators
from aprender.transformer.oracle.attention import Places
from aprender.transformer.oracle.parameters import EMBEDDING, HEAD
from falsifiers import cuda_operator_references, oracle_attention_stage, oracle_stages
from falsifiers.oracle_stage_sums import truncated_product

MODEL_PLANS = 4  # as many as attention has; no stage has more
ATTENTION = ("o_proj", "q_norm", "k_norm")
MLP = ("gate_proj", "up_proj", "down_proj")


class ReferenceStages:
    """Every stage of a model over weights in bfloat16, with its oracle and its legal roundings, by the stage's name."""

    def __init__(self, config: TransformerConfig, weights: Mapping[str, Tensor]) -> None:
        self.config = config
        self.weights = {name: tensor.bfloat16() for name, tensor in weights.items()}

    def of(self, name: str, *inputs: Tensor) -> ReferenceStage:
        """Stage ``name`` ("layers.1.o_proj") on what it reads: tensors, and for RoPE and attention positions."""
        config, kind = self.config, name.rsplit(".", 1)[-1]
        if kind == "embed_tokens":
            return oracle_stages.embed(name, inputs[0], self.weights[EMBEDDING])
        if kind == "lm_head":
            return self._head(name, inputs[0])
        if kind.endswith("_rope"):
            x_BTHC, positions_BT = inputs
            return oracle_stages.rotate_at(name, x_BTHC, positions_BT, config.rope_theta, config.rope_scaling)
        if kind == "attention":
            return self._attention(name, *inputs)
        if kind == "post_attention_layernorm":
            x_BTD, branch_BTD = inputs
            gain_D = self._parameter(name, "weight")
            return cuda_operator_references.add_rms_norm(name, x_BTD, branch_BTD, gain_D, config.rms_norm_eps, 0)
        if kind.endswith("norm"):
            return oracle_stages.rms_norm(name, inputs[0], self._parameter(name, "weight"), config.rms_norm_eps)
        if kind in ("swiglu", "residual"):
            first, second = inputs
            return (oracle_stages.swiglu if kind == "swiglu" else oracle_stages.add)(name, first, second)
        if kind == "qkv_proj":
            return self._projections(name, inputs[0])
        return oracle_stages.linear(name, inputs[0], self._parameter(name, "weight"))

    def _projections(self, name: str, x_BTD: Tensor) -> ReferenceStage:
        """Of the queries, keys and values; the stage's parameters are three tensors each of the checkpoint."""
        module = f"model.{name.removesuffix('qkv_proj')}self_attn."
        weights = [self.weights[f"{module}{kind}_proj.weight"] for kind in "qkv"]
        biases = [self.weights[f"{module}{kind}_proj.bias"] for kind in "qkv"] if self.config.qkv_bias else None
        return cuda_operator_references.projections(name, x_BTD, weights, biases)

    def _head(self, name: str, x_BTD: Tensor) -> ReferenceStage:
        """Logits are added up and kept in float32; tensor cores add products of 16-bit operands up in their own way."""
        table_VD = self.weights[EMBEDDING if self.config.tie_word_embeddings else HEAD].float()
        stage = oracle_stages.linear(name, x_BTD.float(), table_VD)
        truncated = {"sums truncated": Operator(lambda inputs, parameters: truncated_logits(inputs[0], table_VD))}
        return replace(stage, plans=dict(stage.plans) | truncated)

    def _attention(self, name: str, *inputs: Tensor) -> ReferenceStage:
        q, k, v, q_positions, k_positions, q_documents, k_documents = inputs
        queries, keys = Places(q_positions, q_documents), Places(k_positions, k_documents)
        window = self.config.windows[int(name.split(".")[1])]
        scale = 1 / math.sqrt(self.config.head_dim)
        return oracle_attention_stage.attend(name, (q, k, v), queries, keys, scale, window)

    def _parameter(self, name: str, field: str) -> Tensor:
        """A stage's parameter by the checkpoint's name: layers.1.o_proj -> model.layers.1.self_attn.o_proj.weight."""
        owner, _, kind = f"model.{name}".rpartition(".")
        module = "self_attn." if kind in ATTENTION else "mlp." if kind in MLP else ""
        return self.weights[f"{owner}.{module}{kind}.{field}"]


def truncated_logits(x: Tensor, table_VD: Tensor) -> Tensor:
    """Logits of states x_..D as tensor cores add them up, both float32."""
    return truncated_product(x.flatten(0, -2), table_VD, oracle_stages.MOST_PARTS).view(*x.shape[:-1], -1)


class RoundedModel:
    """A model over weights in bfloat16, read as ``Oracle`` is: hidden states are bfloat16, logits and losses float32.

    ``number`` is the run: 0 to ``MODEL_PLANS - 1``.
    """

    def __init__(self, stages: ReferenceStages, number: int) -> None:
        self.stages, self.number = stages, number

    def hidden_states(self, batch: Batch) -> list[Tensor]:
        """x_BTD after the embedding, after each layer, and after the last norm."""
        states = [self._run("embed_tokens", batch.tokens_BT)]
        for index in range(self.stages.config.num_hidden_layers):
            states.append(self._layer(f"layers.{index}.", states[-1], batch))
        return [*states, self._run("norm", states[-1])]

    def logits(self, batch: Batch) -> Tensor:
        """Next-token logits_BTV."""
        found: Tensor = self._run("lm_head", self.hidden_states(batch)[-1])
        return found

    def token_losses(self, batch: Batch) -> Tensor:
        """Cross-entropy in nats of the token after each place but the last: [B, T-1], also where that is no target."""
        targets_BT, _ = batch.targets()
        logits_MV = self.logits(batch)[:, :-1].flatten(0, 1)
        return operators.cross_entropy(logits_MV, targets_BT.flatten()).view(targets_BT.shape)

    def _layer(self, at: str, x_BTD: Tensor, batch: Batch) -> Tensor:
        h_BTD = self._run(f"{at}input_layernorm", x_BTD)
        projected = self._run(f"{at}qkv_proj", h_BTD)
        q, k, v = (x.view(*x.shape[:2], -1, self.stages.config.head_dim) for x in projected)
        if self.stages.config.qk_norm:
            q, k = self._run(f"{at}q_norm", q), self._run(f"{at}k_norm", k)
        positions, documents = batch.positions_BT, batch.documents_BT
        q, k = self._run(f"{at}q_rope", q, positions), self._run(f"{at}k_rope", k, positions)
        mixed = self._run(f"{at}attention", q, k, v, positions, positions, documents, documents)
        branch_BTD = self._run(f"{at}o_proj", mixed.flatten(-2))
        x_BTD, h_BTD = self._run(f"{at}post_attention_layernorm", x_BTD, branch_BTD)
        gate, up = self._run(f"{at}gate_proj", h_BTD), self._run(f"{at}up_proj", h_BTD)
        down_BTD = self._run(f"{at}down_proj", self._run(f"{at}swiglu", gate, up))
        found: Tensor = self._run(f"{at}residual", x_BTD, down_BTD)
        return found

    def _run(self, name: str, *inputs: Tensor) -> Any:
        stage = self.stages.of(name, *inputs)
        plans = list(stage.plans.values())
        with torch.no_grad():
            return plans[self.number % len(plans)].forward(stage.inputs, stage.parameters)
