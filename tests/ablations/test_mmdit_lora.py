"""The ablation's LoRA begins without effect, is trained beside the encoder, and kept in the checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.states import write_dataset

SCRIPT = Path(__file__).parent / "mmdit_lora.py"


def trained(root: Path, rank: int) -> tuple[list[dict], dict]:
    """Metrics and weights of a run of two steps, in a process of its own: the script changes the package."""
    name, asked = f"rank{rank}", {"train.steps": 2, "train.teacher_weight": 1.0, "train.checkpoint_every": 2}
    words = ["train", "--preset", "tiny", "--run-name", name, "--overrides", json.dumps(asked)]
    environment = os.environ | {"HARALD_ROOT": str(root), "LORA_RANK": str(rank), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, SCRIPT, *words], env=environment, check=True, capture_output=True)
    run = root / "output/train" / name
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return rows, load_file(next((run / "checkpoints").glob("step_*")) / "encoder.safetensors")


@pytest.mark.slow
def test_lora_begins_without_effect_learns_and_is_kept(tmp_path):
    write_dataset(tmp_path, states=4)
    (plain, without), (rows, weights) = trained(tmp_path, 0), trained(tmp_path, 2)
    own = {name: tensor for name, tensor in weights.items() if name.startswith("base_lora.")}
    assert rows[0]["loss"] == plain[0]["loss"] and rows[0]["teacher"] == plain[0]["teacher"]
    assert rows[1]["loss"] != plain[1]["loss"]
    assert set(weights) - set(without) == set(own) and len(own) % 16 == 0
    assert sum(bool(tensor.any()) for name, tensor in own.items() if name.endswith("_B")) > len(own) // 4
