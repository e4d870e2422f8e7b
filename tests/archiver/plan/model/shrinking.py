"""A published configuration made small enough to run: the same family, flags and pattern of layers, with few and narrow ones."""

from __future__ import annotations

from typing import Any

NUM_LAYERS = 8  # one round of the longest pattern, Jamba's
WINDOW = 6
_NUM_HEADS, _HEAD_DIM, _HIDDEN_SIZE, _VOCAB_SIZE = 4, 8, 32, 64
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), _HIDDEN_SIZE),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), NUM_LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), _NUM_HEADS),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "intermediate_size_mlp", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "original_max_position_embeddings"), 128),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), _VOCAB_SIZE),
    **dict.fromkeys(("sliding_window", "attention_chunk_size"), WINDOW),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    "head_dim": _HEAD_DIM,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "greedy",
    "moe_intermediate_size": 16,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "state_size": 4,
    "mamba_d_state": 4,
    "num_heads": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "n_groups": 2,
    "time_step_rank": 4,
    "mamba_dt_rank": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "attn_layer_indices": [3],
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "laurel_rank": 4,
    "block_multiple_of": 16,
    "max_window_layers": NUM_LAYERS,
    "query_pre_attn_scalar": 8,
    "partial_rotary_factor": 0.5,
}
_BY_LAYER = ("layer_types", "no_rope_layers")


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """Return the small copy of a configuration's language model. What is null, false or absent stays so."""
    if "text_config" in config:
        return shrink(config["text_config"] | {"tie_word_embeddings": config.get("tie_word_embeddings", True)})
    small: dict[str, Any] = {"vocab_size": _VOCAB_SIZE, "pad_token_id": 0}
    small |= {key: value if value is None else _SIZES.get(key, value) for key, value in config.items() if key != "vision_config"}
    small |= {key: config[key][:NUM_LAYERS] for key in _BY_LAYER if isinstance(config.get(key), list)}
    small |= {key: _kv_heads(config) for key in ("num_key_value_heads", "num_kv_heads") if config.get(key)}
    if "full_attn_idxs" in config:
        small["full_attn_idxs"] = [layer for layer in config["full_attn_idxs"] if layer < NUM_LAYERS]
    # A language model without its tower has another name.
    small["model_type"] = {"qwen2_5_vl": "qwen2", "kimi_k2": "deepseek_v3"}.get(config["model_type"], config["model_type"])
    return small


def _kv_heads(config: dict[str, Any]) -> int:
    """As many as queries have, one, or half as many, whichever the original is like."""
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads") or config.get("num_kv_heads")
    return _NUM_HEADS if kv_heads == heads else min(kv_heads, _NUM_HEADS // 2)
