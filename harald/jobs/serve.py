"""The page on this machine: the models are loaded once, then visitors are answered until it is stopped."""

import ipaddress
import logging
import secrets
import socket
from pathlib import Path

from harald import determinism, runs, settings
from harald.config import Config
from harald.errors import ConfigError
from harald.jobs.loading import base_model, find_trained, trained_encoder
from harald.runtime import Runtime
from harald.web.access import LOCAL_HOSTS, Gate
from harald.web.app import web_app
from harald.web.studio import Studio

log = logging.getLogger(__name__)

MIN_TOKEN = 16  # characters of a token that the user sets


def run(
    runtime: Runtime,
    config: Config,
    run_name: str,
    train_run: str = "",
    host: str = "127.0.0.1",
    port: int = 7860,
    token: str = "",
    auth: bool = True,
) -> dict:
    """Serves until it is stopped. The run's folder gets the configuration and the fingerprint, nothing of a visitor."""
    import uvicorn

    local = is_local(host)
    if not auth and not local:
        raise ConfigError(
            f"--no-auth with --host {host}", "anyone who reaches this address could use the page; bind 127.0.0.1"
        )
    if not auth and token:
        raise ConfigError("--no-auth and --token", "give one of the two")
    if token and len(token) < MIN_TOKEN:
        raise ConfigError(
            f"--token has {len(token)} characters", f"use {MIN_TOKEN} or more, or leave it out: one is made"
        )
    token = (token or secrets.token_urlsafe(24)) if auth else ""
    listening = listen(host, port)
    folder, studio = load(runtime, config, run_name, train_run)
    app = web_app(studio, token, LOCAL_HOSTS if local else None)
    place = f"http://{'[' + host + ']' if ':' in host else host}:{listening.getsockname()[1]}/"
    log.info("open %s", f"{place}?token={token}" if token else place)
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3
    )
    uvicorn.Server(settings).run(sockets=[listening])
    return {"folder": str(folder)}


def hosted(runtime: Runtime, preset: str, train_run: str) -> Gate:
    """The page for a host whose proxy asks visitors who they are."""
    config = settings.resolve(preset)
    determinism.enable(config.seed, config.deterministic)
    _, studio = load(runtime, config, "", train_run)
    runtime.commit()
    return web_app(studio)


def load(runtime: Runtime, config: Config, run_name: str, train_run: str) -> tuple[Path, Studio]:
    """The run's folder and the models. Without a trained encoder persons come from files."""
    source = find_trained(runtime, config, train_run) if train_run or config.models.trained else None
    folder = runs.open_run(runtime, "serve", run_name, config, train_run=train_run)
    base = base_model(runtime.hf_cache, config)
    encoder, name = trained_encoder(runtime.hf_cache, config, source) if source else (None, "")
    return folder, Studio(config, base, encoder, name)


def is_local(host: str) -> bool:
    """Whether only this machine can connect."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Port 0: any free one."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{host}:{port} cannot be used: {error}", "choose another --port, or 0 for any free one"
        ) from error
