"""Does the lock of the Modal image install on its Python? By hand, with a network: make image-check. A dry run."""

import subprocess
import sys
import tempfile

from harald.config import IMAGE_LOCK, PYTHON

PLATFORM = "x86_64-manylinux_2_28"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--require-hashes", "--target", folder]
        command += ["--requirements", str(IMAGE_LOCK), "--python-version", PYTHON, "--python-platform", PLATFORM]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{IMAGE_LOCK.name} does not install on python {PYTHON}\n{done.stderr}")
    print(f"python {PYTHON}, {PLATFORM}: {done.stderr.count(' + ')} packages of {IMAGE_LOCK.name} install")


if __name__ == "__main__":
    main()
