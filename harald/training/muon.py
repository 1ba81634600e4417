"""AdamW, and Muon for the matrices of hidden layers: those of like shapes take their step together.

torch.optim.Muon takes them one after another: thousands of operators a step, which the host launches for longer than
all the rest of a small model's step takes. Together they are about 120 for the small encoder (108 matrices of 14
shapes), not counting views. The numbers are torch's up to rounding (a test compares them).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors as flatten
from torch._utils import _unflatten_dense_tensors as unflatten
from torch.nn import functional as F
from torch.optim import AdamW

HIDDEN = re.compile(r"\b(transformer_blocks|layers|blocks)\.\d+\.")  # Muon is not for the first and last layers
MOMENTUM = 0.95
WIDTH = 512  # matrices of one short side are filled up to a multiple, and go together
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
        some = sorted(matrices, key=lambda p: p.shape)
        for p in some:
            self.state[p] = self.state[p] or empty_state(self, p)
        momenta = [self.state[p]["momentum"] for p in some]
        torch._foreach_add_([self.state[p]["step"] for p in some], able, alpha=1)  # without alpha the host reads `able`
        gradients, mean = flatten([p.grad for p in some if p.grad is not None]), flatten(momenta)
        gradients = torch.where(able > 0, gradients, 0.0)
        mean = mean.lerp(gradients, (1 - MOMENTUM) * able)
        torch._foreach_copy_(momenta, unflatten(mean, momenta))
        update = turned(gradients.lerp(mean, MOMENTUM), [p.shape for p in some])
        torch._foreach_mul_(some, 1 - rate * decay * able)
        torch._foreach_add_(some, unflatten(update * (able * -rate), some))


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


def turned(flat: Tensor, shapes: Sequence[torch.Size]) -> Tensor:
    """Matrices of these shapes, equal ones side by side, as one vector: each made about orthogonal, with a root mean
    square of about 0.2, as AdamW's steps have.

    Those whose short sides are equal, as LoRA's are, go together: lying down, with zeros to a multiple of WIDTH, which
    add nothing to a product.
    """
    counts, families = Counter(shapes), dict[tuple[int, int], list[torch.Size]]()
    for shape in counts:
        families.setdefault((min(shape), -(-max(shape) // WIDTH) * WIDTH), []).append(shape)
    parts = flat.split([count * shape.numel() for shape, count in counts.items()])
    lying = {shape: _lain(part.view(count, *shape)) for (shape, count), part in zip(counts.items(), parts, strict=True)}
    for (_, width), family in families.items():
        wide = [F.pad(lying[shape], (0, width - max(shape))) for shape in family]
        done = orthogonal(torch.cat(wide)).to(flat.dtype).split([counts[shape] for shape in family])
        for shape, block in zip(family, done, strict=True):
            lying[shape] = block[:, :, : max(shape)] * (0.2 * max(shape) ** 0.5)
    return torch.cat([(block.mT if shape[0] > shape[1] else block).flatten() for shape, block in lying.items()])


def _lain(matrices: Tensor) -> Tensor:
    return matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices


def orthogonal(matrices: Tensor) -> Tensor:
    """[n, a, b] of a <= b -> bfloat16 [n, a, b], about the nearest matrices whose singular values are all 1."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
