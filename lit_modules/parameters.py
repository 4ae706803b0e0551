"""What of a module trains: its optimizer groups, its modes and its part of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from dress.distributed import share
from dress.errors import InputError


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Split what trains into hidden matrices, other matrices and vectors.

    Hidden are the weights of linear layers between the embeddings and the output head, but not of
    a head with one output; an optimizer may treat groups that are marked `hidden` in its own way.
    Weight decay spares the vectors.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise InputError("no parameter trains: let the model's YAML name a part to train here")
    between = _hidden_matrices(module)
    hidden = [parameter for parameter in trainable if parameter in between]
    matrices = [p for p in trainable if p.ndim >= 2 and p not in between]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices},
        {"params": hidden, "hidden": True},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _hidden_matrices(module: nn.Module) -> set[nn.Parameter]:
    heads = {
        part.get_output_embeddings()
        for part in module.modules()
        if isinstance(part, PreTrainedModel)
    }
    ends = {
        weight
        for part in module.modules()
        if isinstance(part, nn.Embedding) or part in heads
        for weight in part.parameters(recurse=False)
    }
    inner = {
        weight
        for part in module.modules()
        if isinstance(part, nn.Linear | nn.MultiheadAttention)
        for weight in part.parameters(recurse=False)
        if weight.ndim == 2 and weight.shape[0] > 1
    }
    return inner - ends


def keep_frozen_in_eval(module: nn.Module) -> None:
    """Put every submodule that has parameters, none of them trainable, into eval mode."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        keep_frozen_in_eval(child)


def trainable_names(module: nn.Module) -> set[str]:
    """Name the state that training changes: trainable parameters and the buffers beside them."""
    names = set()
    for prefix, part in module.named_modules(remove_duplicate=False):
        own = dict(part.named_parameters(prefix, recurse=False))
        trains = {name for name, parameter in own.items() if parameter.requires_grad}
        if trains:
            names |= trains | {name for name, _ in part.named_buffers(prefix, recurse=False)}
    return names


def trainable_state(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep of a state dict what trains; buffers that are not persistent are not in it."""
    names = trainable_names(module)
    return {name: value for name, value in state.items() if name in names}


def check_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise InputError unless a checkpoint holds exactly what trains, in the same shapes."""
    expected = trainable_state(module, module.state_dict())
    for name in sorted(expected.keys() ^ state.keys()):
        problem = "lacks" if name in expected else "holds another model's"
        raise InputError(f"the checkpoint {problem} {name}: resume with the config that wrote it")
    for name, value in expected.items():
        if value.shape != state[name].shape:
            raise InputError(
                f"{name} has shape {tuple(state[name].shape)} in the checkpoint and "
                f"{tuple(value.shape)} in the model: resume with the config that wrote it"
            )


def load_trainable(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill what trains from whole tensors, or each rank's share of it."""
    for name, tensor in trainable_state(module, module.state_dict()).items():
        tensor.copy_(share(state[name], tensor))
