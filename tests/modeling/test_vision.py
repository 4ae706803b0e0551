from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from modeling_helpers import VISION, random_pixels, tiny_vision
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors.torch import save_file

from dress.errors import InputError
from dress.modeling.vision import open_clip_tower


def test_tokens_and_dim_match_the_output() -> None:
    tower = tiny_vision()
    assert (tower.image_size, tower.num_tokens, tower.dim) == (16, 4, 16)
    assert tower(random_pixels(3)).shape == (3, 4, 16)


def test_output_equals_the_tower_own_tokens() -> None:
    torch.manual_seed(0)
    whole = open_clip.transformer.VisionTransformer(
        image_size=16, patch_size=8, width=16, layers=2, heads=2, mlp_ratio=2, output_tokens=True
    )
    tower = tiny_vision()
    missing = tower.visual.load_state_dict(whole.state_dict(), strict=False)
    assert missing.missing_keys == []
    pixels = random_pixels(2)
    with torch.no_grad():
        # open_clip's patch tokens: last block, then the final norm
        _, tokens = whole(tower.normalized(pixels))
        torch.testing.assert_close(tower(pixels), tokens)


def test_earlier_layer_drops_what_comes_after_it() -> None:
    last, earlier = tiny_vision(), tiny_vision(layer=-2)
    assert len(last.visual.transformer.resblocks) == 2
    assert len(earlier.visual.transformer.resblocks) == 1
    assert earlier(random_pixels(1)).shape == (1, 4, 16)
    names = [name for name, _ in earlier.named_parameters()]
    assert not any(
        "proj" in name and "c_proj" not in name and "out_proj" not in name and "in_proj" not in name
        for name in names
    )
    assert not any("ln_post" in name for name in names)


def test_preprocess_by_hand() -> None:
    tower = tiny_vision()
    flat = Image.new("RGB", (31, 20), (255, 0, 51))
    pixels = tower.preprocess(flat)
    assert (pixels.shape, pixels.dtype) == ((16, 16, 3), torch.uint8)
    assert pixels[3, 5].tolist() == [255, 0, 51]
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    expected = [(value - m) / s for value, m, s in zip((1.0, 0.0, 0.2), mean, std, strict=True)]
    normalized = tower.normalized(pixels[None])
    assert normalized.shape == (1, 3, 16, 16)
    np.testing.assert_allclose(normalized[0, :, 3, 5].numpy(), expected, rtol=1e-5)
    assert tower.preprocess(flat.convert("P")).shape == (16, 16, 3)


def test_normalized_pixels_are_those_of_open_clip() -> None:
    """Its own transform (ToTensor, Normalize) works in float32 too: not a bit differs."""
    tower = tiny_vision()
    transform = open_clip.image_transform(16, is_train=False)
    picture = Image.fromarray(random_pixels(1)[0].numpy())
    assert torch.equal(tower.normalized(tower.preprocess(picture)[None])[0], transform(picture))


def test_low_precision_rounds_after_the_normalisation() -> None:
    pixels = random_pixels(2)
    expected = tiny_vision().normalized(pixels)
    assert torch.equal(tiny_vision().to(torch.bfloat16).normalized(pixels), expected)


@pytest.mark.parametrize(("layer", "billions"), [(-1, 1.011), (-2, 0.986)])
def test_eva_giant_on_the_meta_device(layer: int, billions: float) -> None:
    with torch.device("meta"):
        tower = open_clip_tower(name="EVA01-g-14", random_init=True, layer=layer)
    assert (tower.image_size, tower.num_tokens, tower.dim) == (224, 256, 1408)
    weights = sum(parameter.numel() for parameter in tower.parameters())
    assert weights == pytest.approx(billions * 1e9, rel=1e-3)
    assert not any("head" in name for name, _ in tower.named_parameters())


def test_image_size_changes_the_tokens() -> None:
    with torch.device("meta"):
        native = open_clip_tower(name="ViT-B-16", random_init=True, image_size=256)
        timm = open_clip_tower(name="EVA01-g-14", random_init=True, image_size=448)
    assert (native.num_tokens, timm.num_tokens) == (16 * 16, 32 * 32)


def test_pretrained_tag_gives_the_pixel_statistics() -> None:
    with torch.device("meta"):
        tower = open_clip_tower(name="ViT-B-16-SigLIP", pretrained="webli", random_init=True)
    assert tower.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("tag", "given", "expected"),
    [
        ("openai", None, True),
        ("openai", False, False),
        ("laion2b_s34b_b79k", None, False),
        ("laion2b_s34b_b79k", True, True),
        (None, None, False),
    ],
)
def test_the_activation_is_that_of_the_weights(
    tag: str | None, given: bool | None, expected: bool
) -> None:
    with torch.device("meta"):
        tower = open_clip_tower(name="ViT-B-32", pretrained=tag, random_init=True, quick_gelu=given)
    kinds = {type(block.mlp.gelu) for block in tower.visual.transformer.resblocks}
    assert kinds == {QuickGELU if expected else torch.nn.GELU}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "ViT-B-33", "random_init": True}, "close: ViT-B-32.*list_models"),
        ({"name": "ViT-B-32"}, "laion2b_s34b_b79k.*random_init"),
        ({"name": "ViT-B-32", "pretrained": "laion3b"}, "no weights 'laion3b'.*laion400m_e32"),
        ({"config": VISION | {"widht": 3}}, "unknown key 'widht'"),
        ({"config": VISION, "layer": 7}, "layer: 7 is outside"),
        ({}, "give `name`"),
        (
            {"name": "EVA02-E-14", "random_init": True, "quick_gelu": True},
            "quick_gelu: EVA02-E-14 has an activation of its own",
        ),
        ({"name": "ViT-B-32", "config": {"width": 64}}, "not both"),
    ],
)
def test_mistakes_are_input_errors(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message), torch.device("meta"):
        open_clip_tower(**arguments)


def test_failed_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr("open_clip.factory.download_pretrained", fail)
    with pytest.raises(InputError, match="'laion2b_s34b_b79k' of ViT-B-32 could not be loaded"):
        open_clip_tower(name="ViT-B-32", pretrained="laion2b_s34b_b79k")


def test_weights_from_a_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole CLIP checkpoint on disk fills the tower, at another image size as well."""
    shape = {
        "embed_dim": 8,
        "vision_cfg": VISION,
        "text_cfg": {"context_length": 8, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-clip", shape)
    source = open_clip.create_model("tiny-clip")
    torch.save(source.state_dict(), tmp_path / "clip.pt")
    tower = open_clip_tower(name="tiny-clip", pretrained=str(tmp_path / "clip.pt"))
    assert torch.equal(tower.visual.conv1.weight, source.visual.conv1.weight)
    larger = open_clip_tower(name="tiny-clip", pretrained=str(tmp_path / "clip.pt"), image_size=32)
    assert larger.num_tokens == 16


def test_an_own_shape_takes_its_weights_from_a_file(tmp_path: Path) -> None:
    """A file of a whole CLIP, whose text weights and output projection no tower here needs."""
    shape = {
        "embed_dim": 8,
        "vision_cfg": VISION,
        "text_cfg": {"width": 8, "heads": 1, "layers": 1},
    }
    clip = open_clip.CLIP(**shape).state_dict()
    save_file(clip, tmp_path / "clip.safetensors")
    tower = open_clip_tower(config=VISION, pretrained=str(tmp_path / "clip.safetensors"))
    held = tower.state_dict()
    assert len(held) > 20
    assert all(torch.equal(tensor, clip[name]) for name, tensor in held.items())
    save_file(held, tmp_path / "tower.safetensors")
    again = open_clip_tower(config=VISION, pretrained=str(tmp_path / "tower.safetensors"))
    assert all(torch.equal(tensor, held[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize(
    ("config", "text", "message"),
    [
        (VISION, None, "clip.safetensors cannot be read"),
        (VISION, "no weights", "as safetensors"),
        (
            {**VISION, "layers": 3},
            "",
            "does not hold the weights of model.vision.config.*resblocks.2",
        ),
        ({**VISION, "patch_size": 4}, "", "size mismatch"),
    ],
)
def test_a_file_of_other_weights_is_an_input_error(
    tmp_path: Path, config: dict, text: str | None, message: str
) -> None:
    path = tmp_path / "clip.safetensors"
    if text == "":
        save_file(open_clip_tower(config=VISION).state_dict(), path)
    elif text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        open_clip_tower(config=config, pretrained=str(path))
