"""What a tensor is for, by its name in safetensors (transformers' and the models' own) and in GGUF (llama.cpp's)."""

from __future__ import annotations

import re

from archiver.plan.model.facts import Role

_ROLES: tuple[tuple[str, Role | None], ...] = (
    (r"vision|visual|audio|image|speech|multi_modal|(^|\.)(mm|v)\.", Role.VISION),
    (r"shared_expert_gate|ffn_gate_inp", Role.ROUTER),
    (r"shared_expert|shared_mlp|_shexp", Role.MLP),
    (r"\.experts?\.|_exps\b|block_sparse_moe\.(in|out)put_linear", Role.EXPERT),
    (r"(^|\.)(mamba|linear_attn|conv)\.|\.(ssm_|shortconv)", Role.RECURRENT),
    (r"\.mixer\.(A_log|D|dt_\w+|conv1d|in_proj|x_proj|out_proj|\w*norm)\b", Role.RECURRENT),
    (r"norm|(^|\.)ln_", Role.NORM),
    (r"router|\.gate\.|e_score_correction|exp_probs_b", Role.ROUTER),
    (r"lm_head|embed_out|^output\.|output_layer", Role.HEAD),
    (r"\bwpe\b|position", Role.POSITION),
    (r"(?<!un)embed|\bwte\b|token_embd", Role.EMBEDDING),
    (r"\.(q|kv)_a_proj|attn_(q|kv)_a", Role.LATENT),
    (r"query_key_value|qkv|c_attn|W_pack", None),
    (r"\.(q|q_b)_proj|attn_q|\bwq\b|sinks", Role.QUERY),
    (r"\.(k|v|kv_b)_proj|attn_(k|v|kv)|\bw[kv]\b", Role.KEY_VALUE),
    (r"\.o_proj|\bwo\b|attn_output|(attn|attention)\.(out_proj|c_proj|dense)\b", Role.OUTPUT),
)  # fmt: skip
"""The first that is found in a name decides; whatever has none is part of a perceptron."""

_UNUSED = re.compile(r"rotary_emb|rope_freqs|\.(attn|attention)\.(masked_)?bias$|(^|\.)mtp\.|(^|\.)nextn\.")
"""Masks and tables that models compute themselves, and layers that guess more than one token ahead, which engines load on request only."""

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|blk)\.(\d+)\.")


def role_of(name: str) -> Role | None:
    """Return what a tensor is for; None if it is queries, keys and values in one."""
    return next((role for pattern, role in _ROLES if re.search(pattern, name)), Role.MLP)


def is_loaded(name: str, num_layers: int) -> bool:
    """Whether engines load a tensor: it is not unused, and of none of the layers that may stand behind the model's own."""
    if _UNUSED.search(name):
        return False
    layer = _LAYER.search(name)
    return layer is None or role_of(name) is Role.VISION or int(layer[1]) < num_layers
