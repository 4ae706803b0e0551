"""The files of a released layout: every byte, what they cannot hold, and the chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration
from transformers.utils.chat_template_utils import render_jinja_template

from dress.chat.jinja_template import jinja_of
from dress.chat.template import ChatTemplate
from dress.errors import InputError
from dress.modeling.hub.adapter_writer import joined_adapters
from dress.modeling.hub.folder import ReleasedWeights
from dress.modeling.hub.llava_writer import write_model
from dress.modeling.language import causal_lm
from dress.modeling.projector import linear_projector, mlp_projector
from dress.modeling.vision import open_clip_tower
from tests.hub.imported import import_model
from tests.hub.released_models import KINDS, Kind, save_released

PARTS = {"vision", "projector", "language"}


@pytest.mark.parametrize("first_only", [False, True])
def test_the_condition_stands_where_the_turns_have_one(first_only: bool) -> None:
    program = jinja_of(ChatTemplate(), begin="", condition="c 4", first_only=first_only)

    def told(*texts: str) -> str:
        roles = ("user", "assistant", "user")
        messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
        ((text,), _) = render_jinja_template(
            [messages], chat_template=program, add_generation_prompt=True
        )
        return text

    assert told("a") == "USER: a FEEDBACK: c 4 ASSISTANT:"
    program = jinja_of(ChatTemplate(user="\U0001f600\n: "), begin="", condition="c\u2028\U0001f37f")
    assert told("a") == "\U0001f600\n: a FEEDBACK: c\u2028\U0001f37f ASSISTANT:"
    program = jinja_of(ChatTemplate(), begin="", condition="c 4", first_only=first_only)
    last = "USER: c ASSISTANT:" if first_only else "USER: c FEEDBACK: c 4 ASSISTANT:"
    assert told("a", "b", "c") == "USER: a ASSISTANT: b</s>" + last


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("changed", [set(), PARTS], ids=["copied", "mapped"])
def test_every_byte_comes_back(kind: Kind, changed: set[str], tmp_path: Path) -> None:
    released = save_released(kind, tmp_path / "released")
    back = tmp_path / "back"
    back.mkdir()
    model = import_model(released).model
    write_model(model, back, base=str(released), changed=changed, shard_size="200KB")
    one, other = ReleasedWeights(released), ReleasedWeights(back)
    assert list(one) == list(other) and len(list(back.glob("*.safetensors"))) > 1
    for name in one:
        assert one.read(name).dtype == other.read(name).dtype
        assert torch.equal(one.read(name), other.read(name)), name


def test_rows_that_were_added_are_written_though_the_rest_is_kept(tmp_path: Path) -> None:
    """A tokenizer of 360 tokens over 358 rows, which config.json does not count."""
    released = save_released(KINDS[0], tmp_path / "released")
    config = json.loads((released / "config.json").read_text())
    model = import_model(released).model
    rows = config["text_config"].pop("vocab_size")
    (released / "config.json").write_text(json.dumps(config))
    model.language.resize_token_embeddings(rows + 2, mean_resizing=False)
    write_model(model, tmp_path, base=str(released), changed=set(), shard_size="1GB")
    one, other = ReleasedWeights(released), ReleasedWeights(tmp_path)
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.get_input_embeddings().num_embeddings == rows + 2
    for name in one:
        old, new = one.read(name), other.read(name)
        assert torch.equal(new[: len(old)], old), name
        assert (len(new) - len(old) == 2) is ("embed_tokens" in name or "lm_head" in name)


def test_a_folder_of_this_machine_is_not_named(tmp_path: Path) -> None:
    model = import_model(save_released(KINDS[0], tmp_path / "released")).model
    model.language.save_pretrained(tmp_path / "language")
    model.language = causal_lm(name=str(tmp_path / "language"))
    (tmp_path / "out").mkdir()
    write_model(model, tmp_path / "out", base=None, changed=PARTS, shard_size="1GB")
    for file in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file


def test_adapters_are_laid_side_by_side() -> None:
    """B A of the joined one is the sum of those of both, each by its scale, by hand."""
    one = {"m.lora_A.weight": torch.tensor([[1.0, 2.0]]), "m.lora_B.weight": torch.tensor([[3.0]])}
    two = {
        "m.lora_A.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "m.lora_B.weight": torch.tensor([[1.0, 1.0]]),
        "n.lora_A.weight": torch.tensor([[1.0], [1.0]]),
        "n.lora_B.weight": torch.tensor([[1.0, 0.0]]),
    }
    joined, rank = joined_adapters([({"r": 1, "alpha": 2}, one), ({"r": 2, "alpha": 1}, two)])
    assert rank == 3
    product = joined["m.lora_B.weight"] @ joined["m.lora_A.weight"]
    assert product.tolist() == [[2 * 3 * 1 + 0.5, 2 * 3 * 2 + 0.5]]
    assert (joined["n.lora_B.weight"] @ joined["n.lora_A.weight"]).tolist() == [[0.5]]


def test_what_the_layout_cannot_hold(tmp_path: Path) -> None:
    model = import_model(save_released(KINDS[0], tmp_path / "released")).model

    def refused(part: str, value: Any, sentence: str) -> None:
        kept = getattr(model, part)
        setattr(model, part, value)
        with pytest.raises(InputError, match=sentence):
            write_model(model, tmp_path, base=None, changed=PARTS, shard_size="1GB")
        setattr(model, part, kept)

    config = {"image_size": 28, "patch_size": 14, "width": 32, "layers": 2, "head_width": 16}
    normed = open_clip_tower(config=config, image_size=28)
    with torch.device("meta"):
        eva = open_clip_tower(name="EVA02-B-16", random_init=True, layer=-2)
    refused("vision", normed, "behind it: train with model/vision=clip_l14_336")
    refused("vision", eva, "a CLIP or SigLIP tower, .*: train with model/vision=clip_l14_336")
    refused("projector", mlp_projector(32, 32, depth=3), "model/projector=mlp or linear")
    refused("projector", mlp_projector(32, 32, newline=True), "no token behind a picture")
    cohere = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    scaled = {"model_type": "cohere", **cohere, "num_attention_heads": 4, "logit_scale": 0.5}
    refused("language", causal_lm(config=scaled, random_init=True), "CohereForCausalLM does more")
    rounded = causal_lm(config=scaled | {"logit_scale": 1.0}, random_init=True)
    rounded.config.quantization_config = {}  # as bitsandbytes leaves it
    refused("language", rounded, "4 bits .* no adapter can be merged")
    model.projector = linear_projector(32, 32)
    write_model(model, tmp_path, base=None, changed=PARTS, shard_size="1GB")
    assert (tmp_path / "config.json").is_file()
