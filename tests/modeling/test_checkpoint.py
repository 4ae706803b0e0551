import json
from pathlib import Path

import pytest
import torch
from modeling_helpers import (
    GPT2,
    LLAMA,
    LORA,
    image,
    random_pixels,
    randomize_adapter,
    tiny_lvlm,
    tree_batch,
    words,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from dress.errors import InputError
from dress.modeling.checkpoint import load_weights, merge_lora, save_weights
from dress.modeling.lvlm import LVLM
from dress.modeling.trainable import set_trainable

PIXELS = random_pixels(1)
PUBLIC = {"vision": "tower", "projector": None, "language": "lm"}
RANDOM = {"vision": None, "projector": None, "language": None}
MODES = {
    "projector": ["projector"],
    "lora": ["lora", "projector"],
    "language": ["language", "projector"],
    "everything": ["vision", "projector", "language", "lora"],
}


@torch.no_grad()
def logits(model: LVLM) -> Tensor:
    row = [[*words(1, 10), *image(0), *words(11, 12, 13)]]
    return model.eval()(tree_batch([row], pixels=PIXELS, supervised_from=6))


@torch.no_grad()
def pretend_training(model: LVLM, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def built(parts: list[str], config: dict = LLAMA, seed: int = 0) -> LVLM:
    return tiny_lvlm(config, lora=LORA if "lora" in parts else None, seed=seed)


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["untied", "tied"])
@pytest.mark.parametrize("base", [PUBLIC, RANDOM], ids=["public", "random"])
@pytest.mark.parametrize("mode", MODES)
def test_a_fresh_model_gives_the_same_logits(
    mode: str, base: dict, config: dict, tmp_path: Path
) -> None:
    model = built(MODES[mode], config)
    before = logits(model)
    set_trainable(model, MODES[mode])
    pretend_training(model, seed=1)
    save_weights(model, tmp_path, base=base)
    # The public parts of a fresh model are those of the checkpoint (seed 0); the rest is not.
    fresh = built(MODES[mode], config, seed=0 if base is PUBLIC else 7)
    assert not torch.equal(logits(fresh), logits(model))
    manifest = load_weights(fresh, tmp_path, base=base)
    assert torch.equal(logits(fresh), logits(model))
    assert not torch.equal(logits(model), before)
    assert manifest["trained"] == sorted(MODES[mode])


def test_only_what_a_public_checkpoint_lacks_is_stored(tmp_path: Path) -> None:
    model = tiny_lvlm(lora=LORA)
    set_trainable(model, ["lora"])
    save_weights(model, tmp_path, base=PUBLIC)
    assert {path.name for path in tmp_path.iterdir()} == {
        "manifest.json",
        "projector.safetensors",
        "lora-0.safetensors",
    }


def test_a_part_trained_in_an_earlier_stage_is_kept(tmp_path: Path) -> None:
    first = tiny_lvlm()
    set_trainable(first, ["vision"])
    pretend_training(first, seed=1)
    save_weights(first, tmp_path / "1", base=PUBLIC)
    second = tiny_lvlm()
    load_weights(second, tmp_path / "1")
    set_trainable(second, ["projector"])
    save_weights(second, tmp_path / "2", base=PUBLIC)
    third = tiny_lvlm()
    load_weights(third, tmp_path / "2")
    assert torch.equal(logits(third), logits(first))


@pytest.mark.parametrize("base", [PUBLIC, RANDOM], ids=["public", "random"])
def test_adapters_of_two_stages(base: dict, tmp_path: Path) -> None:
    first = tiny_lvlm(lora=LORA)
    set_trainable(first, ["lora", "projector"])
    pretend_training(first, seed=1)
    save_weights(first, tmp_path / "1", base=base)

    second = tiny_lvlm(lora=LORA | {"r": 3})
    load_weights(second, tmp_path / "1", merge_adapters=True)
    torch.testing.assert_close(logits(second), logits(first), rtol=1e-3, atol=1e-4)
    set_trainable(second, ["lora"])
    pretend_training(second, seed=2)
    save_weights(second, tmp_path / "2", base=base)

    third = tiny_lvlm()
    manifest = load_weights(third, tmp_path / "2")
    assert torch.equal(logits(third), logits(second))
    ranks = [entry["settings"]["r"] for entry in manifest["adapters"]]
    assert ranks == ([2, 3] if base is PUBLIC else [3])
    merged = tiny_lvlm()
    load_weights(merged, tmp_path / "2", merge_adapters=True)
    torch.testing.assert_close(logits(merged), logits(second), rtol=1e-3, atol=1e-4)
    assert not any("lora_" in name for name, _ in merged.named_parameters())


def test_merge_keeps_the_function() -> None:
    model = tiny_lvlm(lora=LORA)
    randomize_adapter(model)
    before = logits(model)
    merge_lora(model)
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-4)
    assert len(model.merged_adapters) == 1
    merge_lora(model)
    assert len(model.merged_adapters) == 1


def test_faults_name_file_and_key(tmp_path: Path) -> None:
    model = tiny_lvlm()
    save_weights(model, tmp_path, base=RANDOM)
    path = tmp_path / "projector.safetensors"
    good = load_file(path)
    save_file({"weight": good["weight"]}, path)
    with pytest.raises(InputError, match=r"projector\.safetensors: it lacks the key bias"):
        load_weights(model, tmp_path)
    save_file(good | {"other": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"projector\.safetensors: it has an unknown key other"):
        load_weights(model, tmp_path)
    save_file(good | {"bias": good["bias"][1:].clone()}, path)
    with pytest.raises(InputError, match=r"bias has shape \[31\] but the model needs \[32\]"):
        load_weights(model, tmp_path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(model, tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(model, tmp_path)
    with pytest.raises(InputError, match="not a saved model"):
        load_weights(model, tmp_path / "nowhere")


def test_another_public_base_is_refused(tmp_path: Path) -> None:
    save_weights(tiny_lvlm(), tmp_path, base=PUBLIC)
    with pytest.raises(InputError, match="vision began from 'tower' but the model has 'other'"):
        load_weights(tiny_lvlm(), tmp_path, base=PUBLIC | {"vision": "other"})


def test_manifest_is_plain_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    save_weights(tiny_lvlm(), tmp_path, base=RANDOM)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {entry["part"] for entry in manifest["files"].values()} == {
        "vision",
        "projector",
        "language",
    }
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
