"""Trains the judge on rendered pictures of held-in persons, and measures it on held-out ones."""

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harald import determinism
from harald.determinism import key
from harald.evaluation.accuracy import Score, attribute_table, identity_auc, visible_table
from harald.evaluation.judge import Judge, load_judge
from harald.proving_ground.persons import ATTRIBUTES
from harald.proving_ground.pretraining import weights
from harald.proving_ground.pretraining.pool import Pool
from harald.proving_ground.pretraining.segment import Segment, generator, train
from harald.proving_ground.pretraining.vae import as_pictures, autocast

log = logging.getLogger(__name__)

FOLDER = "mini-judge"
VISIBLE_WEIGHT, IDENTITY_WEIGHT, TEMPERATURE = 1.0, 0.5, 0.1
WEIGHT_DECAY = 0.05
SHIFT, ZOOM, NOISE = 5.0, 0.06, 0.06  # most that a picture is moved (px of 128), scaled, and disturbed
CALIBRATION = 50  # batches that the statistics of the final weights are taken from


def run(segment: Segment) -> dict[str, float]:
    """Train the judge of the folder. Returns what it reaches on held-out persons."""
    device, pretrain, folder = determinism.device(), segment.pretrain, segment.weights / FOLDER
    judge = load_judge(folder) if folder.exists() else new(ATTRIBUTES, pretrain.side, segment.config.seed)
    judge.to(device)
    with segment.pool() as pool:
        loss = JudgeLoss(judge, pool, segment, device)
        train([judge], loss, segment.plan(weight_decay=WEIGHT_DECAY), segment.log_row)
        weights.rounded([judge])
        images = pool.on_device("images", segment.settings.states, device)
        calibrate(judge, images, segment.config.seed, segment.settings.batch)
        unseen = pool.wait_held_out()
        images, labels, identity = (
            unseen.on_device(name, len(unseen.states), device) for name in ("images", "labels", "identity")
        )
        table = held_out(judge, images, labels, identity, segment.config.seed)
    judge.save_pretrained(folder)
    return logged(table)


def new(attributes: Mapping[str, Sequence[str]], side: int, seed: int, width: int = 32) -> Judge:
    """An untrained judge, the same for the same seed on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "pretrain", FOLDER))
        return Judge(attributes, side, width)


class JudgeLoss:
    """Loss of a step over twins that are drawn on the device."""

    def __init__(self, judge: Judge, pool: Pool, segment: Segment, device: torch.device):
        self.judge, self.pool, self.segment, self.device = judge, pool, segment, device
        labels = pool.on_device("labels", segment.settings.first_states, device)
        self.priors = log_priors(labels, [len(classes) for classes in judge.attributes.values()])

    def __call__(self, step: int) -> dict[str, Tensor]:
        states = self.segment.visible(step)
        images, labels = (self.pool.on_device(name, states, self.device) for name in ("images", "labels"))
        draw = self.segment.generator(self.device, step)
        return losses(self.judge, images, labels, self.priors, self.segment.settings.batch, draw)


def losses(
    judge: Judge, images: Tensor, labels: Tensor, priors: Sequence[Tensor], batch: int, draw: torch.Generator
) -> dict[str, Tensor]:
    """images: uint8 [N, V, S, S, 3]; labels: [N, V, A], -1 where hidden; states 2k and 2k + 1 are one person's."""
    judge.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state, view = twins(len(images), images.shape[1], batch, draw)
    pictures = soften(as_pictures(images[state, view]), draw).contiguous(memory_format=torch.channels_last)
    with autocast(images.device):
        scores, sight, embedding = judge(pictures)
    truth = labels[state, view].long()
    attribute = sum_of_heads(scores, truth, priors)
    visible = F.binary_cross_entropy_with_logits(sight, (truth >= 0).float())
    identity = twin_contrast(embedding, state)
    total = attribute + VISIBLE_WEIGHT * len(scores) * visible + IDENTITY_WEIGHT * identity
    return {"loss": total, "attribute": attribute, "visible": visible, "identity": identity}


def twins(states: int, views: int, batch: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """State and view numbers, both [4 * (batch // 4)]: persons, both of their states, two views of each."""
    person = torch.randint(states // 2, (batch // 4,), generator=draw, device=draw.device)
    state = (2 * person[:, None] + torch.tensor([0, 0, 1, 1], device=draw.device)).flatten()
    order = torch.rand(2 * len(person), views, generator=draw, device=draw.device).argsort(1)
    return state, order[:, :2].flatten()


def soften(pictures: Tensor, draw: torch.Generator) -> Tensor:
    """Moved, scaled, lit, half of them also blurred and half noisy: drawn pictures are softer than renders.

    [B, 3, S, S] -> [B, 3, S, S]. Never mirrored: left and right are poses.
    """
    count, _, side, _ = pictures.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=draw, device=draw.device)

    place = torch.zeros(count, 2, 3, device=pictures.device)
    place[:, 0, 0] = place[:, 1, 1] = uniform(1 - ZOOM, 1 + ZOOM)
    place[:, :, 2] = uniform(-SHIFT, SHIFT, 2) * 2 / 128
    grid = F.affine_grid(place, list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    small = F.interpolate(F.avg_pool2d(pictures, 2), size=(side, side), mode="bilinear", align_corners=False)
    pictures = torch.lerp(pictures, small, uniform(-1, 1, 1, 1, 1).clamp(min=0))
    noise = torch.randn(pictures.shape, generator=draw, device=draw.device)
    pictures = pictures + noise * uniform(-NOISE, NOISE, 1, 1, 1).clamp(min=0)
    return (pictures * uniform(0.85, 1.15, 1, 1, 1) + uniform(-0.1, 0.1, 1, 1, 1)).clamp(-1, 1)


def log_priors(labels: Tensor, classes: Sequence[int]) -> list[Tensor]:
    """Log of how often each class is seen, [classes] for each attribute; one more of each, so that none is 0."""
    rows = labels.flatten(0, -2).long()
    seen = [(rows[:, place, None] == torch.arange(n, device=rows.device)).sum(0) for place, n in enumerate(classes)]
    return [((count + 1) / (count + 1).sum()).log() for count in seen]


def sum_of_heads(scores: Sequence[Tensor], truth: Tensor, priors: Sequence[Tensor]) -> Tensor:
    """Cross-entropy where the truth says visible, mean over pictures, summed over the attributes.

    The log prior is added to the scores in training only: what the scores then learn is optimal for the balanced error
    ("Long-tail learning via logit adjustment", arXiv:2007.07314), without the noise of a heavily weighted rare class.
    scores: [B, classes] each; truth: [B, A], -1 where hidden.
    """
    total = truth.new_zeros((), dtype=torch.float32)
    for place, (score, prior) in enumerate(zip(scores, priors, strict=True)):
        errors = F.cross_entropy(score + prior, truth[:, place], ignore_index=-1, reduction="sum")
        total = total + errors / (truth[:, place] >= 0).sum().clamp(min=1)
    return total


def twin_contrast(embedding: Tensor, state: Tensor) -> Tensor:
    """A picture of the twin state must be nearer than every picture of another person.

    Pictures of the same state take no part: they would teach that hair and glasses make a person.
    embedding: [B, d] of unit length; state: [B], states 2k and 2k + 1 are one person's.
    """
    similar = embedding @ embedding.T / TEMPERATURE
    same = state[:, None] // 2 == state // 2
    twin = same & (state[:, None] != state)
    others = similar.masked_fill(same, -1e4).logsumexp(1, keepdim=True)
    return (F.softplus(others - similar) * twin).sum() / twin.sum().clamp(min=1)


@torch.no_grad()
def calibrate(judge: Judge, images: Tensor, seed: int, batch: int, batches: int = CALIBRATION) -> Judge:
    """Take the statistics of the normalisation for the averaged weights: those in the judge belong to the last ones.

    images: uint8 [N, V, S, S, 3]. Returns the judge, ready to read.
    """
    norms = [module for module in judge.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    judge.train()
    for number in range(batches):
        draw = generator(images.device, seed, FOLDER, "calibrate", number)
        state, view = twins(len(images), images.shape[1], batch, draw)
        judge(soften(as_pictures(images[state, view]), draw))
    for norm in norms:
        norm.momentum = 0.1
    return judge.eval()


def held_out(judge: Judge, images: Tensor, labels: Tensor, identity: Tensor, seed: int = 0) -> dict[str, Score]:
    """What the judge reaches on persons it never saw: every attribute, how well it knows what is hidden, identity.

    images: uint8 [N, V, S, S, 3]; labels: [N, V, A]; identity: [N].
    """
    states, views = images.shape[:2]
    reading = judge.read(as_pictures(images.flatten(0, 1)))
    people, rows = identity.repeat_interleave(views), labels.flatten(0, 1)
    state = torch.arange(states).repeat_interleave(views)
    table = attribute_table(reading, rows, people, seed)
    table |= {f"visible {name}": score for name, score in visible_table(reading, rows, people, seed).items()}
    return {**table, "identity": identity_auc(reading.embedding, state, people, seed)}


def logged(table: dict[str, Score]) -> dict[str, float]:
    """Name -> value of what could be measured; the intervals go to the log."""
    measured = {name: score for name, score in table.items() if not math.isnan(score.value)}
    for name, score in measured.items():
        log.info("%s %.3f (%.3f to %.3f, n = %d)", name, score.value, score.low, score.high, score.count)
    return {name: round(score.value, 4) for name, score in measured.items()}
