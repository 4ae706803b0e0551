"""What job=plan finds: the model's shapes, what rests on each device, and passes over rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from hydra.utils import instantiate
from torch import nn

from dress.errors import InputError
from dress.jobs.contradictions import records_needed
from dress.jobs.job import Job
from dress.modeling.depth import deep_pass
from dress.modeling.footprint import (
    LiveBytes,
    Loss,
    Pass,
    at_rest,
    bytes_of,
    cache_bytes,
    gathered_bytes,
    gradients_of,
    make_gradients,
    rows_in_pieces,
    shapes_of,
    training_pass,
    weight_bytes,
)
from dress.modeling.hub.released import described
from dress.modeling.lvlm import LVLM
from dress.modeling.reference import Reference, ReferenceLogProbs
from dress.modeling.trainable import set_trainable
from dress.objectives.functional import target_log_probs
from dress.settings import Precision
from lit_modules.parameters import parameter_groups

GIB = 2**30
SAMPLES = 10_000  # of which the time is told
COLUMNS = (
    *("tokens", "rows", "activations", "with the rest", "rows that fit"),
    *("KV cache of a row", "TFLOP of a row", f"hours of {SAMPLES:,} rows"),
)
WIDTHS = (6, 6, 13, 15, 15, 19, 16, 23)
UNKNOWN = "fetch its config.json once (hf download {name} config.json), or give a folder."


@dataclass(frozen=True)
class Devices:
    """Where a training is to run: bytes of each device, and its FLOP/s where they are known."""

    name: str
    count: int
    strategy: str
    memory: int
    usable: int
    flops: float | None
    fused: bool = False  # whether attention is that of a GPU's kernels


def shaped(model: Mapping[str, Any], shapes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the node `model` for random weights, with its shapes and without a network.

    `shapes` are those of released models whose files may be missing.
    """
    spec: dict[str, Any] = copy.deepcopy(dict(model))
    if "name" in spec:
        one_tile = spec.pop("one_tile", False)
        for part, found in _released_shapes(spec["name"], shapes, one_tile=one_tile).items():
            given = {key: value for key, value in spec[part].items() if value is not None}
            spec[part] = spec[part] | found | given
        spec["projector"] = {k: v for k, v in spec["projector"].items() if v is not None}
        spec["random_init"] = True
    else:
        spec["language"] |= _language_shape(spec["language"])
    spec["vision"]["random_init"] = spec["language"]["random_init"] = True
    config, tokens = spec["language"]["config"], spec["tokenizer"]["vocab_size"]
    if config is not None and tokens is not None and spec["tokenizer"]["name"] is None:
        config["vocab_size"] = max(config.get("vocab_size", 0), tokens)
    return spec


def _released_shapes(
    name: str | None, shapes: Sequence[Mapping[str, Any]], *, one_tile: bool
) -> dict[str, Any]:
    if name is None:
        raise InputError("model.name is null: give model.name=<folder, or name on the hub>.")
    known = [shape for shape in shapes if shape["name"] == name]
    if known and not Path(name).is_dir():
        return {"vision": known[0]["vision"], "language": {"config": known[0]["language"]}}
    try:
        folder = name if Path(name).is_dir() else snapshot_download(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the shapes of {name} are not known here: fetch its small files once (hf download "
            f"{name} --include '*.json' '*.jinja' '*.txt' '*.model')."
        ) from error
    return described(folder, one_tile=one_tile)


def _language_shape(language: Mapping[str, Any]) -> dict[str, Any]:
    """Prefer what a folder or the cache says of the named model to the shape that stands by it."""
    name = language["name"]
    if name and not language["random_init"]:
        if Path(name).is_dir():
            return {"config": None}
        if isinstance(cached := try_to_load_from_cache(name, "config.json"), str):
            return {"name": str(Path(cached).parent), "config": None}
    if language["config"] is None:
        raise InputError(f"the shape of {name} is not known here: {UNKNOWN.format(name=name)}")
    return {"name": None}


def planned(
    job: Job, nodes: Mapping[str, Any], *, devices: Devices, lengths: Sequence[int]
) -> dict[str, Any]:
    """Return the content of plan.json; sizes are in bytes, `time` is in seconds."""
    cfg = job.cfg
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    spec = copy.deepcopy(nodes["model"])
    quantization = spec["language"].pop("quantization", None)
    model = shapes_of(spec, fused=devices.fused)
    parts = set_trainable(model, spec["trainable"]).counts
    _check_lengths(lengths, model)
    trained, loss, judge = [model], _loss(model), 0
    objective = instantiate(cfg.objective, _convert_="all")
    if draws := records_needed(cfg) == "prompts":
        value = shapes_of(spec | {"scalar_head": True}, fused=devices.fused)
        set_trainable(value, spec["trainable"])
        judge = weight_bytes(value, quantization=quantization)
        if objective.has_value:
            trained, loss = [model, value], _both(model, value)
    for each in trained if cfg.module.activation_checkpointing else ():
        each.checkpoint_activations()
    make_gradients(trained)
    rest = {
        "weights": judge + sum(weight_bytes(each, quantization=quantization) for each in trained),
        "gradients": bytes_of(gradients_of(trained)),
        "optimizer": _optimizer_bytes(cfg.optimizer, trained),
        "reference": _reference_bytes(objective, model, draws=draws),
    }
    rest = on_one_device(rest, devices, whole=sum(map(gathered_bytes, trained)))
    passes = cache(partial(_pass, trained, loss, precision=cfg.trainer.precision))
    return {
        "name": cfg.name,
        "precision": cfg.trainer.precision,
        "devices": vars(devices),
        "parts": [vars(count) for count in parts],
        "rest": rest,
        "settings": [
            _setting(
                model,
                Peaks(partial(passes, length=length), rows_in_pieces(model, length=length)),
                length=length,
                rows=nodes["rows_per_batch"] or 1,
                free=devices.usable - sum(rest.values()),
                devices=devices,
            )
            for length in lengths
        ],
    }


def _pass(
    models: Sequence[LVLM], loss: Loss, *, rows: int, length: int, precision: Precision
) -> Pass:
    passing = partial(training_pass, rows=rows, length=length, precision=precision)
    return deep_pass(models, partial(passing, models, loss))


def _setting(
    model: LVLM, peaks: Peaks, *, length: int, rows: int, free: int, devices: Devices
) -> dict[str, Any]:
    one = peaks.passing(rows=1)
    return {
        "length": length,
        "activations": {str(number): peaks(number) for number in sorted({1, rows})},
        "rows_that_fit": peaks.largest(free),
        "cache": 0 if model.scalar_head is not None else length * cache_bytes(model.language),
        "flops": one.flops,
        "forward_flops": one.forward_flops,
        "time": SAMPLES * one.flops / (devices.count * devices.flops) if devices.flops else None,
    }


def _loss(model: LVLM) -> Loss:
    if model.scalar_head is not None:
        return lambda batch: model.scores(batch).sum()
    return lambda batch: model(batch, target_log_probs)[0].sum()


def _both(policy: LVLM, value: LVLM) -> Loss:
    own = _loss(policy)
    return lambda batch: own(batch) + value.values(batch).sum()


def _check_lengths(lengths: Sequence[int], model: LVLM) -> None:
    least = model.num_image_tokens + 2
    if not lengths or min(lengths) < least:
        raise InputError(
            f"plan.lengths is {list(lengths)}: give lengths of at least {least}, an image and text."
        )


def _optimizer_bytes(node: Any, models: Sequence[LVLM]) -> int:
    """Return what the optimizer holds after a step on the gradients that are there."""
    optimizer = instantiate(node, _convert_="all")(parameter_groups(nn.ModuleList(models)))
    resting = [tensor for model in models for tensor in at_rest(model)]
    with LiveBytes([*resting, *gradients_of(models)]) as live:
        optimizer.step()
    return live.now


def _reference_bytes(objective: Any, model: LVLM, *, draws: bool) -> int:
    """Return what the objective keeps of the weights that training begins with."""
    with LiveBytes(at_rest(model)) as live:
        kept = Reference(model) if draws else objective.prepare(model, cached=ReferenceLogProbs)
        held = live.now
    del kept
    return held


def on_one_device(rest: dict[str, int], devices: Devices, *, whole: int) -> dict[str, int]:
    """Divide what FSDP divides and add what it gathers; DDP copies gradients into its buckets."""
    if devices.count == 1:
        return rest
    if devices.strategy == "ddp":
        return rest | {"buckets": rest["gradients"]}
    return {key: -(-size // devices.count) for key, size in rest.items()} | {"gathered": whole}


class Peaks:
    """The peak of a pass over any number of rows: found up to `pieces` + 1, linear from there."""

    def __init__(self, passing: Callable[..., Pass], pieces: int) -> None:
        self.passing, self._last = passing, pieces + 1

    def __call__(self, rows: int) -> int:
        if rows <= self._last:
            return self.passing(rows=rows).peak
        return self(self._last) + (rows - self._last) * self._of_a_row()

    def largest(self, free: float) -> int:
        """Return the most rows that fit, 0 where not even one does."""
        if self(1) > free:
            return 0
        if (beyond := (free - self(self._last)) // self._of_a_row()) >= 0:
            return int(self._last + beyond)
        return max(rows for rows in range(1, self._last) if self(rows) <= free)

    def _of_a_row(self) -> int:
        return self(self._last) - self(self._last - 1)


def told(found: Mapping[str, Any]) -> str:
    """Write a plan as text for the terminal."""
    devices, total = found["devices"], sum(found["rest"].values())
    several = f", {devices['strategy']}" if devices["count"] > 1 else ""
    lines = [
        f"{found['name']} on {devices['count']} x {devices['name']}{several}, {found['precision']}",
        "",
        f"{'part':<12}{'weights':>16}{'trainable':>16}",
        *(f"{p['part']:<12}{p['total']:>16,}{p['trainable']:>16,}" for p in found["parts"]),
        "",
        f"{'on each device':<16}{'GiB':>10}",
        *(f"{name:<16}{size / GIB:>10.2f}" for name, size in found["rest"].items()),
        f"{'at rest':<16}{total / GIB:>10.2f}",
        f"{'usable':<16}{devices['usable'] / GIB:>10.2f}",
        "",
        "".join(f"{name:>{width}}" for name, width in zip(COLUMNS, WIDTHS, strict=True)),
    ]
    for setting in found["settings"]:
        hours = "-" if setting["time"] is None else f"{setting['time'] / 3600:.2f}"
        for rows, size in setting["activations"].items():
            cells = (
                *(setting["length"], rows, f"{size / GIB:.2f}", f"{(total + size) / GIB:.2f}"),
                *(setting["rows_that_fit"], f"{setting['cache'] / GIB:.3f}"),
                *(f"{setting['flops'] / 1e12:.2f}", hours),
            )
            lines.append("".join(f"{c:>{w}}" for c, w in zip(cells, WIDTHS, strict=True)))
    return "\n".join(lines)
