"""Models of other families than LLaVA's: in as transformers has them, trained, out as they came."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

import dress
from dress.artifact import Artifact
from dress.assistant import Assistant
from dress.chat.images import png
from dress.errors import InputError
from dress.jobs.job import Job
from dress.modeling.hub.llava_writer import write_model
from dress.modeling.hub.released import described, released_prompt
from dress.records import Prompt
from dress.types import Turn
from tests.data.nlf_files import nlf_row, write_nlf
from tests.hub.family_models import FamilyKind, save_family
from tests.hub.imported import check_same, import_model
from tests.hub.released_models import Theirs, photographs
from tests.integration.own_data import CONF, run_job

PARTS = {"vision", "projector", "language"}
NEEDS = pytest.mark.skipif(
    find_spec("num2words") is None, reason="transformers' SmolVLMProcessor needs num2words"
)
KINDS = [
    pytest.param(FamilyKind("idefics3"), id="idefics3"),
    pytest.param(FamilyKind("smolvlm", tied=True), id="smolvlm", marks=NEEDS),
    pytest.param(FamilyKind("internvl"), id="internvl"),
    pytest.param(FamilyKind("onevision", whole=False), id="onevision"),
]
Both = tuple[Assistant, Theirs, Path]


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = save_family(request.param, tmp_path_factory.mktemp("family") / "model")
    return import_model(folder, one_tile=not request.param.whole), Theirs.load(folder), folder


@pytest.mark.parametrize("count", [0, 1, 2])
def test_pixels_tokens_logits_and_answers_are_theirs(both: Both, count: int) -> None:
    ours, theirs, _ = both
    check_same(ours, theirs, count=count)


def test_features_are_those_of_get_image_features(both: Both) -> None:
    ours, theirs, _ = both
    given = theirs.inputs("What?", photographs()[:1])
    texts = {"input_ids", "attention_mask"}
    with torch.no_grad():
        made = theirs.model.get_image_features(**{n: v for n, v in given.items() if n not in texts})
        mine = ours.model.image_features(ours.model.vision.preprocess(photographs()[0])[None])
    found = made.pooler_output
    found = torch.stack(found) if isinstance(found, list) else found
    torch.testing.assert_close(mine, found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changed", [set(), PARTS], ids=["copied", "mapped"])
def test_every_byte_comes_back(both: Both, changed: set[str], tmp_path: Path) -> None:
    ours, _, released = both
    write_model(ours.model, tmp_path, base=str(released), changed=changed, shard_size="1GB")
    one, other = raw(released), raw(tmp_path)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name


def raw(folder: Path) -> dict[str, torch.Tensor]:
    """Read weights by the names in the files themselves."""
    (path,) = folder.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def out_of(released: Path, root: Path, *overrides: str) -> Artifact:
    """Train two steps of stage 2: LoRA and projector move."""
    write_nlf(root / "data", [nlf_row(number) for number in range(8)])
    return run_job(
        root,
        "experiment=dress_stage2",
        "model=llava_hf",
        f"model.name={released}",
        "data=lvlm_nlf",
        "optimizer.lr=0.05",
        "scheduler.warmup_steps=0",
        *overrides,
    )


def exported(artifact: Artifact, form: str) -> Path:
    typed = [f"artifact={artifact.path}", f"paths.artifacts={artifact.path.parent}", "job=export"]
    typed.append(f"export.form={form}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Job(cfg=compose("run", overrides=typed), overrides=typed).run().path / "model"


def says(model: Any, processor: Any, template: str | None = None) -> str:
    """Ask a model of transformers about two pictures."""
    shown = [{"type": "image", "image": picture} for picture in photographs()[:2]]
    content = [*shown, {"type": "text", "text": "What?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    made = model.generate(**inputs, max_new_tokens=10, do_sample=False)
    return processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def check_round(released: Path, artifact: Artifact) -> None:
    """Reopen and export: the export answers in transformers as the artifact does here."""
    stored = {file.stem for file in (artifact.path / "weights").glob("*.safetensors")}
    assert stored == {"projector", "lora-0"}
    assistant = dress.load(artifact.path)
    unescape = assistant.processor.template.unescape
    merged = exported(artifact, "merged")
    theirs = Theirs.load(merged)
    for target, template in (("best", None), ("none", "bare")):
        images = tuple(png(picture) for picture in photographs()[:2])
        asked = Prompt(images, (Turn("What?"),), assistant.condition.target(target))
        ((mine,),) = assistant.generate([asked], max_new_tokens=10)
        assert unescape(says(theirs.model, theirs.processor, template).strip()) == mine
    one, other = raw(released), raw(merged)
    moved = {name for name in one if not torch.equal(one[name], other[name])}
    assert one.keys() == other.keys() and moved
    where = ("projector", "connector", "layers.", "image_newline")
    assert all(any(part in name for part in where) for name in moved)
    assert not any("vision" in name for name in moved)


def check_adapter(released: Path, artifact: Artifact) -> None:
    """Export both forms: they give the same logits."""
    theirs = Theirs.load(exported(artifact, "merged"))
    with torch.no_grad():
        adapter = PeftModel.from_pretrained(
            AutoModelForImageTextToText.from_pretrained(released), exported(artifact, "adapter")
        )
        given = theirs.inputs("What?", photographs()[:1])
        wanted, found = theirs.model(**given).logits, adapter.eval()(**given).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_two_steps_and_out_again(tmp_path: Path) -> None:
    """A released model whose pictures are cut into several is trained with whole ones."""
    cut = save_family(FamilyKind("internvl", whole=False), tmp_path / "released")
    artifact = out_of(cut, tmp_path, "model.one_tile=true")
    check_round(cut, artifact)
    check_adapter(cut, artifact)


def test_a_type_with_views_is_trained_with_whole_pictures(tmp_path: Path) -> None:
    """Of two pictures transformers shows no views either; the token behind each trains, too."""
    released = save_family(FamilyKind("onevision", whole=False), tmp_path / "released")
    with pytest.raises(InputError, match=r"give model\.one_tile=true"):
        described(str(released))
    artifact = out_of(released, tmp_path, "model.one_tile=true")
    check_round(released, artifact)
    assert "in further views as well" in (exported(artifact, "merged") / "README.md").read_text()
    with pytest.raises(InputError, match=r"give export\.form=merged"):
        exported(artifact, "adapter")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[:2])
def test_two_steps_of_the_others_and_out_again(kind: FamilyKind, tmp_path: Path) -> None:
    released = save_family(kind, tmp_path / "released")
    artifact = out_of(released, tmp_path)
    check_round(released, artifact)
    check_adapter(released, artifact)


Damage = Callable[[dict[str, Any]], None]


def cut_pictures(config: dict[str, Any]) -> None:
    config["image_processor"]["do_image_splitting"] = True


def two_layers(config: dict[str, Any]) -> None:
    config["vision_feature_layer"] = [-2, -1]


def with_class_token(config: dict[str, Any]) -> None:
    config["vision_feature_select_strategy"] = "full"


def fewer_tokens(config: dict[str, Any]) -> None:
    config["image_seq_length"] = 3


def other_size(config: dict[str, Any]) -> None:
    config["image_processor"]["max_image_size"] = {"longest_edge": 28}


@pytest.mark.parametrize(
    ("family", "file", "damage", "sentence"),
    [
        ("idefics3", "processor_config.json", cut_pictures, "give model.one_tile=true"),
        ("idefics3", "processor_config.json", other_size, "the tower needs 56 x 56"),
        ("internvl", "config.json", two_layers, "only -1 is read"),
        ("internvl", "config.json", with_class_token, "only default is read"),
        ("internvl", "processor_config.json", fewer_tokens, "writes 3 tokens for a picture"),
    ],
)
def test_what_cannot_be_exact_is_one_sentence(
    saved: dict[str, Path], tmp_path: Path, family: str, file: str, damage: Damage, sentence: str
) -> None:
    folder = shutil.copytree(saved[family], tmp_path / "model")
    config = json.loads((folder / file).read_text())
    damage(config)
    (folder / file).write_text(json.dumps(config))
    with pytest.raises(InputError, match=sentence) as error:
        described(str(folder))
    told = str(error.value)
    assert "\n" not in told and told.endswith(".") and str(tmp_path) in told


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("saved")
    families = ("idefics3", "internvl")
    return {family: save_family(FamilyKind(family), root / family) for family in families}


def test_a_space_stands_for_a_missing_image(saved: dict[str, Path]) -> None:
    pieces = released_prompt(str(saved["idefics3"]))
    around = "<fake_token_around_image>"
    assert pieces["user"] == "User:" and pieces["no_image"] == " "
    assert pieces["image"] == f"{around}<global-img><image>{around}"
    pieces = released_prompt(str(saved["internvl"]))
    assert pieces["image"] == "<img><IMG_CONTEXT></img>\n"
    assert pieces["image_token"] == "<IMG_CONTEXT>" and "no_image" not in pieces
