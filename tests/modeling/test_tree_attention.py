import pytest
import torch
from modeling_helpers import GPT2, LLAMA, LORA, tiny_lvlm

from dress.modeling.tree_attention import tree_mask, tree_supported

WINDOW = {"sliding_window": 8, "max_window_layers": 1, "num_key_value_heads": 4}


def test_tree_mask_by_hand() -> None:
    # A root with two one-token branches, then a padding token.
    mask = tree_mask(torch.tensor([[3, 2, 3, 4]]))[0, 0]
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert mask.tolist() == torch.tensor(expected).bool().tolist()


@pytest.mark.parametrize("model_type", ["opt", "gpt_neox", "qwen2", "gpt2", "llama"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_full_attention_is_supported(model_type: str, attention: str) -> None:
    torch.set_float32_matmul_precision("highest")
    config = {
        "opt": {"word_embed_proj_dim": 32, "ffn_dim": 48, "dropout": 0.0, "init_std": 0.3},
        "gpt_neox": {"intermediate_size": 48, "initializer_range": 0.3},
        "qwen2": {"intermediate_size": 48, "initializer_range": 0.3, "num_key_value_heads": 2},
        "gpt2": GPT2,
        "llama": LLAMA,
    }[model_type]
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= config | {"model_type": model_type}
    language = tiny_lvlm(shape, attention=attention).language
    supported, reason = tree_supported(language)
    assert supported, reason


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_self_check_passes_in_other_precisions(dtype: torch.dtype) -> None:
    language = tiny_lvlm(lora=LORA).language.to(dtype)
    supported, reason = tree_supported(language)
    assert supported, reason


@pytest.mark.parametrize(
    ("config", "words_in_reason"),
    [
        (LLAMA | {"model_type": "mistral", "num_key_value_heads": 4}, "sliding_window=4096"),
        (
            LLAMA | {"model_type": "gemma2", "head_dim": 8, "num_key_value_heads": 4},
            "sliding_attention",
        ),
        (
            LLAMA | {"model_type": "phi3", "pad_token_id": 0, "sliding_window": 8},
            "sliding_window=8",
        ),
        (
            LLAMA | WINDOW | {"model_type": "qwen2", "use_sliding_window": True},
            "sliding_attention",
        ),
        (
            {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4},
            "",
        ),
        (
            {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
            "",
        ),
    ],
    ids=["mistral", "gemma2", "phi3", "qwen2", "bloom", "mamba"],
)
def test_other_attention_is_refused(config: dict, words_in_reason: str) -> None:
    supported, reason = tree_supported(tiny_lvlm(config, attention="eager").language)
    assert not supported
    assert words_in_reason in reason


def test_self_check_notices_a_wrong_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    def causal(subtree_end: torch.Tensor) -> torch.Tensor:
        size = subtree_end.shape[1]
        return torch.ones(1, 1, size, size).tril().bool()

    language = tiny_lvlm().language
    assert tree_supported(language)[0]
    monkeypatch.setattr("dress.modeling.tree_attention.plan", causal)
    assert not tree_supported(language)[0]
