"""Command line over the dataclasses of config.py (jsonargparse): preset, then a YAML file, then dotted options."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser

from pix2seq_d.config import RunConfig
from pix2seq_d.presets import PRESETS


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
    chosen, config_files = _chosen(arguments, preset)
    base = _with_output_dir(PRESETS[chosen], output_dir)
    parser = _build_parser(base, program=program, description=description, preset=preset)
    try:
        values = parser.instantiate(parser.parse_args(arguments))
    except (ArgumentError, UnicodeError) as error:
        raise ValueError(_one_line(error, parser, config_files)) from None
    if values.preset != chosen:
        raise ValueError(f"--config: expected no preset in the file, got {values.preset!r}; choose it with --preset")
    config = RunConfig(**{f.name: getattr(values, f.name) for f in dataclasses.fields(RunConfig)})
    return _with_output_dir(config, output_dir)


def _chosen(arguments: Sequence[str], preset: str) -> tuple[str, list[str]]:
    """The preset and the YAML files that the arguments name."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    chooser.add_argument("--preset", default=preset)
    chooser.add_argument("--config", action="append", default=[])
    try:
        known = chooser.parse_known_args(arguments)[0]
    except ArgumentError as error:
        raise ValueError(str(error)) from None
    if known.preset not in PRESETS:
        raise ValueError(f"--preset: expected one of {', '.join(PRESETS)}, got {known.preset!r}")
    return known.preset, known.config


def _with_output_dir(config: RunConfig, output_dir: str) -> RunConfig:
    """The same, writing to `output_dir` unless it says otherwise."""
    if config.train.output_dir:
        return config
    return dataclasses.replace(config, train=dataclasses.replace(config.train, output_dir=output_dir))


def _one_line(error: Exception, parser: ArgumentParser, config_files: Sequence[str]) -> str:
    """The error without line breaks, after the name of the file that causes it."""
    for path in config_files:
        try:
            parser.parse_path(path)
        except (ArgumentError, UnicodeError) as fault:
            return f"--config {path}: {' '.join(str(fault).split())}"
        except (OSError, TypeError):
            break
    return " ".join(str(error).split())


def _build_parser(base: RunConfig, *, program: str, description: str, preset: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=program,
        description=description,
        usage=f"{program} [--preset NAME] [--config FILE.yaml] [--SECTION.FIELD VALUE ...]",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--preset", default=preset, help=f"settings to start from: {', '.join(PRESETS)}")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with settings that differ from the preset")
    for section in dataclasses.fields(RunConfig):
        value = getattr(base, section.name)
        parser.add_argument(f"--{section.name}", type=type(value), default=value)
    return parser
