"""The encoder: Qwen3-VL + LoRA + K learned queries + layer mix + connector. A Hub object of its trained parts only."""

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

from harald import hub
from harald.config import VECTORS, ModelRef, Point
from harald.config import Encoder as EncoderConfig
from harald.determinism import key
from harald.encoder.chat import Chat, ChatBuilder, Grid
from harald.encoder.connector import Connector, LayerMix
from harald.encoder.pictures import expect_equal_pictures, read, tower_inputs
from harald.errors import ModelError
from harald.runs import write_bytes, write_json

FORMAT = "harald-encoder-1"
WEIGHTS, DESCRIPTION = "encoder.safetensors", "encoder.json"
KEPT = 256  # layouts of chats and sizes of pictures
Seen = tuple[Tensor, ...]  # [b, tokens of a picture, h]: what is pooled, then the levels of DeepStack
LANGUAGE = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
VISION = r".*visual\.(blocks|merger|deepstack_merger_list).*\.(qkv|proj|linear_fc1|linear_fc2)"


class PersonEncoder(nn.Module, ModelHubMixin):
    """Pictures of one person -> tokens [K, d], or [K, 2 d] where they go to both points.

    vlm: Qwen3VLModel, frozen but for its LoRA (and its vision tower, see config.vision). The queries come last in
    the chat, so K does not depend on the number of references. scale: [d] or [2 d], see Connector. Trained parts are
    float32.
    """

    def __init__(
        self,
        vlm: Any,
        chats: ChatBuilder,
        config: EncoderConfig,
        ref: ModelRef,
        scale: Tensor,
        point: Point,
        base: str,
        seed: int = 0,
    ):
        super().__init__()
        self.config, self.ref, self.point, self.base, self.chats = config, ref, point, base, chats
        self._made: dict[Any, Any] = {}
        self.autocast = False  # the LoRA, whose weights are float32, computes in the type of the frozen weights
        hidden, depth = vlm.config.text_config.hidden_size, vlm.config.text_config.num_hidden_layers
        self.layers = mix_layers(depth, config.mix_layers)
        vlm.requires_grad_(False)
        expect_equal_pictures(vlm)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(seed, "encoder"))
            targets = f"{LANGUAGE}|{VISION}" if config.vision == "lora" else LANGUAGE
            lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=targets)
            self.vlm: Any = inject_adapter_in_model(lora, vlm)
            std = vlm.get_input_embeddings().weight.float().std().item()
            self.queries = nn.Parameter(torch.randn(config.tokens, hidden) * std)
            self.mix = LayerMix(len(self.layers))
            self.connector = Connector(
                hidden, config.connector_width, config.connector_layers, scale.float().cpu(), VECTORS[point]
            )
        if config.vision == "full":
            self.vlm.visual.requires_grad_(True)
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if config.vision == "full":
            self.vlm.visual.float()
        self.to(vlm.device)

    @classmethod
    def new(
        cls, cache: Path, config: EncoderConfig, ref: ModelRef, scale: Tensor, point: Point, base: str, seed: int,
        device: torch.device, dtype: torch.dtype,
    ) -> "PersonEncoder":  # fmt: skip
        """An untrained encoder on the Qwen3-VL of the cache. Raises ModelError."""
        vlm = hub.load(Qwen3VLForConditionalGeneration, cache, ref, dtype=dtype).model.to(device)
        tokenizer = hub.load(Qwen2Tokenizer, cache, ref)
        processor = hub.load(Qwen2VLImageProcessorPil, cache, ref)
        free = range(len(tokenizer), vlm.get_input_embeddings().num_embeddings)
        if len(free) < config.tokens:
            raise ModelError(
                f"{ref.repo} has {len(free)} reserved vocabulary ids, {config.tokens} queries are asked for",
                "lower the sizes in encoder.groups",
            )
        chats = ChatBuilder(tokenizer, processor, list(free[: config.tokens]), config.max_pixels)
        return cls(vlm.eval(), chats, config, ref, scale, point, base, seed)

    @property
    def device(self) -> torch.device:
        return self.queries.device

    def forward(self, samples: Sequence[Sequence[Image.Image]]) -> Tensor:
        """b samples of 1..n pictures each -> [b, K, d] float32."""
        return self.tokens(self.chats.build(samples))

    def tokens(self, chats: Sequence[tuple[list[int], Chat]]) -> Tensor:
        """The same for what `ChatBuilder.build` made of the samples."""
        read = [self._read(chat, seen) for (_, chat), seen in zip(chats, self._see(chats), strict=True)]
        tokens = self.connector(self.mix(torch.cat(read, dim=1)))
        order = [index for members, _ in chats for index in members]
        if order == sorted(order):
            return tokens
        return torch.stack([tokens[place] for place in sorted(range(len(order)), key=order.__getitem__)])

    def _see(self, chats: Sequence[tuple[list[int], Chat]]) -> list[list[Seen]]:
        """Every picture of every chat through the vision tower, all of one size at once."""
        slots = [(grid, patches) for _, chat in chats for grid, patches in zip(chat.grids, chat.patches, strict=True)]
        waiting = {grid: self._vision(grid, [p for g, p in slots if g == grid]) for grid in dict(slots)}
        return [[next(waiting[grid]) for grid in chat.grids] for _, chat in chats]

    def _vision(self, grid: Grid, patches: list[Tensor]) -> Iterator[Seen]:
        """Pictures of one size, [b_i, t * h * w, c] each -> for each of them, features of the picture's tokens."""
        visual, rows = self.vlm.visual, [len(part) for part in patches]
        pixels = self.chats.normalized(torch.cat([part.to(self.device) for part in patches]).flatten(0, 1))
        dtype = self.vlm.get_input_embeddings().weight.dtype
        with torch.autocast(
            self.device.type, dtype, enabled=visual.dtype != dtype, cache_enabled=False
        ):  # trained weights are float32
            out = visual(pixels.to(visual.dtype), return_dict=True, **self._tower_inputs(grid, sum(rows)))
        levels = [out.pooler_output, *out.deepstack_features]
        yield from zip(*(level.unflatten(0, (sum(rows), -1)).split(rows) for level in levels), strict=True)

    def _read(self, chat: Chat, seen: list[Seen]) -> Tensor:
        """[layers, b, K, h]: states of the query slots after the chosen decoder layers (the last one is post-norm)."""
        ids, places = self._chat_inputs(chat)
        embeddings = self.vlm.get_input_embeddings()(ids[: -self.config.tokens])
        slots = self.queries.to(embeddings.dtype)
        embeddings = torch.cat([embeddings, slots]).expand(len(chat), -1, -1)
        levels = [torch.cat(level, dim=1) for level in zip(*seen, strict=True)]
        places = places.expand(-1, len(chat), -1)
        on = self.autocast and embeddings.dtype != torch.float32
        with torch.autocast(self.device.type, embeddings.dtype if on else None, enabled=on, cache_enabled=False):
            states = read(self.vlm, embeddings, chat.kinds, levels, places, output_hidden_states=True).hidden_states
        return torch.stack([states[layer][:, -self.config.tokens :] for layer in self.layers])

    def _tower_inputs(self, grid: Grid, count: int) -> dict[str, Any]:
        return self._once(("tower", grid, count), lambda: tower_inputs(self.vlm.visual, grid, count, self.device))

    def _chat_inputs(self, chat: Chat) -> tuple[Tensor, Tensor]:
        """ids [l], positions [3, 1, l] on the device: the same for every chat of one layout."""

        def made() -> tuple[Tensor, Tensor]:
            positions, _ = self.vlm.get_rope_index(
                chat.ids[None], mm_token_type_ids=chat.kinds[None], image_grid_thw=torch.tensor(chat.grids)
            )
            return chat.ids.to(self.device), positions.to(self.device)

        return self._once(("chat", chat.grids), made)

    def kept(self) -> list[Any]:
        """What `_once` has made: recordings of a pass read it as long as they live."""
        return list(self._made.values())

    def _once(self, name: Hashable, made: Callable[[], Any]) -> Any:
        """What depends on sizes alone stays on the device: handing it over makes the host wait for all work there."""
        if (name, self.device) not in self._made:
            if len(self._made) >= KEPT:
                self._made.clear()
            self._made[name, self.device] = made()
        return self._made[name, self.device]

    # ------------------------------------------------------------ trained parts
    def trained_state(self) -> dict[str, Tensor]:
        """Name -> tensor (float32) of everything that training changes."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Raises ModelError if names or shapes do not fit."""
        own = self.trained_state()
        if odd := sorted(set(own) ^ set(state)) or sorted(n for n in own if own[n].shape != state[n].shape):
            raise ModelError(
                f"the encoder's weights do not fit: {len(odd)} differ, first {odd[0]}",
                "use the config that they were trained with",
            )
        for name, tensor in own.items():
            tensor.copy_(state[name].to(tensor))

    def description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "encoder": asdict(self.config),
            "model": asdict(self.ref),
            "point": self.point,
            "base": self.base,
        }

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {name: tensor.cpu().contiguous() for name, tensor in sorted(self.trained_state().items())}
        write_bytes(save_directory / WEIGHTS, save(state, {"format": FORMAT}))
        write_json(save_directory / DESCRIPTION, self.description())

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **options: Any,
    ) -> "PersonEncoder":
        """A folder or a repository of the cache. Options: device, dtype."""
        if cache_dir is None:
            raise ModelError(
                "from_pretrained was called without cache_dir", "pass the folder of the Hugging Face cache"
            )
        cache = Path(cache_dir)
        folder = (
            Path(model_id) if Path(model_id).is_dir() else hub.snapshot(cache, ModelRef(model_id, revision or "main"))
        )
        return load_encoder(cache, folder, options["device"], options["dtype"])


def reads(folder: Path) -> ModelRef:
    """The Qwen3-VL that a saved encoder belongs to. Raises ModelError."""
    return ModelRef(**_described(folder)["model"])


def meaning(folder: Path) -> dict[str, Any]:
    """What a saved encoder's weights depend on, by the fields of the configuration that say so. Raises ModelError."""
    described = _described(folder)
    encoder = {name: value for name, value in described["encoder"].items() if name != "max_pixels"}
    encoder["groups"] = tuple((name, size) for name, size in encoder["groups"])
    return {
        **{f"encoder.{name}": value for name, value in encoder.items()},
        "injection.point": described["point"],
        "models.base": described["base"],
        "models.encoder": described["model"]["repo"],
    }


def _described(folder: Path) -> dict[str, Any]:
    try:
        described = json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no encoder: {error}", f"it needs {DESCRIPTION} and {WEIGHTS}") from error
    if described.get("format") != FORMAT:
        raise ModelError(
            f"{folder} has format {described.get('format')!r}, this version reads {FORMAT!r}", "convert or retrain it"
        )
    return described


def load_encoder(cache: Path, folder: Path, device: torch.device, dtype: torch.dtype) -> PersonEncoder:
    """A saved encoder: its trained parts from the folder, the frozen Qwen3-VL from the cache. Raises ModelError."""
    described = _described(folder)
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no encoder: {error}", f"it needs {DESCRIPTION} and {WEIGHTS}") from error
    fields: dict[str, Any] = described["encoder"]
    config = EncoderConfig(**fields | {"groups": tuple((name, size) for name, size in fields["groups"])})
    encoder = PersonEncoder.new(
        cache, config, ModelRef(**described["model"]), torch.ones_like(state["connector.norm.weight"]),
        described["point"], described["base"], seed=0, device=device, dtype=dtype,
    )  # fmt: skip
    encoder.load_trained_state(state)
    return encoder


def mix_layers(depth: int, count: int) -> list[int]:
    """`count` indices into hidden_states (0 is the embedding), evenly spaced, the last layer included.

    >>> mix_layers(36, 6)
    [6, 12, 18, 24, 30, 36]
    """
    count = min(count, depth)
    return [round(depth * (i + 1) / count) for i in range(count)]
