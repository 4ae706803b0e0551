"""Which overrides a parent shares, and which artifacts a change of the command makes anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict

from dress.artifact import Artifact, ArtifactStore, Building
from dress.errors import InputError
from dress.fingerprint import fingerprint
from dress.jobs.job import Job, forwarded_overrides
from dress.jobs.resolved import resolved_model
from dress.jobs.train import fingerprinted

CONF = Path(__file__).resolve().parents[1] / "conf"
CHAIN = {
    "dress_captions",
    "dress_stage0",
    "dress_instructions",
    "dress_stage1",
    "dress_prompts",
    "dress_feedback",
    "dress_stage2",
}
WALKED: dict[tuple[str, ...], dict[str, str]] = {}  # what each change names, for all tests
MODELS = {"dress_stage0", "dress_stage1", "dress_feedback", "dress_stage2"}


@pytest.fixture(autouse=True)
def configurations() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@cache
def composed(*overrides: str) -> DictConfig:
    return compose("run", list(overrides))


@pytest.mark.parametrize(
    "override",
    [
        "model=tiny",
        "model/language=tiny",
        "model.max_length=100",
        "data=world_mini",
        "data.sizes.captions=9",
        "+data.extra=1",
        "source.cooccurrence=0.1",
        "annotator.noise=0.1",
        "feedback.samples=2",
        "seed=3",
        "paths.artifacts=/x",
        "logger=local",
        "debug=smoke",
        "trainer=gpu",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        "trainer.strategy=ddp",
        "template=vicuna",
        "trainer.precision=bf16-mixed",
        "datamodule.rows_per_batch=1",
        "module.activation_checkpointing=true",
    ],
)
def test_what_parents_share(override: str) -> None:
    assert forwarded_overrides([override]) == [override]


@pytest.mark.parametrize(
    "override",
    [
        "experiment=dress_stage2",
        "condition=score",
        "condition.target=worst",
        "objective=sft",
        "optimizer.lr=0.1",
        "trainer.max_steps=5",
        "callbacks.train_state.every_n_steps=5",
        "benchmark.scenes=5",
        "generation.temperature=1",
        "init_from=random",
        "fresh=true",
        "name=mine",
        "modelling=1",
        "seeds=1",
    ],
)
def test_what_parents_do_not_share(override: str) -> None:
    assert forwarded_overrides([override, "seed=1"]) == ["seed=1"]


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Walk the lineage of dress_stage2 without building; return experiment -> artifact name."""
    named: dict[str, str] = {}

    @contextmanager
    def pretend(
        self: ArtifactStore, name: str, *, kind: str, fingerprint: str, **given: Any
    ) -> Iterator[Building]:
        experiment, _, _ = name.rpartition("-")
        assert named.setdefault(experiment, name) == name, "one parent, built in two ways"
        lineage = {"name": name, "kind": kind, "fingerprint": fingerprint}
        artifact = Artifact(path=tmp_path / name, config=given["config"], lineage=lineage)
        yield Building(path=artifact.path, reused=True, artifact=artifact)

    monkeypatch.setattr(ArtifactStore, "build", pretend)
    monkeypatch.setattr("dress.jobs.train.check_inherited", lambda config, init: None)
    monkeypatch.setattr(  # composing is what takes the time, and stage 1 is a parent twice
        "dress.jobs.job.compose", lambda config_name, overrides: composed(*overrides)
    )

    def walk(*overrides: str) -> dict[str, str]:
        if overrides in WALKED:
            return WALKED[overrides]
        named.clear()
        # typed overrides; comparing would need artifacts that exist
        typed = ["experiment=dress_stage2", *overrides]
        Job(cfg=composed(*typed, "compare=[]"), overrides=typed).run()
        WALKED[overrides] = dict(named)
        return WALKED[overrides]

    return walk


def test_the_lineage_of_the_main_job(chain: Any) -> None:
    assert set(chain()) == CHAIN


NOTHING = (
    "condition.target=worst",
    "benchmark.scenes=5",
    "generation.batch_size=5",
    "logger=local",
    "callbacks=none",
    "callbacks.train_state.every_n_steps=7",
    "module.activation_checkpointing=true",
    "trainer.strategy=ddp",
    "matmul_precision=highest",  # what `auto` stands for on a CPU
    "paths.artifacts=elsewhere",
)


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (("condition=score",), {"dress_stage2"}),
        (("trainer.max_steps=5", "optimizer.lr=0.1", "data.steps.stage2=7"), {"dress_stage2"}),
        (("feedback.samples=2",), {"dress_feedback", "dress_stage2"}),
        (("annotator.noise=0.1",), {"dress_feedback", "dress_stage2"}),
        (("data.steps.stage1=7",), {"dress_stage1", "dress_feedback", "dress_stage2"}),
        (("model.max_length=300",), MODELS),
        (("seed=1",), CHAIN),
        (("matmul_precision=medium",), MODELS),
        (NOTHING, set()),
        (("callbacks=[default,early_stopping]",), {"dress_stage2"}),
        (("callbacks=[none,best_weights]",), {"dress_stage2"}),
        (("callbacks=[default,learning_rate_monitor,device_stats_monitor]",), set()),
        (
            ("logger=[default,csv]", "+trainer.profiler=simple", "+trainer.limit_val_batches=2"),
            set(),
        ),
    ],
)
def test_what_a_change_makes_anew(
    chain: Any, overrides: tuple[str, ...], changed: set[str]
) -> None:
    before, after = chain(), chain(*overrides)
    assert {name for name in CHAIN if before[name] != after[name]} == changed


def test_validations_count_where_a_callback_decides_by_them(chain: Any) -> None:
    def name(*overrides: str) -> str:
        return chain(*overrides)["dress_stage2"]

    best = "callbacks=[default,best_weights]"
    for change in ("trainer.val_check_interval=7", "+trainer.limit_val_batches=2"):
        assert name() == name(change) and name(best) != name(best, change)
    fewer, rating = "callbacks.condition_ratings.prompts=3", "val/rating/best/mean"
    rated = (best, f"callbacks.best_weights.monitor={rating}", "callbacks.best_weights.mode=max")
    assert name(best) == name(best, fewer) and name(*rated) != name(*rated, fewer)


def test_a_model_that_saw_no_conditions_is_sampled_under_none(chain: Any) -> None:
    under = {
        t: chain(f"feedback.targets=[{t}]")["dress_feedback"] for t in ("auto", "none", "best")
    }
    assert under["auto"] == under["none"] != under["best"]  # by stage 1


def test_names_are_folders_that_need_no_quoting(chain: Any) -> None:
    for name in chain("condition.dropout=0.25").values():
        assert not set(name) & set("=, /")


def test_a_model_from_random_weights_has_no_parent_model(chain: Any) -> None:
    assert "dress_stage0" in chain("init_from=random")  # the feedback is still sampled from stage 1
    ready = chain("feedback.responses=captions", "init_from=random")
    captions = {"dress_captions"}  # which stage 2 replays
    assert set(ready) == captions | {"dress_candidates", "dress_feedback", "dress_stage2"}


@pytest.mark.parametrize("model", ["clip_b32_tinyllama", "clip_smollm2", "llava_7b", "dress_13b"])
def test_a_null_quantization_changes_no_fingerprint(model: str) -> None:
    """So that artifacts from before there was the key are found again."""

    cfg = compose("run", ["experiment=dress_stage2", f"model={model}"])
    job = Job(cfg=cfg, overrides=[])
    with_null = resolved_model(job)
    cfg.model.language.quantization = "nf4"
    rounded = resolved_model(job)
    with open_dict(cfg):
        del cfg.model.language.quantization
    assert fingerprint(with_null, {}, {}) == fingerprint(resolved_model(job), {}, {})
    assert rounded["language"] == with_null["language"] | {"quantization": "nf4"}


@pytest.mark.parametrize(
    ("experiment", "own"), [("dress_stage2", None), ("llava_rlhf_ppo", 2), ("grpo", 2)]
)
def test_the_number_of_processes_counts_where_they_draw_responses(
    experiment: str, own: int | None
) -> None:
    def nodes(devices: int) -> dict[str, Any]:
        typed = [f"experiment={experiment}", f"trainer.devices={devices}"]
        return fingerprinted(Job(cfg=compose("run", typed), overrides=typed))

    assert nodes(2).pop("processes", None) == own
    assert nodes(1) == {name: node for name, node in nodes(2).items() if name != "processes"}


def test_random_weights_in_place_of_others_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["experiment=dress_stage1", f"paths.artifacts={tmp_path}", "init_from=random"]
    typed += ["model=clip_b32_tinyllama", "data=lvlm_nlf", "data.root=."]
    job = Job(cfg=compose("run", typed), overrides=typed)
    job.work()
    tower, language = "ViT-B-32:laion2b_s34b_b79k", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
    told = f"init_from=random: random weights instead of {tower} and {language}\n"
    assert capsys.readouterr().out == told
    job.work()  # now of a model whose YAML asks for random weights
    assert capsys.readouterr().out == ""


def test_required_parents_are_not_built(tmp_path: Path) -> None:
    typed = ["experiment=dress_stage1", f"paths.artifacts={tmp_path}", "parents=require"]
    job = Job(cfg=compose("run", typed), overrides=typed)
    with pytest.raises(InputError, match=r"dress_captions-\w+ is missing and parents=require"):
        job.run()
    assert list(tmp_path.glob("*captions*")) == []
