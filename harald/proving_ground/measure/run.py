"""The parts of one measurement, each of which may be measured on another machine."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from harald.base.qwen_image import QwenImage
from harald.config import Config, Pretrain
from harald.determinism import device
from harald.evaluation.accuracy import Score
from harald.evaluation.bar import Origin
from harald.evaluation.face_model import FaceModel
from harald.evaluation.judge import Judge
from harald.proving_ground.bars import ACCURACY, FACES, MEGABYTES, SECONDS, SIZE, Row, noted, rows
from harald.proving_ground.measure import drawing, models, scores, sheets
from harald.proving_ground.measure.views import Views, held_out, sample
from harald.proving_ground.pretraining.weights import QWEN3_VL

log = logging.getLogger(__name__)

SHEET, REAL_SHEET, SHEET_PICTURES = "faces.png", "faces_real.png", 100
NO_WEIGHTS = "no weights"


@dataclass(frozen=True)
class Measurement:
    """What is measured with: config, weights, the run's folder, the sizes, and where the rows come from.

    faces_in_place: how many pictures of the sheet were counted as good, and how many of the real views of the same
    persons and prompts; -1: not counted yet.
    """

    config: Config
    weights: Path
    folder: Path
    states: int
    pictures: int
    faces_in_place: tuple[int, int]
    origin: Origin

    def part(self, name: str) -> list[Row]:
        """The rows of one part (see bars.BARS); without figures and values where weights are missing."""
        measure: dict[str, Callable[[], list[Row]]] = {
            "judge": self.judge_part, "vae": self.vae_part, "base": self.base_part, "faces": self.faces_part,
            "speed": self.speed_part, "face_model": self.face_model_part, SIZE: self.size_part,
        }  # fmt: skip
        log.info("measure %s", name)
        return measure[name]()

    def judge_part(self) -> list[Row]:
        if models.JUDGE in self.missing:
            return rows("judge", {}, self.origin, NO_WEIGHTS)
        real = scores.read(self.judge, self.views.images)
        measured = scores.judge_scores(real, self.views, self.config.seed)
        return rows("judge", measured, self.origin, unit="area under the curve")

    def vae_part(self) -> list[Row]:
        if models.VAE in self.missing:
            return rows("vae", {}, self.origin, NO_WEIGHTS)
        views = self.views.pick(sample(self.config.seed, len(self.views), len(self.views)))
        made = scores.reconstructed(models.load_vae(self.weights), views.images)
        errors = scores.squared_errors(views.images, made)
        sheets.reconstructions(self.folder, views, made, errors)
        readings = None
        if models.JUDGE not in self.missing:
            readings = (scores.read(self.judge, views.images), scores.read(self.judge, made))
        measured = scores.vae_scores(errors, readings, views, self.config.seed)
        return rows("vae", measured, self.origin, f"{NO_WEIGHTS} of the judge")

    def base_part(self) -> list[Row]:
        if {models.BASE, models.JUDGE} & self.missing:
            return rows("base", {}, self.origin, NO_WEIGHTS)
        views, drawn = self.sampled, self.drawn(self.pictures)
        reading, real = (scores.read(self.judge, images) for images in (drawn, views.images))
        sheets.drawings(self.folder, views, drawn, reading)
        measured = scores.base_scores(reading, real, views, self.config.seed)
        return rows("base", measured, self.origin, unit=ACCURACY)

    def faces_part(self) -> list[Row]:
        """A sheet that is there is counted as it is; without a count, or without a sheet, it is drawn."""
        if models.BASE in self.missing:
            return rows("faces", {}, self.origin, NO_WEIGHTS)
        path, count = self.folder / SHEET, min(SHEET_PICTURES, self.pictures)
        drawn, real = self.faces_in_place
        if drawn < 0 or not path.exists():
            drawing.numbered_sheet(self.drawn(count)).save(path)
            drawing.numbered_sheet(self.sampled.images[:count]).save(self.folder / REAL_SHEET)
        name = f"{SHEET}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
        if drawn < 0:
            note = f"to be counted by eye on {name}; then: --only faces --faces-in-place N"
            return rows("faces", {}, self.origin, note)
        measured = {FACES: drawing.share(drawn, count)}
        beside = f"; of the real views of the same persons and prompts {real} of {count}" if real >= 0 else ""
        return noted(rows("faces", measured, self.origin), f"counted by eye on {name}; Wilson's interval{beside}")

    def speed_part(self) -> list[Row]:
        if models.BASE in self.missing:
            return rows("speed", {}, self.origin, NO_WEIGHTS)
        if device().type != "cpu":
            return rows("speed", {}, self.origin, "to be measured on a CPU: --only speed")
        if self.config.generate.guidance <= 1:
            return rows("speed", {}, self.origin, "guidance is off: generate.guidance is not above 1")
        taken = drawing.seconds_for_one(self.base, self.config)
        measured = {SECONDS: Score(taken, torch.nan, torch.nan, drawing.REPEATS)}
        note = (
            f"median of {drawing.REPEATS} after a warm-up, {drawing.CORES} threads, {self.config.generate.steps} steps"
        )
        return noted(rows("speed", measured, self.origin), note)

    def face_model_part(self) -> list[Row]:
        """A second opinion on the identity of renders, by a model of real faces."""
        measured = scores.face_scores(FaceModel(), self.views, self.config.seed)
        return rows("face_model", measured, self.origin, unit="area under the curve, or share of the pictures")

    def size_part(self) -> list[Row]:
        size = models.megabytes(self.weights)
        if lacking := self.missing & {models.JUDGE, models.BASE, QWEN3_VL}:
            note = f"{NO_WEIGHTS}: {', '.join(sorted(lacking))}; the rest is {size:.1f} MB"
            return rows(SIZE, {}, self.origin, note)
        return rows(SIZE, {MEGABYTES: Score(size, torch.nan, torch.nan, 0)}, self.origin)

    # ------------------------------------------------------------ made once, and only for the parts that need it
    @property
    def pretrain(self) -> Pretrain:
        assert self.config.pretrain is not None, "checked before anything is measured"
        return self.config.pretrain

    @cached_property
    def missing(self) -> set[str]:
        return models.missing(self.weights)

    @cached_property
    def judge(self) -> Judge:
        return models.load_judge(self.weights, self.pretrain.side)

    @cached_property
    def base(self) -> QwenImage:
        return models.load_base(self.weights, self.config)

    @cached_property
    def views(self) -> Views:
        log.info("render %d views of each of %d held-out states", self.pretrain.views, self.states)
        return held_out(self.config.seed, self.states, self.pretrain)

    @cached_property
    def sampled(self) -> Views:
        """The views that are drawn, in random order."""
        return self.views.pick(sample(self.config.seed, len(self.views), self.pictures))

    @cached_property
    def _drawn(self) -> list[Tensor]:
        return []

    def drawn(self, count: int) -> Tensor:
        """Drawings of the first sampled views, uint8 [count, S, S, 3]; none is made twice."""
        done = sum(map(len, self._drawn))
        if done < count:
            wanted = self.sampled.pick(range(done, count))
            self._drawn.append(drawing.draw_views(self.base, wanted, self.config))
        return torch.cat(self._drawn)[:count]
