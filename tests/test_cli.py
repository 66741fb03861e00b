"""The command line of a run: what overrides what, and every mistake in one line that names it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from pix2seq_d.cli import parse_run_config
from pix2seq_d.config import RunConfig
from pix2seq_d.presets import PRESETS


def parse(*arguments: str, preset: str = "synthetic-tiny") -> RunConfig:
    return parse_run_config(
        arguments, program="train.py", description="Trains.", preset=preset, output_dir="results/own"
    )


def yaml(folder: Path, text: str, name: str = "settings.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


# what overrides what


def test_nothing_given_is_the_preset_in_the_script_s_folder() -> None:
    config = parse()
    preset = PRESETS["synthetic-tiny"]
    assert config == dataclasses.replace(preset, train=dataclasses.replace(preset.train, output_dir="results/own"))


def test_a_preset_keeps_its_own_folder() -> None:
    assert parse("--preset", "camvid") == PRESETS["camvid"]
    assert parse(preset="camvid").train.output_dir == "results/camvid"
    assert parse("--preset=camvid").model.num_instance_bits == 0


def test_options_override_the_file_and_the_file_the_preset(tmp_path: Path) -> None:
    path = yaml(tmp_path, "train: {lr: 3e-4, seed: 7}\nmodel:\n  past_offsets: []\n  image_size: [64, 128]\n")
    config = parse("--preset", "camvid", "--config", path, "--train.seed", "8", "--data.flip_rate", "0")
    assert config.train.lr == 3e-4  # the file
    assert config.train.seed == 8  # the option
    assert config.model.image_size == (64, 128)
    assert config.model.past_offsets == ()
    assert config.data.flip_rate == 0.0
    assert config.train.steps == PRESETS["camvid"].train.steps  # the preset
    assert config.data.label_spec == "camvid"


def test_two_files(tmp_path: Path) -> None:
    first = yaml(tmp_path, "train: {lr: 1.0, seed: 1}", "first.yaml")
    second = yaml(tmp_path, "train: {seed: 2}", "second.yaml")
    config = parse("--config", first, "--config", second)
    assert (config.train.lr, config.train.seed) == (1.0, 2)


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("model.image_size", "[64,96]", (64, 96)),
        ("model.past_offsets", "[]", ()),
        ("model.stage_widths", "[8, 16]", (8, 16)),
        ("train.lr", "3e-4", 3e-4),
        ("train.lr", "1", 1.0),
        ("train.resume", "false", False),
        ("train.lr_decay", "constant", "constant"),
        ("train.output_dir", "some/where", "some/where"),
        ("train.output_dir", "", "results/own"),
    ],
)
def test_values(option: str, text: str, value: object) -> None:
    section, name = option.split(".")
    found = getattr(getattr(parse(f"--{option}", text), section), name)
    assert found == value
    assert type(found) is type(value)


def test_arguments_come_from_the_command_line_if_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--train.seed", "5"])
    assert parse_run_config(None, program="p", description="", preset="camvid", output_dir="x").train.seed == 5


# mistakes


def message(*arguments: str) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        parse(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--preset nothing", ["--preset", "nothing", *PRESETS]),
        ("--preset", ["--preset", "expected one argument"]),
        ("--train.nope 1", ["--train.nope"]),
        ("--nope.lr 1", ["--nope.lr"]),
        ("--train.step 3", ["--train.step "]),  # no abbreviations
        ("stray", ["stray"]),
        ("--train.lr fast", ["train.lr", "float", "fast"]),
        ("--train.steps 1.5", ["train.steps", "int", "1.5"]),
        ("--train.cpu maybe", ["train.cpu", "bool", "maybe"]),
        ("--train.lr", ["train.lr"]),
        ("--model.target l1", ["model.target", "softmax", "mse", "l1"]),
        ("--model.image_size [64]", ["model.image_size", "2 elements", "[64]"]),
        ("--model.image_size [64,96,3]", ["model.image_size", "2 elements"]),
        ("--model.stage_widths [8,x]", ["model.stage_widths"]),
        ("--data 3", ["data"]),
        ("--config nowhere.yaml", ["config", "nowhere.yaml"]),
    ],
)
def test_mistakes_on_the_command_line(arguments: str, words: list[str]) -> None:
    text = message(*arguments.split())
    assert all(word in text + " " for word in words), text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("train:\n  nope: 3\n", ["train", "nope"]),
        ("trainer:\n  lr: 3\n", ["trainer"]),
        ("train:\n  steps: many\n", ["train.steps", "int", "many"]),
        ("train: {lr: [1\n", ["line 1"]),
        ("- 1\n- 2\n", []),
        ("", []),
    ],
)
def test_mistakes_in_a_file_name_the_file(tmp_path: Path, content: str, words: list[str]) -> None:
    path = yaml(tmp_path, content)
    text = message("--config", path, "--train.lr", "1")
    assert all(word in text for word in [path, *words]), text


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert "x.yaml" in message("--config", str(tmp_path / "x.yaml"))


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert str(tmp_path) in message("--config", str(tmp_path))


def test_the_preset_is_not_chosen_in_a_file(tmp_path: Path) -> None:
    assert "--preset" in message("--config", yaml(tmp_path, "preset: camvid\n"))
    assert parse("--preset", "camvid", "--config", yaml(tmp_path, "preset: camvid\n")) == PRESETS["camvid"]


# help


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse("--help", preset="camvid")
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("usage: train.py [--preset NAME]")
    for section in dataclasses.fields(RunConfig):
        for name, value in dataclasses.asdict(getattr(PRESETS["camvid"], section.name)).items():
            entry = re.search(rf" --{section.name}\.{name} (.*?)(?= --|$)", text)
            assert entry, name
            described = re.search(r"[a-z]\S* \S+.*? \(type: .*default: (.*)\)", entry[1])
            assert described, entry[1]
            shown = described[1].strip("'\"")
            assert shown in (str(value), str(list(value)) if isinstance(value, tuple) else str(value)), entry[1]


def test_the_configuration_can_be_printed_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--preset", "camvid", "--train.lr", "0.5", "--print_config")
    path = yaml(tmp_path, capsys.readouterr().out)
    assert parse("--preset", "camvid", "--config", path) == parse("--preset", "camvid", "--train.lr", "0.5")
