"""--person, --keep and --drop: which persons stand in the prompts, and which of their groups."""

from pathlib import Path

from harald.base import BaseModel
from harald.errors import ConfigError, PersonFileError
from harald.generation.persons import mixed, without_groups
from harald.injection.person_file import check_fits, load_person
from harald.injection.prompt import ANY
from harald.records import PersonTokens
from harald.runtime import Runtime

Files = dict[str, list[tuple[Path, float]]]  # name of a person -> the files it is mixed from, with their weights


def person_files(runtime: Runtime, person: str) -> Files:
    """FILE is the plain <person>, name=FILE is <person:name>; FILE+FILE or FILE*0.7+FILE*0.3 is a mix of files.

    A run of predict_tokens stands for its file.
    """
    files: Files = {}
    for piece in _pieces(person):
        name, equals, value = piece.partition("=")
        name, value = (name.strip(), value.strip()) if equals else (ANY, piece)
        if name in files:
            raise ConfigError(f"--person names {_shown(name)} twice: {person!r}", "give every person a name of its own")
        whole = _path(runtime, value)
        files[name] = [(whole, 1.0)] if whole.is_file() else [_weighted(runtime, part) for part in value.split("+")]
    if not files:
        raise PersonFileError("--person is empty", "give the person file that predict_tokens wrote, or its run's name")
    return files


def load_persons(files: Files, keep: str, drop: str) -> dict[str, PersonTokens]:
    """name -> tokens: mixed where several files are given, without the groups that are not wanted."""
    persons = {name: mixed([(load_person(path), weight) for path, weight in parts]) for name, parts in files.items()}
    kept, dropped = (group_choice(flag, text, set(files)) for flag, text in (("--keep", keep), ("--drop", drop)))
    for name, person in persons.items():
        known = {group for group, _ in person.groups}
        unknown = kept[name] - known  # named to without_groups, which says what is known
        unwanted = (known - kept[name] if kept[name] else set()) | dropped[name] | unknown
        if unwanted:
            persons[name] = without_groups(person, sorted(unwanted))
    common_point(persons, files)
    return persons


def group_choice(flag: str, text: str, names: set[str]) -> dict[str, set[str]]:
    """name of a person -> groups. 'hair,worn' speaks of every person, 'anna=hair+worn' of one."""
    choice: dict[str, set[str]] = {name: set() for name in names}
    for piece in _pieces(text):
        name, equals, value = piece.partition("=")
        name, groups = (name.strip(), value.split("+")) if equals else (ANY, [piece])
        if equals and name not in names:
            raise ConfigError(f"{flag} speaks of {_shown(name)}, who is not in --person", f"it is {text!r}; correct it")
        for person in [name] if equals else names:
            choice[person] |= {group.strip() for group in groups}
    return choice


def check_base(persons: dict[str, PersonTokens], files: Files, base: BaseModel) -> None:
    """Raises PersonFileError for a file of another base model."""
    for name, person in persons.items():
        check_fits(person, base, files[name][0][0])


def common_point(persons: dict[str, PersonTokens], files: Files) -> str:
    """Raises PersonFileError if the files were made for different injection points."""
    points = {person.point for person in persons.values()}
    if len(points) > 1:
        detail = ", ".join(f"{files[name][0][0]}: {person.point}" for name, person in persons.items())
        raise PersonFileError(f"the person files use different injection points ({detail})", "use files of one encoder")
    return points.pop()


def _pieces(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def _shown(name: str) -> str:
    return f"<person:{name}>" if name else "the plain <person>"


def _weighted(runtime: Runtime, text: str) -> tuple[Path, float]:
    """FILE or FILE*0.7."""
    value, star, number = text.strip().rpartition("*")
    if not star:
        return _path(runtime, text.strip()), 1.0
    try:
        return _path(runtime, value.strip()), float(number)
    except ValueError as error:
        raise ConfigError(f"--person has the weight {number!r} in {text!r}", "write FILE*0.7") from error


def _path(runtime: Runtime, value: str) -> Path:
    candidates = (Path(value), runtime.root / value, runtime.output / "predict_tokens" / value / "person.safetensors")
    return next((path for path in candidates if path.is_file()), candidates[0])
