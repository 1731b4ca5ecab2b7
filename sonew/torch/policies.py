"""Parameter groups by policy: which parameters decay, and which are preconditioned by their diagonal alone.

from sonew.torch import SONew, param_groups
optimizer = SONew(param_groups(model, weight_decay=0.1), lr=1e-3)
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Final

from torch import nn

from sonew.errors import InvalidConfigError

Choice = str | type[nn.Module]
NORMS: Final[tuple[type[nn.Module], ...]] = (
    *(nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase),  # noqa: SLF001  # the base of batch and instance norms
)
EMBEDDINGS: Final[tuple[type[nn.Module], ...]] = (nn.Embedding, nn.EmbeddingBag)


def param_groups(
    model: nn.Module,
    weight_decay: float = 0.01,
    *,
    no_decay: Iterable[Choice] = (*NORMS, "*bias"),
    diagonal: Iterable[Choice] = EMBEDDINGS,
    decay_vectors: bool = False,
) -> list[dict[str, Any]]:
    """Groups for `SONew` over a model's trainable parameters, each in exactly one; up to four, named by what holds for them.

    Choices are module types, which choose all parameters that a module of the type holds itself, and patterns as in
    `fnmatch` on a parameter's full name (`"head.*"`, `"*.bias"`). A tied parameter counts as held by each of its modules.

    Args:
        model: parameters that require no gradient are left out: unfreeze before, or add a group later.
        weight_decay: of the parameters that decay.
        no_decay: what does not decay: normalization layers and biases.
        diagonal: what takes band 0, whose neighbours in memory have nothing to do with each other: embeddings. () for none.
        decay_vectors: whether tensors of one dimension or none decay, which by custom they do not.

    Returns:
        Groups with `params`, `weight_decay`, a readable `name`, and `band` 0 where chosen.

    Raises:
        InvalidConfigError: a pattern that matches no parameter, or a choice of another kind.
    """
    owners: dict[nn.Parameter, list[tuple[str, nn.Module]]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, param in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(param, []).append((f"{prefix}.{name}" if prefix else name, module))
    names = [name for held in owners.values() for name, _ in held]
    defaults = (*NORMS, *EMBEDDINGS, "*bias")
    for choice in (*no_decay, *diagonal):
        _check(choice, names, must_match=choice not in defaults)

    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for param, held in owners.items():
        if not param.requires_grad:
            continue
        decays = not _chosen(held, no_decay) and (decay_vectors or param.ndim > 1)
        couples = not _chosen(held, diagonal)
        if (decays, couples) not in groups:
            name = f"{'decay' if decays else 'no decay'}{'' if couples else ', diagonal'}"
            kept = {} if couples else {"band": 0}
            groups[decays, couples] = {"params": [], "name": name, "weight_decay": weight_decay if decays else 0.0, **kept}
        groups[decays, couples]["params"].append(param)
    return list(groups.values())


def _chosen(held: Iterable[tuple[str, nn.Module]], choices: Iterable[Choice]) -> bool:
    """Whether any of the names and modules that hold a parameter is chosen."""
    return any(
        fnmatchcase(name, choice) if isinstance(choice, str) else isinstance(module, choice) for name, module in held for choice in choices
    )


def _check(choice: object, names: Iterable[str], *, must_match: bool) -> None:
    if isinstance(choice, str):
        if must_match and not any(fnmatchcase(name, choice) for name in names):
            known = ", ".join(list(names)[:8])
            msg = f"the pattern {choice!r} matches no parameter: it must match a full name, such as {known}. Correct it or leave it out."
            raise InvalidConfigError(msg)
    elif not (isinstance(choice, type) and issubclass(choice, nn.Module)):
        msg = f"{choice!r} is not allowed: it must be a module type or a pattern. Pass for example torch.nn.Embedding or 'head.*'."
        raise InvalidConfigError(msg)


__all__ = ["EMBEDDINGS", "NORMS", "param_groups"]
