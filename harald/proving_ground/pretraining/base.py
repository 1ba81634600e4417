"""MMDiT and text encoder of the small Qwen-Image, by rectified flow on the VAE's latents."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

from harald import determinism
from harald.base.compiled import ONE_BY_ONE, recordable
from harald.proving_ground.pretraining import weights
from harald.proving_ground.pretraining.fast_step import recorded
from harald.proving_ground.pretraining.pool import Pictures
from harald.proving_ground.pretraining.prompts import VARIANTS, PromptIds
from harald.proving_ground.pretraining.segment import Segment, generator, train
from harald.proving_ground.pretraining.single_frame import single_frame
from harald.proving_ground.pretraining.vae import CHUNK, autocast, encode_mean
from harald.training.flow import interpolate, velocity_target

UNIFORM_TIMES = 0.5  # share of times that are uniform; logit-normal alone left the scenes unlearnt
DETAIL_WEIGHT = 5.0  # of a latent patch with glasses, jewellery, a mouth or an eye of 16 pixels
FULL_DETAIL = 1 / 16  # of a patch: where so much is detail, the patch has that weight
TIME_MEAN = 1.0  # of the logit of the other times: nearer to noise
LOOKS = 4  # of a picture: as it is, mirrored with left and right changing places in its prompt, and both moved
MOVED = 4  # pixels at most, in each direction
MUON_DECAY = 0.1  # of the weights (Liu et al. 2025)
PARTS = 2  # of a batch: a sum of two has no order, so two GPUs give the bytes of one


def run(segment: Segment) -> dict[str, float]:
    """Train transformer and text encoder of the folder. Returns the held-out flow loss at fixed times."""
    device = determinism.device()
    with segment.pool() as pool:
        pipeline = weights.load_pipeline(segment.weights, device)
        trained = [pipeline.transformer.requires_grad_(True), pipeline.text_encoder.model.language_model]
        trained[1].requires_grad_(True)
        if segment.settings.compile:
            pipeline.transformer.compile_repeated_blocks(dynamic=False)
            for layer in trained[1].layers:
                layer.compile(dynamic=False)
        samples = Samples(pipeline, pool, segment, device, LOOKS)
        with recordable(pipeline.transformer), inductor.patch(ONE_BY_ONE):
            loss = FlowLoss(pipeline, samples, segment, device)
            plan = segment.plan(parts=PARTS, muon_decay=MUON_DECAY)
            train(trained, loss, plan, segment.log_row, segment.world)
        weights.rounded(trained)
        with torch.compiler.set_stance("force_eager"):
            metrics = held_out_loss(pipeline, pool.wait_held_out(), segment, device)
    folder = segment.weights / weights.QWEN_IMAGE
    weights.save(pipeline.transformer, folder / "transformer")
    weights.save(pipeline.text_encoder, folder / "text_encoder")
    return metrics


class Samples:
    """Latents [n, looks, s, c], normalised and packed, weights of their patches [n, looks, s], and prompts of the
    pool's pictures, made as the pool grows. looks: how many of LOOKS.
    """

    def __init__(self, pipeline: Any, pictures: Pictures, segment: Segment, device: torch.device, looks: int = 1):
        self.pipeline, self.pictures, self.device, self.looks = pipeline, pictures, device, looks
        side = pictures.side // pipeline.vae_scale_factor // 2
        count = len(pictures.states) * pictures.views
        self.latents = torch.empty(count, looks, side * side, pipeline.transformer.config.in_channels, device=device)
        self.weights = torch.empty(count, looks, side * side, device=device)
        draw = segment.generator(device, "moves")
        self.moves = torch.randint(-MOVED, MOVED + 1, (count, 2), generator=draw, device=device)
        self.prompts = PromptIds(
            pipeline.tokenizer, count, segment.pretrain.prompt_tokens, segment.config.seed + segment.number, device
        )
        self.states = 0

    def grow(self, states: int) -> int:
        """Make sure that the first states are there. Returns the number of pictures."""
        views = self.pictures.views
        if states > self.states:
            images = self.pictures.on_device("images", states, self.device)[self.states :].flatten(0, 1)
            start = self.states * views
            detail = self.pictures.on_device("detail", states, self.device)[self.states :].flatten(0, 1)
            moves = self.moves[start : start + len(images)]
            for look in range(self.looks):
                with single_frame(self.pipeline.vae):
                    for place, part in enumerate(looked_at(images, look, moves).split(CHUNK)):
                        rows = pack(self.pipeline, encode_mean(self.pipeline.vae, part))
                        self.latents[start + place * CHUNK :][: len(rows), look] = rows
                weights = patch_weights(looked_at(detail, look, moves), self.weights.shape[2])
                self.weights[start : start + len(detail), look] = weights
            self.prompts.add([pair for state in self.pictures.prompts[self.states : states] for pair in state])
            self.states = states
        return states * views


class FlowLoss:
    """Loss of a part of a step's batch over pictures, prompt variants, times and noise that are drawn on the device."""

    def __init__(self, pipeline: Any, samples: Samples, segment: Segment, device: torch.device):
        self.pipeline, self.samples, self.segment, self.device = pipeline, samples, segment, device
        self.bounds = torch.tensor(list(VARIANTS.values())).cumsum(0)[:-1].to(device)
        self.mean: Callable[..., Tensor] | None = None

    def __call__(self, part: int) -> dict[str, Tensor]:
        count = self.samples.grow(self.segment.visible(part // PARTS))
        draw, batch = self.segment.generator(self.device, part), self.segment.settings.batch // PARTS
        picture = torch.randint(count, (batch,), generator=draw, device=self.device)
        look = torch.randint(self.samples.looks, (batch,), generator=draw, device=self.device)
        variant = torch.bucketize(torch.rand(batch, generator=draw, device=self.device), self.bounds)
        latents = self.samples.latents[picture, look]
        noise = torch.randn(latents.shape, generator=draw, device=self.device)
        t = draw_times(batch, draw)
        ids, mask = self.samples.prompts.rows(picture, variant, look % 2 == 1)
        inputs = (latents, noise, t, ids, mask, self.samples.weights[picture, look])
        if self.mean is None:
            self.mean = self._prepared(inputs)
        return {"loss": self.mean(*inputs)}

    def _prepared(self, sample: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        def mean(latents: Tensor, noise: Tensor, t: Tensor, ids: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
            return (flow_error(self.pipeline, latents, noise, t, ids, mask) * weights).sum() / weights.sum()

        if self.device.type != "cuda":
            return mean
        return recorded([self.pipeline.transformer, self.pipeline.text_encoder.model.language_model], mean, sample)


def looked_at(pictures: Tensor, look: int, moves: Tensor) -> Tensor:
    """Pictures [n, S, S, ...] in one of LOOKS: the odd ones are mirrored, from 2 on they are moved by moves, int64
    [n, 2], down and to the right; what comes into the picture repeats its edge.
    """
    if look % 2:
        pictures = pictures.flip(2)
    if look < 2:
        return pictures
    side = torch.arange(pictures.shape[1], device=pictures.device)
    rows, columns = ((side - move[:, None]).clamp(0, len(side) - 1) for move in moves.unbind(1))
    return pictures[torch.arange(len(pictures), device=side.device)[:, None, None], rows[:, :, None], columns[:, None]]


def patch_weights(detail: Tensor, patches: int) -> Tensor:
    """detail: uint8 [n, S, S] -> [n, patches]: 1, and DETAIL_WEIGHT where FULL_DETAIL of a patch or more is detail."""
    side = detail.shape[-1] // round(patches**0.5)
    share = nn.functional.avg_pool2d(detail[:, None].float() / 255, side).flatten(1)
    return 1 + (DETAIL_WEIGHT - 1) * (share / FULL_DETAIL).clamp(max=1)


def flow_error(pipeline: Any, latents: Tensor, noise: Tensor, t: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Squared error of the velocity, [b, s]. latents, noise: [b, s, c]; t: [b]; ids: [b, head + l]; mask: [b, l]."""
    grid = round(latents.shape[1] ** 0.5)
    with autocast(latents.device):
        states = text_states(pipeline, ids, mask.shape[1])
        velocity = pipeline.transformer(
            hidden_states=interpolate(latents, noise, t),
            timestep=t,
            encoder_hidden_states=states,
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, grid, grid)]],
            return_dict=False,
        )[0]
    return (velocity.float() - velocity_target(latents, noise)).square().mean(-1)


def text_states(pipeline: Any, ids: Tensor, length: int) -> Tensor:
    """[b, length, d], without the template's head, as harald.base.qwen_image has them.

    The text model is causal and the padding is on the right: it needs no mask to keep padding out of the rest.
    Saying so keeps the library from making one where the step is recorded, and none where it is not.
    """
    model = pipeline.text_encoder.model.language_model
    states = model(input_ids=ids, attention_mask={"full_attention": None}, use_cache=False).last_hidden_state
    return states[:, -length:]


def draw_times(count: int, draw: torch.Generator) -> Tensor:
    """[count] in (0, 1): half uniform, half logit-normal(TIME_MEAN, 1)."""
    choice, uniform = torch.rand(2, count, generator=draw, device=draw.device)
    normal = torch.randn(count, generator=draw, device=draw.device)
    return torch.where(choice < UNIFORM_TIMES, uniform, (TIME_MEAN + normal).sigmoid()).clamp(1e-4, 1 - 1e-4)


def pack(pipeline: Any, latents: Tensor) -> Tensor:
    """[b, z, h, w] of the VAE -> [b, s, c] as the transformer reads them."""
    mean, std = (
        torch.tensor(pipeline.vae.config[f"latents_{name}"], device=latents.device) for name in ("mean", "std")
    )
    normal = (latents - mean[:, None, None]) / std[:, None, None]
    return pipeline._pack_latents(normal, *normal.shape)


@torch.no_grad()
def held_out_loss(pipeline: Any, pictures: Pictures, segment: Segment, device: torch.device) -> dict[str, float]:
    """Mean flow loss under full prompts at each of evaluate.timesteps; the same noise in every segment."""
    samples = Samples(pipeline, pictures, segment, device)
    count, batch = samples.grow(len(pictures.states)), segment.settings.batch
    losses = {}
    for time in segment.config.evaluate.timesteps:
        draw = generator(device, segment.config.seed, "pretrain", "held_out", str(time))
        total = torch.zeros((), device=device)
        for index in torch.arange(count, device=device).split(batch):
            latents = samples.latents[index, 0]
            noise = torch.randn(latents.shape, generator=draw, device=device)
            as_it_is = torch.zeros_like(index)
            ids, mask = samples.prompts.rows(index, as_it_is, as_it_is.bool())
            times = torch.full((len(index),), time, device=device)
            total += flow_error(pipeline, latents, noise, times, ids, mask).mean(1).sum()
        losses[f"flow_t{time}"] = round(total.item() / count, 5)
    return losses
