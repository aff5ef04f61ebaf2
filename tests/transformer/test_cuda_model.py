"""The CUDA path, on every device there is: equal to the oracle up to rounding, honest about where it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from aprender.errors import AprenderError, FormatError
from aprender.transformer.config import TransformerConfig
from aprender.transformer.cuda import CudaTransformer
from aprender.transformer.cuda.ops import Embedding, FusedLinear, Linear, LinearCrossEntropy, Logits
from aprender.transformer.cuda.stages import get_stage, replaced
from aprender.transformer.cuda.upload import upload
from aprender.transformer.oracle import Batch, Oracle
from falsifiers.projections import bias_with
from tests.transformer.random_models import CONFIGS, float32_envelope, random_tokens, random_weights

QWEN = CONFIGS["qwen2-7to1-untied"]


def build(config: TransformerConfig, device: str | torch.device) -> CudaTransformer:
    return CudaTransformer.from_checkpoint(config, random_weights(config), device)


def tokens_of(config: TransformerConfig) -> Tensor:
    return random_tokens(config)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("method", ["logits", "token_losses"])
def test_equals_the_oracle_within_the_rounding_envelope(name: str, method: str, device: torch.device) -> None:
    """Logits and losses differ from float64 by no more than float32 rounding allows."""
    config = CONFIGS[name]
    weights, tokens_BT = random_weights(config), random_tokens(config)
    exact = getattr(Oracle(config, weights), method)(Batch.of(tokens_BT))
    model = build(config, device)
    candidate = (model.forward if method == "logits" else model.token_losses)(tokens_BT)
    assert candidate.dtype == torch.float32
    assert candidate.shape == exact.shape
    error = float((candidate.cpu() - exact).abs().max())
    assert 0 < error <= float32_envelope(config, weights, tokens_BT, method)


@pytest.mark.parametrize("change", ["bias", "theta", "eps"])
def test_a_small_defect_is_far_outside_the_envelope(change: str, device: torch.device) -> None:
    """One dropped K bias, another theta or another eps exceeds the envelope tenfold: it is not too wide to fail."""
    weights, tokens_BT = random_weights(QWEN), random_tokens(QWEN)
    model = build(QWEN, device)
    name = {"bias": "layers.2.qkv_proj", "theta": "layers.2.k_rope", "eps": "layers.0.input_layernorm"}[change]
    stage = get_stage(model, name)
    if isinstance(stage, FusedLinear):
        defect: object = dataclasses.replace(stage, bias=bias_with(stage, "k_proj", 0.0))
    elif change == "theta":
        defect = get_stage(build(_with(QWEN, rope_theta=10_000.0), device), name)
    else:
        defect = get_stage(build(_with(QWEN, rms_norm_eps=1e-6), device), name)
    with replaced(model, name, defect):  # type: ignore[arg-type]
        wrong_BT = model.token_losses(tokens_BT).cpu()
    error = float((wrong_BT - Oracle(QWEN, weights).token_losses(Batch.of(tokens_BT))).abs().max())
    assert error > 10 * float32_envelope(QWEN, weights, tokens_BT, "token_losses")


def test_chunked_losses_are_those_of_the_logits(device: torch.device) -> None:
    """Losses made from 7 positions at a time equal those made from all logits, in the same places."""
    model, tokens_BT = build(QWEN, device), tokens_of(QWEN)
    logits_BTV = model.forward(tokens_BT)
    head = get_stage(model, "lm_head")
    assert isinstance(head, Logits)
    chunked = LinearCrossEntropy(head.weight, logits_at_once=7 * QWEN.vocab_size + 5)
    with replaced(model, "loss", chunked):
        losses_BT = model.token_losses(tokens_BT)
    targets_BT = tokens_BT[:, 1:].to(device)
    expected_BT = functional.cross_entropy(logits_BTV[:, :-1].mT.double(), targets_BT, reduction="none")
    envelope = float32_envelope(QWEN, random_weights(QWEN), tokens_BT, "token_losses")
    torch.testing.assert_close(losses_BT.double(), expected_BT, rtol=0, atol=envelope)


def test_the_future_does_not_change_the_past(device: torch.device) -> None:
    """Other tokens from position 37 on leave every logit before it bit-equal, and change those after it."""
    model, tokens_BT = build(QWEN, device), tokens_of(QWEN)
    other_BT = tokens_BT.clone()
    other_BT[:, 37:] = (other_BT[:, 37:] + 1) % QWEN.vocab_size
    logits_BTV, other_BTV = model.forward(tokens_BT), model.forward(other_BT)
    assert torch.equal(logits_BTV[:, :37], other_BTV[:, :37])
    assert ((logits_BTV - other_BTV)[:, 37:].abs().amax(dim=-1) > 0.1).all()


def test_upload_shares_memory_on_the_cpu_and_nothing_changes_it(device: torch.device) -> None:
    """On the CPU upload copies nothing, and a pass with gradients leaves every weight bit-equal."""
    tensors = random_weights(QWEN)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    uploaded = upload(QWEN, tensors, torch.device("cpu"), torch.float32)
    assert list(uploaded) == list(QWEN.tensor_shapes())
    assert all(uploaded[name].data_ptr() == tensor.data_ptr() for name, tensor in tensors.items())
    CudaTransformer.from_checkpoint(QWEN, tensors, device).loss_and_gradients(tokens_of(QWEN))
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors.items())


def test_an_upload_without_biases_makes_a_model_without_biases(device: torch.device) -> None:
    """The founding defect can be planted: the model is built, has no biases, and answers differently."""

    def forgetful(
        config: TransformerConfig, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        uploaded = upload(config, tensors, device, dtype)
        return {name: tensor for name, tensor in uploaded.items() if not name.endswith(".bias")}

    tensors = random_weights(QWEN)
    model = CudaTransformer.from_checkpoint(QWEN, tensors, device, upload=forgetful)
    projections = [get_stage(model, f"layers.{i}.qkv_proj") for i in range(3)]
    assert all(isinstance(fused, FusedLinear) and fused.bias is None for fused in projections)
    assert not torch.allclose(model.forward(tokens_of(QWEN)), build(QWEN, device).forward(tokens_of(QWEN)), atol=0.1)


def test_an_upload_of_some_of_the_biases_is_refused() -> None:
    """Q, K and V are one product: zeros in the place of a missing bias would be a silent loss."""

    def forgetful(
        config: TransformerConfig, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        uploaded = upload(config, tensors, device, dtype)
        return {name: tensor for name, tensor in uploaded.items() if not name.endswith("1.self_attn.k_proj.bias")}

    with pytest.raises(FormatError, match=r"model\.layers\.1\.self_attn\.k_proj\.bias was not uploaded"):
        CudaTransformer.from_checkpoint(QWEN, random_weights(QWEN), "cpu", upload=forgetful)


@pytest.mark.parametrize("name", CONFIGS)
def test_heads_are_tied_and_biases_present_as_configured(name: str, device: torch.device) -> None:
    """A tied head is the embedding's own tensor; Q, K and V have biases in qwen2 and none in llama."""
    config, model = CONFIGS[name], build(CONFIGS[name], device)
    embedding, head, loss = (get_stage(model, name) for name in ("embed_tokens", "lm_head", "loss"))
    assert isinstance(embedding, Embedding)
    assert isinstance(head, Logits)
    assert isinstance(loss, LinearCrossEntropy)
    assert (head.weight is embedding.weight) == config.tie_word_embeddings
    assert loss.weight is head.weight
    for i in range(config.num_hidden_layers):
        fused, *linears = (get_stage(model, f"layers.{i}.{kind}_proj") for kind in ("qkv", "o", "gate", "up", "down"))
        assert isinstance(fused, FusedLinear)
        assert (fused.bias is not None) == (config.family == "qwen2")
        assert all(isinstance(linear, Linear) and linear.bias is None for linear in linears)


@pytest.mark.parametrize(("token", "row", "column"), [(211, 1, 40), (-1, 0, 60)])
def test_a_token_outside_the_vocabulary_is_named(token: int, row: int, column: int, device: torch.device) -> None:
    """The message names the token, where it is and how large the vocabulary is."""
    tokens_BT = tokens_of(QWEN)
    tokens_BT[row, column] = token
    with pytest.raises(AprenderError, match=rf"has 211 tokens: token {token} \(row {row}, column {column}\)"):
        build(QWEN, device).forward(tokens_BT)


def test_nothing_to_predict_is_an_error(device: torch.device) -> None:
    """A row of one token, no row at all and tokens that aren't integers are refused, not averaged to NaN."""
    model, tokens_BT = build(QWEN, device), tokens_of(QWEN)
    with pytest.raises(AprenderError, match="2 tokens or more"):
        model.token_losses(tokens_BT[:, :1])
    for wrong in (tokens_BT[:0], tokens_BT[0], tokens_BT.double()):
        with pytest.raises(AprenderError, match="must be integers of shape"):
            model.token_losses(wrong)


def test_more_positions_than_the_tables_serve_is_an_error(device: torch.device) -> None:
    """A row longer than the rotary tables is refused; the kernel would have given NaN."""
    model = CudaTransformer.from_checkpoint(QWEN, random_weights(QWEN), device, max_positions=60)
    with pytest.raises(AprenderError, match=r"position 60 \(row 0, column 60\).* positions 0 to 59; .* larger max_pos"):
        model.forward(tokens_of(QWEN))


def test_a_checkpoint_unlike_its_configuration_is_refused() -> None:
    """A missing bias and a transposed matrix are found before the upload."""
    tensors = random_weights(QWEN)
    name = "model.layers.0.self_attn.v_proj.bias"
    with pytest.raises(FormatError, match=f"{name} is missing"):
        CudaTransformer.from_checkpoint(QWEN, {k: v for k, v in tensors.items() if k != name}, "cpu")
    name = "model.layers.2.mlp.up_proj.weight"
    with pytest.raises(FormatError, match=f"{name} has shape"):
        CudaTransformer.from_checkpoint(QWEN, {**tensors, name: tensors[name].T}, "cpu")


def test_a_silent_fallback_to_another_device_is_an_error(device: torch.device) -> None:
    """Weights that were uploaded elsewhere, and results that come out elsewhere, are found on any host."""
    with pytest.raises(AprenderError, match=rf"embed_tokens\.weight is on meta, not on {device}"):
        CudaTransformer.from_checkpoint(
            QWEN,
            random_weights(QWEN),
            device,
            upload=lambda config, tensors, device, dtype: {name: tensors[name].to("meta") for name in tensors},
        )
    model = build(QWEN, device)
    head = get_stage(model, "lm_head")
    with (
        replaced(model, "lm_head", lambda x: head(x).to("meta")),
        pytest.raises(AprenderError, match="logits is on meta"),
    ):
        model.forward(tokens_of(QWEN))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
def test_a_device_that_is_not_there_is_an_error() -> None:
    """Asking for CUDA without a GPU says so, and does not run on the CPU instead."""
    with pytest.raises(AprenderError, match="finds no CUDA device"):
        build(QWEN, "cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, torch finds none")
def test_tf32_is_refused() -> None:
    """With TF32 switched on, float32 on the GPU would have 10 bits of mantissa: the model is not built."""
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(AprenderError, match="TF32"):
            build(QWEN, "cuda")
    finally:
        torch.set_float32_matmul_precision("highest")


def _with(config: TransformerConfig, **changes: float) -> TransformerConfig:
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("V", [1000, 151_936])
def test_the_loss_keeps_the_tail_of_a_large_vocabulary(V: int, device: torch.device) -> None:
    """A confident model's small terms add up: a sum that drops them is off by the same sign on every token."""
    generator = torch.Generator().manual_seed(0)
    logits_NV = torch.randn(200, V, generator=generator) * 2
    targets_N = torch.arange(200) % 11
    logits_NV[torch.arange(200), targets_N] = 18 + 4 * torch.rand(200, generator=generator)
    # The head is a table of all logits, one row of x for each: the products are exact.
    loss = LinearCrossEntropy(logits_NV.T.contiguous().to(device))
    losses_N = loss.token_losses(torch.eye(200, device=device), targets_N.to(device)).cpu().double()
    exact_N = functional.cross_entropy(logits_NV.double(), targets_N, reduction="none")
    # Two numbers of about 20 are subtracted, each rounded a few times: the errors' mean is far below 4 roundings.
    assert (losses_N - exact_N).mean().abs() < 4 * 2.0**-24 * 20
