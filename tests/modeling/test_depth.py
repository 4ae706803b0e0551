"""A deep model is planned by passes through a few of its layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from modeling_helpers import LLAMA, LORA, VISION

from dress.modeling.depth import deep_pass
from dress.modeling.footprint import Pass, make_gradients, shapes_of, training_pass
from dress.modeling.language import text_config
from dress.modeling.layers import layers_of
from dress.modeling.lvlm import LVLM
from dress.modeling.trainable import set_trainable
from dress.objectives.functional import target_log_probs


def model_of(layers: int, *, lora: dict[str, Any] | None = None, fused: bool = False) -> LVLM:
    common = {"name": None, "random_init": True}
    config = LLAMA | {"num_hidden_layers": layers}
    spec = {
        "vision": common | {"pretrained": None, "config": VISION, "image_size": 16},
        "projector": {"kind": "linear"},
        "language": common | {"config": config, "lora": lora, "attention": "eager"},
    }
    model = shapes_of(spec, fused=fused)
    set_trainable(model, ["projector", "lora" if lora else "language"])
    make_gradients([model])
    return model.train()


@pytest.mark.parametrize(
    ("lora", "fused"),
    [pytest.param(None, True, marks=pytest.mark.slow), (LORA, False)],
    ids=["full", "lora"],
)
def test_all_layers_are_on_the_line_through_a_few(lora: dict[str, Any] | None, fused: bool) -> None:
    model = model_of(9, lora=lora, fused=fused)
    passing = partial(
        training_pass,
        [model],
        lambda batch: -model(batch, target_log_probs)[0].sum(),
        rows=2,
        length=40,
        precision="32-true",
    )
    depths = []

    def counted() -> Pass:
        depths.append(len(layers_of(model.language) or ()))
        return passing()

    found, whole = deep_pass([model], counted), passing()
    assert depths == [2, 3, 4]
    assert found.peak == pytest.approx(whole.peak, rel=1e-3)
    assert (found.flops, found.forward_flops) == (whole.flops, whole.forward_flops)
    assert text_config(model.language).num_hidden_layers == 9


def test_all_are_passed_where_no_line_is_to_be_had() -> None:
    model = model_of(9)
    layers = layers_of(model.language)
    assert layers is not None
    depths: list[int] = []

    def passing() -> Pass:
        depths.append(len(layers))
        return Pass(peak=len(layers) ** 2, flops=1, forward_flops=1)

    deep_pass([model], passing)
    assert depths == [2, 3, 4, 9]  # a curve
    layers[4].requires_grad_(False)
    deep_pass([model], passing)
    assert depths[4:] == [9]  # a layer unlike the others
    deep_pass([model_of(8)], passing)
    assert depths[5:] == [9]  # not many
