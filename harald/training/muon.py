"""AdamW, and Muon for the matrices of hidden layers: those of one shape take their step together.

torch.optim.Muon takes them one after another. For the small base that is 3,002 operators a step, as long as all the
rest of it; together they are 264. The numbers are torch's up to rounding (a test compares them).
"""

import re
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import AdamW

HIDDEN = re.compile(r"\b(transformer_blocks|layers|blocks)\.\d+\.")  # Muon is not for the first and last layers
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of its quintic, Jordan et al. 2024
ROUNDS = 5


class Muon(AdamW):
    """AdamW for all but the matrices of hidden layers, whose momentum is made orthogonal (Jordan et al. 2024,
    kellerjordan.github.io/posts/muon), at a learning rate and with a decay of weights that mean what they mean to AdamW
    (Liu et al. 2025, arXiv 2502.16982).

    named: parameters by name. Every matrix has a gradient at every step. decay: of the matrices' weights; options: of
    AdamW. As the fused AdamW, it takes no step where `found_inf` is not 0.
    """

    def __init__(self, named: Iterable[tuple[str, Tensor]], decay: float, **options: Any):
        named = list(named)
        hidden = [p for name, p in named if p.ndim == 2 and HIDDEN.search(name)]
        places = {id(p) for p in hidden}
        groups = [{"params": [p for _, p in named if id(p) not in places]}, {"params": hidden, "weight_decay": decay}]
        super().__init__([group for group in groups if group["params"]], fused=True, **options)
        self.hidden = places

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        groups = self.param_groups
        own = [id(group["params"][0]) in self.hidden for group in groups]
        self.param_groups = [group for group, mine in zip(groups, own, strict=True) if not mine]
        super().step()
        self.param_groups = groups
        for group, mine in zip(groups, own, strict=True):
            if mine:
                self._turn(group["params"], group["lr"], group["weight_decay"])

    def _turn(self, matrices: list[Tensor], rate: float, decay: float) -> None:
        able = 1 - vars(self).get("found_inf", torch.zeros((), device=matrices[0].device)).float().clamp(max=1)
        for shape in dict.fromkeys(p.shape for p in matrices):
            some = [p for p in matrices if p.shape == shape]
            for p in some:
                self.state[p] = self.state[p] or empty_state(self, p)
            momenta = [self.state[p]["momentum"] for p in some]
            torch._foreach_add_([self.state[p]["step"] for p in some], able)
            gradients, mean = torch.stack([p.grad for p in some if p.grad is not None]), torch.stack(momenta)
            gradients = torch.where(able > 0, gradients, 0.0)
            mean = mean.lerp(gradients, (1 - MOMENTUM) * able)
            torch._foreach_copy_(momenta, list(mean.unbind()))
            update = orthogonal(gradients.lerp(mean, MOMENTUM)).to(mean.dtype)
            torch._foreach_mul_(some, 1 - rate * decay * able)
            torch._foreach_add_(some, list((update * (able * (-rate * 0.2 * max(shape) ** 0.5))).unbind()))


def make_optimizer(
    kind: Literal["adamw", "muon"], named: Iterable[tuple[str, Tensor]], decay: float, **options: Any
) -> AdamW:
    """It takes no step where its `found_inf`, a scalar on the parameters' device, is not 0 (the hook of GradScaler).

    named, decay, options: see Muon.
    """
    named = list(named)
    muon = kind == "muon"
    optimizer = Muon(named, decay, **options) if muon else AdamW([p for _, p in named], fused=True, **options)
    vars(optimizer)["found_inf"] = torch.zeros((), device=named[0][1].device)
    return optimizer


def empty_state(optimizer: AdamW, parameter: Tensor) -> dict[str, Tensor]:
    """Of a parameter before the first step."""
    own = isinstance(optimizer, Muon) and id(parameter) in optimizer.hidden
    names = ("momentum",) if own else ("exp_avg", "exp_avg_sq")
    step = torch.zeros((), device=parameter.device)
    return {"step": step, **{name: torch.zeros_like(parameter) for name in names}}


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
