"""Run jobs in this process on small folders of one's own."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir

from dress.artifact import Artifact
from dress.jobs.job import Job

CONF = Path(__file__).parents[2] / "conf"


def run_job(tmp_path: Path, *overrides: str) -> Artifact:
    """Run what `run.py` would, with the tiny model and few steps."""
    typed = [
        "init_from=pretrained",
        "model.tokenizer.vocab_size=400",
        "trainer.max_steps=2",
        "logger=local",
        "callbacks.progress=null",
        "callbacks.sample_table.rows=2",
        "generation.max_new_tokens=4",
        f"data.root={tmp_path / 'data'}",
        f"paths.artifacts={tmp_path / 'artifacts'}",
        *overrides,
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("run", overrides=typed)
        return Job(cfg=cfg, overrides=typed).run()


def half_written(tmp_path: Path) -> list[str]:
    """List what an unfinished build leaves."""
    root = tmp_path / "artifacts"
    found = (path for path in root.glob("*") if path.suffix in (".partial", ".lock", ".tmp"))
    return sorted(path.name for path in found)
