"""Settings that nothing reads or that contradict each other end in a sentence, before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from dress.jobs.checks import check
from dress.jobs.contradictions import check_typed
from dress.jobs.job import Job
from dress.jobs.keys import check_keys, typed
from dress.jobs.train import fingerprinted

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
LORA = "model.language.lora={r: 4, alpha: 8, dropout: 0.0, target_modules: all-linear}"
REST = "a later stage trains it: give model.trainable.stage2 with lora in place of language"
RELEASED = ["model=clip_b32_tinyllama", "optimizer=adamw"]


@contextmanager
def configurations() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def job(*overrides: str) -> Job:
    with configurations():
        return Job(cfg=compose("run", list(overrides)), overrides=overrides)


def check_all(*overrides: str) -> None:
    """Make the checks of start() and of a job."""
    with configurations():
        cfg = compose("run", list(overrides), return_hydra_config=True)
        choices = cfg.hydra.runtime.choices
        with open_dict(cfg):
            del cfg["hydra"]
        check_keys(cfg, choices)
    check(cfg)
    check_typed(cfg, typed(overrides))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["trainer.max_step=5"], "nothing reads trainer.max_step: did you mean trainer.max_steps?"),
        (["+trainer.max_step=5"], "did you mean trainer.max_steps?"),
        (["++trainer.max_step=5"], "did you mean trainer.max_steps?"),
        (["-m", "trainer.max_step=5,6"], "did you mean trainer.max_steps?"),
        (["max_steps=5"], "did you mean scheduler.max_steps or trainer.max_steps?"),
        (
            ["+trainer.accumulate_grad_batches=2"],
            "trainer.accumulate_grad_batches is not used here: a step is cut up by datamodule.rows",
        ),
        (["modle=tiny"], "nothing reads modle: did you mean module or model or"),
        (["+modle=tiny"], "nothing reads modle: did you mean module or model or"),
        (["model/visoin=clip_b32"], "did you mean model/vision?"),
        (["experiment=dress_stage_2"], "no option 'dress_stage_2': did you mean dress_stage2 or"),
        (
            ["sampler.base_url=x"],
            "nothing that was chosen reads sampler.base_url: choose sampler=endp",
        ),
        (["judge.base_url=x"], "nothing that was chosen reads judge.base_url: choose judge=llm"),
        (["base_url=x"], "nothing reads base_url: did you mean"),
        (["trainer=tpu"], "trainer has no option 'tpu': did you mean gpu or cpu?"),
        (
            ["data.root=/x"],
            "nothing that was chosen reads data.root: choose data=llava_instruct",
        ),
        (["+data.limit=3"], "nothing that was chosen reads data.limit: choose data="),
        (["judge.model=x"], "nothing that was chosen reads judge.model: choose judge=llm."),
        (["interaction.root=x"], "choose benchmark@interaction=amber or"),
        (["data.sizes={captions: 60, promts: 60}"], "did you mean data.sizes.prompts?"),
        (["model.language.lora={r: 4, alpa: 8}"], "did you mean model.language.lora.alpha?"),
        (["+model.language.config.hiden_size=8"], "did you mean model.language.config.hidden_size"),
        (["+model.vision.config.layer=8"], "model.vision.layer or model.vision.config.layers?"),
        (["+model.language.vocab_size=8"], "nothing reads model.language.vocab_size"),
        (["+model.projector.depth=3"], "nothing that was chosen reads model.projector.depth"),
        (["+optimizer.amsgrad=true"], "nothing reads optimizer.amsgrad"),  # Muon has none
        (["+lineage.inti=x"], "nothing reads lineage.inti"),
        (
            ["model.language.config.num_key_value_heads=2"],
            "is not set yet: give +model.language.config.num_key_value_heads=<value>.",
        ),
        (["experiment=llava_rlhf_ppo", "objective=dpo"], "choose objective=grpo or objective=ppo."),
        (["~datamodule.window"], "datamodule.window was removed and is read: leave out ~"),
        (["seed=0,1"], "seed=0,1 gives several values: add -m to run each of them"),
        (["+seed=1"], "seed is set already: leave out the +."),
        (["+model=tiny"], "is chosen already: leave out the +."),
        (["seed=${sed}"], "Interpolation key 'sed' not found: correct seed."),
        (["words"], "'words' cannot be read: give key=value"),
        (["optimizer._target_=os.system", "+optimizer.command=ls"], "is foreign code"),
        (["model=null"], "model has no option 'null': choose one of clip_b32_small,"),
        (["trainer=5"], "trainer has no option '5': choose one of cpu, gpu."),
        (["-m", "model=null,tiny"], "model has no option 'null': choose one of clip_b32_small,"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_key_that_nothing_reads(
    refused: Callable[..., str], command: list[str], sentence: str
) -> None:
    assert sentence in refused(*command)


@pytest.mark.parametrize(
    "overrides",
    [
        ["+model.language.config.num_key_value_heads=2"],
        ["+model.language.config.rope_parameters={rope_type: linear, factor: 2.0}"],
        ["+datamodule.mixture.more={artifact: x, weight: 2}"],
        ["+datamodule.mixture.more={weight: 2}", "+lineage.more=dress_captions"],
        ["optimizer=adamw", "+optimizer.amsgrad=true"],
        ["+lineage.init=dress_stage0"],
        ["+model.scalar_head=true"],
        ["+template.image_token='<picture>'", "template.image='<picture>'"],
        ["model/projector=mlp", "model.projector.depth=3"],
        [
            *("stage=warm", "+model.trainable.warm=[projector]", "+data.steps.warm=3"),
            "+data.groups_per_step.warm=2",
        ],
        ["+short=3", "trainer.max_steps=${short}"],
        ["judge=llm", "judge.base_url=http://x", "judge.model=x", "judge.max_tokens=3"],
        [
            *("annotator=llm", "annotator.base_url=http://x", "annotator.model=x"),
            "annotator.price_per_million={prompt: 1, completion: 2}",
        ],
        [
            *("job=evaluate", "sampler=endpoint", "sampler.base_url=http://localhost/v1"),
            *("sampler.model=x", "sampler.omit=[seed]", "sampler.timeout_s=3"),
        ],
        ["data=photographs", "debug=smoke"],
        ["~source.flaw_scale"],
        ["callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=5"],
        ["callbacks=[default,early_stopping]", "+callbacks.early_stopping.verbose=true"],
        ["+callbacks.mine._target_=lightning.pytorch.callbacks.LearningRateMonitor"],
        ["logger=[default,csv]", "+logger.csv.prefix=dress"],
        ["+trainer.profiler=simple", "+trainer.limit_val_batches=2", "trainer.strategy=auto"],
    ],
    ids=lambda value: value[0],
)
def test_what_is_read_may_be_added(overrides: list[str]) -> None:
    check_all(*overrides)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_read_and_fits_together(experiment: str) -> None:
    released = ["data=lvlm_nlf", "model=llava_7b", "template=vicuna"]
    check_all(f"experiment={experiment}", *(released if "published" in experiment else []))


@pytest.mark.parametrize(
    ("plain", "added"),
    [
        (["optimizer=adamw"], "+optimizer.amsgrad=true"),
        ([], "+model.language.config.num_key_value_heads=2"),
    ],
)
def test_what_is_added_counts(plain: list[str], added: str) -> None:
    chosen = ["experiment=dress_stage0", *plain]
    assert fingerprinted(job(*chosen)) != fingerprinted(job(*chosen, added))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        # as in a public report: the adapter rested and nobody noticed
        ([LORA], f"model.language.lora is set, and neither stage2 nor {REST}"),
        ([LORA, "model.trainable.stage2=[projector]"], REST),
        ([LORA, "optimizer=adamw", "model.trainable.stage2=[language,lora]"], "leave one of them"),
        (["model.trainable.stage2=[lora]"], "model.trainable.stage2 trains lora and there is none"),
        (["model.trainable.stage2=[tower]"], "give a list of some of vision, projector"),
        (["model.trainable.stage2=projector"], "give a list of some of vision, projector"),
        (["stage=stage9", "trainer.max_steps=3", "datamodule.groups_per_step=2"], "has no stage9"),
        (
            ["model=clip_b32_tinyllama"],
            "for parts that train whole from random weights, and lora (an adapter) trains in",
        ),
        (
            [
                *("model=clip_b32_tinyllama", "model.language.lora=null"),
                "model.trainable.stage2=[projector,language]",
            ],
            "and language (released weights) trains in stage2: give optimizer=adamw.",
        ),
        (
            ["model=clip_b32_small", "model.trainable.stage2=[projector,vision]"],
            "and vision (released weights) trains in stage2",
        ),
        (
            ["model.language.name=gpt2"],
            "model.language.name is given and model.language.random_init is true",
        ),
        (
            ["model.language={name: gpt2}"],
            "model.language.name is given and model.language.random_init is true",
        ),
        (
            ["model.vision.name=ViT-B-32", "model.vision.config=null"],
            "model.vision.name is given and model.vision.random_init is true",
        ),
        (["model.vision.pretrained=openai"], "model.vision.pretrained is given and"),
        (
            [*RELEASED, "+model.language.config.model_type=llama"],
            "model.language.config.model_type is given and model.language.random_init is false",
        ),
        (
            ["model=clip_b32_small", "model/language=tinyllama", "optimizer=adamw"],
            "model.language.lora is set, and neither stage2",
        ),
        (
            [
                *("model=clip_b32_small", "model/language=tinyllama", "optimizer=adamw"),
                *("model.language.lora=null", "model.language.name=x"),
            ],
            "model.tokenizer.name is null and the weights of x know the tokens of their own",
        ),
        (
            ["objective=sft"],
            "needs records with dialogues (objective.requires), the datamodule gives",
        ),
        (
            ["generation.guidance=2", "generation.temperature=1"],
            "generation.guidance needs greedy decoding: give generation.temperature=0.",
        ),
        (
            ["artifact=x"],
            "artifact is not read by job=train: give job=evaluate or job=annotate or job=export or "
            "job=chat.",
        ),
        (["responses=x"], "responses is not read by job=train: give job=evaluate."),
        (["verify=x"], "verify is not read by job=train: give job=shards."),
        (["reward_from=x"], "reward_from is not read by this objective"),
        (["feedback.targets=best"], "feedback.targets is 'best': give a list"),
        (["feedback.targets=[bset]"], "condition.target is 'bset'"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_contradicts_itself(
    refused: Callable[..., str], command: list[str], sentence: str
) -> None:
    assert sentence in refused("experiment=dress_stage2", *command)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            ["experiment=dress_feedback", "data=lvlm_nlf", "artifact=x"],
            "artifact is not read with feedback.responses=captions",
        ),
        (
            ["experiment=dress_feedback", "annotator=human", "feedback.turns=2"],
            "annotator=human judges one answer to each question and hears no refinements",
        ),
        (
            ["experiment=dress_stage1", "datamodule.encoder.loss_turns=last"],
            "datamodule.answer_gap is for dialogues with loss on all turns",
        ),
        (
            ["experiment=dress_stage2", "datamodule.answer_gap=96"],
            "datamodule.answer_gap is for dialogues with loss on all turns",
        ),
        (
            ["experiment=silkie_dpo", "objective.reference=cached", "trainer.devices=2"],
            "objective.reference=cached is for one device and one data set",
        ),
    ],
)
def test_what_contradicts_itself_in_other_jobs(
    refused: Callable[..., str], command: list[str], sentence: str
) -> None:
    assert sentence in refused(*command)


@pytest.mark.parametrize(
    "overrides",
    [
        [*RELEASED, "experiment=dress_stage0"],  # LoRA rests until stage 1
        ["model=clip_b32_tinyllama", "experiment=dress_stage0", "optimizer=muon"],  # trains random
        [*RELEASED, "experiment=dress_stage2"],
        ["model=clip_b32_small", "experiment=dress_stage2", "optimizer=muon"],  # the tower rests
        ["experiment=dress_stage1", "model=tiny", LORA, "model.trainable.stage2=[projector,lora]"],
        ["model=dress_13b", "model.random_init=true", "optimizer=adamw", "experiment=dress_stage2"],
        [
            "model.language.name=gpt2",
            "model.language.config=null",
            "model.language.random_init=true",
        ],
    ],
    ids=lambda value: " ".join(value),
)
def test_what_goes_together(overrides: list[str]) -> None:
    check_all(*overrides)
