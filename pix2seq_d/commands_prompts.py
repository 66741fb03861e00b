"""Options of inference.py that tell the model what is known: maps of some frames, classes, the weight of the past."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pix2seq_d.data.sources import FrameSource
from pix2seq_d.labels import LABEL_DIVISOR, LabelSpec
from pix2seq_d.prompt_maps import PromptMaps


def add_prompt_arguments(add: Callable[..., object]) -> None:
    """Arguments of what is known."""
    text = "maps {sequence}/{frame}.png of any frames, void where nothing is known; docs/prompts.md"
    add("--past_maps", type=Path, metavar="DIR", help=text)
    add("--reverse", action="store_true", help="predict the frames before a sequence's first map backward from it")
    text = "ids of objects that no map names begin there (default: 1; after the first map above those of all maps)"
    add("--new_ids_from", type=int, metavar="ID", help=text)
    text = "weight of guidance by the past maps: 0 none (default), -1 forgets them; doubles the time"
    add("--history_guidance", type=float, default=0.0, metavar="W", help=text)
    add("--only_classes", nargs="+", default=[], metavar="NAME", help="classes to keep in the maps; all else is void")
    add("--without_classes", nargs="+", default=[], metavar="NAME", help="classes that are known not to be there")


def prompt_options(arguments: argparse.Namespace, label_spec: LabelSpec) -> dict[str, Any]:
    """Arguments of VideoPredictor; raises ValueError for a class that the spec does not have."""
    options: dict[str, Any] = {"history_guidance": arguments.history_guidance}
    for name in ("only_classes", "without_classes"):
        options[name] = class_ids(getattr(arguments, name), label_spec, option=f"--{name}")
    return options


def prompt_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a run records of them; what is not used is left out, so that records of earlier versions stay good."""
    names = ("history_guidance", "only_classes", "without_classes")
    return {name: value for name in names if (value := getattr(arguments, name))}


def find_prompt_maps(
    arguments: argparse.Namespace, sources: Sequence[FrameSource], label_spec: LabelSpec
) -> PromptMaps | None:
    """The given maps; raises ValueError for options that need them, DataError as PromptMaps.find."""
    first_id = arguments.new_ids_from
    if arguments.past_maps is None:
        if arguments.reverse or first_id is not None:
            raise ValueError("--reverse and --new_ids_from: expected --past_maps with them, got none")
        return None
    if first_id is not None and not 1 <= first_id < LABEL_DIVISOR:
        raise ValueError(f"--new_ids_from: expected 1..{LABEL_DIVISOR - 1}, got {first_id}")
    return PromptMaps.find(arguments.past_maps, sources, label_spec, reverse=arguments.reverse, first_id=first_id or 1)


def class_ids(names: Sequence[str], label_spec: LabelSpec, *, option: str) -> tuple[int, ...]:
    """Train ids of classes; raises ValueError that lists the spec's for a name that is none."""
    for name in names:
        if name not in label_spec.class_names:
            known = ", ".join(label_spec.class_names)
            raise ValueError(f"{option}: expected classes of {label_spec.name} ({known}), got {name!r}")
    return tuple(label_spec.class_names.index(name) for name in names)
