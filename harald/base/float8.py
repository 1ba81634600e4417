"""Frozen linear layers in float8 (e4m3): products of half the bytes at twice the rate, forward and backward.

Each row of both factors has a scale of its own (Micikevicius et al. 2022, arXiv 2209.05433, has one a tensor). What is
not frozen stays as it is: LoRA, norms, modulations.
"""

from typing import Any

import torch
from torch import Tensor, nn

LARGEST = torch.finfo(torch.float8_e4m3fn).max  # 448
MULTIPLE = 16  # of both sides of a weight, for the kernels


def rows_in_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    """[m, n] -> e4m3 [m, n] and the scale of each row, float32 [m, 1]: their product is about x.

    >>> rows, scales = rows_in_float8(torch.tensor([[0.5, -2.0], [0.0, 0.0]]))
    >>> (rows.float() * scales).tolist()
    [[0.5, -2.0], [0.0, 0.0]]
    """
    scale = x.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (x / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale


class Product(torch.autograd.Function):
    """x @ weight.T of a weight that gets no gradient. rows: the weight; columns: its transpose (see Float8Linear)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rows: Tensor, row_scales: Tensor, columns: Tensor, column_scales: Tensor
    ) -> Tensor:
        ctx.save_for_backward(columns, column_scales)
        return _scaled(x, rows, row_scales)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        columns, scales = ctx.saved_tensors
        return _scaled(gradients[0].contiguous(), columns, scales), None, None, None, None


class TurnedProduct(torch.autograd.Function):
    """The same with the weight alone, which is turned for the gradient; the scales of its rows go into that."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, row_scales: Tensor) -> Tensor:
        ctx.save_for_backward(rows, row_scales)
        return _scaled(x, rows, row_scales)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, scales = ctx.saved_tensors
        columns = rows.view(torch.uint8).t().contiguous().view(torch.float8_e4m3fn)
        towards = (gradients[0].float() * scales.t()).contiguous()
        return (
            _scaled(towards, columns, torch.ones_like(scales[:1]).expand(len(columns), 1)).to(gradients[0]),
            None,
            None,
        )


def _scaled(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """[m, k] x [n, k] -> [m, n] in the type of x."""
    mine, own = rows_in_float8(x)
    out = torch._scaled_mm(mine, weight.t(), scale_a=own, scale_b=scales.t().contiguous(), out_dtype=torch.bfloat16)
    return out.to(x.dtype)


class Float8Linear(nn.Module):
    """A frozen nn.Linear. twice: keeps the weight as it is and turned for gradients, as many bytes as bfloat16, a scale
    for each output and each input. Else half of them, and it is turned in every backward pass. The buffers are bytes,
    so that `to(dtype)` leaves them alone.
    """

    def __init__(self, linear: nn.Linear, twice: bool = True, device: torch.device | None = None):
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        weight = linear.weight.detach().to(device or linear.weight.device)
        self._keep("rows", weight)
        self.twice = twice
        if twice:
            self._keep("columns", weight.t().contiguous())

    def _keep(self, name: str, weight: Tensor) -> None:
        values, scales = rows_in_float8(weight)
        self.register_buffer(name, values.view(torch.uint8), persistent=False)
        self.register_buffer(f"{name}_scales", scales.view(torch.int32), persistent=False)

    def _kept(self, name: str) -> tuple[Tensor, Tensor]:
        values, scales = self.get_buffer(name), self.get_buffer(f"{name}_scales")
        return values.view(torch.float8_e4m3fn), scales.view(torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        if torch.is_grad_enabled() and x.requires_grad:
            rows = self._kept("rows")
            out = Product.apply(flat, *rows, *self._kept("columns")) if self.twice else TurnedProduct.apply(flat, *rows)
        else:
            out = _scaled(flat, *self._kept("rows"))
        out = out.unflatten(0, x.shape[:-1])
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def to_float8(blocks: nn.Module, twice: bool = True, device: torch.device | None = None) -> int:
    """Replace the large frozen linear layers inside; their bfloat16 weights are given up. Returns how many.

    device: where the new weights go, one after another; by default where the old ones are.

    Left alone: what is trained, LoRA's own layers, modulations (a row a picture) and sides that no kernel takes.
    """
    found = [
        (parent, name, layer)
        for path, parent in blocks.named_modules()
        for name, layer in parent.named_children()
        if type(layer) is nn.Linear and not layer.weight.requires_grad
        and not {"lora", "mod"} & set(f"{path}.{name}".replace("_", ".").split("."))
        and not layer.in_features % MULTIPLE and not layer.out_features % MULTIPLE
    ]  # fmt: skip
    for parent, name, layer in found:
        parent.register_module(name, Float8Linear(layer, twice, device))
    return len(found)
