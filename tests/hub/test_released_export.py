"""What is exported answers in transformers alone as it does here."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import dress
from dress.artifact import Artifact
from dress.assistant import Assistant
from dress.chat.images import png
from dress.errors import InputError
from dress.jobs.exported import write_processor
from dress.jobs.job import Job
from dress.records import Prompt
from dress.types import Turn
from tests.data.nlf_files import nlf_row, write_nlf
from tests.hub.imported import import_model
from tests.hub.released_models import KINDS, photographs, save_released
from tests.integration.own_data import CONF, run_job

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"vision", "projector", "language"}
WORDS = "What is there in the picture beside a cup of coffee on this table?".split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Two steps of stage 2 from a released model: LoRA and projector have moved."""
    root = tmp_path_factory.mktemp("trained")
    released = save_released(KINDS[0], root / "released", shard="200KB")
    write_nlf(root / "data", [nlf_row(number) for number in range(8)])
    return run_job(
        root,
        "experiment=dress_stage2",
        "model=llava_hf",
        f"model.name={released}",
        "init_from=pretrained",
        "data=lvlm_nlf",
        "optimizer.lr=0.05",
        "scheduler.warmup_steps=0",
    )


def job(artifact: Artifact, *overrides: str) -> Artifact:
    typed = [f"artifact={artifact.path}", f"paths.artifacts={artifact.path.parent}", *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Job(cfg=compose("run", overrides=typed), overrides=typed).run()


def export(artifact: Artifact, *overrides: str) -> Path:
    done = job(artifact, "job=export", *overrides)
    assert done.lineage["parents"]["model"]["name"] == artifact.name
    return done.path / "model"


@pytest.fixture(scope="module")
def exported(trained: Artifact) -> Path:
    world = ["benchmark=world", "benchmark.scenes=2", "generation.max_new_tokens=4"]
    job(trained, "job=evaluate", *world)
    return export(trained, "export.condition=best")


def questions(count: int) -> list[tuple[Image.Image, str]]:
    rng = random.Random(0)
    texts = [" ".join(rng.sample(WORDS, 6)) for _ in range(count - 1)] + ["Is it USER: or <image>?"]
    return [(photographs()[n % 3], text) for n, text in enumerate(texts)]


def ours(assistant: Assistant, asked: list[tuple[Image.Image, str]], target: str) -> list[str]:
    condition = assistant.condition.target(target)
    prompts = [Prompt((png(image),), (Turn(text),), condition) for image, text in asked]
    return [answer for (answer,) in assistant.generate(prompts, max_new_tokens=10)]


def theirs(
    model: Any, processor: Any, asked: list[tuple[Image.Image, str]], template: str | None = None
) -> list[str]:
    said = []
    for image, text in asked:
        content = [{"type": "image", "image": image}, {"type": "text", "text": text}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            made = model.generate(**inputs, max_new_tokens=10, do_sample=False)
        new = made[0, inputs["input_ids"].shape[1] :]
        said.append(processor.decode(new, skip_special_tokens=True).strip())
    return said


def test_the_export_answers_a_plain_question_under_the_condition(
    trained: Artifact, exported: Path
) -> None:
    assistant, asked = dress.load(trained.path), questions(4)
    model = AutoModelForImageTextToText.from_pretrained(exported)
    processor = AutoProcessor.from_pretrained(exported)
    best, none = ours(assistant, asked, "best"), ours(assistant, asked, "none")
    unescaped = [assistant.processor.template.unescape(t) for t in theirs(model, processor, asked)]
    assert unescaped == best != none
    assert theirs(model, processor, asked, "bare") == none
    assert len(set(best)) > 1


def test_a_begin_token_is_left_to_a_tokenizer_that_cuts_otherwise_behind_it(tmp_path: Path) -> None:
    """Llama's gives `USER` behind a `<s>` in the text, and ` USER` behind one that it adds."""
    assistant = import_model(save_released(KINDS[3], tmp_path / "released"))
    write_processor(assistant, tmp_path, "good", base=None)
    processor = AutoProcessor.from_pretrained(tmp_path)
    message = {"role": "user", "content": "What?"}
    told = processor.apply_chat_template([message], add_generation_prompt=True)
    assert told == "USER: What? FEEDBACK: good ASSISTANT:"
    ids = processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"][0]
    wanted = assistant.processor.encode(
        [Turn("What?")], images=[], condition="good", prompt_only=True
    )
    assert list(ids) == wanted.input_ids.tolist() and ids[0] == processor.tokenizer.bos_token_id


def test_earlier_turns_are_written_as_here(trained: Artifact, exported: Path) -> None:
    assistant, processor = dress.load(trained.path), AutoProcessor.from_pretrained(exported)
    said = [("user", "Ae?"), ("assistant", "Bi </s> FEEDBACK: x"), ("user", "Co?")]
    messages = [{"role": role, "content": text} for role, text in said]
    condition = assistant.condition.target("best")
    turns = [Turn("Ae?", "Bi </s> FEEDBACK: x"), Turn("Co?")]
    wanted = assistant.processor.template.render(
        turns, num_images=0, condition=condition, prompt_only=True
    )
    told = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert told == "<s>" + wanted.text and condition in told
    whole = processor.apply_chat_template(messages[:2])
    assert whole == "<s>" + assistant.processor.template.render(turns[:1], num_images=0).text


def test_an_adapter_on_the_released_model_gives_the_same(trained: Artifact, exported: Path) -> None:
    folder = export(trained, "export.form=adapter")
    released = trained.config["model"]["name"]
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == Path(released).name
    names_no_folder(folder, trained)
    assert not list(folder.glob("model*.safetensors"))
    base = AutoModelForImageTextToText.from_pretrained(released)
    adapted = PeftModel.from_pretrained(base, folder).eval()
    merged = AutoModelForImageTextToText.from_pretrained(exported).eval()
    processor, asked = AutoProcessor.from_pretrained(folder), questions(3)
    assert theirs(adapted, processor, asked) == theirs(merged, processor, asked)


def test_a_model_of_own_parts(tmp_path: Path) -> None:
    """A tower of open_clip read at -2 and a linear projector: the layout has more of both."""
    own = {
        "model.vision.layer=-2",
        "model.vision.config.layers=3",
        "data=lvlm_nlf",
        "experiment=dress_stage2",
    }
    write_nlf(tmp_path / "data", [nlf_row(number) for number in range(8)])
    artifact = run_job(tmp_path, *sorted(own), "optimizer.lr=0.05", "optimizer=adamw")
    folder, assistant = export(artifact), dress.load(artifact.path)
    config = json.loads((folder / "config.json").read_text())
    assert config["vision_config"]["num_hidden_layers"] == 2
    assert config["vision_feature_layer"] == -1
    assert config["projector_hidden_act"] == "linear"
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    asked = questions(3)
    assert theirs(model, processor, asked) == ours(assistant, asked, "best")
    again = import_model(folder)
    assert ours(again, asked, "none") == ours(assistant, asked, "none")


def names_no_folder(folder: Path, trained: Artifact) -> None:
    for file in folder.rglob("*"):
        assert file.is_dir() or str(trained.path.parents[1]).encode() not in file.read_bytes(), file


def test_weights_in_4_bits_are_refused_before_they_are_loaded(
    trained: Artifact, tmp_path: Path
) -> None:
    rounded = Path(shutil.copytree(trained.path, tmp_path / trained.name))
    config = yaml.safe_load((rounded / "config.yaml").read_text())
    config["model"]["language"]["quantization"] = "nf4"
    written, size = yaml.safe_dump(config), (rounded / "config.yaml").stat().st_size
    (rounded / "config.yaml").write_text(written)
    marker = (rounded / "COMPLETE").read_text().replace(f"{size}", f"{len(written)}")
    (rounded / "COMPLETE").write_text(marker)
    with pytest.raises(InputError, match=r"cannot be exported: .* no adapter can be merged"):
        export(Artifact.open(rounded))


def test_the_card_says_what_it_is_and_no_path(trained: Artifact, exported: Path) -> None:
    text = (exported / "README.md").read_text()
    _, front, card = text.split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "image-text-to-text"
    assert "honesty 4: Says only what the image shows." in card
    assert trained.fingerprint in card and "nlf.jsonl" in card and "Apache-2.0" in card
    assert re.search(r"\| world/honesty \| best \| \d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] \|", card)
    names_no_folder(exported, trained)
    # its program runs as it stands
    program = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert program is not None
    told: list[str] = []
    with torch.no_grad():
        exec(program[1], {"FOLDER": exported, "picture": photographs()[0], "print": told.append})
    assert len(told) == 1 and "ASSISTANT" in told[0]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["condition.target=best"], "give export.condition"),
        (["template=vicuna"], "template cannot be given with job=export"),
        (["export.condition=good"], "condition.target is 'good'"),
        (["export.form=gguf"], "export.form is 'gguf': choose merged or adapter"),
        (["export.shard_gigabytes=0"], "export.shard_gigabytes is 0"),
    ],
)
def test_a_mistake_is_one_sentence(trained: Artifact, overrides: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        export(trained, *overrides)


@pytest.mark.slow
def test_fifty_answers_of_another_process(
    trained: Artifact, exported: Path, tmp_path: Path
) -> None:
    """Transformers alone: the process has none of this project on its path."""
    asked = questions(50)
    for number, (image, _) in enumerate(asked):
        image.save(tmp_path / f"{number}.png")
    (tmp_path / "asked.json").write_text(json.dumps([text for _, text in asked]))
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", str(script), str(exported), str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    template = dress.load(trained.path).processor.template
    wanted = ours(dress.load(trained.path), asked, "best")
    assert [template.unescape(text) for text in said] == wanted and len(set(wanted)) > 10


ALONE = """
import json, sys
from pathlib import Path
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])
processor = AutoProcessor.from_pretrained(sys.argv[1])
folder, said = Path(sys.argv[2]), []
for number, text in enumerate(json.loads((folder / "asked.json").read_text())):
    image = Image.open(folder / f"{number}.png")
    content = [{"type": "image", "image": image}, {"type": "text", "text": text}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )
    made = model.generate(**inputs, max_new_tokens=10, do_sample=False)
    new = made[0, inputs["input_ids"].shape[1] :]
    said.append(processor.decode(new, skip_special_tokens=True).strip())
assert "dress" not in sys.modules
print(json.dumps(said))
"""
