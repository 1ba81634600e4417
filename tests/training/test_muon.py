"""AdamW with Muon for the matrices of hidden layers."""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from harald.training.muon import Muon

SHAPES = [(6, 4), (4, 6), (6, 4), (5, 5), (4, 9), (9, 4), (4, 600), (600, 4), (5, 512)]


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(shape)) for shape in SHAPES]


def give(gradients: Tensor | None, *lists: list[nn.Parameter], seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for same in zip(*lists, strict=True):
        gradient = torch.randn(same[0].shape, generator=draw) if gradients is None else gradients.expand(same[0].shape)
        for parameter in same:
            parameter.grad = gradient.clone()


def test_matrices_of_hidden_layers_alone_are_its_own() -> None:
    model = nn.ModuleDict({
        "embed": nn.Embedding(4, 3), "layers": nn.ModuleList([nn.Linear(3, 3)]), "out": nn.Linear(3, 1),
    })  # fmt: skip
    rest, hidden = Muon(model.named_parameters(), 0.2, lr=0.1, weight_decay=0.0).param_groups
    assert ([p.shape for p in hidden["params"]], hidden["weight_decay"]) == ([(3, 3)], 0.2)
    assert ([p.shape for p in rest["params"]], rest["weight_decay"]) == ([(4, 3), (3,), (1, 3), (1,)], 0.0)


def test_steps_are_those_of_the_library() -> None:
    ours, theirs = parameters(), parameters()
    mine = Muon([(f"layers.{n}.weight", p) for n, p in enumerate(ours)], 0.2, lr=0.1)
    library = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        give(None, ours, theirs, seed=step)
        mine.step()
        library.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


def test_host_reads_nothing_that_the_device_has():
    class Asked(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            assert function is not torch.ops.aten._local_scalar_dense.default
            return function(*args, **(kwargs or {}))

    ours = parameters()
    optimizer = Muon([(f"layers.{n}.weight", p) for n, p in enumerate(ours)], 0.2, lr=0.1)
    vars(optimizer)["found_inf"] = torch.zeros(())
    give(None, ours)
    with Asked():
        optimizer.step()


def test_no_step_is_taken_where_something_is_not_finite() -> None:
    ours = parameters()
    optimizer = Muon([(f"layers.{n}.weight", p) for n, p in enumerate(ours)], 0.2, lr=0.1)
    vars(optimizer)["found_inf"] = broken = torch.zeros(())
    give(None, ours)
    optimizer.step()
    before = [p.detach().clone() for p in ours], [optimizer.state[p]["momentum"].clone() for p in ours]
    broken.fill_(1)
    give(torch.tensor(float("nan")), ours)
    optimizer.step()
    after = [p.detach() for p in ours], [optimizer.state[p]["momentum"] for p in ours]
    assert all(
        torch.equal(a, b) for one, other in zip(before, after, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_state_goes_on_where_it_was_kept() -> None:
    whole, halves = parameters(), parameters()
    named = [[(f"layers.{n}.weight", p) for n, p in enumerate(some)] for some in (whole, halves)]
    unbroken, first = (Muon(some, 0.2, lr=0.1) for some in named)
    for step in range(4):
        if step == 2:
            kept = first.state_dict()
            first = Muon(named[1], 0.2, lr=0.1)
            first.load_state_dict(kept)
        give(None, whole, halves, seed=step)
        unbroken.step()
        first.step()
    assert all(map(torch.equal, whole, halves))
