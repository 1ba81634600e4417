"""Do the pins of the Modal image resolve for its Python? By hand, with a network: make image-check.

Every `uv pip install` line that the real command line sends to Modal's image builder is resolved, nothing is installed.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.modal.conftest import Cloud

PLATFORM = "x86_64-manylinux_2_28"
INSTALL = re.compile(r"RUN /\.uv/uv pip install --python \$\(.+?\) (?:--compile-bytecode )?(?P<arguments>.+)")


def image_lines() -> list[str]:
    """What `modal run` asks the builder for, as the stand-in recorded it."""
    with tempfile.TemporaryDirectory() as folder:
        run = Cloud(Path(folder)).run("doctor", "--preset", "tiny")
        return run.app["functions"]["doctor"]["image"]


def resolve(packages: list[str], python: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet"]
    command += ["--python-version", python, "--python-platform", PLATFORM]
    return subprocess.run(command, input="\n".join(packages), capture_output=True, text=True)


def main() -> None:
    lines = image_lines()
    python = next(match[1] for line in lines if (match := re.search(r"FROM python:(\d\.\d+)", line)))
    installs = [shlex.split(match["arguments"]) for line in lines if (match := INSTALL.match(line))]
    if not installs:
        sys.exit(f"no `uv pip install` among the image's lines: {lines}")
    for packages in installs:
        done = resolve(packages, python)
        if done.returncode:
            sys.exit(f"python {python}: {' '.join(packages)} do not resolve\n{done.stderr}")
        versions = [line for line in done.stdout.splitlines() if not line.lstrip().startswith("#")]
        print(f"python {python}: {len(packages)} pins resolve to {len(versions)} packages")


if __name__ == "__main__":
    main()
