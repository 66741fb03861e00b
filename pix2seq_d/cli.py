"""Command line over the dataclasses of config.py (jsonargparse): preset, then a YAML file, then dotted options."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser

from pix2seq_d.config import PRESETS, RunConfig


def parse_run_config(
    arguments: Sequence[str] | None, *, program: str, description: str, preset: str, output_dir: str
) -> RunConfig:
    """Reads a run's configuration.

    Args:
        arguments: command line without the program; None takes sys.argv.
        program: shown in the help.
        description: shown in the help.
        preset: the default preset.
        output_dir: run folder where the preset names none of its own.

    Raises:
        ValueError: an unknown preset, option or key, a value of another type, an unreadable file.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = _build_parser(
        _base_config(arguments, preset, output_dir), program=program, description=description, preset=preset
    )
    try:
        values = parser.instantiate(parser.parse_args(arguments))
    except ArgumentError as error:
        raise ValueError(str(error)) from None
    return RunConfig(**{f.name: getattr(values, f.name) for f in dataclasses.fields(RunConfig)})


def _base_config(arguments: Sequence[str], preset: str, output_dir: str) -> RunConfig:
    """The preset that the arguments name, writing to `output_dir` unless the preset says otherwise."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    chooser.add_argument("--preset", default=preset)
    name = chooser.parse_known_args(arguments)[0].preset
    if name not in PRESETS:
        raise ValueError(f"--preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    base = PRESETS[name]
    if base.train.output_dir:
        return base
    return dataclasses.replace(base, train=dataclasses.replace(base.train, output_dir=output_dir))


def _build_parser(base: RunConfig, *, program: str, description: str, preset: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=program,
        description=description,
        usage=f"{program} [--preset NAME] [--config FILE.yaml] [--SECTION.FIELD VALUE ...]",
        exit_on_error=False,
    )
    parser.add_argument("--preset", default=preset, help=f"settings to start from: {', '.join(PRESETS)}")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with settings that differ from the preset")
    for section in dataclasses.fields(RunConfig):
        value = getattr(base, section.name)
        parser.add_argument(f"--{section.name}", type=type(value), default=value)
    return parser
