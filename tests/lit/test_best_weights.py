"""The best validation decides what is kept and when training ends, resumed or not."""

import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from test_resume import RaiseAt, fit
from toys import weights

from dress.errors import InputError
from dress.interrupts import Interrupted
from lit_modules.callbacks.best_weights import BestWeights
from lit_modules.callbacks.train_state import TrainState, final_figures

EPOCHS, VALIDATIONS = 4, (3, 8, 13, 18)  # of 5 steps each, with a validation after the third


class Recorded(L.Callback):
    """Hold the loss and a copy of the weights of each validation by its step."""

    def __init__(self):
        self.losses, self.weights = {}, {}

    def on_validation_end(self, trainer, pl_module):
        self.losses[trainer.global_step] = float(trainer.callback_metrics["val/loss"])
        self.weights[trainer.global_step] = weights(pl_module).clone()


class RaiseInValidation(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_validation_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise Interrupted("killed")


def train(directory, *callbacks, mode="min", every=100):
    """Return the figures and the module with its best weights."""
    best = BestWeights(scratch=directory, mode=mode)
    module, trainer = fit(directory, *callbacks, best, epochs=EPOCHS, every=every)
    (state,) = (callback for callback in trainer.callbacks if isinstance(callback, TrainState))
    return state.figures | final_figures(trainer, module, trainer.datamodule), module


def files(directory):
    return sorted(path.name for path in directory.glob("best-*"))


@pytest.mark.parametrize(("mode", "choose"), [("min", min), ("max", max)])
def test_the_weights_of_the_best_validation_are_put_back(tmp_path, mode, choose):
    seen = Recorded()
    figures, module = train(tmp_path, seen, mode=mode)
    assert tuple(seen.losses) == (*VALIDATIONS, 20)  # the last weights are validated too
    step = choose(seen.losses, key=seen.losses.get)
    assert torch.equal(weights(module), seen.weights[step])
    assert figures["best/step"] == step and figures["val/loss"] == seen.losses[step]
    assert len(set(seen.losses.values())) == len(seen.losses)
    assert mode == "min" or step != 20


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize(
    "interruption",
    [
        *(RaiseAt(step, signal.SIGTERM) for step in (3, 9, 20)),
        RaiseInValidation(13),
        RaiseAt(10, Interrupted("at once")),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.step}",
)
def test_an_interrupted_run_keeps_the_same_weights(tmp_path, mode, every, interruption):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    figures, module = train(tmp_path / "whole", mode=mode)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", interruption, mode=mode, every=every)
    again, resumed = train(tmp_path / "parts", mode=mode, every=every)
    assert again == figures
    assert torch.equal(weights(resumed), weights(module))


def test_the_file_that_a_saved_state_refers_to_is_kept(tmp_path):
    """The lowest loss falls at each validation; the state of step 4 refers to that of step 3."""
    with pytest.raises(Interrupted):
        train(tmp_path, RaiseAt(14, Interrupted("at once")), every=4)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    refers = saved["callbacks"]["BestWeights"]["step"]
    assert saved["global_step"] == 12 and f"best-{refers}.safetensors" in files(tmp_path)
    assert len(files(tmp_path)) <= 2


def test_a_monitor_that_no_validation_logs_is_named(tmp_path):
    best = BestWeights(scratch=tmp_path, monitor="val/los")
    with pytest.raises(InputError, match="is val/los, which no validation logs: give val/absolute"):
        fit(tmp_path, best)
    with pytest.raises(InputError, match="mode is 'least': choose min or max"):
        BestWeights(scratch=tmp_path, mode="least")


def stopping():
    """Stop at the second validation, whose loss is lower than that of the first."""
    return EarlyStopping("val/loss", mode="max", patience=1)


def test_early_stopping_ends_training_with_a_whole_state(tmp_path):
    seen = Recorded()
    module, trainer = fit(tmp_path, stopping(), seen, epochs=EPOCHS)
    figures = final_figures(trainer, module, trainer.datamodule)
    assert trainer.global_step == 8 and list(seen.losses) == [3, 8]
    assert figures["val/loss"] == seen.losses[8] < seen.losses[3]
    # killed after the last step, the same command trains no further
    resumed, trainer = fit(tmp_path, stopping(), epochs=EPOCHS)
    assert trainer.global_step == 8 and torch.equal(weights(resumed), weights(module))


@pytest.mark.parametrize("every", [1, 100])
@pytest.mark.parametrize(
    "interruption",
    [*(RaiseAt(step, signal.SIGINT) for step in (2, 3, 4, 8)), RaiseInValidation(8)],
    ids=lambda value: f"{type(value).__name__}-{value.step}",
)
def test_an_interrupted_run_stops_where_the_whole_one_does(tmp_path, every, interruption):
    (tmp_path / "whole").mkdir()
    module, _ = fit(tmp_path / "whole", stopping(), epochs=EPOCHS)
    with pytest.raises(Interrupted):
        fit(tmp_path, stopping(), interruption, epochs=EPOCHS, every=every)
    resumed, trainer = fit(tmp_path, stopping(), epochs=EPOCHS, every=every)
    assert trainer.global_step == 8 and torch.equal(weights(resumed), weights(module))
