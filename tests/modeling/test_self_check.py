"""What a model is found to permit when it is built, and that each fault is found."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import yaml
from every_language_model import built
from modeling_helpers import GPT2, LLAMA, LORA, tiny_lvlm
from small_shapes import small_shape
from torch import Tensor, nn

from dress.errors import InputError
from dress.modeling import layers, tree_attention
from dress.modeling.language import LanguageModel, causal_lm
from dress.modeling.layers import unshared_kind
from dress.modeling.self_check import ways_of
from dress.modeling.tree_attention import Ways

SHIPPED = sorted((Path(__file__).parents[2] / "conf/model/language").glob("*.yaml"))
GEMMA2 = LLAMA | {"model_type": "gemma2", "head_dim": 8, "num_key_value_heads": 4}
WINDOW = {"sliding_window": 8, "max_window_layers": 1, "num_key_value_heads": 4}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_language_model_permits_everything(path: Path) -> None:
    """No default path may fall back: the type of each YAML, and the keys that are not sizes."""
    config = yaml.safe_load(path.read_text())["config"] or {"model_type": "llama"}
    own = {key: value for key, value in config.items() if type(value) is not int}
    model = built(small_shape(config["model_type"]) | own)
    assert model.ways == Ways() and model.trees


def test_a_small_initialisation_hides_neither_trees_nor_their_absence() -> None:
    faint = LLAMA | {"initializer_range": 0.002}
    assert ways_of(tiny_lvlm(faint).language) == Ways()
    shape = small_shape("jamba") | {"initializer_range": 0.005}
    assert not built(shape).trees


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    assert ways_of(tiny_lvlm(lora=LORA).language.to(dtype)) == Ways()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (LLAMA | {"model_type": "mistral", "num_key_value_heads": 4}, "sliding_window=4096"),
        (GEMMA2, "it has sliding_attention layers"),
        (small_shape("phi3") | {"sliding_window": 8}, "sliding_window=8"),
        (LLAMA | WINDOW | {"model_type": "qwen2", "use_sliding_window": True}, "sliding_attention"),
        (LLAMA | WINDOW | {"model_type": "qwen2", "use_sliding_window": False}, ""),
        (small_shape("llama4_text"), "it has chunked_attention layers"),
        (small_shape("gemma3"), "it has sliding_attention layers"),  # nested in a wrapper
        (small_shape("gpt_neo"), "it has local layers"),
        (small_shape("recurrent_gemma"), "it has recurrent layers"),
        (small_shape("lfm2"), "it has conv layers"),
        (small_shape("qwen3_next"), "it has linear_attention layers"),
        (small_shape("nemotron_h"), "it has linear_attention layers"),
        (small_shape("deepseek_v32"), "it has indexed_attention layers"),
        # not listed in the configuration, seen in the modules
        (small_shape("jamba"), "it has JambaMambaDecoderLayer layers"),
        (small_shape("falcon_h1"), "it has Conv1d layers"),
        (small_shape("rwkv"), "it has RwkvBlock layers"),
        (small_shape("xlstm"), "it has xLSTMBlock layers"),
    ],
)
def test_kinds_that_share_no_prefix_are_known_by_type(config: dict, reason: str) -> None:
    with torch.device("meta"):
        language = causal_lm(config=config, vocab_size=300, random_init=True)
    assert bool(reason) == bool(unshared_kind(language))
    assert reason in unshared_kind(language)


def test_what_the_type_does_not_say_shows_in_the_logits(caplog: pytest.LogCaptureFixture) -> None:
    assert not built(small_shape("mpt")).trees  # distances between tokens of a row
    (line,) = (r.message for r in caplog.records if r.levelno == logging.WARNING)
    assert line.startswith("mpt cannot run token trees (logits and those of sequences alone differ")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (small_shape("bert") | {"is_decoder": False}, "bert lets a token see those behind it"),
        (small_shape("rwkv"), "a rwkv keeps no keys and values"),
        (small_shape("mamba"), "mamba cannot answer token by token"),  # padding enters the state
        (small_shape("deepseek_v4"), "deepseek_v4 cannot"),  # experts chosen by the token's number
        (small_shape("gemma4_text"), "gemma4_text cannot be run"),  # images are no tokens
        (small_shape("bart"), "bart cannot answer token by token"),  # places counted with padding
    ],
)
def test_what_cannot_be_trained_right_is_refused(config: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"^model.language: {message}.*; choose another"):
        built(config)


def test_a_reward_model_need_not_answer() -> None:
    language = causal_lm(config=small_shape("mamba"), vocab_size=60, random_init=True)
    assert not ways_of(language, generates=False).trees


@pytest.mark.parametrize("model_type", ["jamba", "falcon_h1"])  # states beside keys and values
def test_a_hybrid_answers_and_is_padded(model_type: str) -> None:
    assert built(small_shape(model_type)).ways == Ways(trees=False)


def test_a_wrong_mask_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dress.modeling.tree_attention.plan", lambda *_, **__: None)
    assert not ways_of(tiny_lvlm().language).trees


def test_a_last_layer_that_mixes_tokens_runs_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "TOKENWISE", ("self_attn.k_proj",))
    assert ways_of(tiny_lvlm().language) == Ways(trimmed=False)


@pytest.mark.parametrize("wrong", [lambda _, states: states, lambda _, states: states[:, :40] * 2])
def test_a_head_that_runs_otherwise_by_itself(
    wrong: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tree_attention, "logits_of", wrong)
    assert ways_of(tiny_lvlm().language) == Ways(headless=False)
    assert "llama cannot run its head by itself" in caplog.text


class _RefusesTraining(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        if self.training:
            raise ValueError("no training")
        return states


def test_what_fails_in_training_alone_is_noticed() -> None:
    language: LanguageModel = tiny_lvlm().language
    language.model.norm = _RefusesTraining()
    with pytest.raises(InputError, match=r"llama cannot be run.*no training"):
        ways_of(language)


def test_modes_and_random_numbers_stay() -> None:
    language = tiny_lvlm(GPT2 | {"resid_pdrop": 0.1}).language.train()
    language.transformer.h[0].eval()
    modes, state = [m.training for m in language.modules()], torch.get_rng_state()
    ways_of(language)
    assert [m.training for m in language.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
