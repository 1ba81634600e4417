"""The pretraining of the small models, at tiny sizes: the real classes, the real renderer, a few steps."""

import dataclasses
import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Literal

import pytest
import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline
from safetensors.torch import load_file
from torch import nn

from harald import determinism
from harald.config import Config, tiny
from harald.errors import ConfigError, RunError, TrainingError
from harald.jobs import pretrain_mini
from harald.proving_ground import mini_models
from harald.proving_ground.mini_tokenizer import build
from harald.proving_ground.pretraining import base, stages, vae, weights
from harald.proving_ground.pretraining import pool as pools
from harald.proving_ground.pretraining.pool import Pool
from harald.proving_ground.pretraining.prompts import PromptIds, partial
from harald.proving_ground.pretraining.segment import Plan, Segment, learning_rate, train
from harald.proving_ground.pretraining.single_frame import decode, encode, single_frame, zero_unused
from harald.runtime import Runtime, Session


def configured() -> Config:
    """One segment of the VAE, two of the base."""
    config = tiny()
    assert config.pretrain is not None
    vae = dataclasses.replace(config.pretrain.vae, segments=1)
    return dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, vae=vae))


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def render_here(patch: pytest.MonkeyPatch) -> None:
    """In a thread, because a process takes seconds to start."""
    patch.setattr(pools, "ProcessPoolExecutor", lambda workers, **_: ThreadPoolExecutor(workers))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights after the VAE's segment and, in one call, both segments of the base."""
    runtime = Runtime.local(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        render_here(patch)
        determinism.enable(0)
        pretrain_mini.run(runtime, configured(), "run", "vae")
        result = pretrain_mini.run(runtime, configured(), "run", "base", segments=2)
    assert result["finished"]
    return Path(result["folder"])


class StopsAt(Session):
    """Somebody asks the job to stop while it works on a segment."""

    def __init__(self, segment: int):
        self.segment, self.done, self.scores = segment, 0, {}

    @property
    def stopping(self) -> bool:
        return self.done >= self.segment

    def progress(self, done: int, total: int, unit: str) -> None:
        self.done = done

    def score(self, name: str, value: float, lower_is_better: bool = False) -> None:
        self.scores[name] = value


def test_run_that_was_taken_over_replaces_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken_over() -> None:
        raise RunError("taken over")

    monkeypatch.setattr(vae, "run", lambda segment: {})  # what it trains does not matter here
    folder = tmp_path / "weights"
    with pytest.raises(RunError):
        stages.run_segments(configured(), folder, "vae", 1, confirm=taken_over)
    assert not folder.exists()


@pytest.mark.slow
def test_stopped_run_that_goes_on_elsewhere_equals_an_unbroken_one(
    whole: Path, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Path(pretrain_mini.run(runtime, configured(), "first", "vae")["folder"])  # rendered by a process
    render_here(monkeypatch)
    session = StopsAt(1)
    stopped = pretrain_mini.run(dataclasses.replace(runtime, session=session), configured(), "first", "base")
    assert (stopped["segments"], stopped["finished"]) == (1, False) and session.scores.keys() == {"flow_t0.5"}
    torch.rand(3)  # history means nothing
    elsewhere = Runtime.local(tmp_path / "another machine")
    result = pretrain_mini.run(elsewhere, configured(), "second", "base", weights=str(first))
    assert hashes(Path(result["folder"])) == hashes(whole)
    assert not list(Path(result["folder"]).parent.glob(".*"))


def test_folder_holds_small_bfloat16_files_and_changed_weights(whole: Path) -> None:
    untrained = whole.parent / "untrained"
    stages.weights.write_untrained(untrained, "vae", 0, stages.checked(configured(), "vae"))
    for part in ("vae", "transformer", "text_encoder"):
        (file,) = (whole / "mini-qwen-image" / part).glob("*.safetensors")
        (other,) = (untrained / "mini-qwen-image" / part).glob("*.safetensors")
        before, after = load_file(other), load_file(file)
        assert {t.dtype for t in after.values()} == {torch.bfloat16}
        assert any(not torch.equal(before[name], after[name]) for name in after), part


def test_stock_pipeline_loads_the_folder_and_draws(whole: Path) -> None:
    pipeline = QwenImagePipeline.from_pretrained(whole / "mini-qwen-image", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("photo of a person", height=64, width=64, num_inference_steps=2, true_cfg_scale=1.0).images[0]
    assert picture.size == (64, 64)
    assert pipeline.vae.config.latents_std != AutoencoderKLQwenImage().config.latents_std


def test_finished_stage_says_so_and_changes_nothing(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = hashes(whole)
    with caplog.at_level("INFO"):
        assert stages.run_segments(configured(), whole, "base", 1)["finished"]
    assert "stage base is finished" in caplog.text
    assert hashes(whole) == before


def test_base_waits_for_the_vae(runtime: Runtime) -> None:
    with pytest.raises(ConfigError, match="--stage vae first"):
        pretrain_mini.run(runtime, configured(), "run", "base")
    with pytest.raises(ConfigError, match="did you mean 'vae'"):
        pretrain_mini.run(runtime, configured(), "run", "vea")


def test_killed_replacement_is_mended(tmp_path: Path) -> None:
    (tmp_path / ".weights.old").mkdir()
    (tmp_path / ".weights.123.tmp").mkdir()
    stages.recover(tmp_path / "weights")
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]


def test_single_frame_equals_the_stock_vae() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLQwenImage(z_dim=16, **mini_models.TINY.vae).eval()
    pictures = torch.randn(2, 3, 32, 32).clamp(-1, 1)
    with torch.no_grad():
        latents = vae.encode(pictures[:, :, None]).latent_dist.mode()
        drawn = vae.decode(latents).sample
        with single_frame(vae):
            mean, _ = encode(vae.encoder, vae, pictures)
            again = decode(vae.decoder, vae, mean)
        torch.testing.assert_close(mean, latents[:, :, 0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(again.clamp(-1, 1), drawn[:, :, 0], atol=1e-4, rtol=1e-4)
        zero_unused(vae)
        assert vae.encoder.conv_in.weight[:, :, :2].abs().max() == 0
        torch.testing.assert_close(vae.encode(pictures[:, :, None]).latent_dist.mode(), latents, atol=0, rtol=0)
        torch.testing.assert_close(vae.decode(latents).sample, drawn, atol=0, rtol=0)


def test_failure_of_a_worker_surfaces_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_render", math.sqrt)  # not what the pool hands over, and quick to import
    with (
        pytest.raises(TypeError, match="exactly one argument"),
        Pool(0, range(2), held_out=0, views=2, side=32, workers=1) as pool,
    ):
        pool.wait(2)


def test_visible_states_grow_to_all_of_them(tmp_path: Path) -> None:
    config = tiny()
    assert config.pretrain is not None
    stage = dataclasses.replace(config.pretrain.base, steps=100, states=1000, first_states=100)
    config = dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, base=stage))
    segment = Segment("base", 1, config, tmp_path, print)
    visible = [segment.visible(step) for step in range(100)]
    assert visible == sorted(visible)
    assert (visible[0], visible[75], visible[99], segment.states) == (100, 1000, 1000, range(1000, 2000))


def test_mirrored_prompt_says_the_other_side() -> None:
    tokenizer = build()
    prompts = PromptIds(tokenizer, 1, 88, 0, torch.device("cpu"))
    prompts.add([("photo of a man, turned to the left, in a park", "photo of person, turned to the left, in a park")])
    zero = torch.zeros(1, dtype=torch.int64)
    texts = [tokenizer.decode(prompts.rows(zero, zero, torch.tensor([flip]))[0][0]) for flip in (False, True)]
    assert "turned to the left, in a park" in texts[0] and "turned to the right, in a park" in texts[1]
    assert texts[1].replace("right", "left") == texts[0]


def test_finished_stage_is_trained_again_from_its_weights(whole: Path, runtime: Runtime, monkeypatch) -> None:
    render_here(monkeypatch)
    result = pretrain_mini.run(runtime, configured(), "again", "base", segments=1, weights=str(whole), again=True)
    noted, before = stages.progress(Path(result["folder"])), stages.progress(whole)["base"]
    assert noted["base"]["segments"] == 1
    assert noted["base"]["before"] == [{name: value for name, value in before.items() if name != "before"}]
    card = (Path(result["folder"]) / "mini-qwen-image" / "README.md").read_text()
    assert [line.partition("--stage ")[2] for line in card.splitlines() if line.startswith("    python")] == [
        "vae", "base", "base --again",
    ]  # fmt: skip
    resumed = pretrain_mini.run(runtime, configured(), "again", "base", weights=str(whole), again=True)
    assert resumed["segments"] == 2 and len(resumed["before"]) == 1
    with pytest.raises(ConfigError, match="again"):  # a run that has weights of its own
        pretrain_mini.run(runtime, configured(), "again", "base", weights=str(whole))
    with pytest.raises(ConfigError, match="no trained stage 'judge'"):
        pretrain_mini.run(runtime, configured(), "untrained", "judge", weights=str(whole), again=True)


def test_a_mirrored_picture_comes_with_its_weights_and_the_other_side_in_its_prompt(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render_here(monkeypatch)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def noted(pipeline, latents, noise, t, ids, mask):
        seen.append((latents, ids))
        return torch.zeros(latents.shape[:2])

    monkeypatch.setattr(base, "flow_error", noted)
    segment, device = Segment("base", 0, configured(), whole, print), torch.device("cpu")
    pipeline = weights.load_pipeline(whole, device)
    with segment.pool() as pool:
        samples = base.Samples(pipeline, pool, segment, device, base.LOOKS)
        loss = base.FlowLoss(pipeline, samples, segment, device)
        for part in range(16):
            loss(part)
        pool.wait(2)
        images, detail = (torch.from_numpy(array[:2].copy()).flatten(0, 1) for array in (pool.images, pool.detail))
        for look in range(base.LOOKS):
            with single_frame(pipeline.vae):
                views = base.looked_at(images, look, samples.moves[: len(images)])
                expected = base.pack(pipeline, vae.encode_mean(pipeline.vae, views))
            torch.testing.assert_close(samples.latents[: len(expected), look], expected)
            sides = base.patch_weights(
                base.looked_at(detail, look, samples.moves[: len(images)]), samples.weights.shape[2]
            )
            torch.testing.assert_close(samples.weights[: len(sides), look], sides)
    looks = set()
    for latents, ids in seen:
        for one, said in zip(latents, ids, strict=True):
            same = (samples.latents == one).flatten(2).all(-1).nonzero()
            picture, look = same[0]
            variants = torch.arange(samples.prompts.ids.shape[1])
            known, _ = samples.prompts.rows(
                picture.expand(len(variants)), variants, (look % 2 == 1).expand(len(variants))
            )
            assert (known == said).all(1).any()
            looks.add(int(look))
    assert looks == set(range(base.LOOKS))


def test_looks_of_a_picture() -> None:
    pictures = torch.arange(2 * 4 * 4 * 3).view(2, 4, 4, 3)
    moves = torch.tensor([[1, 0], [0, -2]])
    assert torch.equal(base.looked_at(pictures, 0, moves), pictures)
    assert torch.equal(base.looked_at(pictures, 1, moves), pictures.flip(2))
    down, left = base.looked_at(pictures, 2, moves)
    assert torch.equal(down, pictures[0, [0, 0, 1, 2]]) and torch.equal(left, pictures[1][:, [2, 3, 3, 3]])
    assert torch.equal(base.looked_at(pictures, 3, moves), base.looked_at(pictures.flip(2), 2, moves))
    assert torch.equal(base.looked_at(pictures[..., 0], 2, moves), base.looked_at(pictures, 2, moves)[..., 0])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_loss_that_is_not_finite_changes_no_weight(optimizer: Literal["adamw", "muon"]) -> None:
    model = nn.ModuleList([nn.Linear(2, 1)])
    layer = model[0]
    seen: list[torch.Tensor] = []

    def loss(step: int) -> dict[str, torch.Tensor]:
        seen.append(layer.weight.detach().clone())
        return {"loss": layer(torch.ones(1, 2)).sum() * (float("nan") if step == 3 else 1.0)}

    with pytest.raises(TrainingError, match="not finite"):
        train([nn.ModuleDict({"layers": model})], loss, Plan(steps=6, learning_rate=0.1, optimizer=optimizer), print)
    assert not torch.equal(seen[2], seen[3])
    assert torch.equal(seen[3], layer.weight)


def test_parts_of_a_batch_train_as_the_whole() -> None:
    batch = torch.randn(6, 8, 3, generator=torch.Generator().manual_seed(0))
    models: dict[int, nn.Linear] = {}
    logged: dict[int, list[dict]] = {1: [], 2: []}
    for parts, rows in logged.items():
        torch.manual_seed(0)
        model = models[parts] = nn.Linear(3, 1)
        samples = batch.reshape(6 * parts, 8 // parts, 3)

        def loss(part: int, model: nn.Linear = model, samples: torch.Tensor = samples) -> dict[str, torch.Tensor]:
            return {"loss": model(samples[part]).square().mean()}

        train([model], loss, Plan(steps=6, learning_rate=0.1, parts=parts), rows.append)
    torch.testing.assert_close(models[1].weight, models[2].weight)
    assert logged[1][-1]["loss"] == pytest.approx(logged[2][-1]["loss"])


def test_more_gpus_than_parts_are_refused(runtime: Runtime) -> None:
    with pytest.raises(ConfigError, match="stage 'vae' can share its batches among 1 to 1"):
        pretrain_mini.run(runtime, configured(), "run", "vae", gpus=2)


def test_learning_rate_warms_up_stays_and_falls() -> None:
    plan = Plan(steps=100, learning_rate=1.0, warmup_steps=10, decay_share=0.5)
    rates = [learning_rate(step, plan) for step in range(100)]
    assert rates[0] == 0.1
    assert rates[9:51] == [1.0] * 42
    assert rates[75] == 0.5
    assert rates[99] == pytest.approx(0.02)


def test_model_card_names_the_commands_and_what_came_of_them(whole: Path) -> None:
    card = (whole / "mini-qwen-image" / "README.md").read_text()
    commands = [line.strip() for line in card.splitlines() if line.startswith("    python -m harald")]
    assert [line.partition("--stage ")[2] for line in commands] == ["vae", "base"]
    noted = stages.progress(whole)
    assert f"psnr {noted['vae']['metrics']['psnr']}" in card and f"`{noted['base']['config_hash']}`" in card
    assert noted["vae"]["device"].startswith("CPU") and f"| {noted['vae']['device']} |" in card
    assert card.startswith("---\nlibrary_name: diffusers\nlicense: apache-2.0\n")


def test_partial_prompt_leaves_out_phrases_and_groups_of_the_description_only() -> None:
    full = "photo of a man with red hair, a beard and round glasses, wearing a blue shirt, winking, in the park"
    found = {partial(full, "photo of person, winking, in the park", Random(seed)) for seed in range(60)}
    assert full in found
    assert "photo of a man with red hair, winking, in the park" in found
    assert "photo of person with red hair, wearing a blue shirt, winking, in the park" in found
    assert all(text.startswith("photo of ") and text.endswith(", winking, in the park") for text in found)
