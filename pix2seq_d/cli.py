"""Command line over the dataclasses of config.py (jsonargparse)."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from jsonargparse import ActionConfigFile, ArgumentParser

from pix2seq_d.config import PRESETS, RunConfig


def parse_run_config(
    arguments: Sequence[str] | None, *, program: str, description: str, preset: str, output_dir: str
) -> RunConfig:
    """Reads a run's configuration: preset, then --config FILE.yaml, then dotted overrides.

    Args:
        arguments: command line without the program; None takes sys.argv.
        program: shown in the help.
        description: shown in the help.
        preset: the default preset.
        output_dir: default run folder of the script.
    """
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--preset", default=preset)
    known, _ = chosen.parse_known_args(arguments)
    parser = ArgumentParser(prog=program, description=description)
    parser.add_argument("--preset", default=preset, choices=sorted(PRESETS), help="settings to start from")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with settings that differ from the preset")
    base = PRESETS.get(known.preset, PRESETS[preset])
    base = dataclasses.replace(base, train=dataclasses.replace(base.train, output_dir=output_dir))
    for section in dataclasses.fields(RunConfig):
        value = getattr(base, section.name)
        parser.add_argument(f"--{section.name}", type=type(value), default=value)
    values = parser.instantiate(parser.parse_args(arguments))
    return RunConfig(**{f.name: getattr(values, f.name) for f in dataclasses.fields(RunConfig)})
