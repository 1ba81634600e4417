"""The one door to Hugging Face loading: always `token=hf_token`, `cache_dir=HF_CACHE` and a pinned revision.

A test walks the syntax tree of the package and fails on any other call of a loading function.
"""

import hashlib
import json
import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import diffusers
import transformers
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import WeakFileLock
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from harald.config import HF_TOKEN_VARIABLE, LoraRef, ModelRef
from harald.errors import ModelError
from harald.published.checkpoint import damaged_files, is_damaged
from harald.published.lora import misfits
from harald.runs import safe_name, write_json, write_text

try:  # the HTTP client of huggingface_hub 2 and of 1
    from httpx2 import TransportError
except ImportError:
    from httpx import TransportError

log = logging.getLogger(__name__)

RECORD = "harald_revisions.json"  # in the cache: {repository: {asked revision: commit}}


def hf_token() -> str | None:
    """The token of HF_SECRET. huggingface_hub itself reads another variable, so it is handed over at every call."""
    return os.environ.get(HF_TOKEN_VARIABLE) or None


def revision(cache: Path, repo: str, asked: str) -> str:
    """The commit that `download_models` recorded for the asked revision, else the asked revision."""
    file = cache / RECORD
    record = json.loads(file.read_text()) if file.exists() else {}
    return record.get(repo, {}).get(asked, asked)


def is_cached(cache: Path, ref: ModelRef) -> bool:
    """Whether the repository is there, complete and undamaged."""
    folder = _local_snapshot(cache, ref.repo, ref.revision)
    return folder is not None and not missing_files(folder) and not damaged_files(folder)


def snapshot(cache: Path, ref: ModelRef) -> Path:
    """The complete local folder of a repository. Raises ModelError if it is missing, half-downloaded or damaged."""
    folder = _local_snapshot(cache, ref.repo, ref.revision)
    if folder is None:
        raise ModelError(
            f"{ref.repo} (revision {ref.revision}) is not in the cache {cache}", "run download_models first"
        )
    if missing := missing_files(folder):
        raise ModelError(
            f"{ref.repo} in the cache {cache} is half-downloaded: missing {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else ""),
            "run download_models again, it fetches what is missing",
        )
    if damaged := damaged_files(folder):
        raise ModelError(
            f"{ref.repo} in the cache {cache} is damaged: {', '.join(damaged[:3])}"
            + (f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""),
            "run download_models again, it fetches damaged files anew",
        )
    return folder


def load(factory: Any, cache: Path, ref: ModelRef, subfolder: str = "", **options: Any) -> Any:
    """`factory.from_pretrained` of a cached repository: a model, a tokenizer, an image processor or a pipeline.

    Raises ModelError if a tensor has another shape than the configuration says, and if the files lack one: the
    libraries put random numbers in its place and go on.
    """
    folder = snapshot(cache, ref)
    transformers_logging.disable_progress_bar()  # "loading weights" bars are noise in a container's log
    diffusers_logging.disable_progress_bar()
    if issubclass(factory, DiffusionPipeline):
        options |= {name: load(part, cache, ref, name, **options) for name, part in _models(folder).items()}
    is_model = issubclass(factory, (PreTrainedModel, ModelMixin))
    try:
        loaded = factory.from_pretrained(
            ref.repo,
            revision=revision(cache, ref.repo, ref.revision),
            cache_dir=str(cache),
            token=hf_token(),
            local_files_only=True,
            **({"subfolder": subfolder} if subfolder else {}),
            **({"output_loading_info": True} if is_model else {}),
            **options,
        )
    except (RuntimeError, ValueError) as error:
        if "shape" not in str(error) and "size" not in str(error):
            raise
        raise ModelError(
            f"{'/'.join(filter(None, (ref.repo, subfolder)))} (revision {ref.revision}) holds a tensor that does not "
            f"fit {factory.__name__} of its configuration: {str(error).strip().splitlines()[0]}",
            "its files belong to different versions: run doctor, then download_models",
        ) from error
    return _whole(loaded, ref, subfolder) if is_model else loaded


def _models(folder: Path) -> dict[str, Any]:
    """Name -> class of a pipeline's parts that have weights."""
    libraries = {"diffusers": diffusers, "transformers": transformers}
    index = json.loads((folder / "model_index.json").read_text())
    parts = {name: kind for name, kind in index.items() if isinstance(kind, list) and kind[0] in libraries}
    classes = {name: getattr(libraries[library], kind) for name, (library, kind) in parts.items()}
    return {name: kind for name, kind in classes.items() if issubclass(kind, (PreTrainedModel, ModelMixin))}


def _whole(loaded: tuple[Any, dict[str, Any]], ref: ModelRef, subfolder: str) -> Any:
    """The model of what `from_pretrained` returns with loading info."""
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        place = "/".join(filter(None, (ref.repo, subfolder)))
        raise ModelError(
            f"{place} (revision {ref.revision}) lacks {len(missing)} tensors of {type(model).__name__}, "
            f"first {missing[0]}",
            "use a revision that belongs to this class, or run doctor: it compares the files with what is published",
        )
    return model


def load_lora(pipeline: Any, cache: Path, lora: LoraRef, name: str) -> None:
    """Load a LoRA, from a repository or a file inside the cache, into the pipeline's transformer as adapter `name`.

    Raises ModelError if it does not fit the transformer.
    """
    file = lora_file(cache, lora)
    if problems := misfits(file, pipeline.transformer):
        raise ModelError(
            f"the LoRA {lora.source} ({file.name}) does not fit {type(pipeline.transformer).__name__}: {problems[0]}",
            "set models.lora.source to a LoRA for this base model, in the format of diffusers or of kohya",
        )
    pipeline.load_lora_weights(
        str(file.parent), weight_name=file.name, adapter_name=name, cache_dir=str(cache), token=hf_token(),
        revision=None, use_safetensors=True,
    )  # fmt: skip


def lora_file(cache: Path, lora: LoraRef) -> Path:
    """The one .safetensors file that is meant. Raises ModelError if there is none, or no way to tell which."""
    file = (cache / lora.source).resolve()
    if file.is_file():
        if not file.is_relative_to(cache.resolve()):
            raise ModelError(
                f"models.lora.source is {lora.source!r}, outside of the cache {cache}", "put the file inside"
            )
        if file.suffix != ".safetensors":
            raise ModelError(f"models.lora.source is {lora.source!r}", "use a .safetensors file, nothing else is read")
        if is_damaged(file):
            raise ModelError(f"models.lora.source is {lora.source!r}, a damaged file", "copy it into the cache again")
        return file
    folder = snapshot(cache, ModelRef(lora.source, lora.revision))
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    wanted = [name for name in names if lora.weight_name in ("", name)]
    if len(wanted) != 1:
        raise ModelError(
            f"models.lora.weight_name is {lora.weight_name!r}, the repository {lora.source} holds {', '.join(names)}",
            "name one of them",
        )
    return folder / wanted[0]


def download(cache: Path, repo: str, asked: str, patterns: list[str] | None = None) -> str:
    """Fetch a repository into the cache and record its commit. Returns the commit; raises ModelError."""
    token = hf_token()
    if not token:
        raise ModelError(
            f"{HF_TOKEN_VARIABLE} is not set, but {repo} must be downloaded",
            f"modal secret create HF_SECRET {HF_TOKEN_VARIABLE}=hf_...   (locally: export {HF_TOKEN_VARIABLE}=hf_...)",
        )
    try:
        commit = HfApi(token=token).model_info(repo, revision=asked).sha or asked
        _drop_damaged(cache, repo, asked)
        snapshot_download(repo, revision=commit, cache_dir=str(cache), token=token, allow_patterns=patterns)
    except GatedRepoError as error:
        raise ModelError(f"{repo} is gated and the token has no access", "accept its terms on its page") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"the repository {repo} does not exist or is private", "check models.*.repo and the token"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repo} has no revision {asked!r}", "check models.*.revision") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, TransportError, OSError) as error:
        raise ModelError(
            f"{repo} cannot be downloaded: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "check the network and the token, then run download_models again: it goes on where it stopped",
        ) from error
    record(cache, repo, asked, commit)
    return commit


def _drop_damaged(cache: Path, repo: str, asked: str) -> None:
    """Delete damaged files, links and all: a file that exists is never fetched again."""
    folder = _local_snapshot(cache, repo, asked)
    if folder is None:
        return
    for name in damaged_files(folder):
        log.warning("%s: %s is damaged and fetched anew", repo, name)
        (folder / name).resolve().unlink()
        (folder / name).unlink(missing_ok=True)


def record(cache: Path, repo: str, asked: str, commit: str) -> None:
    """Remember which commit stands for the asked revision, so that later runs use the same one."""
    file = cache / RECORD
    cache.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(cache / f".{RECORD}.lock"):  # as huggingface_hub locks its cache
        known = json.loads(file.read_text()) if file.exists() else {}
        known.setdefault(repo, {})[asked] = commit
        write_json(file, known)


def commit_of(folder: Path) -> str:
    """That which `install` gives."""
    return _commit(_hashes(folder))


def _hashes(folder: Path) -> dict[str, str]:
    """Name of each file -> SHA-256 of its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _commit(hashes: dict[str, str]) -> str:
    return hashlib.sha1(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def install(cache: Path, repo: str, folder: Path) -> str:
    """Put a folder made by us into the cache as a repository, in the real layout. Returns its commit.

    The commit is a hash of names and contents: the same files give the same commit. The snapshot appears by one rename,
    and several processes may install the same at once.
    """
    hashes = _hashes(folder)
    commit = _commit(hashes)
    place = home(cache, repo)
    temporary = place / f".{uuid.uuid4().hex}.tmp"
    (place / "blobs").mkdir(parents=True, exist_ok=True)
    for name, digest in hashes.items():
        blob = place / "blobs" / digest
        if not blob.exists():
            part = place / "blobs" / f"{digest}.{uuid.uuid4().hex}.tmp"
            shutil.copyfile(folder / name, part)
            os.replace(part, blob)
        link = temporary / name
        link.parent.mkdir(parents=True, exist_ok=True)
        final = place / "snapshots" / commit / name
        link.symlink_to(os.path.relpath(blob, final.parent))
    target = place / "snapshots" / commit
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(temporary, target)
    except OSError:  # it is there already
        if not target.is_dir():
            raise
        shutil.rmtree(temporary)
    (place / "refs").mkdir(exist_ok=True)
    write_text(place / "refs" / "main", commit)
    record(cache, repo, "main", commit)
    return commit


def missing_files(folder: Path) -> list[str]:
    """What a complete snapshot has: targets of its links, shards that an index names, parts that a pipeline names."""
    missing = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_symlink() and not p.exists()]
    for index in sorted(folder.rglob("*.index.json")):
        if index.exists():
            shards = set(json.loads(index.read_text())["weight_map"].values())
            missing += [
                str(index.parent.relative_to(folder) / s) for s in sorted(shards) if not (index.parent / s).exists()
            ]
    pipeline = folder / "model_index.json"
    if pipeline.exists():
        for name, kind in json.loads(pipeline.read_text()).items():
            if isinstance(kind, list) and kind[0] and not _has_content(folder / name):
                missing.append(f"{name}/")
    elif not _has_content(folder):
        missing.append("*.safetensors")
    return missing


def _has_content(folder: Path) -> bool:
    """A part of a pipeline: a model needs weights; a scheduler or a tokenizer needs its own config."""
    if not folder.is_dir():
        return False
    if (
        any((folder / name).exists() for name in ("scheduler_config.json", "tokenizer_config.json"))
        and not (folder / "config.json").exists()
    ):
        return True
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.safetensors.index.json"))


def home(cache: Path, repo: str) -> Path:
    """The repository's folder in the cache. Raises ConfigError for a name that leads elsewhere."""
    for piece in repo.split("/"):
        safe_name(piece, f"the repository {repo!r}")
    return cache / f"models--{repo.replace('/', '--')}"


def _local_snapshot(cache: Path, repo: str, asked: str) -> Path | None:
    home(cache, repo)
    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision(cache, repo, asked),
                cache_dir=str(cache),
                token=hf_token(),
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, FileNotFoundError):
        return None
