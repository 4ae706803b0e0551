"""A tiny shape of any causal LM that transformers has, found from the keys of its configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig

WIDTH, HEADS = 32, 4
REACH = r"(?<!max_)window(?!_layers)|attention_chunk_size|^local_attention|index_(topk|block_size)"
# the first pattern that fits a whole key gives its value; keys of other names keep theirs
RULES = {
    r".*(dropout|pdrop|drop_rate|layerdrop|jitter_noise).*": 0.0,
    r"use_mambapy|use_mamba_kernels|output_router_logits": False,
    r"pad_token_id|first_k_dense_replace|num_dense_layers|moe_layer_start_index": 0,
    r".*(image|audio|video)_token_(id|index)": 7,
    r"hidden_size|d_model|n_embd|dim|(emb|embed|hidden)_dim|embedding_(size|dim)": WIDTH,
    r"word_embed_proj_dim|(input|output)_embedding_size|lru_width|dim_model_base": WIDTH,
    r"adapter_(in|out)_dim|adapter_input_size|attention_hidden_size|ple_embed_dim": WIDTH,
    r"(num_)?(hidden_|encoder_|decoder_)?layers|n_layers?|num_blocks|num_layers_per_stack": 2,
    r"n_(input|output|recurrent)_layers": 2,
    r"n_heads?|(num_)?(encoder_|decoder_|swa_num_)?attention_heads|num_heads": HEADS,
    r"linear_num_(value_)?heads": HEADS,
    r"(swa_|global_)?num_(global_)?key_value_heads|num_kv_heads|linear_num_key_heads": 2,
    r"num_query_groups": 2,
    r"(swa_|swa_v_|v_|qk_nope_|qk_rope_|global_|linear_|linear_key_|linear_value_)?head_dim": 8,
    r"rotary_dim|kv_channels|dim_head|d_head|attention_head_(dim|size)": 8,
    r"qk_head_dim|(q|kv|o)_lora_rank|(index|mamba|loop|laurel|adapter|gated).*rank": 16,
    r".*intermediate_size.*|(encoder_|decoder_)?ffn_dim|(expert_)?ffn_hidden_size": 48,
    r"d_inner|dff|dim_ff|feed_forward_size|n_inner": 48,
    r".*num_(local_|routed_)?experts|n_routed_experts": 4,
    r"num_experts_per_tok(en)?|moe_top_?k|moe_k|top_?k_experts": 2,
    r"n_group|topk_group|num_expert_group|n_shared_experts|(moe_)?num_shared_experts": 1,
    r".*_layer_period|full_attention_interval|.*sliding_window_pattern|layer_group_size": 2,
    r"global_attn_every_n_layers": 2,
    r".*_layer_offset": 1,
    r"max_position_embeddings|n_positions|n_ctx|max_(target_|source_)?positions": 128,
    r"max_seq_len|context_length|model_max_length": 128,
}
MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8}
GEMMA = {"vocab_size_per_layer_input": 300, "hidden_size_per_layer_input": 8}
TWO_KINDS = ["sliding_attention", "full_attention"] * 2
GEMMA3N = GEMMA | {
    "num_hidden_layers": 4,
    "layer_types": TWO_KINDS,
    "num_kv_shared_layers": 2,
    "laurel_rank": 8,
    "intermediate_size": [48] * 4,
    "activation_sparsity_pattern": [0.0] * 4,
}
GEMMA4 = GEMMA | {"per_layer_config": None}
ZAMBA = {
    "num_hidden_layers": 4,
    "layers_block_type": ["mamba", "hybrid"] * 2,
    "attention_hidden_size": 64,
    "attention_head_dim": 16,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
# what the rules do not find out: sizes that depend on each other, keys without a default
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": MAMBA2 | {"attn_layer_indices": [1]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "dory": {"num_hidden_layers": 6, "layer_types": None},
    "gemma4_unified_text": {"per_layer_config": None},
    "rembert": {"output_embedding_size": 48},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 16]},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {"num_key_value_heads": 4},
    "falcon_h1": MAMBA2 | {"mamba_d_ssm": 64},
    "gemma3n_text": GEMMA3N,
    "gemma4_text": GEMMA4,
    "granitemoehybrid": MAMBA2 | {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1, "state_size": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "lfm2": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "deepseek_v2": {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "zamba": ZAMBA,
    "zamba2": ZAMBA | {"mamba_headdim": 16, "mamba_d_state": 8, "n_mamba_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}


def small_shape(model_type: str) -> dict[str, Any]:
    """Return the keys to build a model of this type from, with `model_type`."""
    return _shrunk(AutoConfig.for_model(model_type).to_dict()) | {"model_type": model_type}


def _shrunk(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that change."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and "model_type" in value:
            kept = {k: v for k, v in value.items() if k not in ("per_layer_config", "vocab_size")}
            found[key] = {**kept, **_shrunk(kept)}
        elif key in ("is_decoder", "causal"):
            found[key] = True
        elif isinstance(value, int | float):
            rule = next((v for pattern, v in RULES.items() if re.fullmatch(pattern, key)), value)
            if rule != value and value is not False:
                found[key] = rule
    if config.get("num_key_value_heads") == config.get("num_attention_heads"):
        found |= {"num_key_value_heads": HEADS} if "num_key_value_heads" in found else {}
    return found | _fewer_layers(config) | SPECIAL.get(config.get("model_type", ""), {})


def _fewer_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keep one layer of each kind, and two at least, where the configuration lists them."""
    depth = config.get("num_hidden_layers") or config.get("num_layers")
    lists = {k: v for k, v in config.items() if isinstance(v, list) and len(v) == depth and v}
    kept = sorted({values.index(kind) for values in lists.values() for kind in values} | {0, 1})
    fewer = {key: [values[i] for i in kept] for key, values in lists.items()}
    return fewer | ({"num_hidden_layers": len(kept)} if lists else {})


def short_reach(shape: Mapping[str, Any]) -> dict[str, Any]:
    """Let windows, chunks and selections of keys end within a few tokens."""
    defaults = AutoConfig.for_model(shape["model_type"]).to_dict()
    return _shortened({**defaults, **shape}, shape)


def _shortened(values: Mapping[str, Any], shape: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(shape)
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(shape.get(key), Mapping):
            found[key] = _shortened(value, shape[key])
        elif re.search(REACH, str(key)) and type(value) is int and value > 5:
            found[key] = 5
    return found
