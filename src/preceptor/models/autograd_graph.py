"""Paths in the graph that autograd records of a forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def depends_beside(result: Tensor, node: Any, leaf: Tensor) -> bool:
    """Whether a result depends on a leaf by a path that a node of the graph is not part of.

    Args:
        result: Result of a forward pass.
        node: `grad_fn` of an intermediate result.
        leaf: Tensor that requires gradients.

    Example:
        >>> import torch
        >>> leaf = torch.ones(2, requires_grad=True)
        >>> inner = leaf * 2
        >>> [depends_beside(one, inner.grad_fn, leaf) for one in (inner + 1, inner + leaf)]
        [False, True]
    """
    seen, left = {node}, [result.grad_fn]
    while left:
        one: Any = left.pop()
        if one is None or one in seen:
            continue
        if getattr(one, "variable", None) is leaf:
            return True
        seen.add(one)
        left += [following for following, _ in one.next_functions]
    return False
