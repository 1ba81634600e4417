"""What a container sees: volumes at their mount paths, and of our own code only what was uploaded."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

MNT = Path("/mnt")

# Runs first in every container. An (editable) install on this machine must not answer for a file that
# was not uploaded.
HOOK = """
import importlib.machinery, sys

ROOT, PACKAGE = {root!r}, {package!r}
allowed = tuple({{sys.prefix, sys.base_prefix, sys.exec_prefix, ROOT.rsplit("/", 1)[0], "/usr/lib/python3"}})
sys.path[:] = [path for path in sys.path if path.startswith(allowed)]
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in f"{{f!r}} {{getattr(f, '__module__', '')}}".lower()]

class OnlyUploaded:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == PACKAGE:
            spec = importlib.machinery.PathFinder.find_spec(name, [ROOT])
            if spec is None:
                raise ModuleNotFoundError(f"{{name!r}} is not among the uploaded files", name=name)
            return spec

sys.meta_path.insert(0, OnlyUploaded)
"""


def only_uploaded_files(root: Path, package: str) -> str:
    return HOOK.format(root=str(root), package=package)


def mounting(mounts: list[tuple[Path, str, bool]], folder: Path, clustered: bool = False) -> str:
    """Lines of a shell for a mount namespace of its own. mounts: (folder of the volume, mount path, read only).
    clustered: a container of a cluster can look up its address in the cluster's network.
    """
    lines = ["set -e"]
    if clustered:
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n::1 i6pn.modal.local\n")
        lines.append(f"mount --bind {shlex.quote(str(hosts))} /etc/hosts")
    if mounts:
        lines.append(f"mount -t tmpfs tmpfs {MNT}")  # so that mount points can be made there, and vanish
    for source, path, read_only in sorted(mounts, key=lambda mount: mount[1]):
        lines.append(f"mkdir -p {shlex.quote(path)}; mount --bind {shlex.quote(str(source))} {shlex.quote(path)}")
        if read_only:
            lines.append(f"mount -o remount,ro,bind {shlex.quote(path)}")
    return "\n".join(lines)


def unshare() -> list[str]:
    return ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]


def why_impossible() -> str:
    """Empty, or the reason why no container can be started on this machine."""
    try:
        probe = subprocess.run([*unshare(), "mount", "-t", "tmpfs", "tmpfs", str(MNT)], capture_output=True, text=True)
    except FileNotFoundError:
        return "there is no `unshare` here (Linux only)"
    if probe.returncode:
        return f"no mount namespaces here: {probe.stderr.strip()}"
    inside = [path for path in (sys.prefix, sys.base_prefix, str(Path.cwd())) if Path(path).is_relative_to(MNT)]
    return f"{inside[0]} lies under {MNT}, where the volumes are mounted" if inside else ""
