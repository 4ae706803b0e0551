"""How far a reward model can be taken at its word, in the report of what learned from it."""

from __future__ import annotations

import json
from pathlib import Path

from dress.files import write_text
from dress.reporting.panels import calibration_panels
from tests.reporting.report_store import Store


def test_a_reward_model_shows_how_well_it_is_calibrated(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bins = {"at_50": (0.55, 0.5, 0.75), "at_90": (0.95, 1.0, 0.25)}
    metrics = {
        f"val/rewards/{name}/{key}": value
        for name, row in bins.items()
        for key, value in zip(("probability", "accuracy", "share"), row, strict=True)
    }
    judge = store.make(
        "llava_rlhf_rm",
        "model",
        lambda building: write_text(building.path / "metrics.json", json.dumps(metrics)),
    )
    policy = store.model("llava_rlhf_ppo", reward=judge)
    (panel,) = calibration_panels([policy, judge])
    # 0.75 * 0.05 + 0.25 * 0.05
    assert panel.alt.endswith(f"expected calibration error: {judge.name} 0.050")
    assert calibration_panels([policy]) == []
