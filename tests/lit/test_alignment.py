"""One step is one gradient over one count, however it is cut up; a bad step changes nothing."""

import copy
import math

import lightning as L
import pytest
import torch
from toys import (
    ToyBatch,
    ToyData,
    cut,
    make_module,
    make_rows,
    make_trainer,
    weights,
)

from dress.errors import InputError
from dress.types import LossOutput
from lit_modules.alignment import NonFiniteStep


def train(steps, **options):
    module = make_module(**options)
    make_trainer().fit(module, ToyData(steps))
    return weights(module)


def reference(rows, clip=1.0, learning_rate=0.1):
    """Train with the mean of all rows and torch's own clipping."""
    model = make_module().model
    parameters = [model.head.weight, model.head.bias]
    optimizer = torch.optim.SGD(parameters, lr=learning_rate)
    for batch in rows:
        optimizer.zero_grad()
        (model.eval()(batch.inputs) - batch.targets).square().mean().backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
    return weights(model)


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.1)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("sizes", [[8], [1] * 8, [5, 2, 1]])
def test_cutting_a_step_changes_nothing(sizes, clip):
    rows = make_rows(steps=4, rows=8)
    trained = train([cut(batch, sizes) for batch in rows], optimizer=sgd, gradient_clip=clip)
    torch.testing.assert_close(trained, reference(rows, clip), rtol=1e-6, atol=1e-6)
    if clip is None:  # torch's clipping adds 1e-6 to the norm
        torch.testing.assert_close(trained, reference(rows, clip), rtol=1e-13, atol=1e-13)
    whole = train([cut(batch, [8]) for batch in rows], optimizer=sgd, gradient_clip=clip)
    torch.testing.assert_close(trained, whole, rtol=1e-13, atol=1e-13)


def test_figures_are_means_over_the_global_count():
    rows = make_rows(steps=1, rows=8)
    module = make_module()
    model = copy.deepcopy(module.model).eval()
    errors = model(rows[0].inputs) - rows[0].targets
    trainer = make_trainer()
    trainer.fit(module, ToyData([cut(rows[0], [5, 3])]))
    figures = trainer.callback_metrics
    assert figures["train/loss"] == pytest.approx(errors.square().mean().item())
    assert figures["train/absolute"] == pytest.approx(errors.abs().mean().item())
    errors.square().mean().backward()
    gradient = torch.cat([model.head.weight.grad.flatten(), model.head.bias.grad])
    assert figures["train/grad_norm"] == pytest.approx(gradient.norm().item())
    assert figures["train/learning_rate"] == pytest.approx(0.1)
    assert figures["step"] == 1


def test_validation_is_a_mean_over_the_whole_set():
    rows = make_rows(steps=3, rows=8)
    unequal = [cut(rows[0], [8]), cut(rows[1], [1, 6, 1]), (cut(rows[2], [2, 6])[0],)]
    module = make_module()
    model = copy.deepcopy(module.model).eval()
    parts = [part for step in unequal for part in step]
    errors = torch.cat([model(part.inputs) - part.targets for part in parts])
    figures = make_trainer().validate(module, ToyData([], unequal), verbose=False)[0]
    assert len(errors) == 18
    assert figures["val/loss"] == pytest.approx(errors.square().mean().item())
    assert figures["val/absolute"] == pytest.approx(errors.abs().mean().item())


def test_validation_without_a_target_is_an_input_error():
    empty = ToyBatch(torch.zeros(0, 3).double(), torch.zeros(0).double(), ())
    with pytest.raises(InputError, match="no validation batch"):
        make_trainer().validate(make_module(), ToyData([], [(empty,)]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_step_names_its_groups_and_changes_nothing(bad):
    rows = make_rows(steps=3, rows=4)
    rows[2].targets[1] = bad
    expected = train([cut(batch, [2, 2]) for batch in rows[:2]])
    module = make_module()
    with pytest.raises(NonFiniteStep, match=r"step 3 .*: g2\.0, g2\.1$"):
        make_trainer().fit(module, ToyData([cut(batch, [2, 2]) for batch in rows]))
    assert torch.equal(weights(module), expected)


def test_a_non_finite_gradient_of_a_finite_loss_is_refused():
    def objective(model, batch):
        # the derivative of sqrt at zero is infinite
        loss = (model(batch.inputs) * 0).abs().sqrt().sum()
        return LossOutput(loss_sum=loss, count=torch.tensor(4.0).double())

    module = make_module(objective=objective)
    before = weights(module)
    with pytest.raises(NonFiniteStep, match=r"g0\.0, g0\.1, g0\.2, g0\.3"):
        make_trainer().fit(module, ToyData([cut(make_rows(1, 4)[0], [4])]))
    assert torch.equal(weights(module), before)


def test_an_empty_step_is_counted_and_updates_nothing():
    rows = make_rows(steps=2, rows=4)
    empty = ToyBatch(rows[0].inputs[:0], rows[0].targets[:0], ())
    module = make_module()
    trainer = make_trainer()
    steps = [cut(rows[0], [4]), (empty, empty), (empty, *cut(rows[1], [4]))]
    trainer.fit(module, ToyData(steps))
    assert torch.equal(weights(module), train([cut(batch, [4]) for batch in rows]))
    assert trainer.global_step == 2
    assert trainer.callback_metrics["train/empty_steps"] == 1


def test_frozen_parts_stay_in_eval_and_out_of_the_optimizer():
    module = make_module()
    frozen = module.model.tower[0].weight.clone()
    trainer = make_trainer()
    trainer.fit(module, ToyData([cut(make_rows(1, 4)[0], [4])]))
    assert not any(part.training for part in module.model.tower.modules())
    assert module.model.head.training and module.model.dropout.training and module.training
    assert torch.equal(module.model.tower[0].weight, frozen)
    groups = trainer.optimizers[0].param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [
        (1, 0.01),
        (1, 0),
    ]
    module.model.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter trains"):
        make_trainer().fit(module, ToyData([cut(make_rows(1, 4)[0], [4])]))


def test_the_schedule_advances_once_per_step():
    module = make_module(
        optimizer=sgd,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, 1.0, 2),
    )
    rates = []

    class Spy(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = make_trainer(callbacks=[Spy()])
    trainer.fit(module, ToyData([cut(batch, [2, 2]) for batch in make_rows(4, 4)]))
    assert rates == pytest.approx([0.05, 0.075, 0.1, 0.1])
    assert trainer.callback_metrics["train/learning_rate"] == pytest.approx(0.1)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precisions_accept_frozen_batches(precision):
    module = make_module(dtype=torch.float32)
    trainer = make_trainer(precision=precision)
    rows = make_rows(2, 4, torch.float32)
    trainer.fit(module, ToyData([cut(batch, [3, 1]) for batch in rows]))
    assert math.isfinite(trainer.callback_metrics["train/loss"])


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_other_precisions_are_refused(precision):
    with pytest.raises(InputError, match="bf16-mixed"):
        make_trainer(precision=precision).fit(
            make_module(), ToyData([cut(make_rows(1, 4)[0], [4])])
        )
