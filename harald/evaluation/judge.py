"""The judge: says what a picture shows of a person, and how sure it is that each part can be seen at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.functional import normalize

from harald import hub
from harald.config import ModelRef
from harald.errors import ModelError
from harald.runs import write_bytes, write_json

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LOOKS = 4  # of each attribute at the feature map; the identity takes twice as many


@dataclass(frozen=True)
class Reading:
    """What the judge sees in B pictures.

    log_probability: attribute -> [B, classes]. visible: [B, A], probability that the part can be seen, in the order of
    the attributes. embedding: [B, 128] of unit length, the identity.
    """

    log_probability: dict[str, Tensor]
    visible: Tensor
    embedding: Tensor

    @property
    def index(self) -> Tensor:
        """[B, A] number of the likeliest class."""
        return torch.stack([scores.argmax(1) for scores in self.log_probability.values()], 1)

    @property
    def probability(self) -> Tensor:
        """[B, A] probability of the likeliest class."""
        return torch.stack([scores.amax(1).exp() for scores in self.log_probability.values()], 1)


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Trunk(nn.Module):
    """[B, 3, S, S] -> [B, 4 * width, S / 8, S / 8].

    Earrings and glasses are 5 to 15 pixels wide: most of the work happens at a half and a quarter of the resolution.
    """

    def __init__(self, width: int):
        super().__init__()
        self.channels = 4 * width
        self.layers = nn.Sequential(
            self._halve(3, width), Block(width),
            self._halve(width, 3 * width), Block(3 * width), Block(3 * width),
            self._halve(3 * width, 4 * width), Block(4 * width), Block(4 * width),
        )  # fmt: skip

    @staticmethod
    def _halve(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(pictures)


class Pool(nn.Module):
    """A few learned looks at the feature map: [B, C, h, w] -> [B, looks * C].

    A look is a softmax over places, of what stands there plus a learned liking for the place: an average over the map
    would drown an earring in 250 other cells.
    """

    def __init__(self, inputs: int, cells: int, looks: int):
        super().__init__()
        self.content = nn.Conv2d(inputs, looks, 1)
        self.place = nn.Parameter(torch.randn(looks, cells))  # from zeros, all looks stay alike for long

    def forward(self, features: Tensor) -> Tensor:
        weights = (self.content(features).flatten(2).float() + self.place).softmax(2)  # [B, looks, cells]
        return (weights.to(features.dtype) @ features.flatten(2).transpose(1, 2)).flatten(1)


class Judge(nn.Module, ModelHubMixin):
    """Pictures [B, 3, side, side] in [-1, 1] -> a score for every class of every attribute, visibility, identity.

    attributes: name -> its classes. The parameters are stored in bfloat16 (3 MB), the statistics in float32.
    """

    def __init__(self, attributes: Mapping[str, Sequence[str]], side: int = 128, width: int = 32, embedding: int = 128):
        super().__init__()
        self.attributes = {name: tuple(classes) for name, classes in attributes.items()}
        self.sizes = {"side": side, "width": width, "embedding": embedding}
        self.trunk = Trunk(width)
        channels, cells = self.trunk.channels, (side // 8) ** 2
        self.pools = nn.ModuleList(Pool(channels, cells, LOOKS) for _ in self.attributes)
        self.heads = nn.ModuleList(nn.Linear(LOOKS * channels, len(c)) for c in self.attributes.values())
        self.sight = nn.ModuleList(nn.Linear(LOOKS * channels, 1) for _ in self.attributes)
        self.face = Pool(channels, cells, 2 * LOOKS)
        self.identity = nn.Linear(2 * LOOKS * channels, embedding)

    def forward(self, pictures: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """[B, 3, S, S] -> logits of each attribute [B, classes], visibility logits [B, A], unit embedding [B, 128]."""
        features = self.trunk(pictures)
        parts = [pool(features) for pool in self.pools]
        scores = [head(part).float() for head, part in zip(self.heads, parts, strict=True)]
        seen = torch.cat([head(part) for head, part in zip(self.sight, parts, strict=True)], 1).float()
        return scores, seen, normalize(self.identity(self.face(features)).float(), dim=1)

    @torch.no_grad()
    def read(self, pictures: Tensor, batch: int = 256) -> Reading:
        """[B, 3, S, S] in [-1, 1] -> a reading on the judge's device. The batch size bounds the memory."""
        if not len(pictures):
            raise ValueError("the judge was given no picture")
        training, weight = self.training, self.identity.weight
        self.eval()
        rows = [self(part.to(weight)) for part in pictures.split(batch)]
        self.train(training)
        scores = [torch.cat(parts).log_softmax(1) for parts in zip(*(row[0] for row in rows), strict=True)]
        return Reading(
            log_probability=dict(zip(self.attributes, scores, strict=True)),
            visible=torch.cat([row[1] for row in rows]).sigmoid(),
            embedding=torch.cat([row[2] for row in rows]),
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        parameters = {name for name, _ in self.named_parameters()}
        state = {
            name: (tensor.detach().to("cpu", torch.bfloat16) if name in parameters else tensor.cpu()).contiguous()
            for name, tensor in sorted(self.state_dict().items())
        }
        write_bytes(save_directory / WEIGHTS, save(state))
        write_json(save_directory / CONFIG, {"attributes": list(self.attributes.items()), **self.sizes})

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, cache_dir: str | Path | None, force_download: bool,
        local_files_only: bool, token: str | bool | None, **options: Any,
    ) -> "Judge":  # fmt: skip
        """A folder, or a repository of the cache (see hub.load); its config is read again, in order."""
        if Path(model_id).is_dir():
            return load_judge(Path(model_id))
        if cache_dir is None:
            raise ModelError(f"the judge {model_id} is no folder, and no cache_dir was given", "pass the HF cache")
        return load_judge(hub.snapshot(Path(cache_dir), ModelRef(model_id, revision or "main")))


def load_judge(folder: Path) -> Judge:
    """A saved judge in float32 on the CPU, ready to read. Raises ModelError."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        judge = Judge(dict(config.pop("attributes")), **config)
        judge.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder} holds no judge: {error}", f"it needs {CONFIG} and {WEIGHTS}") from error
    return judge.eval()
