"""Recorded forward passes, without a GPU: what stands for a recording computes again from the places for inputs."""

import contextlib

import pytest
import torch
from torch import Tensor, nn

from harald.base import recording
from harald.base.recording import Replayed, Shared, replayed

CPU = torch.device("cpu")


class Again:
    """In the place of CUDA graphs: what was recorded, with what then lies in its places. made: recordings."""

    def __init__(self):
        self.made = 0

    def aside(self):
        return contextlib.nullcontext()

    def record(self, work):
        self.made += 1
        return work


class Refused(Again):
    def record(self, work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


class Block(nn.Module):
    """Takes and gives what the MMDiT's blocks do."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, *, mask: Tensor | None = None, turn: tuple[Tensor, Tensor], shapes: list, flag=False):
        moved = x * self.factor + turn[0] - turn[1]
        return moved if mask is None else (moved * mask, mask)


def inputs(seed: int, length: int = 3, masked: bool = False) -> tuple[tuple, dict]:
    draw = torch.Generator().manual_seed(seed)
    x, *turn = torch.randn(3, 2, length, generator=draw)
    mask = torch.rand(2, length, generator=draw).gt(0.5).float() if masked else None
    return (x,), {"mask": mask, "turn": tuple(turn), "shapes": [[(1, length, 2)]]}


@torch.no_grad()
def test_a_recording_gives_what_the_plain_call_gives_for_every_kind_of_inputs():
    shared = Shared(graphs := Again(), CPU)
    blocks = [Block(2.0), Block(-3.0)]
    calls = [Replayed(block.forward, shared) for block in blocks]
    results = []
    for seed in range(5):
        for kind in ({}, {"masked": True}, {"length": 4}):
            args, options = inputs(seed, **kind)
            for block, call in zip(blocks, calls, strict=True):
                expected, got = block.forward(*args, **options), call(*args, **options)
                assert type(got) is type(expected)
                for one, other in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, expected)), strict=True):
                    assert torch.equal(one, other)
                results.append((got, expected))
    assert graphs.made == 2 * 3, "one of each block and kind, made at the second call"
    for got, expected in results:  # nothing was overwritten by later calls
        assert torch.equal(got[0], expected[0])


@torch.no_grad()
def test_first_pass_runs_on_the_places_that_are_recorded():
    """So that what is compiled for it serves the recording."""
    seen = []

    class Looked(Block):
        def forward(self, x, **options):
            seen.append([x.data_ptr(), *(part.data_ptr() for part in options["turn"])])
            return super().forward(x, **options)

    call = Replayed(Looked(2.0).forward, Shared(Again(), CPU))
    for seed in range(2):
        args, options = inputs(seed)
        call(*args, **options)
    assert len(seen) == 2 and seen[0] == seen[1] and seen[0][0] != args[0].data_ptr()


@torch.no_grad()
def test_what_cannot_be_recorded_runs_as_it_is_and_says_so_once(caplog):
    block = Block(2.0)
    call = Replayed(block.forward, Shared(Refused(), CPU))
    for seed in range(4):
        args, options = inputs(seed)
        assert torch.equal(call(*args, **options), block.forward(*args, **options))
    assert caplog.text.count("not permitted when stream is capturing") == 1 and "more" not in caplog.text


@torch.no_grad()
def test_after_one_failure_nothing_is_launched_that_was_recorded_before():
    class Once(Again):
        def record(self, work):
            if self.made:
                raise RuntimeError("out of memory")
            super().record(work)
            return lambda: pytest.fail("launched")

    shared = Shared(Once(), CPU)
    first, second = (Replayed(Block(factor).forward, shared) for factor in (2.0, 3.0))
    args, options = inputs(0)
    first(*args, **options), second(*args, **options)
    with pytest.raises(pytest.fail.Exception, match="launched"):
        first(*args, **options)
    second(*args, **options)
    assert torch.equal(first(*args, **options), Block(2.0)(*args, **options))


def test_gradients_are_never_recorded():
    call = Replayed(Block(2.0).forward, Shared(graphs := Again(), CPU))
    for seed in range(3):
        args, options = inputs(seed)
        args[0].requires_grad_()
        call(*args, **options).sum().backward()
        assert torch.equal(args[0].grad, torch.full_like(args[0], 2.0))
    assert graphs.made == 0


@torch.no_grad()
def test_modules_are_as_they_were_outside_and_on_a_cpu(monkeypatch):
    block, own = Block(2.0), Block(5.0)
    vars(own)["forward"] = before = lambda *args, **options: "own"
    with replayed([block], CPU):
        assert "forward" not in vars(block)
    monkeypatch.setattr(recording, "Graphs", Again)
    with replayed([block, own], torch.device("cuda")):
        assert isinstance(vars(block)["forward"], Replayed) and isinstance(vars(own)["forward"], Replayed)
        assert vars(own)["forward"].call is before
    assert "forward" not in vars(block) and vars(own)["forward"] is before
