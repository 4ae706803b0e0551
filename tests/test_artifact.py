"""Artifacts appear whole or not at all, once, under a name that says what they depend on."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dress import artifact as artifact_module
from dress.artifact import Artifact, ArtifactStore, artifact_name, content_hash, fingerprint
from dress.errors import InputError
from dress.files import append_line, read_lines

CONFIG = {"lr": 1e-4, "model": {"dim": 8, "name": "tiny"}}
ROOT = Path(__file__).resolve().parents[1]


def build(store, name="exp-0123456789ab", **options):
    return store.build(
        name,
        kind="model",
        config=CONFIG,
        fingerprint="0123456789ab" + "0" * 52,
        parents={},
        inputs={"data": "ff"},
        **options,
    )


def make(store, text="weights", **options):
    with build(store, **options) as building:
        if not building.reused:
            (building.path / "model.safetensors").write_text(text)
    return building


def listing(root):
    return sorted(path.name for path in root.iterdir())


def test_fingerprint_is_the_hash_of_the_sorted_json():
    text = '{"config":{"a":[1,0.5],"b":null},"inputs":{"x":"h"},"parents":{"init":"f"}}'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert fingerprint({"b": None, "a": (1, 0.5)}, {"init": "f"}, {"x": "h"}) == expected


def test_fingerprint_tells_configs_apart_but_not_spellings_of_a_number():
    assert fingerprint({"lr": 1e-4}, {}, {}) == fingerprint({"lr": 0.0001}, {}, {})
    assert fingerprint({"x": -0.0}, {}, {}) == fingerprint({"x": 0.0}, {}, {})
    # limit_val_batches: 1 is one batch, 1.0 is all of them
    assert fingerprint({"x": 1}, {}, {}) != fingerprint({"x": 1.0}, {}, {})
    assert fingerprint({"x": True}, {}, {}) != fingerprint({"x": 1}, {}, {})
    assert fingerprint({}, {"a": "1"}, {}) != fingerprint({}, {}, {"a": "1"})


@pytest.mark.parametrize("value", [Path("x"), float("nan"), {1: 2}, {"s"}, b"x"])
def test_fingerprint_names_the_key_that_json_cannot_hold(value):
    with pytest.raises(InputError, match=r"config\.model\.list\[1\]"):
        fingerprint({"model": {"list": [0, value]}}, {}, {})


def test_artifact_name_has_no_separator_of_overrides():
    assert artifact_name("dress_stage2", "1a2b3c4d5e6f7788") == "dress_stage2-1a2b3c4d5e6f"
    for bad in ("a=b", "a,b", "a/b", "", "../x", "a b"):
        with pytest.raises(InputError):
            artifact_name(bad, "1a2b3c4d5e6f")


def test_content_hash_sees_names_and_bytes(tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    file = tmp_path / "d" / "e" / "f"
    file.write_bytes(b"abc")
    assert content_hash(file) == hashlib.sha256(b"abc").hexdigest()
    before = content_hash(tmp_path / "d")
    file.write_bytes(b"abd")
    changed = content_hash(tmp_path / "d")
    file.write_bytes(b"abc")
    assert content_hash(tmp_path / "d") == before != changed
    file.rename(file.with_name("g"))
    assert content_hash(tmp_path / "d") != before
    with pytest.raises(InputError, match="does not exist"):
        content_hash(tmp_path / "none")


def test_a_build_is_published_whole_and_then_reused(tmp_path):
    store = ArtifactStore(tmp_path / "artifacts")
    with build(store) as building:
        assert not building.reused and not building.resuming
        assert store.find("exp-0123456789ab") is None
        (building.path / "sub").mkdir()
        (building.path / "sub" / "model").write_bytes(b"12345")
        (building.scratch / "last.ckpt").write_bytes(b"state")
        (building.path / "metrics.jsonl").write_text('{"train/loss": 2.0}\n')
        building.write_metrics({"val/loss": 1.5})
    made = building.artifact
    assert listing(store.root) == ["exp-0123456789ab"]
    assert sorted(path.name for path in made.path.iterdir()) == [
        "COMPLETE",
        "config.yaml",
        "lineage.json",
        "metrics.json",
        "metrics.jsonl",
        "sub",
    ]
    assert made.config == CONFIG and made.metrics == {"val/loss": 1.5}
    assert made.name == "exp-0123456789ab" and made.fingerprint.startswith("0123456789ab")
    assert made.lineage["inputs"] == {"data": "ff"} and made.lineage["kind"] == "model"
    assert json.loads((made.path / "COMPLETE").read_text())["files"]["sub/model"] == 5
    again = make(store, text="never written")
    assert again.reused and again.artifact.lineage == made.lineage


def test_parents_are_recorded_by_name_and_fingerprint(tmp_path):
    store = ArtifactStore(tmp_path)
    parent = make(store).artifact
    with store.build(
        "child-ab", kind="m", config={}, fingerprint="ab", parents={"init": parent}, inputs={}
    ) as building:
        pass
    assert building.artifact.lineage["parents"] == {
        "init": {"name": parent.name, "fingerprint": parent.fingerprint}
    }


def test_a_failed_build_leaves_nothing_or_what_helps_to_resume(tmp_path):
    store = ArtifactStore(tmp_path)
    with pytest.raises(RuntimeError), build(store) as building:
        raise RuntimeError
    assert listing(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), build(store, keep_partial=True) as building:
        (building.scratch / "last.ckpt").write_text("step 3")
        (building.path / ".metrics.json.1.tmp").write_text("{")  # as if killed while writing it
        raise KeyboardInterrupt
    assert listing(tmp_path) == ["exp-0123456789ab.partial"]
    with pytest.raises(InputError, match="not finished"):
        Artifact.open(tmp_path / "exp-0123456789ab")
    with build(store, keep_partial=True) as building:
        assert building.resuming
        assert (building.scratch / "last.ckpt").read_text() == "step 3"
    assert listing(tmp_path) == ["exp-0123456789ab"]
    assert not (building.artifact.path / "scratch").exists()
    assert not list(building.artifact.path.glob(".*"))


def test_leftovers_are_not_mixed_into_a_build_that_does_not_resume(tmp_path):
    store = ArtifactStore(tmp_path)
    store.partial("exp-0123456789ab").mkdir()
    (store.partial("exp-0123456789ab") / "stale").touch()
    assert not (make(store).artifact.path / "stale").exists()


def test_fresh_replaces_only_after_success_and_resumes_itself(tmp_path):
    store = ArtifactStore(tmp_path)
    make(store, text="old")
    with pytest.raises(RuntimeError), build(store, fresh=True, keep_partial=True) as building:
        assert not building.resuming
        (building.scratch / "last.ckpt").touch()
        raise RuntimeError
    payload = tmp_path / "exp-0123456789ab" / "model.safetensors"
    assert payload.read_text() == "old"
    with build(store, fresh=True, keep_partial=True) as building:
        assert building.resuming
        (building.path / "model.safetensors").write_text("new")
    assert payload.read_text() == "new"
    assert listing(tmp_path) == ["exp-0123456789ab"]


def test_a_crash_between_marker_and_renaming_loses_nothing(tmp_path):
    store = ArtifactStore(tmp_path)
    make(store, text="new").artifact.path.rename(store.partial("exp-0123456789ab"))
    (tmp_path / "exp-0123456789ab.old").mkdir()
    again = make(store, text="never written")
    assert again.reused and (again.path / "model.safetensors").read_text() == "new"
    assert listing(tmp_path) == ["exp-0123456789ab"]


def test_a_truncated_artifact_is_named_and_built_again(tmp_path):
    store = ArtifactStore(tmp_path)
    path = make(store).artifact.path
    (path / "model.safetensors").write_text("wei")
    with pytest.raises(InputError, match=r"model\.safetensors has 3 bytes, not 7"):
        Artifact.open(path)
    assert store.find(path.name) is None
    assert not make(store).reused
    assert Artifact.open(path).name == path.name


def test_open_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Artifact.open(tmp_path / "none")
    with pytest.raises(InputError, match="is not an artifact"):
        Artifact.open(tmp_path)
    path = make(ArtifactStore(tmp_path)).artifact.path
    (path / "lineage.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Artifact.open(path)


def test_metrics_are_finite_named_and_can_be_added_later(tmp_path):
    store = ArtifactStore(tmp_path)
    with build(store) as building:
        building.write_metrics({"val/loss": 1.0})
        for bad in (math.nan, math.inf, None, True, "1"):
            with pytest.raises(InputError, match="val/accuracy"):
                building.write_metrics({"val/accuracy": bad})
        with pytest.raises(InputError, match="stage/quantity"):
            building.write_metrics({"loss": 1.0})
    made = building.artifact
    made.update_metrics({"world/honesty": 0.5})
    assert Artifact.open(made.path).metrics == {"val/loss": 1.0, "world/honesty": 0.5}


def test_an_unwritable_root_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"set paths\.artifacts"),
        build(ArtifactStore(tmp_path / "file" / "root")),
    ):
        pass


def test_other_code_is_reported(tmp_path, monkeypatch, caplog):
    store = ArtifactStore(tmp_path)
    monkeypatch.setattr(artifact_module, "code_version", lambda: "1+aaa")
    make(store)
    assert make(store).reused and not caplog.records
    monkeypatch.setattr(artifact_module, "code_version", lambda: "1+bbb")
    assert make(store).reused
    assert "1+aaa, this is 1+bbb" in caplog.text


BUILDER = """
import sys
from pathlib import Path
from dress.artifact import ArtifactStore
store = ArtifactStore(Path(sys.argv[1]))
with store.build("exp-ab", kind="m", config={}, fingerprint="ab", parents={}, inputs={},
                 keep_partial=True) as building:
    if not building.reused:
        (building.path / "payload").write_text("half")
        print("building", flush=True)
        sys.stdin.read()
        (building.path / "payload").write_text("complete")
print("reused" if building.reused else "built", flush=True)
"""


def start(root, waits=False):
    """Start a process that builds; one that waits goes on once its input is closed."""
    command, pipe = [sys.executable, "-c", BUILDER, str(root)], subprocess.PIPE
    given = pipe if waits else subprocess.DEVNULL
    return subprocess.Popen(command, stdin=given, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)


def test_a_second_process_waits_and_reuses(tmp_path):
    first = start(tmp_path, waits=True)
    assert first.stdout.readline() == "building\n"
    others = [start(tmp_path) for _ in range(2)]
    for other in others:
        assert f"waiting for exp-ab, built by pid {first.pid}" in other.stderr.readline()
    assert first.communicate(timeout=120)[0] == "built\n"
    for other in others:
        assert other.communicate(timeout=120)[0] == "reused\n"
    assert listing(tmp_path) == ["exp-ab"]


def test_kill_leaves_a_partial_that_the_next_process_takes_over(tmp_path):
    victim = start(tmp_path, waits=True)
    assert victim.stdout.readline() == "building\n"
    waiting = start(tmp_path)
    assert "waiting" in waiting.stderr.readline()
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    assert waiting.communicate(timeout=120)[0] == "building\nbuilt\n"
    assert Artifact.open(tmp_path / "exp-ab").lineage["kind"] == "m"
    assert (tmp_path / "exp-ab" / "payload").read_text() == "complete"


def test_lines_survive_a_crash_in_the_middle_of_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_line(path, {"step": 1})
    with path.open("a") as stream:
        stream.write('{"step": 2, "tr')
    append_line(path, {"step": 3})
    assert list(read_lines(path)) == [{"step": 1}, {"step": 3}]
    assert list(read_lines(tmp_path / "none")) == []
