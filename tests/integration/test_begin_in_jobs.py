"""The begin token of a language model's own tokenizer, from the command line to the artifact."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from own_data import CONF

import dress
from dress.artifact import Artifact
from dress.errors import InputError
from dress.jobs.job import Job
from dress.types import Turn
from tests.chat.test_begin_token import beginning

SMALL = [
    "debug=smoke",
    "logger=local",
    "callbacks=none",
    "compare=[]",
    "data.sizes={captions: 20, instructions: 20, prompts: 20}",
    "data.groups_per_step={stage0: 4, stage1: 4, stage2: 4, stage3: 4}",
]


@pytest.mark.slow
def test_stages_begin_as_the_tokenizer_does(tmp_path: Path) -> None:
    beginning("<s> $A").save_pretrained(tmp_path / "own")
    common = [
        *SMALL,
        f"paths.artifacts={tmp_path / 'artifacts'}",
        f"model.tokenizer.name={tmp_path / 'own'}",
    ]

    def stage(number: int, *overrides: str) -> Artifact:
        typed = [f"experiment=dress_stage{number}", *common, *overrides]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return Job(cfg=compose("run", typed), overrides=typed).run()

    first = stage(0)
    assert first.config["template"]["begin"] == "<s>"
    second = stage(1, f"init_from={first.path}")
    processor = dress.load(second.path).processor
    prompt = processor.encode([Turn("How many?")], images=[], prompt_only=True)
    assert processor.tokenizer.decode(prompt.input_ids) == "<s>USER: How many? ASSISTANT:"
    with pytest.raises(InputError, match=r"template\.begin is None, but '<s>' in .*dress_stage0"):
        stage(1, f"init_from={first.path}", "template.begin=''")
