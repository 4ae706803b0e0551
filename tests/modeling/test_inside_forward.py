"""A training step uses weights within `forward` of a model alone, where sharding gathers them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from dress.assistant import Assistant
from dress.modeling.lvlm import LVLM
from dress.objectives.conditional_lm import ConditionalLM
from dress.objectives.dpo import DPO
from dress.objectives.reward import PairwiseReward

sys.path.append(str(Path(__file__).parents[1] / "integration"))
from policies import make_module, make_parts, prompts
from test_dpo import prepared


class Outside(TorchFunctionMode):
    """Note every operation on a weight of the models while none of them is in `forward`."""

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.weights = {id(p) for model in models for p in model.parameters()}
        self.depth = 0
        self.found: list[str] = []
        self.seen_inside = 0
        for model in models:
            model.register_forward_pre_hook(self._enter)
            model.register_forward_hook(self._leave, always_call=True)

    def _enter(self, *_: object) -> None:
        self.depth += 1

    def _leave(self, *_: object) -> None:
        self.depth -= 1

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        name = resolve_name(function) or str(function)
        if not name.endswith("__get__") and self._has_weight([arguments, keywords]):
            if self.depth:
                self.seen_inside += 1
            else:
                self.found.append(name)
        return function(*arguments, **keywords)

    def _has_weight(self, value: Any) -> bool:
        if isinstance(value, Tensor):
            return id(value) in self.weights
        if isinstance(value, dict):
            return any(map(self._has_weight, value.values()))
        return isinstance(value, list | tuple) and any(map(self._has_weight, value))


def dialogues(policy: Assistant, groups: Any) -> Callable[[], object]:
    return lambda: ConditionalLM()(policy.model, one_batch(policy, groups))


def one_batch(policy: Assistant, groups: Any) -> Any:
    (batch,) = policy.collator()(groups)
    return batch


def dpo(policy: Assistant, groups: Any) -> Callable[[], object]:
    objective = DPO()
    objective.prepare(policy.model)
    return lambda: objective(policy.model, one_batch(policy, groups))


def reward(policy: Assistant, groups: Any) -> Callable[[], object]:
    policy.model.scalar_head = nn.Linear(policy.model.language.config.hidden_size, 1).double()
    return lambda: PairwiseReward()(policy.model, one_batch(policy, groups))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("step", [dialogues, dpo, reward], ids=lambda step: step.__name__)
def test_an_objective_uses_weights_inside_forward(
    step: Callable[[Assistant, Any], Callable[[], object]],
) -> None:
    policy, groups = prepared()
    run = step(policy, groups)
    outside = Outside(policy.model)
    with outside:
        run()
    assert outside.found == [] and outside.seen_inside > 10


@pytest.mark.parametrize("objective", ["ppo", "grpo"])
def test_a_rollout_uses_weights_inside_forward(objective: str) -> None:
    parts = make_parts(objective)
    module = make_module(parts)
    models = [m for m in (module.model, module.critic) if m is not None]
    outside = Outside(*models)
    with outside:
        drawn = module.draw(prompts(parts.policy), number=0)
        experience, _ = module.maker(drawn)
        for part in module.policy_objective.advantages(experience):
            module.loss(part)
    assert outside.found == [] and outside.seen_inside > 10


def test_the_search_finds_a_look_up() -> None:
    policy, _ = prepared()
    outside = Outside(policy.model)
    with outside:
        policy.model.language.get_input_embeddings()(torch.zeros(1, 1, dtype=torch.long))
    assert outside.found == ["torch.nn.functional.embedding"]
    assert isinstance(policy.model, LVLM)
