"""Every configuration composes, fits the constructors that it names, and instantiates."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dress.chat.condition import Condition
from dress.chat.encoders import Encoder
from dress.chat.processor import Processor
from dress.chat.template import ChatTemplate
from dress.evaluation.benchmark import Benchmark
from dress.feedback.annotator import Annotator
from dress.jobs.contradictions import records_needed
from dress.jobs.fit import build
from dress.modeling.build import build_model
from dress.modeling.language import causal_lm
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.trainable import set_trainable
from dress.modeling.tree_attention import tree_supported

CONF = Path(__file__).resolve().parents[1] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
GROUPS = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir())
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
GIVEN_LATER = dict.fromkeys(  # what the jobs add to a node's own keywords
    (
        *("assistant", "model", "processor", "condition", "objective", "optimizer", "scheduler"),
        *("judge", "reward", "annotator", "rejects", "data", "seed", "target", "decoding"),
        *("collator_of", "rows_per_batch", "title", "config", "is_parent", "scratch"),
        *("directory", "save_dir", "params", "groups_per_step"),
    )
)


@pytest.fixture(autouse=True)
def configurations() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(*overrides: str) -> dict[str, Any]:
    return plain(compose("run", list(overrides)))


def plain(cfg: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return container  # type: ignore[return-value]


def targets(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every node with a `_target_`, wherever it stands."""
    if isinstance(node, Mapping):
        if node.get("_target_"):
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from targets(value, f"{path}[{index}]")


def check_binding(path: str, node: Mapping[str, Any]) -> None:
    """Refuse keywords that the target does not take and, unless partial, missing ones."""
    target = get_object(node["_target_"])
    signature = inspect.signature(target)
    keywords = {key: value for key, value in node.items() if not key.startswith("_")}
    accepted = set(signature.parameters)
    assert set(keywords) <= accepted, f"{path}: {set(keywords) - accepted}"
    later = {key: value for key, value in GIVEN_LATER.items() if key in accepted - set(keywords)}
    if node.get("_partial_"):
        signature.bind_partial(**keywords)
    else:
        signature.bind(**keywords, **later)


def test_there_are_configurations() -> None:
    assert len(EXPERIMENTS) >= 7 and len(FILES) > 30
    assert {"dress_stage0", "dress_stage1", "dress_stage2", "dress_feedback"} <= set(EXPERIMENTS)


def test_a_file_is_short_and_names_our_own_code() -> None:
    packages = ("dress.", "datamodules.", "lit_modules.", "torch.", "lightning.")
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        limit = 60 if path.name == "run.yaml" else 40
        assert len(text.splitlines()) <= limit, path
        for _, node in targets(yaml.safe_load(text) or {}):
            assert node["_target_"].startswith(packages), f"{path}: {node['_target_']}"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_composes_and_instantiates(experiment: str) -> None:
    cfg = compose("run", [f"experiment={experiment}", "model=tiny"])
    found = dict(targets(plain(cfg)))
    assert {"source", "annotator", "objective", "optimizer"} <= set(found)
    for path, node in found.items():
        check_binding(path, node)
    assert cfg.name == experiment
    assert isinstance(instantiate(cfg.annotator, _convert_="all"), Annotator)
    assert callable(instantiate(cfg.source, _convert_="all").samples)
    assert set(cfg.lineage.values()) <= set(EXPERIMENTS)
    parameter = nn.Parameter(nn.Linear(1, 1).weight.detach())
    optimizer = instantiate(cfg.optimizer, _convert_="all")([{"params": [parameter]}])
    assert optimizer.param_groups[0]["lr"] == cfg.optimizer.lr
    objective = instantiate(cfg.objective)
    assert instantiate_encoder(cfg).requires == objective.requires == records_needed(cfg)
    if cfg.benchmark.get("_target_"):
        benchmark: Benchmark = instantiate(cfg.benchmark, _convert_="all")
        assert next(iter(benchmark.examples())).question


def instantiate_encoder(cfg: DictConfig) -> Encoder:
    offers = {"condition": Condition(form=cfg.condition.form), "processor": None, "seed": 0}
    return build(cfg.datamodule.encoder, offers | {"judge": None})


# each experiment is composed above
@pytest.mark.parametrize(
    ("group", "option"), [o for o in OPTIONS if o[0] != "experiment"], ids=lambda value: str(value)
)
def test_every_option_composes(group: str, option: str) -> None:
    cfg = compose("run", [f"{group}={option}"])
    if group == "annotator":  # each refers to its own kind of data, tested with data=
        assert cfg[group]["_target_"]
        return
    for path, node in targets(plain(cfg)):
        check_binding(path, node)


@pytest.mark.parametrize("benchmark", [o for group, o in OPTIONS if group == "benchmark"])
def test_a_smoke_run_takes_every_benchmark(benchmark: str) -> None:
    node = compose("run", ["debug=smoke", f"benchmark={benchmark}"]).benchmark
    if node._target_ is not None:
        check_binding("benchmark", plain(node))
    assert node.get("scenes", 8) == 8


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(HydraException, match="no_such"):
        compose("run", ["experiment=no_such"])


def test_data_brings_its_source_annotator_and_benchmark() -> None:
    annotators: set[str] = set()
    for name in {path.stem for path in (CONF / "data").glob("*.yaml")} - {"files"}:
        cfg = compose("run", [f"data={name}", "experiment=dress_stage2"])
        assert cfg.data.name == name
        for node in ("source", "annotator"):
            check_binding(node, plain(cfg)[node])
        annotators.add(cfg.annotator["_target_"])
    # no option without a kind of data that picks it, but for those that are only ever typed
    typed = ("llm", "human")
    paths = [path for path in (CONF / "annotator").glob("*.yaml") if path.stem not in typed]
    assert {yaml.safe_load(path.read_text())["_target_"] for path in paths} <= annotators
    world = compose("run", ["data=world_mini"])
    assert world.source.sizes == world.data.sizes
    assert world.benchmark["_target_"].endswith("WorldBenchmark")
    assert world.data.sizes.captions < compose("run").data.sizes.captions


def test_stage_3_trains_on_dialogues_as_long_as_those_it_is_asked_for() -> None:
    learned = composed("experiment=dress_refinements")["feedback"]["turns"]
    asked = composed("benchmark=interaction")["benchmark"]["turns"]
    assert learned == asked + 1  # the first response is before any feedback; the reference follows


def test_a_stage_takes_its_steps_and_groups_from_the_data() -> None:
    for stage in ("stage0", "stage1", "stage2", "stage3"):
        cfg = compose("run", [f"experiment=dress_{stage}"])
        assert cfg.trainer.max_steps == cfg.data.steps[stage]
        assert cfg.datamodule.groups_per_step == cfg.data.groups_per_step[stage]
        assert cfg.model.trainable[stage]


@pytest.mark.parametrize(
    "experiment", ["dress_stage0", "dress_stage1", "dress_stage2", "dress_stage3"]
)
def test_a_tiny_model_is_built_from_its_configuration(experiment: str) -> None:
    config = composed(f"experiment={experiment}", "model=tiny")
    tokenizer = train_tokenizer(["a red circle"], vocab_size=300)
    model = build_model(config["model"], tokenizer=tokenizer)
    report = set_trainable(model, config["model"]["trainable"][config["stage"]])
    assert 0 < report.trainable <= sum(count.total for count in report.counts) < 3_000_000
    assert model.trees
    processor = Processor(
        tokenizer=tokenizer,
        template=ChatTemplate(**config["template"]),
        preprocess=model.vision.preprocess,
        num_image_tokens=model.vision.num_tokens,
        max_length=config["model"]["max_length"],
    )
    shape = config["model"]["vision"]["config"]
    assert processor.num_image_tokens == (shape["image_size"] // shape["patch_size"]) ** 2


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("language", sorted(p.stem for p in (CONF / "model/language").glob("*")))
def test_every_shipped_language_model_has_its_trees(language: str, precision: str) -> None:
    """Whatever products the process has chosen: on a CPU with bf16 units `medium` rounds them."""
    given = composed(f"model/language={language}")["model"]["language"]
    small = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    small |= {"intermediate_size": 96, "vocab_size": 300, "num_key_value_heads": 2}
    config = given["config"] or {"model_type": "llama"}
    torch.set_float32_matmul_precision(precision)
    try:
        large = config.get("hidden_size", 4096) > 256
        shape = config | (small if large else {})
        model = causal_lm(config=shape, random_init=True, attention=given["attention"])
        assert tree_supported(model) == (True, ANY)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_template_and_condition_of_every_option_are_valid() -> None:
    for path in (CONF / "template").glob("*.yaml"):
        ChatTemplate(**composed(f"template={path.stem}")["template"])
    for path in (CONF / "condition").glob("*.yaml"):
        node = composed(f"condition={path.stem}")["condition"]
        condition = Condition(form=node["form"], dropout=node["dropout"])
        assert bool(condition.target(node["target"])) == (path.stem != "none")
