"""Optimise the kernels of a trunk's convolutions by Muon, and everything else by Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon"]

# Coefficients of a quintic that pulls singular values from (0, 1] into about (0.7, 1.2) in five rounds (Jordan 2024).
_QUINTIC = (3.4445, -4.7750, 2.0315)
_NUM_ROUNDS = 5
_MOMENTUM = 0.95
_ADAM_SIZE = 0.2  # about the root mean square of Adam's steps, so that both parts share a learning rate


class Muon(torch.optim.Optimizer):
    """Move matrices along their orthogonalised momentum (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    Steps are scaled to the size of Adam's (Liu et al. 2025, arXiv:2502.16982). On the recurrent networks here it learns
    about as much as Adam in half the steps, and a step costs hardly more.

    Args:
        kernels: weights of at least two dimensions, taken as matrices of (output, everything else).
        others: biases, slopes, and the kernels at either end of the network, which are no mixing of features.
    """

    def __init__(
        self, kernels: Iterable[Tensor], others: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        groups = [{"params": list(kernels), "is_matrix": True}, {"params": list(others), "is_matrix": False}]
        super().__init__(groups, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            move = self._move_matrix if group["is_matrix"] else self._move_by_adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, parameter.grad, group)

    def _move_matrix(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        state["mean"].lerp_(gradient, 1 - _MOMENTUM)
        ahead = gradient.lerp(state["mean"], _MOMENTUM)
        step = orthogonalised(ahead.reshape(len(parameter), -1))
        step *= _ADAM_SIZE * max(step.shape) ** 0.5
        parameter.add_(step.view(parameter.shape), alpha=-group["lr"])

    def _move_by_adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state |= {"mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter), "num_steps": 0}
        state["num_steps"] += 1
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].lerp_(gradient.square(), 1 - beta2)
        mean = state["mean"] / (1 - beta1 ** state["num_steps"])
        square = state["square"] / (1 - beta2 ** state["num_steps"])
        parameter.addcdiv_(mean, square.sqrt().add_(1e-8), value=-group["lr"])


def orthogonalised(matrix: Tensor) -> Tensor:
    """Bring the singular values of a matrix near one; its singular vectors stay."""
    x: Tensor = matrix / (matrix.norm() + 1e-12)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    a, b, c = _QUINTIC
    for _ in range(_NUM_ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if is_tall else x
