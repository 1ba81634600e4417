"""A second process, with caches of its own, finds what the first one compiled."""

import json
import os
import subprocess
import sys

import pytest

PROCESS = """
import json, sys, torch
from pathlib import Path
from torch._dynamo.utils import counters
from harald.base.kernels import kept_kernels
with kept_kernels(Path(sys.argv[1]), "draw", writes=sys.argv[2] == "writes"):
    torch.compile(lambda x: x.sin() + 1)(torch.ones(8))
print(json.dumps({name: counters["inductor"][f"fxgraph_cache_{name}"] for name in ("hit", "miss")}))
"""


@pytest.mark.slow
def test_kernels_of_one_container_serve_the_next(tmp_path):
    def run(name: str, writes: str = "writes") -> dict:
        own = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / name)}
        code = [sys.executable, "-c", PROCESS, str(tmp_path / "kept"), writes]
        return json.loads(subprocess.run(code, env=own, check=True, capture_output=True, text=True).stdout)

    assert run("other", "reads") == {"hit": 0, "miss": 1} and not (tmp_path / "kept").exists()
    assert run("first") == {"hit": 0, "miss": 1}
    (file,) = (tmp_path / "kept").iterdir()
    before = file.stat().st_mtime_ns
    assert run("second") == {"hit": 1, "miss": 0}
    assert file.stat().st_mtime_ns == before, "nothing new, nothing written"
