"""configs/accelerate: files that Accelerate's own loader takes, with keys that its launcher knows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.constants import FSDP_AUTO_WRAP_POLICY, FSDP_STATE_DICT_TYPE

from pix2seq_d.cli import parse_run_config

ROOT = Path(__file__).parents[2]
KINDS = {
    "single_gpu": DistributedType.NO,
    "ddp": DistributedType.MULTI_GPU,
    "multi_node": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "deepspeed_zero2": DistributedType.DEEPSPEED,
}


def path_of(name: str) -> Path:
    return ROOT / "configs" / "accelerate" / f"{name}.yaml"


def load(name: str) -> ClusterConfig:
    config: Any = load_config_from_file(str(path_of(name)))
    assert isinstance(config, ClusterConfig)
    return config


def test_every_file_is_known() -> None:
    assert {path.stem for path in (ROOT / "configs" / "accelerate").iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_takes_the_file(name: str) -> None:
    """Its loader refuses unknown keys; those of the nested tables are options of its launcher, or they do nothing."""
    config = load(name)
    assert config.distributed_type == KINDS[name]
    assert (config.num_machines > 1) == (name == "multi_node")
    assert config.num_processes % config.num_machines == 0
    assert config.mixed_precision == "no", "train.precision decides"
    options = {option for action in launch_command_parser()._actions for option in action.option_strings}
    nested = [*config.fsdp_config, *config.deepspeed_config]
    assert bool(nested) == (name in ("fsdp2", "deepspeed_zero2"))
    assert {f"--{key}" for key in nested} <= options


def test_values_of_the_sharded_ones() -> None:
    fsdp, deepspeed = load("fsdp2").fsdp_config, load("deepspeed_zero2").deepspeed_config
    assert fsdp["fsdp_version"] == 2
    assert fsdp["fsdp_auto_wrap_policy"] in FSDP_AUTO_WRAP_POLICY
    assert fsdp["fsdp_state_dict_type"] in FSDP_STATE_DICT_TYPE
    assert deepspeed["zero_stage"] == 2


@pytest.mark.parametrize("name", KINDS)
def test_commands_in_the_comments_parse(name: str) -> None:
    """`accelerate launch` with the file, and a configuration of train.py behind it."""
    (line,) = re.findall(r"^# accelerate launch (.+)$", path_of(name).read_text(), re.MULTILINE)
    parsed, script = launch_command_parser().parse_known_args(line.split())
    assert (ROOT / parsed.config_file).is_file()
    assert parsed.training_script == "train.py"
    arguments = parsed.training_script_args + script
    parse_run_config(arguments, program="train.py", description="", preset="kitti-step", output_dir="results/train")


def test_claims_are_marked() -> None:
    """Nothing that needs several GPUs is said to have been run on them."""
    for name in KINDS.keys() - {"single_gpu"}:
        comment = " ".join(line[2:] for line in path_of(name).read_text().splitlines() if line.startswith("# "))
        assert "Not run on GPUs by us" in comment, name


def test_the_slurm_script_is_a_script() -> None:
    path = ROOT / "configs" / "slurm" / "train.sbatch"
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert "Not run by us" in path.read_text()


def test_the_slurm_script_lets_the_run_save() -> None:
    """30 s after SIGTERM torchrun would kill its processes; the time that they are given ends before Slurm's."""
    text = (ROOT / "configs" / "slurm" / "train.sbatch").read_text()
    (patience,) = re.findall(r"^export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=(\d+)", text, re.MULTILINE)
    (notice,) = re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", text, re.MULTILINE)
    assert 120 <= int(patience) < int(notice)
