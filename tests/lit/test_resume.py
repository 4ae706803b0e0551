"""Interrupted and resumed training is bit for bit the uninterrupted one."""

import json
import os
import signal

import lightning as L
import pytest
import torch
from toys import ToyData, cut, make_module, make_rows, make_trainer, weights

from dress.errors import InputError
from dress.files import read_lines
from dress.interrupts import Interrupted
from lit_modules.alignment import NonFiniteStep
from lit_modules.callbacks.train_state import TrainState
from lit_modules.loggers.json_lines import JsonLinesLogger

STEPS = 5


def cosine(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)


def fit(directory, *callbacks, epochs=2, every=100, steps=None, dropout=0.3, **options):
    """Train 2 epochs of 5 steps, with dropout and a validation in the middle and at the end."""
    rows = make_rows(STEPS, 8)
    steps = steps or [cut(batch, [5, 3]) for batch in rows]
    data = ToyData(steps, [cut(rows[0], [4, 4])])
    module = make_module(dropout=dropout, scheduler=cosine)
    state = TrainState(scratch=directory, every_n_steps=every)
    trainer = make_trainer(
        max_epochs=epochs,
        val_check_interval=3,
        callbacks=[*callbacks, state],
        enable_checkpointing=True,
        **options,
    )
    resume = state.resume_path()
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return module, trainer


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    module, trainer = fit(tmp_path_factory.mktemp("whole"))
    return weights(module), trainer.callback_metrics


class DrawsInValidation(L.Callback):
    def on_validation_end(self, trainer, pl_module):
        torch.rand(7)


class RaiseAt(L.Callback):
    """Fail, or send a signal, before or after a step; count from 1."""

    def __init__(self, step, what, hook="on_train_batch_start"):
        self.step, self.what = step, what
        setattr(self, hook, self._act)

    def _act(self, trainer, *_):
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.step:
            if isinstance(self.what, signal.Signals):
                os.kill(os.getpid(), self.what)
            else:
                raise self.what


def test_validation_does_not_disturb_the_random_stream(tmp_path, uninterrupted):
    module, _ = fit(tmp_path, DrawsInValidation())
    assert torch.equal(weights(module), uninterrupted[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 3, 5, 7])
def test_a_signal_stops_after_the_step_and_the_same_command_resumes(
    tmp_path, uninterrupted, step, number
):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"interrupted at step {step}; the same command resumes"):
        fit(tmp_path, RaiseAt(step, number))
    assert signal.getsignal(number) == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    module, trainer = fit(tmp_path)
    assert trainer.global_step == 2 * STEPS
    assert torch.equal(weights(module), uninterrupted[0])
    for name, value in uninterrupted[1].items():
        assert trainer.callback_metrics[name] == value, name


@pytest.mark.parametrize("step", [2, 6, 10])
def test_resuming_from_a_periodic_save_repeats_the_lost_steps(tmp_path, uninterrupted, step):
    with pytest.raises(Interrupted, match="interrupted at once"):
        fit(tmp_path, RaiseAt(step, Interrupted("interrupted at once")), every=2)
    module, trainer = fit(tmp_path, every=2)
    assert trainer.global_step == 2 * STEPS
    assert torch.equal(weights(module), uninterrupted[0])


@pytest.mark.parametrize("step", [2, 4, 6])
def test_an_error_before_the_update_saves_the_steps_done(tmp_path, uninterrupted, step):
    with pytest.raises(RuntimeError, match="disk"):
        fit(tmp_path, RaiseAt(step, RuntimeError("disk")))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == step - 1
    module, _ = fit(tmp_path)
    assert torch.equal(weights(module), uninterrupted[0])


def test_an_error_before_the_first_update_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="disk"):
        fit(tmp_path, RaiseAt(1, RuntimeError("disk")))
    assert not (tmp_path / "last.ckpt").exists()


def test_an_error_within_the_update_saves_nothing(tmp_path):
    def optimizer(groups):
        class Failing(torch.optim.SGD):
            def step(self, closure=None):
                super().step(closure)
                raise RuntimeError("in the update")

        return Failing(groups, lr=0.1)

    module = make_module(optimizer=optimizer)
    state = TrainState(scratch=tmp_path, every_n_steps=1)
    with pytest.raises(RuntimeError, match="in the update"):
        make_trainer(callbacks=[state], enable_checkpointing=True).fit(
            module, ToyData([cut(make_rows(1, 4)[0], [4])])
        )
    assert state.resume_path() is None


def test_a_non_finite_step_keeps_the_last_good_state(tmp_path):
    rows = make_rows(STEPS, 8)
    rows[3].targets[0] = float("nan")
    with pytest.raises(NonFiniteStep):
        fit(tmp_path, steps=[cut(batch, [8]) for batch in rows], every=2)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_a_state_is_written_beside_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    fit(tmp_path, every=1)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2 * STEPS


def test_a_checkpoint_holds_only_what_trains(tmp_path):
    fit(tmp_path, every=STEPS)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == {"model.head.weight", "model.head.bias"}
    assert "hyper_parameters" not in saved


def test_another_models_checkpoint_is_an_input_error(tmp_path):
    fit(tmp_path, every=STEPS)
    module = make_module()
    module.model.tower.requires_grad_(True)
    data = ToyData([cut(make_rows(1, 4)[0], [4])])
    with pytest.raises(InputError, match=r"lacks model\.tower\.0\.bias"):
        make_trainer().fit(module, data, ckpt_path=tmp_path / "last.ckpt")
    module = make_module()
    module.model.head = torch.nn.Linear(4, 2).double()
    with pytest.raises(InputError, match=r"shape \(1, 4\) in the checkpoint and \(2, 4\)"):
        make_trainer().fit(module, data, ckpt_path=tmp_path / "last.ckpt")


def test_history_is_json_lines_and_marks_where_it_resumed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(Interrupted):
        fit(
            tmp_path, RaiseAt(4, signal.SIGINT), logger=JsonLinesLogger(directory=tmp_path), every=2
        )
    fit(tmp_path, logger=JsonLinesLogger(directory=tmp_path), every=2)
    lines = list(read_lines(path))
    assert len(lines) == len(path.read_text().splitlines())
    assert [line.get("resumed_at") for line in lines if "resumed_at" in line] == [4]
    losses = [line["step"] for line in lines if "train/loss" in line]
    assert losses == [1, 2, 3, *range(5, 11)] or losses == list(range(1, 11))
    assert [line["step"] for line in lines if "val/loss" in line] == [3, 8]
    assert all(line["time"] > 1.7e9 for line in lines)


def test_history_stays_json_when_a_figure_is_not_finite(tmp_path, caplog):
    logger = JsonLinesLogger(directory=tmp_path / "new")
    logger.log_hyperparams({"live": object()})
    logger.log_metrics({"train/a": float("nan"), "train/b": 1.0}, step=3)
    record = json.loads(logger.path.read_text())
    assert record.keys() == {"step", "time", "train/b"} and record["step"] == 3
    assert "train/a" in caplog.text
