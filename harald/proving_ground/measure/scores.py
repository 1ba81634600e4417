"""The numbers: what the judge reads in renders, in reconstructions, in drawn pictures."""

from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from harald import determinism
from harald.evaluation.accuracy import Score, attribute_table, identity_auc, visible_table
from harald.evaluation.face_model import FaceModel, face_auc
from harald.evaluation.judge import Judge, Reading
from harald.evaluation.paired import loss_in_points, psnr, ratio
from harald.proving_ground.bars import ACCURACY, BARS, EXPRESSIONS, PSNR
from harald.proving_ground.measure.views import Views
from harald.proving_ground.persons import ATTRIBUTES, HIDDEN
from harald.proving_ground.pretraining.single_frame import decode, encode, single_frame
from harald.proving_ground.pretraining.vae import as_pictures

CHUNK = 64  # pictures at a time: bounds the memory
NAMES = list(ATTRIBUTES)


def read(judge: Judge, images: Tensor) -> Reading:
    """uint8 [n, S, S, 3] -> a reading on the CPU."""
    parts = [judge.read(as_pictures(part.to(determinism.device()))) for part in images.split(CHUNK)]
    return Reading(
        log_probability={
            name: torch.cat([part.log_probability[name].cpu() for part in parts]) for name in judge.attributes
        },
        visible=torch.cat([part.visible.cpu() for part in parts]),
        embedding=torch.cat([part.embedding.cpu() for part in parts]),
    )


def judge_scores(real: Reading, views: Views, seed: int) -> dict[str, Score]:
    """On renders: every attribute where it can be seen; what can be seen; identity."""
    kinds = views.labels[:, NAMES.index("expression")]
    shown = kinds[kinds != HIDDEN]
    expressions = float(len(shown.unique()))
    table = {f"judge: {k}": v for k, v in attribute_table(real, views.labels, views.identity, seed).items()}
    table[EXPRESSIONS] = Score(expressions, torch.nan, torch.nan, len(shown))
    seen = visible_table(real, views.labels, views.identity, seed)
    table |= {f"judge: {name} can be seen": score for name, score in seen.items()}
    table["judge: identity"] = identity_auc(real.embedding, views.state, views.identity, seed)
    return table


def face_scores(model: FaceModel, views: Views, seed: int) -> dict[str, Score]:
    """For each domain: identity by a model that never saw renders, and in how many pictures it finds a face."""
    column, table = views.labels[:, NAMES.index("domain")], {}
    for place, domain in enumerate(ATTRIBUTES["domain"]):
        chosen = views.pick(torch.nonzero(column == place)[:, 0].tolist())
        pictures = [Image.fromarray(image.numpy()) for image in chosen.images]
        auc, found = face_auc(model, pictures, chosen.state.tolist(), chosen.identity.tolist(), seed)
        table[f"face model: identity, {domain}"] = auc
        table[f"face model: face found, {domain}"] = Score(found, torch.nan, torch.nan, len(pictures))
    return table


@torch.no_grad()
def reconstructed(vae: Any, images: Tensor) -> Tensor:
    """What the VAE makes of pictures, rounded to 8 bits as the pipeline does. uint8 [n, S, S, 3] -> the same."""

    def rows() -> Iterator[Tensor]:
        for part in images.split(CHUNK):
            mean, _ = encode(vae.encoder, vae, as_pictures(part.to(vae.device)))
            pixels = decode(vae.decoder, vae, mean).clamp(-1, 1)
            yield ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()

    with single_frame(vae):
        return torch.cat(list(rows()))


def squared_errors(images: Tensor, others: Tensor) -> Tensor:
    """[n] float64: mean square of each picture's difference, values in 0..1. Both uint8 [n, S, S, 3]."""
    pairs = zip(images.split(CHUNK), others.split(CHUNK), strict=True)
    return torch.cat([((a.double() - b.double()) / 255).square().mean((1, 2, 3)) for a, b in pairs])


def vae_scores(errors: Tensor, readings: tuple[Reading, Reading] | None, views: Views, seed: int) -> dict[str, Score]:
    """errors: [n] of the reconstructions. readings: of renders and reconstructions; None without a judge."""
    table = {PSNR: psnr(errors, views.identity, seed)}
    if readings is not None:
        before, after = (reading.index for reading in readings)
        for name in ("glasses", "earrings", "necklace"):
            place = NAMES.index(name)
            table[f"vae: loss of {name}"] = loss_in_points(
                before[:, place], after[:, place], views.labels[:, place], views.identity, seed
            )
    return table


def base_scores(drawn: Reading, real: Reading, views: Views, seed: int) -> dict[str, Score]:
    """Drawn pictures against what was described, where the renders of the same views show it.

    Beside a bar on the share of the ceiling stands the plain accuracy, as a figure.
    """
    plain = attribute_table(drawn, views.labels, views.identity, seed)
    table = {}
    for bar in BARS["base"]:
        name = bar.name.removeprefix("base: ")
        place = NAMES.index(name)
        if bar.unit == ACCURACY:
            table[bar.name] = plain[name]
        else:
            table[bar.name] = ratio(
                drawn.index[:, place], real.index[:, place], views.labels[:, place], views.identity, seed
            )
            table[f"{bar.name}, plain"] = plain[name]
    return table


def agreement(reading: Reading, labels: Tensor) -> Tensor:
    """[n]: mean log probability of what was described, over what can be seen. labels: [n, A], -1 where hidden."""
    seen = labels != HIDDEN
    columns = [
        scores.gather(1, labels[:, place, None].clamp(min=0))[:, 0]
        for place, scores in enumerate(reading.log_probability.values())
    ]
    return (torch.stack(columns, 1) * seen).sum(1) / seen.sum(1).clamp(min=1)


def differences(index: Tensor, labels: Tensor) -> str:
    """'glasses: round, seen none' for everything that the judge sees otherwise. Both [A]."""
    said = []
    for name, seen, meant in zip(NAMES, index.tolist(), labels.tolist(), strict=True):
        if meant not in (HIDDEN, seen):
            said.append(f"{name}: {ATTRIBUTES[name][meant]}, seen {ATTRIBUTES[name][seen]}")
    return "; ".join(said)
