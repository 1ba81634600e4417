"""Single source of truth: Modal objects, pinned versions, models, mount paths, presets.

Imports the standard library and modal only.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import modal

# ---------------------------------------------------------------- versions and places
PYTHON = "3.12"
UV = "0.13.9"
PINS = {
    "torch": "2.13.0",
    "diffusers": "0.42.1",
    "transformers": "5.23.0",
    "peft": "0.21.2",
    "accelerate": "1.15.0",
    "huggingface_hub": "2.4.0",
    "safetensors": "0.8.0",
    "tokenizers": "0.23.3",
    "numpy": "2.4.6",
    "pillow": "12.3.0",
    "pyarrow": "26.0.1",
    "pydantic": "2.14.3",
    "jinja2": "3.1.6",
    "matplotlib": "3.11.2",
    "numba": "0.68.1",
    "scikit-image": "0.26.0",
    "scipy": "1.17.1",
    "trackio": "0.43.0",
    "psutil": "7.2.2",
    "gradio": "6.31.0",
    "fastapi": "0.165.0",
    "uvicorn": "0.54.0",
    "python-multipart": "0.0.34",
}
TEST_PINS = {"pytest": "9.2.0", "pytest-timeout": "2.4.0", "pytest-xdist": "3.8.0", "jaxtyping": "0.3.11"}

# The same with all that they need, and the hash of every file: written by `make lock`.
IMAGE_LOCK = Path(__file__).with_name("image.lock")

APP_NAME = "harald"
MNT = "/mnt"
MNT_DATASET, MNT_OUTPUT, HF_CACHE = f"{MNT}/dataset", f"{MNT}/output", f"{MNT}/hf_cache"
HF_CACHE_VOLUME = "harald-hf-cache"
DATASETS = {1: "harald-dataset-1", 2: "harald-dataset-2"}  # number of the base folder -> name of its volume
HF_TOKEN_VARIABLE = "HUGGINGFACE_TOKEN"
HOUR = 3600

# One GPU type and no list of fallbacks: the same seed gives the same bytes only on the same type.
GPU_TRAIN = "H200"
GPU_INFER = "H200"

# ---------------------------------------------------------------- Modal objects
# Slow layers first, our source last, so that a change of code rebuilds nothing.
# CUBLAS_WORKSPACE_CONFIG must be in the environment before CUDA starts (PyTorch, "Reproducibility").
image = (
    modal.Image.debian_slim(python_version=PYTHON)
    .uv_pip_install(requirements=[str(IMAGE_LOCK)], extra_options="--require-hashes", uv_version=UV)
    .env({"PYTHONUNBUFFERED": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "HF_HUB_DISABLE_TELEMETRY": "1"})
    .add_local_python_source("harald", ignore=["**/__pycache__/**", "**/*.pyc"])
)
VOLUME_OUTPUT = modal.Volume.from_name("harald-output", create_if_missing=True, version=2)
VOLUME_HF_CACHE = modal.Volume.from_name(HF_CACHE_VOLUME, create_if_missing=True, version=2)
VOLUME_DATASETS = {
    number: modal.Volume.from_name(name, create_if_missing=True, version=2) for number, name in DATASETS.items()
}
VOLUMES: dict[str | PurePosixPath, modal.Volume] = {
    MNT_OUTPUT: VOLUME_OUTPUT,
    HF_CACHE: VOLUME_HF_CACHE,
    **{f"{MNT_DATASET}/{n}": v.with_mount_options(read_only=True) for n, v in VOLUME_DATASETS.items()},
}
HF_SECRET = modal.Secret.from_name("HF_SECRET", required_keys=[HF_TOKEN_VARIABLE])

# The test suite travels only with the job that runs it, and only from a checkout: an installed package has none.
ROOT = Path(__file__).resolve().parents[1]
test_image = image
if (ROOT / "tests").is_dir():
    test_image = image.add_local_dir(ROOT / "tests", "/root/tests", ignore=["**/__pycache__/**"])
    test_image = test_image.add_local_file(ROOT / "pyproject.toml", "/root/pyproject.toml")

app = modal.App(APP_NAME, image=image, volumes=VOLUMES, secrets=[HF_SECRET], include_source=False)

# The page is an app of its own, so that running a job opens no address: modal deploy -m harald.modal_runner::page_app
page_app = modal.App(f"{APP_NAME}-page", image=image, volumes=VOLUMES, secrets=[HF_SECRET], include_source=False)

# What each kind of job asks of Modal. What resumes is retried, nothing else; a preemption uses up no retry.
CPU_JOB: dict[str, Any] = {"cpu": 2.0, "memory": 4096, "timeout": HOUR}
SCAN_JOB: dict[str, Any] = {"cpu": 4.0, "memory": 8192, "timeout": 6 * HOUR}
INFER_JOB: dict[str, Any] = {"gpu": GPU_INFER, "memory": 65536, "timeout": 6 * HOUR, "startup_timeout": HOUR}
PART_JOB: dict[str, Any] = {**INFER_JOB, "retries": modal.Retries(max_retries=3, initial_delay=1.0)}
TEST_JOB: dict[str, Any] = {**INFER_JOB, "cpu": 8.0, "image": test_image}
TRAIN_JOB: dict[str, Any] = {
    "gpu": GPU_TRAIN,
    "memory": 131072,
    "timeout": 24 * HOUR,
    "startup_timeout": HOUR,
    "retries": modal.Retries(max_retries=4, initial_delay=10.0),
    "single_use_containers": True,
}


def on_gpus(options: dict[str, Any], gpus: int) -> dict[str, Any]:
    """The same job on several GPUs of one machine: each process loads its own models."""
    if gpus <= 1:
        return options
    return {**options, "gpu": f"{options['gpu']}:{gpus}", "memory": max(options["memory"], 65536 * gpus)}


# One container: visitors stand in one line, and the line is in its memory.
PAGE_JOB: dict[str, Any] = {**INFER_JOB, "timeout": HOUR, "max_containers": 1, "scaledown_window": 300}
PAGE_REQUESTS = 200  # at the same time; most are the parts of the page itself, `serve.places` bounds the others
PRETRAIN_JOB: dict[str, Any] = {**TRAIN_JOB, "cpu": 16.0}  # the pictures are rendered beside the GPU

# USD a second, list price (modal.com/pricing), without multipliers for regions. Change them here.
PRICES_AS_OF = "2026-07-01"
PRICE_GPU = {
    "B200": 0.001736, "H200": 0.001261, "H100": 0.001097, "RTX-PRO-6000": 0.000842, "A100-80GB": 0.000694,
    "A100-40GB": 0.000583, "L40S": 0.000542, "A10": 0.000306, "L4": 0.000222, "T4": 0.000164,
}  # fmt: skip
PRICE_CORE, PRICE_GIB = 0.0000131, 0.00000222
DEFAULT_CORES, DEFAULT_MIB = 0.125, 128  # what Modal reserves for a job that does not say


def price(options: dict[str, Any]) -> float | None:
    """USD a second for what a job asks for, None where the price is not known.

    Modal bills what is used of CPU and memory where that is more.
    """
    gpu, _, count = options.get("gpu", "").rstrip("!").partition(":")
    if gpu and gpu not in PRICE_GPU:
        return None
    cores, gib = options.get("cpu", DEFAULT_CORES), options.get("memory", DEFAULT_MIB) / 1024
    return (PRICE_GPU[gpu] * int(count or 1) if gpu else 0.0) + PRICE_CORE * cores + PRICE_GIB * gib


# ---------------------------------------------------------------- what a run is made of
class Strict:
    """Every field is checked for its name and type (pydantic reads this attribute of a standard dataclass)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class ModelRef(Strict):
    """A repository in the HF cache. `recipe` names what writes it there instead of a download: a tiny one with random
    weights, or a mini one from the weights that this package ships.
    """

    repo: str
    revision: str = "main"
    recipe: Literal["", "tiny_qwen_image", "tiny_qwen3_vl", "mini_qwen_image", "mini_qwen3_vl", "mini_encoder"] = ""


@dataclass(frozen=True)
class LoraRef(Strict):
    """A LoRA for the base model (the Comic-Style-LoRA): repository id, or a file inside the HF cache. Empty: off."""

    source: str = ""
    weight_name: str = ""
    revision: str = "main"
    domain: str = "comic"  # loaded for pictures of this domain, so that tokens carry the person and not the style
    scale: float = 1.0


@dataclass(frozen=True)
class FewSteps(Strict):
    """A LoRA that lets the base model draw in few steps, and the schedule that it was distilled with."""

    source: str
    weight_name: str = ""
    revision: str = "main"
    scale: float = 1.0
    steps: int = 8
    shift: float = 3.0  # of the times, the same for every size


@dataclass(frozen=True)
class Models(Strict):
    base: ModelRef
    encoder: ModelRef
    lora: LoraRef = LoraRef()
    few_steps: FewSteps | None = None  # what generate.speed "lightning" draws with
    trained: ModelRef | None = None  # encoder.json and its weights: what jobs use without --train-run


@dataclass(frozen=True)
class Data(Strict):
    image_size: int = 512  # side of a target, pixels; pictures are scaled and centre-cropped to it
    min_views: int = 2  # one to look at, one to draw
    min_side: int = 64  # pixels; smaller pictures are rejected
    manifest: str = ""  # run name of check_dataset: take its manifest instead of reading all folders again
    verify_pixels: bool = False  # decode every picture completely (slow) instead of checking its first and last bytes
    validation_share: float = 0.02  # share of the states, picked by a hash: what chooses the checkpoint
    held_out_share: float = 0.0  # the same for states that training never sees in any way: what evaluate measures on
    max_states: int = 0  # at most so many are trained on, whole persons, see data/people.py; 0: all


@dataclass(frozen=True)
class Encoder(Strict):
    groups: tuple[tuple[str, int], ...] = (("face", 16), ("hair", 16), ("worn", 16), ("outfit", 16))
    max_pixels: int = 512 * 512  # a reference is scaled down to at most this
    mix_layers: int = 6  # decoder layers, evenly spaced up to the last, that the learned softmax mix reads
    connector_layers: int = 2
    connector_width: int = 1024
    lora_rank: int = 64
    lora_alpha: int = 64
    vision: Literal["frozen", "lora", "full"] = "frozen"  # how the vision tower is trained

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.groups)

    @property
    def tokens(self) -> int:
        return sum(size for _, size in self.groups)


@dataclass(frozen=True)
class Prepare(Strict):
    """How the latent cache is made; none of its bytes depends on `containers`."""

    pictures_per_shard: int = 512  # 64 MiB at 512 pixels in bfloat16
    containers: int = 8  # at most, each with a GPU


Point = Literal["output", "input", "both"]
VECTORS: dict[str, int] = {"output": 1, "input": 1, "both": 2}  # of a slot, side by side, each as wide as the base's


@dataclass(frozen=True)
class Injection(Strict):
    point: Point = "output"  # see injection/points.py
    class_word: str = "person"  # stands for <person> in the prompt that the text encoder reads at the output point


@dataclass(frozen=True)
class Phase(Strict):
    """A part of a training. What is not None stands in the place of Train's field of that name while it lasts."""

    name: str
    steps: int  # the last phase lasts as long as the training
    rates: tuple[float, float] = (1.0, 1.0)  # shares of the learning rate at its begin and its end, linear between
    max_references: int | None = None
    cross_domain_share: float | None = None
    state_free_share: float | None = None
    drop_text: float | None = None
    drop_group: float | None = None
    override_share: float | None = None
    twins_together: bool | None = None
    flow_weight: float | None = None
    teacher_weight: float | None = None
    teacher_beside: float | None = None
    contrast_weight: float | None = None


@dataclass(frozen=True)
class Economy(Strict):
    """What a step of training costs: memory, time and, in float8, accuracy. See docs/hardware.md."""

    recompute_base: float = 1.0  # share of the base model's blocks whose activations the backward pass computes again
    recompute_encoder: bool = True  # the same for the encoder's language model
    targets_at_once: int = 0  # that go through the base model together; 0: all of a part
    frozen: Literal["plain", "float8", "float8_once"] = "plain"  # once: half the bytes, turned in every backward pass
    lora: Literal["float32", "autocast"] = "float32"  # what the encoder's LoRA computes in; its weights are float32
    compile: Literal["off", "same_twice", "fastest"] = "off"  # fastest: the clock chooses the kernels


@dataclass(frozen=True)
class Train(Strict):
    steps: int = 20_000
    phases: tuple[Phase, ...] = ()
    stages: tuple[str, ...] = ()  # names of the phases that run, in this order; empty: all
    init_from: str = ""  # a run of train, or "models.trained": whose weights are the first ones; empty: untrained
    states_per_batch: int = 8
    targets_per_state: int = 4
    parts: int = 1  # the batch is computed in so many, one after another or on several GPUs: 1, 2, 4, 8, ...
    targets: Literal["same_state", "other_state"] = "same_state"  # other_state: of the same person; a baseline
    max_references: int = 4
    cross_domain_share: float = 0.3
    state_free_share: float = 0.9  # share of targets whose prompt is silent about the state
    drop_text: float = 0.1  # a target is drawn from the tokens alone
    drop_group: float = 0.1  # each group of slots is left out
    whole_share: float = 0.0  # share of targets of which none is
    drop_one: float = 0.0  # share of the others of which just one is, and one that the description speaks of
    override_share: float = 0.0  # share of targets whose prompt asks for what the pictures do not show; needs a teacher
    twins_together: bool = False  # states of one person come in one batch, see people.csv
    drop_references: float = 0.0  # no tokens: no gradient while the base is frozen, see docs/log.md
    uniform_timesteps: float = 0.5  # share of uniform draws, the rest is logit-normal; both are then shifted
    flow_weight: float = 1.0  # of the difference to the picture's own velocity
    teacher_weight: float = 0.0  # of the difference to the velocity that the base predicts from the full description
    teacher_beside: float = 1.0  # of that weight, where the picture teaches too: it knows what no description says
    part_weight: float = 1.0  # of patches that show small worn things, in flow and teacher; not 1: see data/parts.py
    contrast_weight: float = 0.0
    contrast_temperature: float = 0.1
    learning_rate: float = 1e-4
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices of hidden layers, LoRA's too
    weight_decay: float = 0.01
    warmup_steps: int = 500
    clip_norm: float = 1.0
    recorded: bool = (
        False  # steps as CUDA graphs, prompts in few lengths: for models so small that launching takes longest
    )
    economy: Economy = Economy()
    checkpoint_every: int = 500
    keep_checkpoints: int = 3
    sample_every: int = 1000
    validate_every: int = 0  # the score picks the checkpoint that is used; 0: none is measured, the newest is used
    validation_states: int = 16
    patience: int = 0  # scores without a better one, after which the training ends; 0: it does not end early
    workers: int = 4
    latents: str = ""  # run name of prepare; empty: the VAE encodes the targets while training

    @property
    def chosen(self) -> tuple[Phase, ...]:
        """The phases that run. KeyError for a stage that no phase is named after (settings.check refuses those)."""
        named = {phase.name: phase for phase in self.phases}
        return tuple(named[name] for name in self.stages) if self.stages else self.phases

    def at(self, step: int) -> "Train":
        """What holds at a step: a pure function of it."""
        return _at(self, step)

    def phase_at(self, step: int) -> tuple[Phase | None, int]:
        """The phase of a step, and the steps of it that lie before."""
        phases = self.chosen
        for phase in phases:
            if step < phase.steps or phase is phases[-1]:
                return phase, step
            step -= phase.steps
        return None, step


@functools.lru_cache(maxsize=64)  # asked several times for every target
def _at(train: Train, step: int) -> Train:
    phase, _ = train.phase_at(step)
    changes = {field.name: getattr(phase, field.name) for field in fields(phase)[3:]} if phase else {}
    return replace(train, **{name: value for name, value in changes.items() if value is not None})


@dataclass(frozen=True)
class Poc(Strict):
    """Textual Inversion of one state, the proof that a person passes through the injection point at all."""

    steps: int = 600
    batch: int = 4
    learning_rate: float = 1e-2
    scenes: tuple[str, ...] = ("laughing on a beach at dusk", "reading in a library", "angry, in the rain at night")


@dataclass(frozen=True)
class Refine(Strict):
    """Steps of Textual Inversion that begin at the predicted tokens, on the very pictures that they are made of."""

    steps: int = 0  # 0: the tokens stay as they are predicted
    batch: int = 4  # pictures of a person at a time, each with a noise of its own
    learning_rate: float = 2e-2  # of the tokens' own scale


# eager: the stock pipeline. exact: compiled, no approximation. fast: float8 and a block cache. lightning: few steps.
Speed = Literal["eager", "exact", "fast", "lightning"]


@dataclass(frozen=True)
class Generate(Strict):
    size: int = 1024
    steps: int = 50
    guidance: float = 4.0
    negative_prompt: str = " "
    # What `--domain` puts before a prompt; a LoRA's own domain may do without words.
    domains: tuple[tuple[str, str], ...] = (("photo", "photo of"), ("comic", "comic of"))
    words_win: bool = True  # groups that carry what a prompt says of a person are left out of the tokens
    speed: Speed = "eager"
    cache_threshold: float = 0.1  # "fast": a step whose first block changes less takes the last one's remaining blocks
    offload: Literal["none", "text", "blocks"] = "none"  # to the host's memory: text encoder, or the MMDiT's blocks too


@dataclass(frozen=True)
class Evaluate(Strict):
    """The panel of held-out states that a trained encoder is judged on."""

    states: int = 16  # synthetic persons: twins
    look_alikes: int = 0  # further synthetic states: one look on two persons
    views: int = 20  # rendered of each synthetic state
    references: tuple[int, ...] = (1, 2, 4, 8)  # numbers of references that are compared
    main_references: int = 4  # of all arms
    hiding_states: int = 0  # synthetic states for each attribute that some of their views hide
    groups: bool = True  # ours without each group of tokens, too
    mean_states: int = 16  # training states whose mean tokens are an arm
    inversion_states: int = 0  # states that get a Textual Inversion; 0: off
    inversion_steps: int = 1000
    inversion_rate: float = 1e-2  # its learning rate
    batch: int = 4  # pictures, references and questions at a time
    timesteps: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the flow losses


@dataclass(frozen=True)
class Serve(Strict):
    """Limits of the page."""

    places: int = 16  # visitors that are served, wait or upload at the same time; the next one is told "busy"
    pictures: int = 8  # that one person file is made from
    picture_bytes: int = 20_000_000
    request_bytes: int = 60_000_000
    picture_pixels: int = 50_000_000  # more are not decoded
    prompt_characters: int = 2000
    upload_seconds: int = 60  # that sending one request may take


@dataclass(frozen=True)
class Stage(Strict):
    """One part of the pretraining: `segments` runs of `steps` steps, each on `states` persons of its own."""

    steps: int  # of one segment; a segment is to last less than ten minutes
    segments: int
    batch: int  # pictures
    learning_rate: float
    states: int  # rendered for one segment while it trains
    first_states: int  # of these, there before the first step
    warmup_steps: int = 100
    decay_share: float = 0.5  # of the last segment, in which the learning rate falls to 0
    ema: float = 0.999
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices of hidden layers
    compile: bool = True  # half a minute or more at the start of a segment


@dataclass(frozen=True)
class Pretrain(Strict):
    """How the small models are trained from nothing on synthetic persons. See proving_ground/pretraining."""

    vae: Stage
    base: Stage
    judge: Stage
    vision: Stage
    sizes: Literal["tiny", "trained"] = "trained"
    side: int = 128  # pixels
    views: int = 8  # pictures of a state
    held_out: int = 64  # states of persons that no training sees
    prompt_tokens: int = 96  # most that a prompt may have, with the template's tail and without its head
    workers: int = 14  # processes that render


@dataclass(frozen=True)
class Config(Strict):
    preset: str
    models: Models
    seed: int = 0
    deterministic: bool = True
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"  # auto: bfloat16 on CUDA, float32 on a CPU
    data: Data = Data()
    encoder: Encoder = Encoder()
    injection: Injection = Injection()
    prepare: Prepare = Prepare()
    train: Train = Train()
    poc: Poc = Poc()
    refine: Refine = Refine()
    generate: Generate = Generate()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()
    pretrain: Pretrain | None = None


# ---------------------------------------------------------------- presets
LAVISH = Economy(recompute_base=0.0, recompute_encoder=False)  # for models that are small beside their memory

# What a training of the published models takes on a GPU of so many GiB; docs/hardware.md has the figures.
ECONOMIES = {
    141: Economy(recompute_base=0.0, recompute_encoder=False, targets_at_once=4, lora="autocast", compile="same_twice"),
    80: Economy(recompute_base=0.0, targets_at_once=4, frozen="float8_once", lora="autocast", compile="same_twice"),
    48: Economy(targets_at_once=2, frozen="float8_once", lora="autocast", compile="same_twice"),
}


def stages(warm_up: int, cross_view: int, mixed: int, twins: int) -> tuple[Phase, ...]:
    """The staged recipe, with the steps of each stage; why each is there stands in docs/training.md."""
    return (
        Phase("warm-up", warm_up, flow_weight=0.0, teacher_weight=1.0, state_free_share=1.0),
        Phase("cross-view", cross_view, (1.0, 0.5), teacher_weight=1.0, teacher_beside=0.25, state_free_share=1.0),
        Phase(
            "mixed", mixed, (0.5, 0.2), teacher_weight=1.0, teacher_beside=0.25,
            cross_domain_share=0.5, override_share=0.2,
        ),
        Phase(
            "twins and overrides", twins, (0.2, 0.02), teacher_weight=1.0, teacher_beside=0.25,
            cross_domain_share=0.5, contrast_weight=0.05, override_share=0.2, twins_together=True,
        ),
    )  # fmt: skip


def by_kind(times: int = 1) -> tuple[tuple[str, int], ...]:
    """32 tokens, or `times` as many, in a group for each thing that a prompt may ask for instead."""
    sizes = {"face": 8, "hair": 5, "glasses": 3, "beard": 2, "earrings": 2, "necklace": 2, "headwear": 3, "makeup": 2}
    return tuple((name, times * size) for name, size in (sizes | {"outfit": 5}).items())


def full() -> Config:
    """The published models on one H200."""
    return Config(
        preset="full",
        models=Models(
            base=ModelRef("Qwen/Qwen-Image"),
            encoder=ModelRef("Qwen/Qwen3-VL-8B-Instruct"),
            few_steps=FewSteps(
                "lightx2v/Qwen-Image-Lightning", "Qwen-Image-Lightning-8steps-V2.0.safetensors", steps=8
            ),
        ),
        data=Data(held_out_share=0.02),
        encoder=Encoder(groups=by_kind(2)),
        train=Train(
            phases=stages(3000, 6000, 7000, 4000),
            drop_group=0.3,
            whole_share=0.6,
            parts=4,
            validate_every=1000,
            economy=ECONOMIES[141],
        ),
        generate=Generate(domains=(("photo", "photo of"),), speed="exact"),
    )


def mini() -> Config:
    """The same classes at small sizes, trained from nothing on synthetic persons and shipped: for two CPU cores."""
    base = Stage(
        steps=5500, segments=2, batch=768, learning_rate=3e-3, states=9216, first_states=640, decay_share=1.0,
        optimizer="muon",
    )  # fmt: skip
    return Config(
        preset="mini",
        models=Models(
            base=ModelRef("harald/mini-qwen-image", recipe="mini_qwen_image"),
            encoder=ModelRef("harald/mini-qwen3-vl", recipe="mini_qwen3_vl"),
            trained=ModelRef("harald/mini-encoder", recipe="mini_encoder"),
        ),
        data=Data(image_size=128, min_side=32, validation_share=0.1),
        encoder=Encoder(
            groups=by_kind(),
            max_pixels=128 * 128,
            mix_layers=4,
            connector_layers=1,
            connector_width=192,
            lora_rank=16,
            lora_alpha=16,
            vision="lora",
        ),
        injection=Injection("input"),
        train=Train(
            steps=8400,
            phases=stages(2600, 2400, 2000, 1400),
            states_per_batch=64,
            drop_group=0.3,
            whole_share=0.6,
            max_references=4,
            learning_rate=3e-3,
            optimizer="muon",
            warmup_steps=100,
            recorded=True,
            economy=LAVISH,
            checkpoint_every=500,
            sample_every=2100,
            validate_every=1200,
            validation_states=32,
            workers=14,
        ),
        poc=Poc(
            steps=200,
            batch=4,
            learning_rate=5e-2,
            scenes=(
                "laughing, facing the camera, on a beach",
                "angry, turned to the left, in a library",
                "smiling, at sunset",
            ),
        ),
        generate=Generate(size=128, steps=24, guidance=2.5),
        evaluate=Evaluate(look_alikes=8, hiding_states=8, inversion_rate=2e-2, batch=64),
        pretrain=Pretrain(
            vae=Stage(steps=11_000, segments=1, batch=64, learning_rate=1.5e-3, states=8192, first_states=512),
            base=base,
            judge=Stage(steps=5000, segments=1, batch=512, learning_rate=2e-3, states=8192, first_states=1536),
            vision=Stage(steps=4500, segments=1, batch=256, learning_rate=8e-4, states=7168, first_states=768),
            prompt_tokens=88,
        ),
    )


def tiny() -> Config:
    """For tests: random weights and 64 pixels, written by our own recipes; shows only that everything runs."""
    stage = Stage(
        steps=3, segments=2, batch=4, learning_rate=1e-3, states=4, first_states=2, warmup_steps=2, ema=0.9,
        compile=False,
    )  # fmt: skip
    return Config(
        preset="tiny",
        models=Models(
            base=ModelRef("harald/tiny-qwen-image", recipe="tiny_qwen_image"),
            encoder=ModelRef("harald/tiny-qwen3-vl", recipe="tiny_qwen3_vl"),
        ),
        data=Data(image_size=64, min_side=32, validation_share=0.2, held_out_share=0.2),
        encoder=Encoder(
            groups=(("face", 4), ("hair", 4), ("worn", 4), ("outfit", 4)),
            max_pixels=64 * 64,
            mix_layers=2,
            connector_layers=1,
            connector_width=64,
            lora_rank=4,
            lora_alpha=4,
            vision="full",
        ),
        prepare=Prepare(pictures_per_shard=8, containers=2),
        train=Train(
            steps=40,
            states_per_batch=2,
            targets_per_state=2,
            max_references=2,
            learning_rate=1e-3,
            warmup_steps=5,
            economy=LAVISH,
            checkpoint_every=10,
            sample_every=20,
            workers=0,
        ),
        poc=Poc(steps=60, batch=2, learning_rate=3e-2),
        generate=Generate(size=64, steps=6, guidance=2.0),
        evaluate=Evaluate(states=4, look_alikes=2, views=10, references=(1, 4), mean_states=2, batch=32),
        pretrain=Pretrain(
            stage, stage, stage, stage, sizes="tiny", side=64, views=2, held_out=2, prompt_tokens=512, workers=1
        ),
    )


PRESETS: dict[str, Callable[[], Config]] = {"full": full, "mini": mini, "tiny": tiny}
Preset = Literal["full", "mini", "tiny"]

# What the page on Modal shows. An empty training run: persons come from person files, and there is text alone.
PAGE_PRESET: Preset = "full"
PAGE_TRAIN_RUN = ""
