import pytest
from modeling_helpers import LORA, tiny_lvlm

from dress.errors import InputError
from dress.modeling.trainable import set_trainable


def trainable_names(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_projector_only() -> None:
    model = tiny_lvlm()
    report = set_trainable(model, ["projector"])
    assert trainable_names(model) == {"projector.weight", "projector.bias"}
    assert report.trainable == 16 * 32 + 32
    assert model.projector.training
    assert not model.vision.training and not model.language.training
    model.train()  # what a training loop calls
    assert not model.vision.training and not model.language.training


def test_language_excludes_the_adapter_and_the_reverse() -> None:
    model = tiny_lvlm(lora=LORA)
    set_trainable(model, ["language"])
    assert not any("lora_" in name or "vision" in name for name in trainable_names(model))
    set_trainable(model, ["lora", "projector"])
    assert all("lora_" in name or "projector" in name for name in trainable_names(model))
    assert model.language.training
    assert model.differs == {"language", "lora", "projector"}


def test_report_counts_every_weight_once() -> None:
    model = tiny_lvlm(lora=LORA)
    report = set_trainable(model, ["vision", "projector", "language", "lora"])
    total = sum(parameter.numel() for parameter in model.parameters())
    assert report.trainable == sum(count.total for count in report.counts) == total
    lines = str(report).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split()[0] for line in lines] == [
        "part",
        "vision",
        "projector",
        "language",
        "lora",
        "all",
    ]


def test_unknown_and_absent_parts() -> None:
    model = tiny_lvlm()
    with pytest.raises(InputError, match="'tower' is not a part"):
        set_trainable(model, ["tower"])
    with pytest.raises(InputError, match="no 'lora'"):
        set_trainable(model, ["lora"])
