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
from transformers.utils import logging as transformers_logging

from harald.config import HF_TOKEN_VARIABLE, LoraRef, ModelRef
from harald.errors import ModelError
from harald.runs import safe_name, write_json

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
    """Whether the repository is there and complete."""
    folder = _local_snapshot(cache, ref.repo, ref.revision)
    return folder is not None and not missing_files(folder)


def snapshot(cache: Path, ref: ModelRef) -> Path:
    """The complete local folder of a repository. Raises ModelError if it is missing or half-downloaded."""
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
    return folder


def load(factory: Any, cache: Path, ref: ModelRef, subfolder: str = "", **options: Any) -> Any:
    """`factory.from_pretrained` of a cached repository: a model, a tokenizer, an image processor or a pipeline."""
    snapshot(cache, ref)
    transformers_logging.disable_progress_bar()  # "loading weights" bars are noise in a container's log
    diffusers_logging.disable_progress_bar()
    return factory.from_pretrained(
        ref.repo,
        revision=revision(cache, ref.repo, ref.revision),
        cache_dir=str(cache),
        token=hf_token(),
        local_files_only=True,
        **({"subfolder": subfolder} if subfolder else {}),
        **options,
    )


def load_lora(pipeline: Any, cache: Path, lora: LoraRef, name: str) -> None:
    """Load a LoRA, from a repository or a file inside the cache, into the pipeline's transformer as adapter `name`."""
    file = (cache / lora.source).resolve()
    if file.is_file():
        if not file.is_relative_to(cache.resolve()):
            raise ModelError(
                f"models.lora.source is {lora.source!r}, outside of the cache {cache}", "put the file inside"
            )
        if file.suffix != ".safetensors":
            raise ModelError(f"models.lora.source is {lora.source!r}", "use a .safetensors file, nothing else is read")
        pipeline.load_lora_weights(
            str(file.parent), weight_name=file.name, adapter_name=name, cache_dir=str(cache), token=hf_token(),
            revision=None, use_safetensors=True,
        )  # fmt: skip
        return
    ref = ModelRef(lora.source, lora.revision)
    snapshot(cache, ref)
    pipeline.load_lora_weights(
        lora.source,
        weight_name=lora.weight_name or None,
        adapter_name=name,
        revision=revision(cache, lora.source, lora.revision),
        cache_dir=str(cache),
        token=hf_token(),
        local_files_only=True,
        use_safetensors=True,
    )


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


def record(cache: Path, repo: str, asked: str, commit: str) -> None:
    """Remember which commit stands for the asked revision, so that later runs use the same one."""
    file = cache / RECORD
    known = json.loads(file.read_text()) if file.exists() else {}
    known.setdefault(repo, {})[asked] = commit
    write_json(file, known)


def install(cache: Path, repo: str, folder: Path) -> str:
    """Put a folder made by us into the cache as a repository, in the real layout. Returns its commit.

    The commit is a hash of names and contents: the same files give the same commit. The snapshot appears by one rename.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    commit = hashlib.sha1(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    home = _home(cache, repo)
    temporary = home / f".{uuid.uuid4().hex}.tmp"
    (home / "blobs").mkdir(parents=True, exist_ok=True)
    for name, digest in hashes.items():
        blob = home / "blobs" / digest
        if not blob.exists():
            part = home / "blobs" / f"{digest}.{uuid.uuid4().hex}.tmp"
            shutil.copyfile(folder / name, part)
            os.replace(part, blob)
        link = temporary / name
        link.parent.mkdir(parents=True, exist_ok=True)
        final = home / "snapshots" / commit / name
        link.symlink_to(os.path.relpath(blob, final.parent))
    target = home / "snapshots" / commit
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(temporary)
    else:
        os.replace(temporary, target)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(commit)
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


def _home(cache: Path, repo: str) -> Path:
    for piece in repo.split("/"):
        safe_name(piece, f"the repository {repo!r}")
    return cache / f"models--{repo.replace('/', '--')}"


def _local_snapshot(cache: Path, repo: str, asked: str) -> Path | None:
    _home(cache, repo)
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
