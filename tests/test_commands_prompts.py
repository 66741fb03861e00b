"""Options of what is known: what they become, and what is refused."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pix2seq_d.commands_prompts import add_prompt_arguments, find_prompt_maps, prompt_options, prompt_settings
from pix2seq_d.data.formats import read_kitti_step, write_image, write_kitti_step
from pix2seq_d.data.sources import FrameSource, open_sources
from pix2seq_d.inference import add_inference_arguments, run_inference
from pix2seq_d.labels import get_label_spec
from pix2seq_d.models.pix2seq_d import Pix2SeqD

SPEC = get_label_spec("kitti-step")


def parse(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_prompt_arguments(parser.add_argument)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture
def sources(tmp_path: Path) -> list[FrameSource]:
    write_image(tmp_path / "in" / "v" / "1.png", np.zeros((8, 16, 3), np.uint8))
    write_kitti_step(tmp_path / "maps" / "1.png", np.zeros((8, 16), np.uint8), np.zeros((8, 16), np.int32))
    return open_sources(tmp_path / "in")


def test_nothing_is_known_and_nothing_recorded_by_default(sources: list[FrameSource]) -> None:
    none = {"history_guidance": 0.0, "only_classes": (), "without_classes": ()}
    assert prompt_options(parse(), SPEC) == none
    assert prompt_settings(parse()) == {}
    assert find_prompt_maps(parse(), sources, SPEC) is None


def test_classes_are_named(tmp_path: Path) -> None:
    words = ("--only_classes", "traffic light", "car", "--without_classes", "train", "--history_guidance", -0.5)
    options = {"history_guidance": -0.5, "only_classes": (6, 13), "without_classes": (16,)}
    assert prompt_options(parse(*words), SPEC) == options
    settings = {"history_guidance": -0.5, "only_classes": ["traffic light", "car"], "without_classes": ["train"]}
    assert prompt_settings(parse(*words)) == settings


@pytest.mark.parametrize("option", ["--only_classes", "--without_classes"])
def test_an_unknown_class_is_told_the_known_ones(option: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^{option}: expected classes of kitti-step \(road, .*\), got 'dog'$"
    ) as caught:
        prompt_options(parse(option, "car", "dog"), SPEC)
    assert all(name in str(caught.value) for name in SPEC.class_names)


def test_maps_and_their_options(tmp_path: Path, sources: list[FrameSource]) -> None:
    prompts = find_prompt_maps(parse("--past_maps", tmp_path / "maps"), sources, SPEC)
    assert prompts is not None
    assert (prompts.reverse, prompts.first_id, list(prompts.paths["v"])) == (False, 1, ["1"])
    words = ("--past_maps", tmp_path / "maps", "--reverse", "--new_ids_from", 65535)
    prompts = find_prompt_maps(parse(*words), sources, SPEC)
    assert prompts is not None
    assert (prompts.reverse, prompts.first_id) == (True, 65535)


@pytest.mark.parametrize("words", [("--reverse",), ("--new_ids_from", 5)])
def test_options_of_maps_without_maps(sources: list[FrameSource], words: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=r"^--reverse and --new_ids_from: expected --past_maps with them, got none$"):
        find_prompt_maps(parse(*words), sources, SPEC)


@pytest.mark.parametrize("first_id", [0, 65536])
def test_ids_that_no_map_holds(tmp_path: Path, sources: list[FrameSource], first_id: int) -> None:
    with pytest.raises(ValueError, match=rf"^--new_ids_from: expected 1..65535, got {first_id}$"):
        find_prompt_maps(parse("--past_maps", tmp_path / "maps", "--new_ids_from", first_id), sources, SPEC)


# as a user calls it


def infer(model: Path, folder: Path, target: str, *words: object) -> Path:
    parser = argparse.ArgumentParser()
    add_inference_arguments(parser)
    places = ["--input", folder / "in", "--output_folder", folder / target, "--checkpoint", model, "--device", "cpu"]
    run_inference(parser.parse_args([str(word) for word in (*places, "--animation", "none", *words)]))
    return folder / target


@pytest.mark.usefixtures("sources")
def test_options_reach_the_predictor_and_the_record(tiny_model: Callable[..., Pix2SeqD], tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny_model().save_pretrained(model)
    plain = infer(model, tmp_path, "plain")
    found = {SPEC.class_names[i] for i in np.unique(read_kitti_step(plain / "panoptic/v/1.png")[0])}
    name = sorted(found)[0]
    record = json.loads((plain / "inference.json").read_text())["settings"]
    assert not {"past_maps", "reverse", "history_guidance", "only_classes"} & set(record)
    kept = infer(model, tmp_path, "kept", "--only_classes", name)
    assert set(np.unique(read_kitti_step(kept / "panoptic/v/1.png")[0])) <= {SPEC.class_names.index(name), 255}
    assert json.loads((kept / "inference.json").read_text())["settings"]["only_classes"] == [name]
    other = infer(model, tmp_path, "other", "--without_classes", name)
    assert SPEC.class_names.index(name) not in read_kitti_step(other / "panoptic/v/1.png")[0]
    given = infer(model, tmp_path, "given", "--past_maps", tmp_path / "maps", "--history_guidance", 0.5)
    assert (given / "panoptic/v/1.png").read_bytes() == (tmp_path / "maps/1.png").read_bytes()
    settings = json.loads((given / "inference.json").read_text())["settings"]
    assert settings["past_maps"].startswith("1 map, ")
    assert settings["history_guidance"] == 0.5
    infer(model, tmp_path, "plain")  # finished, and recorded as it was
