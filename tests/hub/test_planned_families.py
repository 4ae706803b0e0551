"""job=plan of a released model counts what its files hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from safetensors import safe_open

from dress.jobs.job import Job
from tests.hub.family_models import FamilyKind, save_family

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["idefics3", "internvl"])
def test_weights_of_the_tower(tmp_path: Path, family: str) -> None:
    folder = save_family(FamilyKind(family), tmp_path / "released")
    typed = [
        *("job=plan", "experiment=dress_stage2", "plan.lengths=[64]", "optimizer=adamw"),
        *("model=llava_hf", f"model.name={folder}", "init_from=pretrained"),
        f"paths.artifacts={tmp_path}",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        artifact = Job(cfg=compose("run", typed), overrides=typed).run()
    found = json.loads((artifact.path / "plan.json").read_text())
    totals = {part["part"]: part["total"] for part in found["parts"]}
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        tower = sum(file.get_tensor(n).numel() for n in file.keys() if "vision" in n)
    # what no patch token needs is not built: at most pooling
    assert 0.9 * tower <= totals["vision"] <= tower
