"""A released model answers here as in transformers, from pixels to tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils.chat_template_utils import render_jinja_template

from dress.assistant import Assistant
from dress.chat.jinja_template import jinja_of
from dress.chat.released_template import check_pieces, pieces_of
from dress.chat.template import ChatTemplate
from dress.errors import InputError
from dress.modeling.hub.folder import ReleasedWeights
from dress.modeling.hub.released import described, released_prompt
from dress.modeling.hub.weight_names import read_part
from dress.modeling.specification import not_from_random
from dress.modeling.vision import open_clip_tower
from dress.types import Turn
from tests.hub.imported import check_same, import_model, prompt, specification
from tests.hub.released_models import KINDS, VICUNA, Kind, Theirs, photographs, save_released

Both = tuple[Assistant, Theirs]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = save_released(request.param, tmp_path_factory.mktemp(request.param.name))
    return import_model(folder), Theirs.load(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in three files of weights."""
    return save_released(KINDS[0], tmp_path_factory.mktemp("plain"), shard="200KB")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_pixels_tokens_logits_and_answers_are_theirs(both: Both, count: int) -> None:
    check_same(*both, count=count)


def test_the_picture_matters_and_the_layer_is_the_one_that_is_read(plain: Path) -> None:
    ours = import_model(plain)
    model = ours.model
    batches = [prompt(ours, [image])[1] for image in photographs()[:2]]
    one, two = (model.embed(b.input_ids, b.image_slot, b.pixels) for b in batches)
    assert (one - two).abs().max() > 0.1
    spec = specification(plain)["vision"] | {"layer": -1}
    last = open_clip_tower(**spec)
    assert len(last.visual.transformer.resblocks) == 3  # type: ignore[union-attr,arg-type]
    assert len(model.vision.visual.transformer.resblocks) == 2  # type: ignore[union-attr,arg-type]


def test_older_names_of_weights_are_read(plain: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = ReleasedWeights(plain)
    older = {name: weights.read(name).clone() for name in weights}
    older = {n.replace("vision_tower.", "vision_tower.vision_model."): t for n, t in older.items()}
    newer = {
        name.replace("language_model.model.", "model.language_model.")
        .replace("language_model.lm_head", "lm_head")
        .replace("multi_modal", "model.multi_modal"): tensor
        for name, tensor in older.items()
    }
    for number, tensors in enumerate((older, newer)):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors")
        assert list(ReleasedWeights(folder)) == list(weights)


def test_a_turn_ends_with_the_end_token_though_the_template_writes_none(plain: Path) -> None:
    assert "</s>" not in VICUNA
    ours = import_model(plain).processor
    encoded = ours.encode([Turn("Ae?", "Bi."), Turn("Co?", "Du.")], images=[], supervised={0, 1})
    assert ours.paint(encoded) == "<s>USER: Ae? ASSISTANT:[ Bi.</s>]USER: Co? ASSISTANT:[ Du.</s>]"


def test_what_stands_behind_the_images_is_a_piece_of_its_own() -> None:
    """All images, then a line break, then the text; an answer is opened without a space."""
    program = (
        "{% for m in messages %}{{ '[' + m.role + ' ' }}"
        "{% for part in m.content if part.type == 'image' %}{{ '<image>' }}{% endfor %}"
        "{{ '\\n' + m.content[-1].text + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant' }}{% endif %}"
    )

    def render(messages: Any, opened: bool) -> str:
        ((text,), _) = render_jinja_template(
            [messages], chat_template=program, add_generation_prompt=opened
        )
        return text

    pieces = pieces_of(render, end_token="</s>", bos_token="<s>", image="<image>")
    assert pieces == {
        "system": "",
        "user": "[user ",
        "image": "<image>",
        "question": "\n",
        "model": "</s>[assistant",
        "response_prefix": " \n",
        "end": "</s>",
    }
    template = ChatTemplate(**pieces)
    check_pieces(template, render)
    back = jinja_of(template, begin="")
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Ae?"}]}
    ((text,), _) = render_jinja_template(
        [[message]], chat_template=back, add_generation_prompt=True
    )
    assert text == render([message], True) == "[user <image>\nAe?</s>[assistant"


@pytest.mark.parametrize(
    ("turn", "sentence"),
    [
        ("{{ text }}{{ text }}", "leaves out or moves"),
        ("{{ role }}{{ loop_index }}: {{ image }}{{ text }} ", "its turns in several ways"),
    ],
)
def test_a_template_without_pieces_is_refused(turn: str, sentence: str) -> None:
    def render(messages: Any, opened: bool) -> str:
        told = ""
        for number, message in enumerate(messages):
            text = message["content"][-1]["text"]
            image = "<image>" if number == 0 else ""
            told += (
                turn.replace("{{ text }}", text)
                .replace("{{ role }}", message["role"])
                .replace("{{ loop_index }}", str(number))
                .replace("{{ image }}", image)
            )
        return told + ("assistant:" if opened else "")

    with pytest.raises(InputError, match=sentence):
        pieces_of(render, end_token="</s>", bos_token="<s>", image="<image>")


Damage = Callable[[Path], None]


def edit(name: str, **changes: Any) -> Damage:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def pickled(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")


def cut(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:100])


def code(folder: Path) -> None:
    edit("config.json", auto_map={"AutoConfig": "evil.Config"})(folder)
    (folder / "evil.py").write_text("open('executed', 'w')\n")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: sorted(folder.glob("*.safetensors"))[1].unlink(), "1 of "),
        (cut, "is damaged"),
        (pickled, r"only pickled weights \(pytorch_model.bin\)"),
        (code, "asks for code of its own"),
        (edit("tokenizer_config.json", auto_map={}), "asks for code of its own"),
        (edit("processor_config.json", image_processor={"auto_map": {}}), "asks for code of its"),
        (lambda folder: (folder / "config.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be read"),
        (
            edit("config.json", model_type="llama"),
            "only llava, llava_onevision, smolvlm, idefics3, internvl are read",
        ),
        (edit("config.json", model_type="qwen2_5_vl"), "positions have three axes"),
        (edit("config.json", model_type="paligemma"), "see those behind them"),
        (edit("config.json", model_type="llava_next"), "a picture as several, whose number"),
        (edit("config.json", vision_feature_layer=[-2, -5]), "one layer"),
        (edit("config.json", vision_feature_layer=9), "one layer"),
        (edit("config.json", vision_feature_select_strategy="full"), "only default is read"),
        (edit("config.json", projector_hidden_act="relu"), "only gelu or linear is read"),
        (edit("config.json", image_token_index=5), "its image token is"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "has no chat template"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{ 1 / 0 }}"), "division"),
        (lambda folder: (folder / "tokenizer.json").write_text("[]"), "is not read by"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage, sentence: str
) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    damage(folder)
    with pytest.raises(InputError, match=sentence) as error:
        described(str(folder))
        released_prompt(str(folder))
        import_model(folder)
    told = str(error.value)
    assert "\n" not in told and told.endswith(".") and str(tmp_path) in told
    assert not (tmp_path / "executed").exists()


def test_tokens_that_the_released_model_lacks_begin_as_the_mean_of_the_others(plain: Path) -> None:
    name = "language_model.model.embed_tokens.weight"
    weights = ReleasedWeights(plain)
    rows, width = weights.read(name).shape
    tensor = torch.full((rows + 2, width), torch.nan)
    tensors = {"model.embed_tokens.weight": tensor}
    read_part(tensors, weights, part="language", base_prefix="model", growing=[*tensors])
    assert torch.equal(tensor[:rows], weights.read(name))
    torch.testing.assert_close(tensor[rows:], weights.read(name).mean(dim=0).expand(2, width))
    with pytest.raises(InputError, match=r"has shape"):
        read_part(tensors, weights, part="language", base_prefix="model")


def test_a_shape_that_the_weights_do_not_have(plain: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit("config.json", text_config=text | {"intermediate_size": 48})(folder)
    with pytest.raises(InputError, match=r"which its config.json does not describe"):
        import_model(folder)


def test_a_name_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="is no folder and could not be fetched"):
        described("nobody/nothing-at-all")


def test_released_weights_are_not_random(plain: Path) -> None:
    spec = specification(plain)
    assert not_from_random(spec, ["projector", "vision"]) == "projector"
    drawn = {part: {**spec[part], "random_init": True} for part in ("vision", "language")}
    assert not_from_random({**spec, "random_init": True, **drawn}, ["projector", "vision"]) is None


def test_kinds_differ() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) and Kind() in KINDS
