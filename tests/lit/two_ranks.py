"""Run by test_ranks.py, once per rank: `two_ranks.py RESULT_FILE DIRECTORY`."""

import json
import os
import shutil
import sys
from pathlib import Path

import lightning as L
import torch
from toys import ToyData, cut, make_module, make_rows, make_trainer, weights

from lit_modules.alignment import NonFiniteStep
from lit_modules.callbacks.train_state import TrainState

RANK = int(os.environ["LOCAL_RANK"])


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.1)


def share(batch, step):
    """Give rank 0 six rows in two or three micro-batches and rank 1 two rows; or all to rank 0."""
    everything, nothing = cut(batch, [8, 0])
    if step == 1:
        return (everything,) if RANK == 0 else (nothing,)
    first, second, third = cut(batch, [5, 1, 2])
    return (first, second) if RANK == 0 else (third,)


def train(steps, *, val=None, resume=None, callbacks=(), **options):
    module = make_module(optimizer=sgd, **options)
    trainer = make_trainer(
        devices=2, strategy="ddp", callbacks=list(callbacks), enable_checkpointing=bool(callbacks)
    )
    trainer.fit(module, ToyData(steps, val), ckpt_path=resume)
    return weights(module).tolist(), trainer.callback_metrics


class Keep(L.Callback):
    """Keep the state of step 2, before the one of the end is written over it."""

    def __init__(self, state, path):
        self.state, self.path = state, path

    def on_train_end(self, trainer, pl_module):
        shutil.copy(self.state.path, self.path)


def main(result: Path, directory: Path) -> None:
    torch.set_num_threads(1)
    rows = make_rows(4, 8)
    steps = [share(batch, step) for step, batch in enumerate(rows)]
    val = [cut(rows[0], [6, 2])[RANK : RANK + 1]] + [cut(rows[1], [8])] * (RANK == 0)
    results = {}
    trained, figures = train(steps, val=val)
    results["weights"] = trained
    results["figures"] = {name: value.item() for name, value in figures.items()}
    results["whole"] = train(steps, dropout=0.3)[0]
    state = TrainState(scratch=directory, every_n_steps=2)
    kept = directory / f"step2.{RANK}.ckpt"
    train(steps[:3], dropout=0.3, callbacks=[state, Keep(state, kept)])
    results["resumed"] = train(steps, dropout=0.3, resume=kept, callbacks=[state])[0]
    if RANK == 1:
        steps[2][0].targets[0] = float("nan")
    module = make_module()
    try:
        make_trainer(devices=2, strategy="ddp").fit(module, ToyData(steps))
    except NonFiniteStep as error:
        results["refused"] = str(error)
    result.with_suffix(f".{RANK}").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
