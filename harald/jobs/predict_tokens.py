"""Pictures of a person -> a person file; or several person files -> their mix, as a file of its own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from harald import runs
from harald.config import Config
from harald.data.images import load_picture
from harald.data.index import find_state, states_for
from harald.data.latents import picture_hash
from harald.data.prompts import PLACEHOLDER
from harald.encoder.predict import predict
from harald.errors import ConfigError, DatasetError
from harald.generation.domains import in_domain, undescribed
from harald.injection.person_file import save_person
from harald.injection.prompt import ANY
from harald.jobs.loading import as_trained, base_model, find_trained, trained_encoder, training_of
from harald.jobs.person_flags import load_persons, person_files
from harald.progress import Progress
from harald.records import PersonTokens, View
from harald.runtime import Runtime
from harald.training.inversion import refined

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def run(
    runtime: Runtime,
    config: Config,
    run_name: str,
    train_run: str = "",
    state_id: str = "",
    images: str = "",
    references: int = 0,
    person: str = "",
    refine: int = 0,
    domain: str = "",
) -> dict:
    """Exactly one of state_id, images and person. references: use at most this many pictures, 0 for all.

    person: files to mix, as generate takes them; no encoder is loaded. refine: steps, in place of refine.steps; domain:
    of images, which the base model is told while it refines; empty: photo.
    """
    if refine < 0:
        raise ConfigError(f"--refine is {refine}", "use 0 (off) or more, such as 10")
    if domain and not (images and (refine or config.refine.steps)):
        raise ConfigError(f"--domain is {domain!r}", "it is for --images with --refine: what the pictures are")
    if sum(map(bool, (state_id, images, person))) != 1:
        raise ConfigError(
            f"--state-id {state_id!r}, --images {images!r} and --person {person!r}", "give exactly one of the three"
        )
    if references < 0:
        raise ConfigError(f"--references is {references}", "use 1 or more, or 0 for all")
    if person and refine:
        raise ConfigError(f"--person {person!r} with --refine {refine}", "refine each file before they are mixed")
    if person:
        return mix(runtime, config, run_name, person, train_run, references)
    if refine:
        config = dataclasses.replace(config, refine=dataclasses.replace(config.refine, steps=refine))
    views = find_views(runtime, images, domain or "photo") if images else state_views(runtime, config, state_id)
    views = views[: references or None]
    facts = check_domain(views, config) if config.refine.steps else {}
    trained = find_trained(runtime, config, train_run)
    encoder, name = trained_encoder(runtime.hf_cache, config, trained)
    pictures = [picture_hash(view.image) for view in views]
    folder = runs.open_run(runtime, "predict_tokens", run_name, config, encoder=name, pictures=pictures, **facts)
    made = predict(encoder, [load_picture(view.image) for view in views], name)
    if config.refine.steps:
        made = better(runtime, as_trained(config, encoder, training_of(runtime.hf_cache, trained)), made, views)
    return save(folder, made)


def check_domain(views: Sequence[View], config: Config) -> dict[str, str]:
    """The one domain of the pictures. Raises ConfigError if there are several, or one that the base model has no word
    for.
    """
    domains = sorted({view.domain for view in views})
    if len(domains) > 1:
        raise ConfigError(
            f"the pictures are of the domains {domains}", "refine on pictures of one: give them as --images"
        )
    in_domain(PLACEHOLDER, domains[0], config)
    return {"domain": domains[0]}


def better(runtime: Runtime, config: Config, person: PersonTokens, views: Sequence[View]) -> PersonTokens:
    """Refined on the pictures, which are of one domain."""
    base = base_model(runtime.hf_cache, config, as_published=True)
    base.use_domain(views[0].domain)
    steps, progress = config.refine.steps, Progress(runtime.session, config.refine.steps, "step")
    seen = undescribed(views, config)
    (tokens,) = refined(base, person.tokens[None], [seen], config.injection.point, config, progress.update)
    notes = {"refined": f"{steps} steps on {len(views)} pictures"}
    return dataclasses.replace(person, tokens=tokens.cpu(), notes=person.notes | notes)


def mix(runtime: Runtime, config: Config, run_name: str, person: str, train_run: str, references: int) -> dict:
    """A mix of person files as a file: what generate draws with `--person <the mix>`. Its notes name its parts."""
    if train_run or references:
        raise ConfigError(
            f"--person {person!r} with --train-run {train_run!r} and --references {references}",
            "leave out the two: a mix is made of files, not of pictures",
        )
    files = person_files(runtime, person)
    if set(files) != {ANY} or len(files[ANY]) < 2:
        raise ConfigError(f"--person {person!r} is not one mix", "write FILE*0.7+FILE*0.3, or FILE+FILE for their mean")
    mixed = load_persons(files, keep="", drop="")[ANY]
    folder = runs.open_run(runtime, "predict_tokens", run_name, config, encoder=mixed.encoder, **mixed.notes)
    return save(folder, mixed)


def save(folder: Path, person: PersonTokens) -> dict:
    """The file and the facts about it."""
    save_person(folder / "person.safetensors", person)
    return {
        "tokens": list(person.tokens.shape),
        "point": person.point,
        "encoder": person.encoder,
        "references": person.references,
        **person.notes,
        "person": str(folder / "person.safetensors"),
    }


def state_views(runtime: Runtime, config: Config, state_id: str) -> list[View]:
    """The state's pictures, at most as many as the encoder was trained to read at once."""
    state = find_state(states_for(runtime, config), state_id)
    return list(state.views[: config.train.max_references])


def find_views(runtime: Runtime, images: str, domain: str) -> list[View]:
    """Pictures of a domain that nobody has described. Raises DatasetError."""
    paths = find_images(runtime, images)
    return [View(domain, n, path, "", "", *load_picture(path).size) for n, path in enumerate(paths, 1)]


def find_images(runtime: Runtime, images: str) -> list[Path]:
    """Comma-separated files and folders, absolute or below the root that stands for /mnt (or the current folder)."""
    found: list[Path] = []
    for piece in filter(None, (text.strip() for text in images.split(","))):
        path = next((p for p in (Path(piece), runtime.root / piece) if p.exists()), None)
        if path is None:
            raise DatasetError(
                f"there is no picture or folder {piece!r}", f"give a path, absolute or below {runtime.root}"
            )
        found += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not found:
        raise DatasetError(f"no pictures in {images!r}", f"give files or a folder with {', '.join(sorted(SUFFIXES))}")
    return found
