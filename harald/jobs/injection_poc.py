"""The proof that comes first: does a person pass through the injection point of the frozen base model at all?

(a) No tokens: byte for byte the stock pipeline's picture. (b) A prompt's own states, injected, give its picture.
(c) K vectors optimised on one state, at each injection point. (d) One forward pass of a trained encoder beside it.
"""

import dataclasses
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from harald import reporting, runs
from harald.base.qwen_image import QwenImage
from harald.config import Config, Point
from harald.data.images import load_picture, within_pixels
from harald.data.index import find_state, states_for
from harald.errors import TrainingError
from harald.generation.draw import draw
from harald.injection.person_file import save_person
from harald.injection.points import condition, insert, plain
from harald.injection.prompt import ANY, parse
from harald.jobs.loading import as_trained, base_model, find_trained, trained_encoder, training_of
from harald.progress import Progress
from harald.records import PersonTokens, State
from harald.runtime import Runtime
from harald.training.inversion import invert, probe_loss, probe_targets

log = logging.getLogger(__name__)

POINTS: tuple[Point, ...] = ("output", "input")  # and the configuration's own


@dataclass(frozen=True)
class Check:
    """Two pictures that must be the same bytes, or, as a control, must not."""

    name: str
    says: str
    expected: Image.Image
    got: Image.Image
    must_equal: bool = True

    @property
    def equal(self) -> bool:
        return self.expected.size == self.got.size and self.expected.tobytes() == self.got.tobytes()

    @property
    def holds(self) -> bool:
        return self.equal == self.must_equal


@dataclass(frozen=True)
class Arm:
    """One way to come by the person's tokens: what it cost, and how well a view is predicted that it has not seen."""

    name: str
    point: Point
    tokens: Tensor | None
    seconds: float
    steps: int
    memory: float
    held_out: float
    curve: list[dict[str, float]]
    word: str = ""  # what stands for <person> where there are no tokens; empty: the class word
    encoder: str = ""  # whose tokens these are, where they were predicted
    groups: tuple[tuple[str, int], ...] = ()  # of that encoder; empty: the configuration's


class Cost:
    """Seconds, and on a GPU the peak of its memory in GiB (0 on a CPU), of what runs inside the `with`."""

    seconds = gigabytes = 0.0

    def __enter__(self) -> "Cost":
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.gigabytes = torch.cuda.max_memory_allocated() / 2**30
        self.seconds = time.perf_counter() - self.began


def run(runtime: Runtime, config: Config, run_name: str, state_id: str = "", train_run: str = "") -> dict:
    """train_run: whose encoder is shown beside the optimised tokens; without it that of models.trained, if any."""
    states = states_for(runtime, config)
    state = find_state(states, state_id) if state_id else states[0]
    folder = runs.open_run(runtime, "injection_poc", run_name, config, state_id=state.state_id, train_run=train_run)
    base = base_model(runtime.hf_cache, config, as_published=True)
    checks = [
        same_without_tokens(base, state, config),
        *(same_with_own_states(base, state, point, config) for point in points(config)),
    ]
    says = "another prompt gives other bytes: the checks above could fail"
    checks.append(Check("(control)", says, checks[0].got, checks[1].got, must_equal=False))
    for check in checks:
        log.info(
            "%s: %s bytes, as %s be",
            check.name,
            "same" if check.equal else "other",
            "must" if check.holds else "must NOT",
        )
    arms = make_arms(runtime, base, state, config, train_run)
    for arm in arms:
        if arm.tokens is not None:
            save_person(folder / f"{slug(arm.name)}.safetensors", person(base, arm, state, config))
    pictures = {arm.name: scenes(base, arm, state, config) for arm in arms}
    for name, row in pictures.items():
        for number, picture in enumerate(row):
            picture.save(folder / f"{slug(name)}_scene_{number}.png")
    runs.write_json(folder / "metrics.json", metrics(state, checks, arms))
    runs.write_text(folder / "report.html", report(folder, state, checks, arms, pictures, config))
    if broken := [check.name for check in checks if not check.holds]:
        raise TrainingError(f"the injection is not sound: {'; '.join(broken)}", f"see {folder / 'report.html'}")
    return {
        "state": state.state_id,
        "held_out_loss": {a.name: a.held_out for a in arms},
        "report": str(folder / "report.html"),
    }


def points(config: Config) -> list[Point]:
    return list(dict.fromkeys((*POINTS, config.injection.point)))


# ------------------------------------------------------------ (a) and (b): the injection changes nothing by itself
def same_without_tokens(base: QwenImage, state: State, config: Config) -> Check:
    """(a) Ours without a person, against the stock pipeline with the class word in the prompt."""
    prompt = parse(state.views[0].person_prompt)
    text = prompt.with_word(config.injection.class_word)
    ours = draw(base, prompt, {}, [config.seed], config, "photo")[0]
    return Check("(a) no tokens", f"our picture is the stock pipeline's for “{text}”", stock(base, text, config), ours)


def same_with_own_states(base: QwenImage, state: State, point: str, config: Config) -> Check:
    """(b) The words of a prompt, taken out and injected again, give the picture of the prompt."""
    words, settings = "a young woman with long red hair", config.generate
    prompt = parse(state.views[0].person_prompt)
    text = prompt.with_word(words)
    with torch.no_grad():
        full = plain(base, text)
        ids = base.tokenize((" " if prompt.texts[0].endswith(" ") else "") + words)
        start = len(base.tokenize(text[: prompt.spans(words)[0][0]].rstrip(" ")))
        said, read = base.word_embeddings(torch.tensor(ids)), full[start : start + len(ids)]
        if point == "output":
            states = insert(torch.cat([full[:start], full[start + len(ids) :]]), read, start)
        else:
            own = torch.cat([said, read], -1) if point == "both" else said
            states = condition(base, prompt, {ANY: own}, point, "")
    with torch.no_grad():
        negative = plain(base, settings.negative_prompt)
    base.use_domain("photo")
    ours = base.draw(states, negative, [config.seed], settings.size, settings.steps, settings.guidance)[0]
    return Check(
        f"(b) own states, {point} point",
        f"“{words}” as injected vectors is the prompt “{text}”",
        stock(base, text, config),
        ours,
    )


def stock(base: QwenImage, text: str, config: Config) -> Image.Image:
    """The picture of diffusers' own pipeline, called as its documentation says."""
    settings = config.generate
    base.use_domain("photo")
    return base.pipeline(
        text,
        negative_prompt=settings.negative_prompt,
        true_cfg_scale=settings.guidance,
        height=settings.size,
        width=settings.size,
        num_inference_steps=settings.steps,
        generator=torch.Generator("cpu").manual_seed(config.seed),
        max_sequence_length=1024,
    ).images[0]


# ------------------------------------------------------------ (c) and (d): tokens, and what they cost
def make_arms(runtime: Runtime, base: QwenImage, state: State, config: Config, train_run: str) -> list[Arm]:
    """No tokens, the person in words, Textual Inversion at every point, and one pass of the encoder if there is one.

    One view is held out from all.
    """
    seen, held_out = state.views[:-1], state.views[-1:]
    arms = []
    probe = probe_targets(base, held_out, config)
    arms.append(Arm("no tokens", config.injection.point, None, 0.0, 0, 0.0, probe_loss(base, None, probe, config), []))
    if state.person:
        loss = probe_loss(base, None, probe, saying(config, state.person))
        arms.append(Arm("described in words", config.injection.point, None, 0.0, 0, 0.0, loss, [], state.person))
    steps = config.poc.steps
    progress = Progress(runtime.session, len(points(config)) * steps, "step")
    for number, point in enumerate(points(config)):

        def told(step: int, said: str, before: int = number * steps) -> None:
            progress.update(before + step, said)

        with Cost() as cost:
            (tokens,), curve = invert(base, [seen], [held_out], point, config, told)
        name = f"optimised, {point} point"
        arms.append(Arm(name, point, tokens, cost.seconds, steps, cost.gigabytes, curve[-1]["held_out"], curve))
    if not (train_run or config.models.trained):
        return arms
    source = find_trained(runtime, config, train_run)
    encoder, name = trained_encoder(runtime.hf_cache, config, source)
    references = [
        within_pixels(load_picture(v.image), encoder.config.max_pixels) for v in seen[: config.train.max_references]
    ]
    with Cost() as cost, torch.no_grad():
        tokens = encoder([references])[0]
    own = as_trained(config, encoder, training_of(runtime.hf_cache, source))
    loss = probe_loss(base, tokens[None], probe_targets(base, held_out, own), own)
    arms.append(
        Arm(
            "encoder, one pass", encoder.point, tokens, cost.seconds, 1, cost.gigabytes, loss, [],
            encoder=name, groups=encoder.config.groups,
        )
    )  # fmt: skip
    return arms


def saying(config: Config, word: str) -> Config:
    """The config with another class word, if any."""
    return (
        dataclasses.replace(config, injection=dataclasses.replace(config.injection, class_word=word))
        if word
        else config
    )


def scenes(base: QwenImage, arm: Arm, state: State, config: Config) -> list[Image.Image]:
    """New scenes in every domain of the state with the arm's tokens or words, the same seed in every arm."""
    persons = {} if arm.tokens is None else {ANY: arm.tokens}
    drawn = []
    for domain in reversed(state.domains):
        for scene in config.poc.scenes:
            prompt = parse(f"{domain} of <person>, {scene}")
            drawn += draw(base, prompt, persons, [config.seed], saying(config, arm.word), domain, arm.point)
    return drawn


def person(base: QwenImage, arm: Arm, state: State, config: Config) -> PersonTokens:
    assert arm.tokens is not None
    return PersonTokens(
        tokens=arm.tokens.cpu(),
        groups=arm.groups or config.encoder.groups,
        point=arm.point,
        base=base.repo,
        references=len(state.views) - 1,
        encoder=arm.encoder or arm.name,
        notes={"state_id": state.state_id},
    )


# ------------------------------------------------------------ what is written
def metrics(state: State, checks: list[Check], arms: list[Arm]) -> dict:
    return {
        "state_id": state.state_id,
        "checks": {check.name: check.holds for check in checks},
        "arms": [{k: v for k, v in vars(arm).items() if k not in ("tokens",)} for arm in arms],
    }


def report(folder: Path, state: State, checks: list[Check], arms: list[Arm], pictures: dict, config: Config) -> str:
    def series(field: str) -> dict[str, list[tuple[float, float]]]:
        return {a.name: [(r["step"], r[field]) for r in a.curve if field in r] for a in arms if a.curve}

    return reporting.render(
        "injection_poc",
        state=state,
        references=[(v.name, reporting.embed_file(v.image, 256)) for v in state.views],
        checks=[(c, reporting.embed(c.expected, 256), reporting.embed(c.got, 256)) for c in checks],
        random_weights=config.models.base.recipe.startswith("tiny_"),
        arms=arms,
        floor=arms[0].held_out,
        loss_curve=reporting.curves(
            {n: smooth(p) for n, p in series("loss").items()}, "step", "loss (mean of 10 steps)"
        ),
        held_out_curve=reporting.curves(series("held_out"), "step", "loss on the held-out view"),
        scenes=[f"{domain}, {scene}" for domain in reversed(state.domains) for scene in config.poc.scenes],
        pictures=[(name, [reporting.embed(p, 256) for p in row]) for name, row in pictures.items()],
        config=(folder / "config.json").read_text(),
        fingerprint=(folder / "fingerprint.json").read_text(),
    )


def smooth(points: list[tuple[float, float]], width: int = 10) -> list[tuple[float, float]]:
    return [
        (x, sum(y for _, y in points[max(0, i - width + 1) : i + 1]) / min(i + 1, width))
        for i, (x, _) in enumerate(points)
    ]


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name).strip("_")
