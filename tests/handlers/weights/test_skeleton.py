"""A model filled weight by weight is the model that the weights came from."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
)

from handlers.native.packed_linear import PackedLinear, can_pack
from handlers.weights.skeleton import fill_model
from tests.quantizers import to_int8

SIZES = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama3 rope": LlamaConfig(
        **SIZES,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "qwen2, tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "phi3, fused layers": Phi3Config(**SIZES),
    "gemma3, two ropes": Gemma3TextConfig(**SIZES, head_dim=16, sliding_window=8, layer_types=["sliding_attention", "full_attention"]),
    "mixtral, experts": MixtralConfig(**SIZES, num_local_experts=2),
    "gpt2, transposed": GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=4, pad_token_id=0),
}  # fmt: skip
TOKENS = torch.arange(3, 40)[None]


def make(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype).eval()


@torch.inference_mode()
def logits(model: nn.Module) -> torch.Tensor:
    return model(TOKENS).logits


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_filled_model_computes_the_same(name, dtype):
    source = make(CONFIGS[name], dtype)
    weights = source.state_dict()
    names = weights.keys() - source.all_tied_weights_keys.keys()
    filled = fill_model(copy.deepcopy(CONFIGS[name]), names, weights.__getitem__, dtype)
    assert torch.equal(logits(filled), logits(source))
    assert {tensor.device.type for tensor in (*filled.parameters(), *filled.buffers())} == {"cpu"}
    assert {parameter.dtype for parameter in filled.parameters()} == {dtype}
    assert not filled.training


def test_quantized_weights_are_packed_in_linear_layers_and_dense_elsewhere():
    source = make(CONFIGS["qwen2, tied"])
    weights = source.state_dict()
    filled = fill_model(
        copy.deepcopy(source.config),
        weights,
        lambda name: to_int8(weights[name]) if weights[name].dim() == 2 else weights[name],
        torch.float32,
    )
    kind = PackedLinear if can_pack(torch.device("cpu")) else nn.Linear
    assert type(filled.model.layers[0].self_attn.q_proj) is kind
    assert type(filled.model.embed_tokens) is nn.Embedding
    assert (logits(filled) - logits(source)).norm() < 0.03 * logits(source).norm()


def test_a_quantized_head_is_kept_though_the_model_would_tie_it():
    source = make(CONFIGS["qwen2, tied"])
    weights = source.state_dict()
    head = to_int8(weights["lm_head.weight"])
    filled = fill_model(
        copy.deepcopy(source.config), weights, lambda name: head if name == "lm_head.weight" else weights[name], torch.float32
    )
    if can_pack(torch.device("cpu")):
        assert type(filled.lm_head) is PackedLinear
    assert torch.equal(filled.model.embed_tokens.weight, weights["model.embed_tokens.weight"])
    assert (logits(filled) - logits(source)).norm() < 0.03 * logits(source).norm()


def test_what_old_checkpoints_store_beside_is_left_out():
    source = make(CONFIGS["llama3 rope"])
    weights = source.state_dict() | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}
    filled = fill_model(copy.deepcopy(CONFIGS["llama3 rope"]), weights, weights.__getitem__, torch.float32)
    assert torch.equal(logits(filled), logits(source))
