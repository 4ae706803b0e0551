"""An artifact, a saved model and a training state are data: none of them can bring code along."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from own_data import CONF
from small import feedback_samples, make_assistant, model_config

import dress
from dress.artifact import Artifact, ArtifactStore
from dress.errors import InputError
from dress.jobs.checks import check_code
from dress.loading import save
from lit_modules.callbacks.train_state import TrainState


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = model_config()
    with ArtifactStore(tmp_path_factory.mktemp("store")).build(
        "model-ab", kind="model", config=config, fingerprint="ab", parents={}, inputs={}
    ) as building:
        save(make_assistant(feedback_samples(2)), building.path, spec=config["model"])
    return building.artifact.path


@pytest.fixture()
def artifact(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "model-ab")


@pytest.fixture()
def started(tmp_path: Path) -> Path:
    """What a payload would make."""
    return tmp_path / "started"


def refusal(path: Path) -> str:
    """Load the artifact, with its sizes as its marker says, and return the one sentence."""
    sizes = {
        file.relative_to(path).as_posix(): file.stat().st_size
        for file in path.rglob("*")
        if file.is_file() and file.name not in ("COMPLETE", "metrics.json")
    }
    (path / "COMPLETE").write_text(json.dumps({"files": sizes}))
    with pytest.raises(InputError) as error:
        dress.load(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def write_config(path: Path, config: Any) -> None:
    (path / "config.yaml").write_text(config if isinstance(config, str) else yaml.dump(config))


def test_an_untouched_artifact_loads(artifact: Path) -> None:
    assert dress.load(artifact).processor.max_length == 400


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [STARTED]",
        "model: !!python/object/apply:os.mkdir [STARTED]",
        "model: !!python/object/new:os.mkdir {args: [STARTED]}",
        "model: !!python/name:os.system",
        "model: !<tag:yaml.org,2002:python/module:os> ''",
        "[1, 2]",
        "text",
        "a: [",
        "\0",
        "a: &a [*b]",
        "[" * 5000,
    ],
)
def test_a_config_that_is_not_plain_data(artifact: Path, started: Path, text: str) -> None:
    write_config(artifact, text.replace("STARTED", str(started)))
    assert "config.yaml is damaged" in refusal(artifact)
    assert not started.exists()


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "torch.hub.load", "dressed.X", 7])
@pytest.mark.parametrize("place", [(), ("model",), ("model", "vision"), ("list", 0, "x")])
def test_a_target_of_foreign_code(artifact: Path, place: tuple[Any, ...], target: Any) -> None:
    config: Any = model_config() | {"list": [{"x": {}}]}
    config = copy.deepcopy(config)
    node = config
    for step in place:
        node = node[step]
    node |= {"_target_": target, "_args_": ["touch started"]}
    write_config(artifact, config)
    assert f"config.yaml names the foreign code {str(target)!r}" in refusal(artifact)
    with pytest.raises(InputError, match="names the foreign code"):
        Artifact.open(artifact)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("model", "vision", "_target_"), "dress.world.render.render", "unknown key '_target_'"),
        (("model", "vision", "_partial_"), True, "unknown key '_partial_'"),
        (("model", "language", "trust_remote_code"), True, "unknown key 'trust_remote_code'"),
        (("model", "language", "config", "auto_map"), {"A": "b.C"}, "has no key 'auto_map'"),
        (("model", "language", "config", "attn_implementation"), "a/b", "has no key"),
        (("model", "language", "attention"), "a/b", "model.language.attention"),
        (("model", "projector", "kind"), "os.system", "model.projector.kind is 'os.system'"),
        (("model", "projector", "_target_"), "dress.x.Y", "unknown key '_target_'"),
        (("model", "vision"), None, "the node vision lacks"),
        (("model",), "text", "describes no model"),
        (("condition",), {"form": "both"}, "the node condition lacks"),
        (("template", "x"), 1, "the node template has the unknown key 'x'"),
    ],
)
def test_a_config_with_other_keys(
    artifact: Path, place: tuple[str, ...], value: Any, message: str
) -> None:
    config = copy.deepcopy(model_config())
    node: Any = config
    for step in place[:-1]:
        node = node[step]
    node[place[-1]] = value
    write_config(artifact, config)
    assert message in refusal(artifact)


def test_a_config_that_grows_when_it_is_read(artifact: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    write_config(artifact, "\n".join(lines))
    assert "describes no model" in refusal(artifact)
    write_config(artifact, "a: " + "x" * 2**20)
    assert "config.yaml is damaged (it is too large)" in refusal(artifact)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("lineage.json", "[]", "lineage.json is damaged (it holds no object)"),
        ("lineage.json", "[" * 100_000, "lineage.json is damaged"),
        ("lineage.json", '{"kind": "model"}', "it lacks name or kind or fingerprint"),
        ("weights/manifest.json", "[]", "manifest.json: format None is not 1"),
        ("weights/manifest.json", '{"format": 1}', "manifest.json: damaged"),
        ("weights/manifest.json", "[" * 100_000, "manifest.json: not a saved model"),
    ],
)
def test_other_files_of_a_wrong_shape(artifact: Path, file: str, text: str, message: str) -> None:
    (artifact / file).write_text(text)
    assert message in refusal(artifact)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside"])
def test_a_marker_that_leads_elsewhere(artifact: Path, name: str) -> None:
    (artifact / "COMPLETE").write_text(json.dumps({"files": {name: 1}}))
    with pytest.raises(InputError, match="leads out of the artifact"):
        Artifact.open(artifact)
    (artifact / "COMPLETE").write_text("[]")
    with pytest.raises(InputError, match="COMPLETE is damaged"):
        Artifact.open(artifact)


@pytest.mark.parametrize("part", ["forward", "__init__", "../x", 3])
def test_a_manifest_names_parts_alone(artifact: Path, part: Any) -> None:
    path = artifact / "weights" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["projector.safetensors"]["part"] = part
    path.write_text(json.dumps(manifest))
    assert "manifest.json: damaged or made by other code" in refusal(artifact)


def test_an_adapter_with_settings_of_its_own(artifact: Path) -> None:
    path = artifact / "weights" / "manifest.json"
    manifest = json.loads(path.read_text())
    settings = {
        "r": 1,
        "alpha": 1,
        "dropout": 0,
        "target_modules": "all-linear",
        "auto_mapping": {},
    }
    manifest["adapters"] = [{"file": "lora-0.safetensors", "settings": settings, "shapes": ""}]
    path.write_text(json.dumps(manifest))
    assert "manifest.json: damaged or made by other code" in refusal(artifact)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickled_weights(artifact: Path, started: Path, protocol: int) -> None:
    file = artifact / "weights" / "projector.safetensors"
    file.write_bytes(pickle.dumps({"weight": Payload(started)}, protocol=protocol))
    assert "projector.safetensors: cannot be read" in refusal(artifact)
    torch.save({"weight": Payload(started)}, file)
    assert "projector.safetensors: cannot be read" in refusal(artifact)
    assert not started.exists()


def test_a_tokenizer_with_code(artifact: Path, started: Path) -> None:
    folder = artifact / "tokenizer"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(started)!r})\nclass Evil: pass\n")
    path = folder / "tokenizer_config.json"
    config: Mapping[str, Any] = json.loads(path.read_text())
    changed = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    path.write_text(json.dumps({**config, **changed}))
    assert "tokenizer" in refusal(artifact)
    assert not started.exists()


def state(directory: Path) -> TrainState:
    return TrainState(scratch=directory, every_n_steps=1)


@pytest.mark.parametrize("forced", ["0", "1"])
def test_a_training_state_with_a_payload(
    tmp_path: Path, started: Path, monkeypatch: pytest.MonkeyPatch, forced: str
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)
    payload = Payload(started)
    keys = ("state_dict", "optimizer_states", "loops", "alignment")
    torch.save({key: {} for key in keys} | {"extra": payload}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"last\.ckpt is damaged or holds more than a training"):
        state(tmp_path).check()
    (tmp_path / "last.ckpt").write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError, match=r"last\.ckpt is damaged"):
        state(tmp_path).check()
    assert not started.exists()


def test_a_training_state_that_is_none(tmp_path: Path) -> None:
    state(tmp_path).check()  # nothing to resume from
    for data in (b"", b"PK\x03\x04", b"text"):
        (tmp_path / "last.ckpt").write_bytes(data)
        with pytest.raises(InputError, match="remove it to start again"):
            state(tmp_path).check()
    for content in ([1], {"state_dict": {}}, torch.zeros(2)):
        torch.save(content, tmp_path / "last.ckpt")
        with pytest.raises(InputError, match="remove it to start again"):
            state(tmp_path).check()


@pytest.mark.parametrize(
    "override", ["optimizer._target_=os.system", "+source.x._target_=shutil.x"]
)
def test_a_command_cannot_name_what_an_artifact_could_not(override: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        check_code(compose("run", ["experiment=dress_stage2"]), [])
        with pytest.raises(InputError, match="is foreign code"):
            check_code(compose("run", ["experiment=dress_stage2", override]), [override])
