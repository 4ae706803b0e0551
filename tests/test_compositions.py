"""What the tests keep of Hydra's compositions changes none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.errors import HydraException
from omegaconf import OmegaConf

from tests.compositions import OURS

KEPT: list[tuple[Any, str]] = [
    (ConfigRepository, "load_config"),
    (ConfigLoaderImpl, "_compose_config_from_defaults_list"),
    (defaults_list, "_create_interpolation_map"),
]
VALUES = ["seed=3", "data.sizes={captions: 60}", "+data.extra=1", "~condition.dropout"]


def composed(*overrides: str, folder: str = OURS) -> Any:
    with initialize_config_dir(folder, version_base="1.3"):
        return compose("run", list(overrides), return_hydra_config=True)


def shown(*overrides: str) -> tuple[str, bool | None]:
    try:
        cfg = composed(*overrides)
    except HydraException as error:
        return f"{type(error).__name__}: {error}", None
    return OmegaConf.to_yaml(cfg), OmegaConf.is_struct(cfg)


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=dress_stage2", "model=tiny"],
        ["experiment=dress_stage2", "model=tiny", *VALUES],
        ["experiment=llava_rlhf_ppo", "data=lvlm_nlf", "model=llava_7b", "debug=smoke"],
        ["callbacks=[none,train_state]", "benchmark@interaction=pope", "hydra/job_logging=none"],
        ["experiment=nowhere"],
        ["data.nothing=1"],
    ],
    ids=" ".join,
)
def test_it_is_as_hydra_makes_it(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = shown(*overrides), shown(*overrides)
    for owner, name in KEPT:
        monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)
    assert first == second == shown(*overrides)


def test_what_is_done_to_one_is_not_seen_in_the_next() -> None:
    cfg = composed("data=world_mini")
    cfg.data.sizes.captions = -1
    assert composed("data=world_mini").data.sizes.captions > 0


def test_a_folder_of_ones_own_is_read_each_time(tmp_path: Path) -> None:
    for value in (1, 2):
        (tmp_path / "run.yaml").write_text(f"value: {value}\n")
        assert composed(folder=str(tmp_path)).value == value
