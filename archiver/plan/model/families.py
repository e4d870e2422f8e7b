"""The table of model families, by ``model_type``: what their config.json leaves unsaid.

Facts from the published configurations and transformers' model definitions, against which a test checks every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from archiver.plan.model.family import Family
from archiver.plan.model.per_layer_embeddings import per_layer_weights, shared_weights
from archiver.plan.model.settings import Settings

LIKE_LLAMA = Family()
"""Also what a family that is not in the table is taken for."""


def _falcon_norms(settings: Settings) -> int:
    """Attention and MLP run side by side on one norm; since the new architecture on one each."""
    is_new = settings.flag("new_decoder_architecture")
    return settings.number("num_ln_in_parallel_attn", 2 if is_new else 1) if settings.flag("parallel_attn") or is_new else 2


def _stablelm_norms(settings: Settings) -> int:
    return 1 if settings.flag("use_parallel_residual") else 2


_TIED = {"tie_word_embeddings": True}
_QWEN_WINDOW = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
_QWEN2 = Family(_QWEN_WINDOW, qkv_bias=True, out_bias=False)
_QWEN3 = Family(_QWEN_WINDOW | {"head_dim": 128}, qk_norm="head")
_QWEN3_MOE = Family(_QWEN_WINDOW | {"num_experts": 128, "num_experts_per_tok": 8}, qk_norm="head")
_GEMMA = _TIED | {"head_dim": 256}
_GEMMA3 = _GEMMA | {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262208, "sliding_window": 4096}
_GEMMA3N = _GEMMA | {"num_attention_heads": 8, "num_key_value_heads": 2, "sliding_window": 512, "num_kv_shared_layers": 15}
_AFTER_LLAMA = {
    "llama": LIKE_LLAMA,
    "granite": LIKE_LLAMA,
    "helium": Family(out_bias=False),
    "internlm3": LIKE_LLAMA,
    "hunyuan_v1_dense": Family(qk_norm="head"),
    "mistral": Family({"num_key_value_heads": 8, "sliding_window": 4096}),
    "ministral": Family({"num_key_value_heads": 8, "sliding_window": 4096}),
    "ministral3": Family({"num_key_value_heads": 8, "head_dim": 128}),
    "qwen2": _QWEN2,
    "qwen2_vl": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_vl_text": _QWEN3,
    "smollm3": Family(_TIED | {"use_sliding_window": False}),
    "gemma": Family(_GEMMA),
    "gemma2": Family(_GEMMA | {"sliding_window": 4096}, num_norms=4, full_period=2),
    "gemma3_text": Family(_GEMMA3, num_norms=4, qk_norm="head", full_period=6),
    "gemma3n_text": Family(_GEMMA3N, num_norms=4, qk_norm="head", full_period=5, extras=shared_weights, extras_of_layer=per_layer_weights),
    "phi3": LIKE_LLAMA,
    "glm": Family({"attention_bias": True, "head_dim": 128}, out_bias=False),
    "glm4": Family({"attention_bias": True, "head_dim": 128}, out_bias=False, num_norms=4),
    "exaone4": Family({"sliding_window": 4096}, qk_norm="head", full_period=4),
    "olmo": Family(norm_vectors=0),
    "olmo2": Family(qk_norm="heads"),
    "olmo3": Family({"sliding_window": 4096}, qk_norm="heads", full_period=4),
    "cohere": Family(_TIED, num_norms=1, qk_norm="heads", has_qk_norm="use_qk_norm"),
    "cohere2": Family(_TIED | {"sliding_window": 4096}, num_norms=1, full_period=4),
    "stablelm": Family(norm_vectors=2, num_norms=_stablelm_norms, qkv_bias="use_qkv_bias", qk_norm="heads", has_qk_norm="qk_layernorm"),
    "seed_oss": Family({"attention_bias": True}, out_bias="attention_out_bias"),
    "ernie4_5": Family(_TIED | {"head_dim": 128}, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "arcee": Family(is_gated=False),
    "nemotron": Family(norm_vectors=2, is_gated=False),
}

_GPT = Family(norm_vectors=2, is_gated=False, qkv_bias=True, out_bias=True, mlp_bias=True)
_GPT2 = replace(_GPT, defaults=_TIED, positions=0)
_FALCON = _TIED | {"multi_query": True, "parallel_attn": True}
_OPT = _TIED | {"enable_bias": True, "do_layer_norm_before": True}
_AFTER_GPT = {
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, defaults=_TIED | {"multi_query": True}),
    "gpt_neox": replace(_GPT, defaults={"attention_bias": True}, qkv_bias="attention_bias", out_bias="attention_bias"),
    "gptj": replace(_GPT, num_norms=1, qkv_bias=False, out_bias=False, head_bias=True),
    "codegen": replace(_GPT, num_norms=1, qkv_bias=False, out_bias=False, head_bias=True),
    "bloom": replace(_GPT, defaults=_TIED, has_embedding_norm=True),
    "mpt": Family(_TIED, is_gated=False),
    "phi": replace(_GPT, num_norms=1, qk_norm="head", has_qk_norm="qk_layernorm", head_bias=True),
    "persimmon": replace(_GPT, defaults={"qk_layernorm": True}, qk_norm="head", has_qk_norm="qk_layernorm"),
    "opt": Family(_OPT, norm_vectors=2, is_gated=False, qkv_bias="enable_bias", out_bias="enable_bias", mlp_bias="enable_bias",
                  positions=2, has_final_norm="do_layer_norm_before"),
    "falcon": Family(_FALCON, norm_vectors=2, is_gated=False, qkv_bias="bias", out_bias="bias", mlp_bias="bias", num_norms=_falcon_norms),
    "starcoder2": Family(_TIED | {"use_bias": True}, norm_vectors=2, is_gated=False, qkv_bias="use_bias", out_bias="use_bias",
                         mlp_bias="use_bias"),
}  # fmt: skip

_LLAMA4 = {"head_dim": 128, "attention_chunk_size": 8192, "num_shared_experts": 1}
_GPT_OSS = {"attention_bias": True, "head_dim": 64, "sliding_window": 128}
_MIXTURES = {
    "mixtral": Family({"num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2}),
    "qwen2_moe": Family(_QWEN_WINDOW | {"qkv_bias": True}, qkv_bias="qkv_bias", out_bias=False, gates_shared_expert=True),
    "qwen3_moe": _QWEN3_MOE,
    "qwen3_vl_moe_text": _QWEN3_MOE,
    "phimoe": Family({"num_local_experts": 16, "num_experts_per_tok": 2}, norm_vectors=2, head_bias="lm_head_bias"),
    "olmoe": Family({"num_experts": 64, "num_experts_per_tok": 8}, qk_norm="heads"),
    "granitemoe": Family({"num_local_experts": 8, "num_experts_per_tok": 2}),
    "granitemoeshared": Family({"num_local_experts": 8, "num_experts_per_tok": 2}),
    "glm4_moe": Family({"n_shared_experts": 1, "first_k_dense_replace": 1}, out_bias=False, qk_norm="head", has_qk_norm="use_qk_norm",
                       corrects_router=True),
    "ernie4_5_moe": Family(_TIED, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", head_bias="use_bias",
                           corrects_router=True),
    "deepseek_v2": Family({"n_shared_experts": 2}),
    "deepseek_v3": Family({"n_shared_experts": 1, "first_k_dense_replace": 3}, corrects_router=True),
    "kimi_k2": Family({"n_shared_experts": 1, "first_k_dense_replace": 1}, corrects_router=True),
    "gpt_oss": Family(_GPT_OSS, has_sinks=True, full_period=2, router_bias=True, expert_bias=True),
    "llama4_text": Family(_LLAMA4, window="attention_chunk_size", full_period=4),
}  # fmt: skip

_MAMBA = {"expand": 2, "state_size": 16, "conv_kernel": 4, "time_step_rank": "auto", "use_conv_bias": True}
_MAMBA2 = {"expand": 2, "state_size": 256, "conv_kernel": 4, "n_groups": 1, "use_conv_bias": True, "mamba_rms_norm": True}
_JAMBA = _MAMBA | {"mamba_inner_norms": True, "attn_layer_period": 8, "attn_layer_offset": 4, "expert_layer_period": 2,
                   "expert_layer_offset": 1, "num_experts": 16, "num_experts_per_tok": 2}  # fmt: skip
_NEMOTRON_H = _MAMBA2 | {"state_size": 128, "n_groups": 8, "mamba_ssm_cache_dtype": "float32"}
_ONLY_MAMBA = Family(_TIED | _MAMBA, num_norms=1, has_one_part_a_layer=True, kind="recurrent", recurrence="mamba")
_QWEN3_NEXT = Family({"head_dim": 256, "full_attention_interval": 4}, qk_norm="head", has_output_gate=True, gates_shared_expert=True,
                     recurrence="delta")  # fmt: skip
_HYBRIDS = {
    "mamba": _ONLY_MAMBA,
    "falcon_mamba": _ONLY_MAMBA,
    "mamba2": replace(_ONLY_MAMBA, defaults=_MAMBA2 | {"state_size": 128, "n_groups": 8, "head_dim": 64}, recurrence="mamba2"),
    "nemotron_h": Family(_NEMOTRON_H, num_norms=1, is_gated=False, qkv_bias=False, out_bias=False, corrects_router=True,
                         has_one_part_a_layer=True, recurrence="mamba2"),
    "jamba": Family(_JAMBA, recurrence="mamba"),
    "bamba": Family(_MAMBA2, kind="recurrent", recurrence="mamba2"),
    "granitemoehybrid": Family(_MAMBA2, recurrence="mamba2"),
    "falcon_h1": Family(_MAMBA2 | {"mamba_rms_norm": False, "projectors_bias": False}, kind="both", recurrence="mamba2"),
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_5_text": _QWEN3_NEXT,
    "qwen3_5_moe_text": _QWEN3_NEXT,
    "lfm2": Family(_TIED | {"conv_kernel": 3, "block_auto_adjust_ff_dim": True}, qk_norm="head", recurrence="convolution"),
}  # fmt: skip

FAMILIES: Mapping[str, Family] = MappingProxyType(_AFTER_LLAMA | _AFTER_GPT | _MIXTURES | _HYBRIDS)
"""By ``model_type`` of the language model's configuration."""
