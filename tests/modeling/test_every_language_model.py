"""No causal LM of the installed transformers is accepted and wrong, or fails once it is built."""

from __future__ import annotations

import pytest
import transformers
from every_language_model import judged, page_parts
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

TEXT, TABLE, _ = page_parts()
IS_OF_THIS_VERSION = f"transformers {transformers.__version__} " in TEXT


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
def test_it_is_trained_right_or_refused(model_type: str) -> None:
    verdict = judged(model_type)
    assert verdict.outcome not in ("wrong", "dies"), verdict.why
    if IS_OF_THIS_VERSION:
        assert f"| `{model_type}` | {verdict.outcome} |" in TABLE


@pytest.mark.skipif(not IS_OF_THIS_VERSION, reason="the table is of another transformers")
def test_the_table_is_complete() -> None:
    types = [line.split("`")[1] for line in TABLE.splitlines()]
    assert types == list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


@pytest.mark.parametrize(
    ("fault", "value", "outcome"),
    [
        ("dress.modeling.tree_attention.unshared_kind", lambda _: "", "wrong"),
        ("dress.modeling.head.checkpoint", lambda *_, **__: {}["a"], "dies"),
    ],
)
def test_the_sweep_finds_faults(
    fault: str, value: object, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window of 4096 tokens that is not known by its type; an error in pieces alone."""
    assert judged("gemma2").outcome == "padded"
    monkeypatch.setattr(fault, value)
    assert judged("gemma2").outcome == outcome
