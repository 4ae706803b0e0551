"""A picture becomes the tower's square by the rule with which its weights were trained."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import yaml
from modeling_helpers import VISION, tiny_vision
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from dress.chat.images import decode_image, to_square
from dress.errors import InputError
from dress.modeling.tower_settings import resolved_tower, trained_with
from dress.modeling.vision import VisionTower, open_clip_tower

CONF = Path(__file__).parents[2] / "conf/model/vision"
SHIPPED = [node for path in CONF.glob("*.yaml") if (node := yaml.safe_load(path.open()))["name"]]
TAGS = [(node["name"], node["pretrained"]) for node in SHIPPED] + [
    ("ViT-B-16-SigLIP", "webli"),  # squashed, with other statistics
    ("ViT-L-14-CLIPA", "datacomp1b"),  # squashed, bilinear
    ("MobileCLIP-S1", "datacompdr"),  # cut, bilinear
]
SIZES = [(640, 427), (300, 451), (224, 224), (90, 101), (1200, 300)]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
OPENAI_GREY = (122, 116, 104)  # 255 times the mean, rounded down


def noise(size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(size[0])
    coarse = rng.integers(0, 256, (size[1] // 7, size[0] // 7, 3), dtype=np.uint8)
    fine = rng.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(np.asarray(Image.fromarray(coarse).resize(size)) // 2 + fine)


def stripes(width: int, height: int) -> Image.Image:
    """Red, green and blue from left to right, a third each."""
    picture = Image.new("RGB", (width, height), GREEN)
    picture.paste(RED, (0, 0, width // 3, height))
    picture.paste(BLUE, (width - width // 3, 0, width, height))
    return picture


def on_meta(name: str, tag: str, *, image_size: int | None = None) -> VisionTower:
    with torch.device("meta"):
        return open_clip_tower(name=name, pretrained=tag, random_init=True, image_size=image_size)


@pytest.mark.parametrize(("name", "tag"), TAGS)
def test_pixels_are_those_of_open_clip(name: str, tag: str) -> None:
    tower = on_meta(name, tag)
    rule = merge_preprocess_dict(PreprocessCfg(), open_clip.get_pretrained_cfg(name, tag))
    transform = image_transform_v2(
        PreprocessCfg(**rule | {"size": tower.image_size}), is_train=False
    )
    for size in SIZES:
        picture = noise(size)
        ours = tower.normalized(tower.preprocess(picture)[None])[0]
        assert torch.equal(ours, transform(picture)), size


def test_the_rule_of_every_tag_of_open_clip_is_known() -> None:
    for name, tag in open_clip.list_pretrained():
        own = trained_with(name, tag)
        assert own["resize"] in ("crop", "squash") and own["interpolation"] in (
            "bicubic",
            "bilinear",
        )
        if "timm_model_name" in open_clip.get_model_config(name)["vision_cfg"]:
            assert not own["quick_gelu"], name


@pytest.mark.parametrize("size", [(640, 427), (300, 451), (336, 336), (50, 20)])
def test_padding_is_that_of_llava(size: tuple[int, int]) -> None:
    theirs = LlavaImageProcessorPil(
        do_pad=True,
        size={"shortest_edge": 336},
        crop_size={"height": 336, "width": 336},
        do_rescale=False,
        do_normalize=False,
    )
    picture = noise(size)
    (expected,) = theirs(picture, return_tensors="np")["pixel_values"]
    ours = to_square(picture, 336, resize="pad", interpolation="bicubic", fill=OPENAI_GREY)
    np.testing.assert_array_equal(np.asarray(ours), expected.transpose(1, 2, 0))


def test_the_three_rules_by_hand() -> None:
    with torch.device("meta"):
        towers = {
            rule: open_clip_tower(config=VISION | {"image_size": 48}, resize=rule)
            for rule in ("squash", "crop", "pad")
        }
    pixels = {rule: tower.preprocess(stripes(300, 100)) for rule, tower in towers.items()}
    row = pixels["squash"][24]
    assert [row[x].tolist() for x in (5, 24, 43)] == [list(RED), list(GREEN), list(BLUE)]
    assert (pixels["crop"][:, 2:-2] == torch.tensor(GREEN)).all()
    assert (pixels["pad"][[0, 12, 35, 47]] == torch.tensor(OPENAI_GREY)).all()
    assert pixels["pad"][24, 24].tolist() == list(GREEN)
    assert pixels["pad"][24, 5].tolist() == list(RED)


@pytest.mark.parametrize("rule", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000), (9_000, 2_000), (1, 1)])
def test_a_long_strip_is_no_burden(rule, size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, OPENAI_GREY)
    square = to_square(picture, 48, resize=rule, interpolation="bicubic", fill=OPENAI_GREY)
    assert square.size == (48, 48) and square.getcolors() == [(48 * 48, OPENAI_GREY)]


@pytest.mark.parametrize("rule", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(999, 500), (427, 640), (1201, 233)])
def test_a_smaller_decode_shows_the_same_part(rule, size: tuple[int, int]) -> None:
    """libjpeg rounds a side up, so that what is cut may move by half a pixel, not more."""
    width, height = size
    ramp = np.add.outer(np.linspace(0, 100, height), np.linspace(0, 150, width))
    picture, buffer = Image.fromarray(np.stack([ramp] * 3, axis=-1).astype(np.uint8)), io.BytesIO()
    picture.save(buffer, format="JPEG", quality=100)
    squares = [
        np.asarray(to_square(image, 112, resize=rule, interpolation="bicubic", fill=(0, 0, 0)))
        for image in (
            decode_image(buffer.getvalue()),
            decode_image(buffer.getvalue(), at_least=112),
        )
    ]
    inner = (slice(None), slice(None)) if rule != "pad" else (slice(50, 62), slice(50, 62))
    whole, drafted = (square[inner].astype(int) for square in squares)
    assert np.abs(whole - drafted).max() <= 3  # half a pixel, and JPEG


def test_what_is_not_given_is_resolved_and_what_is_given_acts() -> None:
    node = {"name": "ViT-L-14", "pretrained": "openai", "random_init": True, "layer": -2}
    assert resolved_tower(node) == node | {
        "resize": "crop",
        "interpolation": "bicubic",
        "quick_gelu": True,
    }
    given = node | {"resize": "pad", "quick_gelu": False, "interpolation": None}
    assert resolved_tower(given) == given | {"interpolation": "bicubic"}
    world = {"name": None, "pretrained": None, "config": VISION, "random_init": True}
    assert resolved_tower(world) == world
    assert (tiny_vision().resize, tiny_vision().interpolation) == ("squash", "bicubic")
    with pytest.raises(InputError, match=r"model\.vision\.resize is 'stretch': choose squash"):
        open_clip_tower(config=VISION, resize="stretch")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"model\.vision\.interpolation is 'nearest'"):
        open_clip_tower(config=VISION, interpolation="nearest")  # type: ignore[arg-type]
