"""A full disk is one sentence, wherever it is met, and the same command goes on.

RLIMIT_FSIZE bounds what one file may hold, so that the system itself refuses to write; a small
tmpfs is a disk that is really full, but only root may mount one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file

from dress.artifact import Artifact
from dress.files import append_line, naming, no_space, read_lines, replacing, write_text
from dress.jobs import fit
from dress.jobs.job import Job
from dress.jobs.start import sentence_of
from lit_modules.alignment import AlignmentModule
from tests.disk import files_of_at_most

ROOT = Path(__file__).resolve().parents[2]
STEPS = 5
COMMAND = [
    "experiment=dress_stage0",
    "data.sizes={captions: 60}",
    "data.validation_share=0.2",
    "data.groups_per_step.stage0=8",
    f"data.steps.stage0={STEPS}",
    "trainer.val_check_interval=3",
    "callbacks.train_state.every_n_steps=1000",
    "trainer.log_every_n_steps=1",
    "matmul_precision=highest",
    "model.language.config.num_hidden_layers=1",
    "model.vision.config.layers=1",
    "benchmark.scenes=6",
    "interaction.scenes=4",
    "generation.max_new_tokens=4",
]
QUIET = ["logger=local", "callbacks=none"]
TIMES = ("_per_second", "train/stall_fraction")


def save_tensors(path: Path) -> None:
    save_file({"weight": torch.zeros(4096)}, path)


def save_state(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"weight": torch.zeros(4096)}, file)


@pytest.mark.parametrize("write", [save_tensors, save_state, lambda p: p.write_bytes(bytes(9999))])
def test_whoever_writes_the_error_names_the_file(tmp_path: Path, write: Any) -> None:
    file = tmp_path / "file"
    write_text(file, "old")
    with pytest.raises(OSError) as error, files_of_at_most(4096), replacing(file) as temporary:
        write(temporary)
    assert no_space(error.value) is not None and error.value.filename == str(file)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    sentence = sentence_of(error.value)
    assert sentence is not None and sentence.startswith(f"{file} cannot be written (File too large")


def test_a_line_that_did_not_fit_is_no_line(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    append_line(file, {"number": 1})
    with pytest.raises(OSError, match=r"lines\.jsonl"), files_of_at_most(20):
        append_line(file, {"number": 2, "text": "x" * 9999})
    append_line(file, {"number": 3})
    assert [line["number"] for line in read_lines(file)] == [1, 3]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), naming(tmp_path):
        (tmp_path / "absent").read_text()
    with pytest.raises(ZeroDivisionError), naming(tmp_path):
        print(1 / 0)


@pytest.fixture
def configurations() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield
    torch.set_num_threads(threads)


def run(folder: Path, *overrides: str) -> Artifact:
    typed = [*COMMAND, *QUIET, "compare=[]", f"paths.artifacts={folder}", *overrides]
    return Job(cfg=compose("run", typed), overrides=typed).run()


def weights(artifact: Artifact) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in artifact.path.rglob("*.safetensors")}


def without_times(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(TIMES)}


@pytest.mark.usefixtures("configurations")
def test_no_room_for_the_weights_costs_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    shards = next((tmp_path / "whole").glob("dress_captions-*"))
    shutil.copytree(shards, tmp_path / "full" / shards.name)
    save, step, steps = fit.save, AlignmentModule.training_step, list[int]()

    def counted(self: AlignmentModule, batch: Any, batch_idx: int) -> None:
        steps.append(self.global_step)
        step(self, batch, batch_idx)

    def on_a_full_disk(*given: Any, spec: Any) -> None:
        with files_of_at_most(300_000):
            save(*given, spec=spec)

    monkeypatch.setattr(AlignmentModule, "training_step", counted)
    monkeypatch.setattr(fit, "save", on_a_full_disk)
    with pytest.raises(OSError, match=r"\.safetensors'$") as error:
        run(tmp_path / "full")
    assert no_space(error.value) is not None
    monkeypatch.setattr(fit, "save", save)
    again = run(tmp_path / "full")
    assert steps == list(range(STEPS))  # none of them by the second run
    assert weights(again) == weights(whole)
    assert without_times(again.metrics) == without_times(whole.metrics)


@pytest.mark.usefixtures("configurations")
@pytest.mark.parametrize(
    ("size", "kept"), [(20_000, []), (300_000, ["dress_captions"])], ids=["shards", "state"]
)
def test_what_is_of_no_use_is_removed(tmp_path: Path, size: int, kept: list[str]) -> None:
    with pytest.raises(OSError) as error, files_of_at_most(size):
        run(tmp_path, "callbacks.train_state.every_n_steps=1")
    assert no_space(error.value) is not None and str(tmp_path) in error.value.filename
    assert [path.name.rsplit("-", 1)[0] for path in tmp_path.iterdir()] == kept


def may_mount() -> bool:
    tried = shutil.which("unshare") and subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True
    )
    return bool(tried) and tried.returncode == 0


ON_A_SMALL_DISK = """
mount -t tmpfs -o size="$2" tmpfs "$1" && shift 2
"$@" >"$OUT/first.out" 2>"$OUT/first.err"; echo $? >"$OUT/first.code"
mount -o remount,size=100m tmpfs "$DISK"
"$@" >"$OUT/second.out" 2>"$OUT/second.err"; echo $? >"$OUT/second.code"
cp -r "$DISK" "$OUT/disk"
"""


def on_a_disk_of(size: str, folder: Path) -> tuple[int, str, Artifact]:
    """Give the command on a small disk and again on a large one; return how the first ended."""
    disk = folder / "mounted"
    disk.mkdir(parents=True)
    report = "compare=[{label: self, role: self, target: none}]"
    command = [sys.executable, "run.py", *COMMAND, report, "report.after=true"]
    inside = ["unshare", "-m", "sh", "-c", ON_A_SMALL_DISK, "sh"]
    environment = {"OUT": str(folder), "DISK": str(disk), "WANDB_MODE": "offline"}
    subprocess.run(
        [*inside, str(disk), size, *command, f"paths.artifacts={disk}"],
        cwd=ROOT,
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    first, second = ((folder / f"{n}.code").read_text().strip() for n in ("first", "second"))
    assert (second, (folder / "second.err").read_text()) == ("0", "")
    (artifact,) = (folder / "disk").glob("dress_stage0-*")
    return int(first), (folder / "first.err").read_text(), Artifact.open(artifact)


SIZES = ["40k", "150k", "360k", "400k", "500k", "3400k", "3800k", "8m", "9m"]


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="only root may mount a small disk")
def test_each_writer_meets_a_full_disk(tmp_path: Path) -> None:
    code, errors, whole = on_a_disk_of("100m", tmp_path / "whole")
    assert (code, errors) == (0, "")
    files = set()
    for size in SIZES:
        code, errors, again = on_a_disk_of(size, tmp_path / size)
        *before, last = errors.splitlines() or [""]
        if code:
            assert last.startswith(f"error: {tmp_path / size}") and "No space left" in last, errors
            files.add(Path(last.split()[1]).name)
        assert all("was not saved (No space left on device)" in line for line in before), errors
        assert weights(again) == weights(whole)
        assert without_times(again.metrics) == without_times(whole.metrics)
        assert json.loads((again.path / "COMPLETE").read_text())["files"]
    assert len(files) > len(SIZES) // 2, files
