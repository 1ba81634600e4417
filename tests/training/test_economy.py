"""What saves time or memory gives the step that it saves on."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from harald import config
from harald.base.compiled import compiled_forward
from harald.base.float8 import Float8Linear
from harald.base.qwen_image import QwenImage
from harald.config import Config, Economy
from harald.data.index import states_for
from harald.encoder.model import PersonEncoder
from harald.errors import ConfigError
from harald.jobs.train import fit
from harald.settings import resolve
from harald.training.batch import Batch, Batches
from harald.training.economy import economical, recomputing
from harald.training.step import measured_gradients, trained_parameters
from tests.models import CPU, FLOAT, base, cache, encoder
from tests.states import write_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("root"), states=6)


def batch(root, c: Config) -> Batch:
    shape, mu = base().latent_shape(c.data.image_size)
    return Batches(c, states_for(root, c), shape, mu, None, encoder().chats, base().tokenize)[3]


def with_economy(economy: Economy, point: str = "output", **train) -> Config:
    c = config.tiny()
    c = dataclasses.replace(c, injection=dataclasses.replace(c.injection, point=point))
    return dataclasses.replace(c, train=dataclasses.replace(c.train, economy=economy, **train))


def gradient(root, c: Config, model: QwenImage | None = None, backend: str = "aot_eager") -> tuple[Tensor, Tensor]:
    student = encoder(point=c.injection.point)
    with economical(model or base(), student, c, backend):
        parts, values = measured_gradients(model or base(), student, batch(root, c), c)
    return torch.cat([part.flatten() for part in parts]), values


def fresh() -> QwenImage:
    models = config.tiny().models
    return QwenImage.load(cache(), models.base, models.lora, CPU, FLOAT)


@pytest.mark.parametrize(("share", "calls"), [(0.0, 2), (0.5, 3), (1.0, 4)])
def test_recomputing_changes_no_bit_and_is_done_for_the_share_of_the_blocks(root, share, calls):
    expected, _ = gradient(root, with_economy(Economy(0.0, False)))
    count = []
    hooks = [
        block.register_forward_pre_hook(lambda *_: count.append(1)) for block in base().transformer.transformer_blocks
    ]
    got, _ = gradient(root, with_economy(Economy(share, share > 0)))
    for hook in hooks:
        hook.remove()
    assert torch.equal(got, expected) and got.abs().max() > 0
    assert len(count) == calls and not base().transformer.gradient_checkpointing


@pytest.mark.parametrize("point", ["output", "input"])
def test_targets_in_pieces_give_the_loss_and_the_gradient_of_all_at_once(root, point, monkeypatch):
    more = {"teacher_weight": 0.7, "teacher_beside": 0.5, "contrast_weight": 0.1}
    expected, values = gradient(root, with_economy(Economy(0.0, False), point, **more))
    sizes = []
    velocity = QwenImage.velocity
    monkeypatch.setattr(
        QwenImage, "velocity", lambda self, latents, *rest: sizes.append(len(latents)) or velocity(self, latents, *rest)
    )
    got, again = gradient(root, with_economy(Economy(0.0, False, targets_at_once=3), point, **more))
    assert sizes == [3, 3, 1, 1], "two and two: with a teacher"
    torch.testing.assert_close(again, values, rtol=1e-5, atol=1e-6)
    assert (got - expected).norm() <= 1e-4 * expected.norm() and expected.norm() > 0


@pytest.mark.parametrize("frozen", ["float8", "float8_once"])
def test_float8_keeps_the_direction_of_the_gradient_and_what_is_trained(root, frozen):
    expected, _ = gradient(root, with_economy(Economy(0.0, False)))
    model, student = fresh(), encoder()
    names = list(student.trained_state())
    c = with_economy(Economy(0.0, False, frozen=frozen))
    with economical(model, student, c):
        parts, _ = measured_gradients(model, student, batch(root, c), c)
    got = torch.cat([part.flatten() for part in parts])
    assert 0.95 < F.cosine_similarity(got, expected, 0) < 1
    assert list(student.trained_state()) == names and all(p.dtype == FLOAT for p in trained_parameters(student))
    layers = {name for name, layer in student.vlm.named_modules() if isinstance(layer, Float8Linear)}
    assert layers and all(name.startswith("language_model") and name.endswith("base_layer") for name in layers)
    light = any(isinstance(layer, Float8Linear) for layer in model.text_model.modules())
    assert light == (frozen == "float8_once")


@pytest.mark.parametrize("frozen", ["plain", "float8_once"])
def test_compiled_steps_are_the_same_twice_and_near_the_plain_ones(root, frozen):
    plain, _ = gradient(root, with_economy(Economy(0.0, False, frozen=frozen)), fresh())
    c = with_economy(Economy(0.5, True, frozen=frozen, compile="same_twice"))
    one, two = (gradient(root, c, fresh())[0] for _ in range(2))
    assert torch.equal(one, two)
    assert (one - plain).norm() <= (1e-3 if frozen == "plain" else 0.2) * plain.norm()


@pytest.mark.parametrize("again", [False, True])
def test_the_encoders_layers_are_compiled_whether_or_not_they_are_computed_again(root, again):
    count = []

    def backend(graph, _):
        count.append(1)
        return graph.forward

    student = encoder()
    with compiled_forward(student.vlm.language_model.layers, backend=backend), recomputing(base(), student, 0.0, again):
        student.tokens(batch(root, config.tiny()).references).square().sum().backward()
    assert count and not any("forward" in vars(layer) for layer in student.vlm.language_model.layers)


def test_adapters_can_compute_in_the_type_of_the_frozen_weights(root):
    c = config.tiny()

    def made(autocast: bool) -> tuple[Tensor, Tensor]:
        student = PersonEncoder.new(
            cache(), c.encoder, c.models.encoder, torch.ones(base().width), "output", c.models.base.repo, 0, CPU,
            torch.bfloat16,
        )  # fmt: skip
        student.load_trained_state({n: t + 0.01 for n, t in student.trained_state().items()})  # a LoRA begins at zero
        student.autocast = autocast
        tokens = student.tokens(batch(root, c).references)
        parts = torch.autograd.grad(tokens.square().sum(), trained_parameters(student), materialize_grads=True)
        assert all(part.dtype == FLOAT for part in parts)
        return tokens, torch.cat([part.flatten() for part in parts])

    (exact, towards), (near, other) = made(False), made(True)
    assert not torch.equal(near, exact) and F.cosine_similarity(near.flatten(), exact.flatten(), 0) > 0.999
    assert F.cosine_similarity(towards, other, 0) > 0.98


def test_a_training_with_all_savings_runs_and_resumes_to_the_same_bytes(root, tmp_path):
    runtime = dataclasses.replace(root, hf_cache=cache())
    economy = Economy(0.5, True, 3, "float8_once", "autocast")

    def trained(name: str, *ends: int) -> bytes:
        for end in ends:
            c = with_economy(economy, steps=end, checkpoint_every=end, sample_every=4, validate_every=0)
            fit(runtime, c, tmp_path / name)
        return (tmp_path / name / "checkpoints" / "step_00000004" / "encoder.safetensors").read_bytes()

    assert trained("whole", 4) == trained("parts", 2, 4)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ('{"train.economy.compile": "fastest"}', "chosen by the clock"),
        ('{"train.economy.recompute_base": 1.5}', "use a share"),
        ('{"train.economy.targets_at_once": -1}', "0 .all."),
        ('{"train.economy": "24"}', "use one of 141, 80, 48"),
        ('{"generate.speed": "lightning"}', "models.few_steps is not set"),
        ('{"generate.speed": "exact", "deterministic": false}', "exact promises the same bytes"),
        ('{"generate": {"speed": "fast", "offload": "blocks"}}', "bringing the weights takes longer"),
    ],
)
def test_what_cannot_be_is_refused_and_says_why(overrides, says):
    with pytest.raises(ConfigError, match=says):
        resolve("tiny", overrides=overrides)


@pytest.mark.parametrize("given", ['{"train.economy": "80"}', '{"train": {"economy": 80}}'])
def test_economies_have_names_and_single_fields_may_follow(given):
    assert resolve("full", overrides=given).train.economy == config.ECONOMIES[80]
    changed = resolve("full", overrides=given[:-1] + ', "train.economy.targets_at_once": 2}').train.economy
    assert changed == dataclasses.replace(config.ECONOMIES[80], targets_at_once=2)


def test_fastest_kernels_are_for_those_who_give_up_the_same_bytes():
    given = resolve("tiny", overrides='{"deterministic": false, "train.economy.compile": "fastest"}')
    assert given.train.economy.compile == "fastest"
