"""The scripts in benchmarks/ ask for what exists, and print what they were given."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hydra import compose, initialize_config_dir

from dress.jobs.checks import check

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def configurations() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def test_every_arm_of_the_ablations_composes(configurations: None) -> None:
    ablations = script("ablations")
    tables = [arms for arms, _, _ in ablations.TABLES]
    arms = {overrides for arms in tables for ways in arms.values() for overrides in ways.values()}
    files = {ablations.arm_file(Path(), overrides) for overrides in arms}
    assert len(files) == len(arms) > 22
    for overrides in arms:
        cfg = compose("run", list(overrides))
        check(cfg)
        assert cfg.data.name == "world_mini" and cfg.stage in ("stage2", "stage3")


def test_missing_arms_are_marked(tmp_path: Path) -> None:
    ablations = script("ablations")
    arms, figures, before = ablations.TABLES[0]
    ends = {"": 0.8, "_low": 0.7, "_high": 0.9}
    metrics = {f"world/{f}{end}": value for f in figures for end, value in ends.items()}
    done = ablations.arm_file(tmp_path, ablations.STAGE_2)
    done.write_text(json.dumps({"metrics": metrics | {f"init/{before}": 0.5}}))
    rows = ablations.table(tmp_path, arms, figures, before).splitlines()[2:]
    assert len(rows) == sum(map(len, arms.values()))
    both = next(row for row in rows if row.startswith("| condition | both |"))
    assert both.count("0.800 [0.700, 0.900]") == 4 and both.endswith("| 0.500 |")
    assert next(r for r in rows if r.startswith("| condition | none |")).count("missing") == 5


def test_gains_and_distances_by_hand() -> None:
    def figures(value: float) -> dict[str, float]:
        names = ("helpfulness", "honesty", "harmlessness", "mean", "safety", "persuasiveness")
        low = {"world/chair_i": 1 - value, "world/chair_s": 1 - value}
        return {f"world/{name}": value for name in names} | low

    table = script("main_table").gains(
        [{"seed": 3, "stage1": figures(0.5), "stage2_best": figures(0.8)}]
    )
    # 0.8 / 0.5 = 1.6; what is missing falls from 0.5 to 0.2, by 60 %
    assert "| helpful, % | +60.0 | +60.0 |" in table
    assert "| honest, % | +60.0 | +60.0 |" in table
    assert "| harmlessness: distance closed, % | 60 | 60 |" in table


def test_resuming_is_measured_on_small_shards(tmp_path: Path) -> None:
    resume_time = script("resume_time")
    folder = resume_time.copies(tmp_path, shards=3, groups=20)
    near, far = (resume_time.first_batch(folder, group) for group in (10, 50))
    # ten groups of 1 KiB, read in blocks of 8 KiB, and the offsets of their shards
    assert 10 * 1024 < near["data_bytes"] < 200_000 and far["data_bytes"] < 200_000
    assert resume_time.memory(folder)["groups_per_second"] > 0
    assert resume_time.opening(folder)["shards"] == 3


def test_every_way_to_read_photographs_reads_all_of_them(tmp_path: Path) -> None:
    data_throughput = script("data_throughput")
    image = data_throughput.photograph(0)
    assert 80_000 < len(image) < 200_000
    data_throughput.write(tmp_path, [image], 20)
    ways = data_throughput.Ways(tmp_path, [image], 20, draft=True)
    found = {n: getattr(ways, n)(0) for n in ("ours", "ours_with_text", "webdataset")}
    assert found == dict.fromkeys(found, 20)
    figures = data_throughput.measured(lambda: ways.limit(1), number=20)
    assert figures["cpu_ms"] > 0 and figures["samples_per_s"] > 0


def test_every_arm_of_the_comparison_composes_from_the_same_stage_1(configurations: None) -> None:
    comparison = script("comparison")
    assert len({comparison.arm_file(Path(), arm, 0) for arm in comparison.ARMS}) == 15
    budgets = set()
    for arm, (target, overrides) in comparison.ARMS.items():
        cfg = compose("run", [*overrides, "data=world_mini"])
        check(cfg)
        assert target == ("best" if "DRESS" in arm or arm.startswith("score") else "none")
        if cfg.stage == "stage2":
            begun = "dress_stage2" if arm == "SDPO" else "dress_stage1"
            assert cfg.lineage.init == begun
            budgets.add(cfg.trainer.max_steps)
    assert len(budgets) == 1


def test_the_comparison_shows_what_is_there(tmp_path: Path) -> None:
    comparison = script("comparison")
    ends = {"": 0.8, "_low": 0.7, "_high": 0.9}
    metrics = {f"world/{f}{end}": v for f in comparison.FIGURES for end, v in ends.items()}
    cost = {"trained_tokens": 2500.0, "generated_tokens": 1500.0, "minutes": 1.25}
    record = {"metrics": metrics, **cost, "difference": {"stage 1": {"mean": None}}}
    record["difference"]["stage 1"]["mean"] = {"value": 0.1, "low": 0.05, "high": 0.15, "p": 0.01}
    for seed in (0, 1):
        comparison.write(comparison.arm_file(tmp_path, "DPO", seed), record)
    rows = comparison.seed_table(tmp_path, 0).splitlines()
    (row,) = [row for row in rows if row.startswith("| DPO |")]
    assert row.count("0.800 [0.700, 0.900]") == 4 and "+0.100 [+0.050, +0.150] p=0.010" in row
    assert row.endswith("| 2 | 2 | 1.2 |")
    assert sum("missing" in row for row in rows) == 14
    assert "| DPO | 2 | 0.800 (0.800 to 0.800) |" in comparison.summary(tmp_path, [0, 1, 2])


def test_a_search_multiplies_the_rates_of_the_experiments(configurations: None) -> None:
    rates, comparison = script("learning_rates"), script("comparison")
    overrides = {arm: list(comparison.ARMS[arm][1]) for arm in rates.RATES}
    own = {arm: compose("run", typed).optimizer.lr for arm, typed in overrides.items()}
    assert own == rates.RATES


def test_the_best_trial_is_taken(tmp_path: Path) -> None:
    rates, trials = script("learning_rates"), script("trials")
    found = list(rates.trials(tmp_path, "DPO"))
    assert [rate for rate, _ in found] == pytest.approx([6.25e-6, 1.25e-5, 2.5e-5, 5e-5, 1e-4])
    ends = ("", "_low", "_high")
    for (_, path), mean in zip(found, (0.5, 0.7, 0.6), strict=False):
        path.write_text(json.dumps({"metrics": {f"world/mean{end}": mean for end in ends}}))
    found[3][1].write_text(json.dumps({"arm": "DPO", "stopped": "exit status 1"}))
    assert rates.best_rate(tmp_path, "DPO") == 1.25e-5
    assert rates.best_rate(tmp_path, "DRESS 3") is None
    assert set(rates.SHARED.values()) <= set(rates.RATES)
    table = trials.table(tmp_path).splitlines()
    assert "| DPO | 1.25e-05 | 0.700 [0.700, 0.700] | yes |" in table
    assert "| DPO | 5e-05 | exit status 1 |  |" in table
    assert sum("missing" in row for row in table) == 26


def test_the_measurement_on_a_gpu_runs_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """None of the kernels, but all that is around them."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "speed"))
    monkeypatch.setattr("sys.argv", ["gpu.py", "--device=cpu", "--tiny"])
    failed = script("speed/gpu").main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[0] == "{"]
    assert failed == 0, lines
    assert [(line["part"], line["number"]) for line in lines] == [
        *(("kernels", 1), ("kernels", 4), ("speed", 1), ("speed", 4), ("memory", 2), ("fsdp", 1)),
    ]
    for line in lines[:2]:
        assert line["loss_error"] < 0.02 and line["gradient_error"] < 0.1
    for line in lines[2:4]:
        assert line["trees_loss"] == pytest.approx(line["padded_loss"], rel=0.02)
        assert line["responses"] == 2 * line["number"] and line["times_padded"] > 0
    assert lines[3]["trees_tokens"] < lines[3]["padded_tokens"]
    assert lines[4]["planned_gib"] > 0 and lines[4]["peak_gib"] is None
    assert lines[5]["loss"] == pytest.approx(lines[5]["loss_alone"], rel=0.02)
