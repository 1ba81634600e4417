"""Same seed, same bytes, on the GPU where there is one: the bodies run on a CPU, too."""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harald import config, determinism
from harald.base import speed as speeds
from harald.base.compiled import recordable
from harald.base.qwen_image import QwenImage
from harald.base.speed import Drawing
from harald.config import Economy
from harald.data.index import states_for
from harald.encoder.model import PersonEncoder
from harald.injection.points import plain
from harald.proving_ground.pretraining import base as pretraining
from harald.proving_ground.pretraining import weights
from harald.proving_ground.pretraining.fast_step import recorded
from harald.training.batch import Batch, Batches
from harald.training.economy import economical
from harald.training.loop import gradients, make_optimizer, train_step
from harald.training.recording import Recorder
from harald.training.step import measured_gradients
from tests.models import cache
from tests.states import write_dataset

DEVICE = determinism.device()
needs_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="no GPU")


@pytest.fixture(scope="module", autouse=True)
def strict() -> None:
    determinism.enable(0)


@functools.cache
def base() -> QwenImage:
    models = config.tiny().models
    return QwenImage.load(cache(), models.base, models.lora, DEVICE, determinism.dtype("auto"))


@functools.cache
def encoder() -> PersonEncoder:
    c = config.tiny()
    median = torch.ones(base().width)
    return PersonEncoder.new(
        cache(), c.encoder, c.models.encoder, median, "output", c.models.base.repo, 0, DEVICE, determinism.dtype("auto")
    )


def test_a_picture_has_the_same_bytes_twice() -> None:
    def drawn(seed: int) -> bytes:
        states, negative = plain(base(), "photo of a person"), plain(base(), " ")
        return base().draw(states, negative, [seed], 64, 3, 2.0)[0].tobytes()

    assert drawn(5) == drawn(5) != drawn(6)


def test_latents_of_a_picture_do_not_depend_on_its_neighbours() -> None:
    pixels = torch.rand(11, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = base().encode_images(pixels)
    assert torch.equal(base().encode_images(pixels[[9, 2]]), together[[9, 2]])


def test_two_steps_of_training_have_the_same_bytes_twice(tmp_path: Path) -> None:
    c = config.tiny()
    shape, mu = base().latent_shape(c.data.image_size)
    batches = Batches(c, states_for(write_dataset(tmp_path), c), shape, mu, None, encoder().chats, base().tokenize)

    def trained() -> list[Tensor]:
        student = copy.deepcopy(encoder())
        optimizer = make_optimizer(student, c.train)
        for step in range(2):
            train_step(gradients(base(), student, c), student, optimizer, [batches[step]], c)
        return [p.detach() for p in student.parameters() if p.requires_grad]

    first, second, untrained = trained(), trained(), [p for p in encoder().parameters() if p.requires_grad]
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, untrained))


@needs_cuda
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_step_never_waits_for_the_gpu(tmp_path: Path, kind) -> None:
    c = config.tiny()
    c = dataclasses.replace(c, train=dataclasses.replace(c.train, optimizer=kind))
    shape, mu = base().latent_shape(c.data.image_size)
    batches = Batches(c, states_for(write_dataset(tmp_path), c), shape, mu, None, encoder().chats, base().tokenize)
    student = copy.deepcopy(encoder())
    optimizer, batch = make_optimizer(student, c.train), batches[0].pin_memory()
    train_step(gradients(base(), student, c), student, optimizer, [batch], c)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(gradients(base(), student, c), student, optimizer, [batch], c)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@pytest.mark.parametrize("economy", [Economy(0.0, False), Economy(0.5, True, 3, "plain", "autocast", "same_twice")])
def test_recorded_gradients_are_the_same_whatever_was_recorded_first(tmp_path: Path, economy) -> None:
    """So that a run that goes on elsewhere has the bytes of an unbroken one."""
    c = config.tiny()
    shape, mu = base().latent_shape(c.data.image_size)
    c = dataclasses.replace(c, train=dataclasses.replace(c.train, recorded=True, contrast_weight=0.1, economy=economy))
    batches = Batches(c, states_for(write_dataset(tmp_path), c), shape, mu, None, encoder().chats, base().tokenize)

    def of(gradients_of: Callable[[Batch], tuple[list[Tensor], Tensor]], order: tuple[int, ...]) -> list[list[Tensor]]:
        found = {step: [g.clone() for g in gradients_of(batches[step].to(DEVICE))[0]] for step in order}
        return [found[step] for step in sorted(found)]

    with economical(base(), encoder(), c):
        first, other = (of(Recorder(base(), encoder(), c), order) for order in ((0, 1, 2, 3, 0, 1), (3, 2, 1, 0)))
        plain = of(partial(measured_gradients, base(), encoder(), config=c), (0, 1, 2, 3))
    for one, same, without in zip(first, other, plain, strict=True):
        assert all(map(torch.equal, one, same))
        torch.testing.assert_close(one, without, rtol=5e-2, atol=2e-3)
    assert not all(map(torch.equal, first[0], first[1]))


@needs_cuda
def test_recorded_step_adds_the_gradients_of_the_plain_one(tmp_path: Path) -> None:
    settings = config.tiny().pretrain
    assert settings is not None
    for stage in ("vae", "base"):
        weights.write_untrained(tmp_path, stage, 0, settings)
    pipeline = weights.load_pipeline(tmp_path, DEVICE)
    parts = [pipeline.transformer.requires_grad_(True), pipeline.text_encoder.model.language_model.requires_grad_(True)]
    parameters = [p for part in parts for p in part.parameters()]
    draw = torch.Generator(DEVICE).manual_seed(0)

    def inputs() -> tuple[Tensor, ...]:
        latents, noise = torch.randn(2, 4, 16, 64, device=DEVICE, generator=draw)
        ids = torch.randint(20, 200, (4, 50), device=DEVICE, generator=draw)
        return latents, noise, pretraining.draw_times(4, draw), ids, torch.ones(4, 16, dtype=torch.bool, device=DEVICE)

    def mean(*given: Tensor) -> Tensor:
        return pretraining.flow_error(pipeline, *given).mean()

    def added(loss: object, batches: list[tuple[Tensor, ...]]) -> list[Tensor]:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        for batch in batches:
            loss(*batch).backward()  # type: ignore[operator]
        return [p.grad.clone() for p in parameters if p.grad is not None]

    first, second = inputs(), inputs()
    with recordable(pipeline.transformer):
        expected = added(mean, [first, second])
        step = recorded(parts, mean, first)
        got, again = (added(step, [first, second]) for _ in range(2))
    assert all(map(torch.equal, got, again))
    torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-4)
    assert max(gradient.abs().max().item() for gradient in got) > 0


@needs_cuda
@pytest.mark.parametrize("frozen", ["plain", "float8", "float8_once"])
def test_compiled_steps_have_the_same_bytes_twice_and_are_near_eager_ones(tmp_path: Path, frozen) -> None:
    c = config.tiny()
    shape, mu = base().latent_shape(c.data.image_size)
    states = states_for(write_dataset(tmp_path), c)

    def gradient(economy: Economy) -> Tensor:
        changed = dataclasses.replace(c, train=dataclasses.replace(c.train, economy=economy))
        batches = Batches(changed, states, shape, mu, None, encoder().chats, base().tokenize)
        model, student = copy.deepcopy(base()), copy.deepcopy(encoder())
        with economical(model, student, changed):
            parts, _ = measured_gradients(model, student, batches[0].to(DEVICE), changed)
        return torch.cat([part.flatten() for part in parts])

    saving = Economy(0.5, True, 3, frozen, "autocast", "same_twice")
    one, two, plain = gradient(saving), gradient(saving), gradient(Economy(0.0, False))
    assert torch.equal(one, two)
    assert torch.nn.functional.cosine_similarity(one, plain, 0) > 0.8


@needs_cuda
@pytest.mark.parametrize("speed", ["exact", "fast"])
def test_a_picture_of_every_speed_has_the_same_bytes_twice(speed, caplog) -> None:
    models = config.tiny().models
    model = QwenImage.load(cache(), models.base, models.lora, DEVICE, determinism.dtype("auto"), Drawing(speed))

    def drawn(text: str) -> Tensor:
        picture = model.draw(plain(model, text), plain(model, " "), [5], 64, 4, 2.0)[0]
        return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).float()

    first = drawn("photo of a person")
    assert not any("recording failed" in message for message in caplog.messages)
    drawn("a long text about something else, which has another number of tokens")
    assert torch.equal(drawn("photo of a person"), first)
    with pytest.MonkeyPatch.context() as without:  # launched kernel by kernel
        without.setattr(speeds, "replayed", lambda *_: contextlib.nullcontext())
        assert torch.equal(drawn("photo of a person"), first)
    eager = base().draw(plain(base(), "photo of a person"), plain(base(), " "), [5], 64, 4, 2.0)[0]
    assert (torch.frombuffer(bytearray(eager.tobytes()), dtype=torch.uint8).float() - first).abs().mean() < 8


@needs_cuda
@pytest.mark.parametrize("offload", ["text", "blocks"])
def test_weights_on_the_host_draw_the_same_picture(offload) -> None:
    models = config.tiny().models
    drawing = Drawing(offload=offload)
    model = QwenImage.load(cache(), models.base, models.lora, DEVICE, determinism.dtype("auto"), drawing)
    pictures = [m.draw(plain(m, "a person"), plain(m, " "), [5], 64, 3, 2.0)[0].tobytes() for m in (model, base())]
    assert pictures[0] == pictures[1] and model.device.type == "cuda"
