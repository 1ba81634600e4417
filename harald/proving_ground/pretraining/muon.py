"""Muon for many small matrices: those of one shape take their step together.

torch.optim.Muon takes them one after another. For the small MMDiT that is some 3,000 launches, as long as all the rest
of a step; together they are less than 300. The numbers are torch's up to rounding (a test compares them).
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of its quintic, Jordan et al. 2024
ROUNDS = 5


class Muon(Optimizer):
    """Momentum, made orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon), at a learning rate and with a
    decay of weights that mean what they mean to AdamW (Liu et al. 2025, arXiv 2502.16982).

    params: matrices, each with a gradient at every step.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.01, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.shapes: dict[torch.Size, list[Tensor]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                assert parameter.ndim == 2, "Muon is for matrices"
                self.shapes.setdefault(parameter.shape, []).append(parameter)
        self.momenta = {shape: torch.zeros(len(of), *shape, device=of[0].device) for shape, of in self.shapes.items()}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        settings = self.param_groups[0]
        rate, decay, momentum = settings["lr"], settings["weight_decay"], settings["momentum"]
        for shape, parameters in self.shapes.items():
            gradients, mean = torch.stack([p.grad for p in parameters if p.grad is not None]), self.momenta[shape]
            mean.lerp_(gradients, 1 - momentum)
            update = orthogonal(gradients.lerp(mean, momentum)).to(parameters[0].dtype)
            torch._foreach_mul_(parameters, 1 - rate * decay)
            torch._foreach_add_(parameters, list(update.unbind()), alpha=-rate * 0.2 * max(shape) ** 0.5)


def orthogonal(matrices: Tensor) -> Tensor:
    """[n, a, b] -> bfloat16 [n, a, b], about the nearest matrices whose singular values are all 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
