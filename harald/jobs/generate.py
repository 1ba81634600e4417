"""Person file(s) + prompt -> pictures."""

from pathlib import Path

from harald import reporting, runs
from harald.config import Config
from harald.errors import ConfigError, PersonFileError
from harald.generation.draw import draw
from harald.injection.person_file import check_fits, load_person
from harald.injection.prompt import ANY, check_names, parse
from harald.jobs.loading import base_model
from harald.records import PersonTokens
from harald.runtime import Runtime

MAX_COUNT = 64


def run(
    runtime: Runtime,
    config: Config,
    run_name: str,
    prompt: str = "",
    person: str = "",
    domain: str = "photo",
    count: int = 1,
) -> dict:
    """count pictures with the seeds seed, seed + 1, ...; beside each the same seed without the person."""
    if not 1 <= count <= MAX_COUNT:
        raise ConfigError(f"--count is {count}", f"use 1 to {MAX_COUNT}")
    parsed = parse(prompt)
    files = person_files(runtime, person)
    check_names(parsed, set(files))
    persons = {name: load_person(path) for name, path in files.items()}
    point = common_point(persons, files)
    folder = runs.open_run(
        runtime, "generate", run_name, config, prompt=prompt, person=person, domain=domain, count=count
    )
    base = base_model(runtime.hf_cache, config)
    for name, loaded in persons.items():
        check_fits(loaded, base, files[name])
    seeds = [config.seed + i for i in range(count)]
    tokens = {name: loaded.tokens for name, loaded in persons.items()}
    pictures = draw(base, parsed, tokens, seeds, config, domain, point)
    plain = draw(base, parsed, {}, seeds, config, domain, point)
    for seed, picture in zip(seeds, pictures, strict=True):
        picture.save(folder / f"seed_{seed}.png")
    html = reporting.render(
        "generate",
        prompt=prompt,
        persons={name or "person": str(path) for name, path in files.items()},
        rows=[
            (s, reporting.embed(a, 768), reporting.embed(b, 768))
            for s, a, b in zip(seeds, pictures, plain, strict=True)
        ],
        config=(folder / "config.json").read_text(),
        fingerprint=(folder / "fingerprint.json").read_text(),
    )
    runs.write_text(folder / "report.html", html)
    files_written = [str(folder / f"seed_{seed}.png") for seed in seeds]
    return {"pictures": files_written, "point": point, "report": str(folder / "report.html")}


def person_files(runtime: Runtime, person: str) -> dict[str, Path]:
    """FILE is the plain <person>, name=FILE is <person:name>. A run of predict_tokens stands for its file."""
    files: dict[str, Path] = {}
    for piece in filter(None, (text.strip() for text in person.split(","))):
        name, equals, value = piece.partition("=")
        name, value = (name.strip(), value.strip()) if equals else (ANY, piece)
        if name in files:
            raise ConfigError(
                f"--person names {name or 'the plain <person>'} twice: {person!r}",
                "give every person a name of its own",
            )
        candidates = (
            Path(value),
            runtime.root / value,
            runtime.output / "predict_tokens" / value / "person.safetensors",
        )
        files[name] = next((path for path in candidates if path.is_file()), candidates[0])
    if not files:
        raise PersonFileError("--person is empty", "give the person file that predict_tokens wrote, or its run's name")
    return files


def common_point(persons: dict[str, PersonTokens], files: dict[str, Path]) -> str:
    """Raises PersonFileError if the files were made for different injection points."""
    points = {person.point for person in persons.values()}
    if len(points) > 1:
        detail = ", ".join(f"{files[name]}: {person.point}" for name, person in persons.items())
        raise PersonFileError(f"the person files use different injection points ({detail})", "use files of one encoder")
    return points.pop()
