"""Person file(s) + prompt(s) -> pictures."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from harald import reporting, runs
from harald.base.kernels import kept_kernels
from harald.config import Config
from harald.errors import ConfigError
from harald.generation.domains import in_domain
from harald.generation.draw import draw
from harald.generation.persons import making_room, without_groups
from harald.injection.prompt import Prompt, check_names, parse
from harald.jobs.loading import base_model
from harald.jobs.person_flags import check_base, common_point, load_persons, person_files
from harald.progress import Progress
from harald.runtime import Runtime

MAX_PICTURES = 256
MAX_STRENGTH = 5.0


@dataclass(frozen=True)
class Scene:
    """A prompt in a domain ('': as the prompt says), and how the names of its pictures begin. text: as it is drawn."""

    text: str
    prompt: Prompt
    domain: str
    prefix: str


def run(
    runtime: Runtime,
    config: Config,
    run_name: str,
    prompt: str = "",
    person: str = "",
    domain: str = "",
    count: int = 1,
    seeds: str = "",
    strength: float = 1.0,
    keep: str = "",
    drop: str = "",
    compare: bool = False,
) -> dict:
    """Every prompt in every domain with every seed. compare: the report shows the same without the persons, too."""
    scenes, numbers = make_scenes(prompt, domain, config), make_seeds(config.seed, count, seeds)
    if not 0 <= strength <= MAX_STRENGTH:
        raise ConfigError(f"--strength is {strength}", f"use 0 to {MAX_STRENGTH:g}; 1 is the person as predicted")
    if (wanted := len(scenes) * len(numbers)) > MAX_PICTURES:
        raise ConfigError(f"prompts, domains and seeds make {wanted} pictures", f"ask for at most {MAX_PICTURES}")
    files = person_files(runtime, person)
    check_mentions([scene.prompt for scene in scenes], set(files))
    persons = load_persons(files, keep, drop)
    point = common_point(persons, files)
    drawings = wanted * (2 if compare else 1)
    folder = runs.open_run(
        runtime, "generate", run_name, config, prompt=prompt, person=person, domain=domain, count=count, seeds=seeds,
        strength=strength, keep=keep, drop=drop, compare=compare, drawings=drawings,
    )  # fmt: skip
    base = base_model(runtime.hf_cache, config)
    check_base(persons, files, base)
    written, sections, left_out = [], [], {}
    progress, steps = Progress(runtime.session, drawings, "picture"), itertools.count(1)

    def told() -> None:
        """After each step of each picture."""
        progress.update(next(steps) // base.drawing.schedule(config.generate.steps, 1.0)[0])

    with kept_kernels(runtime.output / "kernels", "generate"):
        for scene in scenes:
            gone = making_room(scene.prompt, persons) if config.generate.words_win else {}
            present = {name: without_groups(persons[name], gone.get(name, ())).tokens for name in scene.prompt.names}
            pictures = draw(base, scene.prompt, present, numbers, config, scene.domain, point, strength, told)
            plain = draw(base, scene.prompt, {}, numbers, config, scene.domain, point, on_step=told) if compare else []
            for seed, picture in zip(numbers, pictures, strict=True):
                written.append(folder / f"{scene.prefix}seed_{seed}.png")
                picture.save(written[-1])
            won = {name or "person": groups for name, groups in gone.items() if groups}
            sections.append((scene.text, scene.domain, won, rows(numbers, pictures, plain)))
            left_out |= {scene.text: won} if won else {}
    html = reporting.render(
        "generate",
        sections=sections,
        persons={name or "person": sources(parts) for name, parts in files.items()},
        groups={name or "person": [group for group, _ in loaded.groups] for name, loaded in persons.items()},
        strength=strength,
        config=(folder / "config.json").read_text(),
        fingerprint=(folder / "fingerprint.json").read_text(),
    )
    runs.write_text(folder / "report.html", html)
    return {
        "pictures": [str(path) for path in written],
        "point": point,
        "left_out": left_out,  # prompt -> person -> groups that made room for its words
        "report": str(folder / "report.html"),
    }


def make_scenes(prompt: str, domain: str, config: Config) -> list[Scene]:
    """--prompt is a text or a JSON list of texts, --domain one or several with commas, '' for as the prompts say.

    Raises ConfigError or PromptError.
    """
    domains = list(dict.fromkeys(name.strip() for name in domain.split(",") if name.strip()))
    if domain and not domains:
        raise ConfigError(f"--domain is {domain!r}", "use one such as photo, or several: photo,comic")
    texts, scenes = make_texts(prompt), []
    for name in domains:
        runs.safe_name(name, "--domain")
    for number, text in enumerate(texts, 1):
        for name in domains or [""]:
            whole = in_domain(text, name, config)
            prefix = (f"prompt_{number:02d}_" if len(texts) > 1 else "") + (f"{name}_" if len(domains) > 1 else "")
            scenes.append(Scene(whole, parse(whole), name, prefix))
    return scenes


def make_texts(prompt: str) -> list[str]:
    if not prompt.lstrip().startswith("["):
        return [prompt]
    try:
        texts = json.loads(prompt)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"--prompt begins with [ and is not JSON ({error}): {prompt!r}", """write '["<person> A", "<person> B"]'"""
        ) from error
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"--prompt is a list without texts, or of other things than texts: {prompt!r}", "use texts")
    return texts


def make_seeds(first: int, count: int, seeds: str) -> list[int]:
    """--seeds 3,7,11; without it --seed and the count - 1 that follow it. Raises ConfigError."""
    if not seeds:
        if not 1 <= count <= MAX_PICTURES:
            raise ConfigError(f"--count is {count}", f"use 1 to {MAX_PICTURES}")
        return [first + i for i in range(count)]
    if count != 1:
        raise ConfigError(f"--count {count} and --seeds {seeds!r}", "give one of the two")
    pieces = [piece.strip() for piece in seeds.split(",")]
    if not all(piece.isdecimal() and len(piece) < 20 and int(piece) < 2**63 for piece in pieces):
        raise ConfigError(f"--seeds is {seeds!r}", "use integers from 0 to 2^63 - 1 with commas between them")
    return list(dict.fromkeys(map(int, pieces)))


def check_mentions(prompts: list[Prompt], known: set[str]) -> None:
    """Every placeholder has a person file, and every person file is mentioned in a prompt. Raises PromptError."""
    mentioned = {name for prompt in prompts for name in prompt.names}
    for prompt in prompts:
        check_names(prompt, known - (mentioned - set(prompt.names)))


def sources(parts: list[tuple[Path, float]]) -> str:
    """The file, or the mix of files, as it was typed."""
    return str(parts[0][0]) if len(parts) == 1 else " + ".join(f"{path} * {weight:g}" for path, weight in parts)


def rows(seeds: list[int], pictures: list[Image.Image], plain: list[Image.Image]) -> list[tuple[int, list[str]]]:
    """(seed, the picture, and the one without the persons where there is one)."""
    arms = [pictures, plain] if plain else [pictures]
    return [
        (seed, [reporting.embed(picture, 768) for picture in row])
        for seed, row in zip(seeds, zip(*arms, strict=True), strict=True)
    ]
