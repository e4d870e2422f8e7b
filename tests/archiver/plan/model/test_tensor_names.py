"""Names of tensors as published checkpoints have them, also where transformers renames them at load."""

from __future__ import annotations

import pytest

from archiver.plan.model.facts import Role
from archiver.plan.model.tensor_names import is_loaded, role_of

NAMES = {
    Role.EMBEDDING: ["model.embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight", "backbone.embeddings.weight",
                     "transformer.word_embeddings.weight", "token_embd.weight", "model.language_model.embed_tokens_per_layer.weight"],
    Role.HEAD: ["lm_head.weight", "lm_head.bias", "embed_out.weight", "output.weight", "transformer.output_layer.weight"],
    Role.POSITION: ["transformer.wpe.weight", "model.decoder.embed_positions.weight", "position_embd.weight"],
    Role.NORM: ["model.norm.weight", "transformer.h.0.ln_1.bias", "blk.0.attn_q_norm.weight", "transformer.word_embeddings_layernorm.bias",
                "model.layers.0.self_attn.kv_a_layernorm.weight", "transformer.h.3.ln_attn.bias", "blk.0.post_attention_norm.weight"],
    Role.QUERY: ["model.layers.0.self_attn.q_proj.qweight", "model.layers.0.self_attn.q_b_proj.weight", "blk.0.attn_q.bias",
                 "model.layers.0.self_attn.sinks"],
    Role.KEY_VALUE: ["model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.kv_b_proj.weight", "blk.0.attn_v.weight"],
    Role.OUTPUT: ["model.layers.0.self_attn.o_proj.scales", "transformer.h.0.attn.c_proj.weight", "model.layers.9.attention.wo.weight",
                  "transformer.h.0.self_attention.dense.weight", "model.decoder.layers.0.self_attn.out_proj.bias"],
    Role.LATENT: ["model.layers.0.self_attn.kv_a_proj_with_mqa.weight", "model.layers.0.self_attn.q_a_proj.weight"],
    Role.MLP: ["model.layers.0.mlp.gate_proj.weight", "transformer.h.0.mlp.dense_h_to_4h.weight", "transformer.h.0.mlp.c_proj.weight",
               "model.layers.3.mlp.shared_experts.up_proj.weight", "blk.0.ffn_up_shexp.weight", "model.decoder.layers.0.fc1.weight",
               "model.layers.0.mlp.gate_up_proj.weight", "model.layers.0.shared_mlp.input_linear.weight"],
    Role.EXPERT: ["model.layers.0.block_sparse_moe.experts.7.w2.weight", "model.layers.0.mlp.experts.gate_up_proj_blocks",
                  "blk.0.ffn_down_exps.weight", "model.layers.0.block_sparse_moe.output_linear.weight"],
    Role.ROUTER: ["model.layers.0.block_sparse_moe.gate.weight", "model.layers.3.mlp.gate.e_score_correction_bias",
                  "blk.0.ffn_gate_inp.weight", "model.layers.0.mlp.shared_expert_gate.weight", "model.layers.0.mlp.router.bias"],
    Role.RECURRENT: ["model.layers.0.mamba.A_log", "backbone.layers.0.mixer.conv1d.bias", "model.layers.0.linear_attn.norm.weight",
                     "blk.0.ssm_conv1d.weight", "model.layers.0.conv.in_proj.weight", "backbone.layers.0.mixer.norm.weight"],
    Role.VISION: ["vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight", "visual.blocks.0.attn.qkv.weight",
                  "multi_modal_projector.linear_1.weight", "model.audio_tower.layers.0.norm.weight"],
    None: ["transformer.h.0.self_attention.query_key_value.weight", "model.layers.0.self_attn.qkv_proj.weight",
           "transformer.h.0.attn.c_attn.weight", "model.layers.0.attention.wqkv.weight", "blk.0.attn_qkv.weight"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "role"), [(name, role) for role, names in NAMES.items() for name in names])
def test_what_a_tensor_is_for(name: str, role: Role | None) -> None:
    assert role_of(name) is role


def test_every_role_is_among_them() -> None:
    assert {*Role, None} == NAMES.keys()


@pytest.mark.parametrize(
    ("name", "is_read"),
    [
        ("model.layers.60.mlp.up_proj.weight", True),
        ("model.layers.61.embed_tokens.weight", False),
        ("blk.61.nextn.eh_proj.weight", False),
        ("mtp.layers.0.mlp.up_proj.weight", False),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", False),
        ("h.0.attn.bias", False),
        ("gpt_neox.layers.0.attention.masked_bias", False),
        ("h.0.attn.c_attn.bias", True),
        ("transformer.h.0.ln_attn.bias", True),
        ("visual.blocks.75.attn.qkv.weight", True),
    ],
)
def test_what_engines_load_of_a_model_of_61_layers(name: str, is_read: bool) -> None:
    assert is_loaded(name, 61) is is_read
