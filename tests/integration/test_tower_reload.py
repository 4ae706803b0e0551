"""A tower that was trained is the same function when it is loaded, or it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hydra import compose, initialize_config_dir
from open_clip.pretrained import _pcfg
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from small import feedback_samples, make_assistant, model_config

import dress
from dress.artifact import ArtifactStore
from dress.errors import InputError
from dress.jobs.job import Job
from dress.jobs.resolved import resolved_model
from dress.loading import save
from dress.modeling.tower_settings import resolved_tower
from dress.modeling.trainable import set_trainable
from tests.integration.own_data import CONF

SHAPE = {
    "embed_dim": 8,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "layers": 2,
        "head_width": 8,
        "mlp_ratio": 4.0,
    },
    "text_cfg": {"context_length": 8, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1},
}
NODE = {
    "name": "tiny-clip",
    "pretrained": "openai",
    "config": None,
    "image_size": None,
    "layer": -2,
    "random_init": False,
}


@pytest.fixture(autouse=True)
def public_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A small CLIP of open_clip's registry, with a tag that was trained with QuickGELU."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-clip", SHAPE)
    tags = {"openai": _pcfg(url="x", quick_gelu=True)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", tags)
    torch.manual_seed(3)
    torch.save(open_clip.create_model("tiny-clip").state_dict(), tmp_path / "clip.pt")
    file = str(tmp_path / "clip.pt")
    monkeypatch.setattr("open_clip.factory.download_pretrained", lambda *_, **__: file)
    yield


def trained(
    tmp_path: Path, vision: Mapping[str, Any], *, rests: bool = False
) -> tuple[Path, torch.Tensor]:
    """Save a model whose tower has learnt; return its folder and the features of some pixels."""
    config = model_config(vision=vision)
    assistant = make_assistant(feedback_samples(2), vision=vision)
    set_trainable(assistant.model, ["projector" if rests else "vision"])
    tower = assistant.model.vision
    with torch.no_grad():
        for parameter in tower.parameters() if not rests else ():
            parameter.add_(0.05 * torch.randn_like(parameter))
    with ArtifactStore(tmp_path / "store").build(
        "model-ab", kind="model", config=config, fingerprint="ab", parents={}, inputs={}
    ) as building:
        save(assistant, building.path, spec=config["model"])
    return building.artifact.path, tower(pixels()).detach()


def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8, generator=generator)


def rewrite(path: Path, old: str, new: str) -> None:
    """Change a file and keep its size, which the marker records."""
    text = path.read_text()
    assert old in text and len(new) <= len(old)
    path.write_text(text.replace(old, new).ljust(len(text)))


def test_a_trained_tower_keeps_its_activation(tmp_path: Path) -> None:
    path, features = trained(tmp_path, resolved_tower(NODE))
    loaded = dress.load(path).model.vision
    kinds = {type(block.mlp.gelu) for block in loaded.visual.transformer.resblocks}
    assert kinds == {QuickGELU}
    torch.testing.assert_close(loaded(pixels()), features)
    assert loaded.resize == "crop"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("quick_gelu: true", "quick_gelu: no", "the vision tower gives other features here"),
        ("layer: -2", "layer: -1", "lacks the key|has an unknown key|other features"),
        ("resize: crop", "resize: pad", "images are prepared otherwise here"),
    ],
)
def test_a_tower_that_would_see_otherwise_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path, _ = trained(tmp_path, resolved_tower(NODE))
    rewrite(path / "config.yaml", old, new)
    with pytest.raises(InputError, match=message):
        dress.load(path)


def test_a_tower_of_a_file_that_rests_is_read_from_it_again(tmp_path: Path) -> None:
    file = tmp_path / "tower.safetensors"
    save_file(open_clip.CLIP(**SHAPE).state_dict(), file)
    own = {"name": None, "pretrained": str(file), "config": SHAPE["vision_cfg"], "image_size": 32}
    node = {**own, "layer": -1, "random_init": False}
    path, features = trained(tmp_path, node, rests=True)
    assert not (path / "weights" / "vision.safetensors").exists()
    torch.testing.assert_close(dress.load(path).model.vision(pixels()), features)
    file.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"tower\.safetensors cannot be read"):
        dress.load(path)


def test_a_file_of_weights_is_recorded_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tower.safetensors").touch()
    typed = ["experiment=dress_stage0", "model.vision.pretrained=tower.safetensors"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("run", [*typed, "model.vision.random_init=false"])
    vision = resolved_model(Job(cfg=cfg, overrides=typed))["vision"]
    assert vision["pretrained"] == str(tmp_path / "tower.safetensors")
