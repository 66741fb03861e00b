"""Configuration to objects: every part gets the numbers meant for it, in every preset."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from cityscapes_tree import write_fine, write_images
from dataset_trees import WRITERS
from tiny_runs import tiny_config
from zips import make_zip

from pix2seq_d import build
from pix2seq_d.config import DataConfig, RunConfig
from pix2seq_d.data.batch import Batch
from pix2seq_d.data.formats import DataError, write_image
from pix2seq_d.data.loader_faults import SkippingClips
from pix2seq_d.data.pseudo_video import PseudoVideo
from pix2seq_d.labels import LABEL_SPECS
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.presets import MODEL_SIZES, PRESETS


def on_meta(config: RunConfig) -> Pix2SeqD:
    with torch.device("meta"):
        return build.build_model(config)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds(name: str) -> None:
    config = PRESETS[name]
    model = on_meta(config)
    assert model.label_spec.name == config.data.label_spec
    assert model.image_size == config.model.image_size
    assert model.num_steps == config.sampling.num_steps
    module = build.build_training_loss(config, model)
    assert module.weight_power == config.loss.weight_power
    assert (module.past_dropout, module.past_dropout_all) == (config.loss.past_dropout, config.loss.past_dropout_all)
    settings = build.build_loop_settings(config)
    assert (settings.steps, settings.save_every) == (config.train.steps, config.train.save_every)
    assert settings.validate_every == config.validation.every
    assert settings.t_sampling == "uniform"


def test_the_sampling_of_times_reaches_the_loop(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "--loss.t_sampling", "stratified")
    assert build.build_loop_settings(config).t_sampling == "stratified"


def test_sizes_of_the_models() -> None:
    millions = {}
    for name, size in MODEL_SIZES.items():
        model = on_meta(RunConfig(model=size))
        millions[name] = sum(p.numel() for p in model.parameters()) / 1e6
    assert 85 < millions["base"] < 105, "the paper's has about 94 million"
    assert millions["tiny"] < 6 < millions["small"] < 30, "12 MB in float16 hold 6 million"


def test_model_settings_reach_the_model(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "--model.target", "mse", "--sampling.min_pixels", "9", "--model.bit_scale", "0.5")
    model = build.build_model(config)
    assert (model.target, model.min_pixels, model.codec.scale) == ("mse", 9, 0.5)
    assert build.build_training_loss(config, model).loss.target == "mse"


def test_self_conditioning_needs_a_model_for_it() -> None:
    config = RunConfig(loss=replace(RunConfig().loss, self_cond_rate=0.5))
    with pytest.raises(ValueError, match=r"^loss.self_cond_rate: expected 0 where model.self_cond is false"):
        build.build_training_loss(config, on_meta(config))
    both = replace(config, model=replace(config.model, self_cond=True))
    assert build.build_training_loss(both, on_meta(both)).loss.self_cond_rate == 0.5


def test_the_learning_rate_is_that_of_the_settings() -> None:
    config = PRESETS["synthetic-tiny"]
    lr = build.build_lr_schedule(config)
    assert lr(config.train.warmup_steps) == config.train.lr
    assert lr(0) == pytest.approx(config.train.lr / config.train.warmup_steps)
    assert lr(config.train.steps) == pytest.approx(config.train.lr * config.train.lr_final)


# data


@pytest.mark.parametrize("dataset", build.READERS)
@pytest.mark.parametrize("videos", [False, True])
def test_missing_data_is_named(dataset: Any, videos: bool, tmp_path: Path) -> None:
    config = RunConfig(data=DataConfig(dataset=dataset, root=str(tmp_path / "nowhere")))
    clips = partial(build.build_clips, config.data, "train", past_offsets=(), size=(32, 64))
    how = "csDownload -d .* leftImg8bit_trainvaltest.zip" if dataset in ("cityscapes", "cityscapes-step") else dataset
    with pytest.raises(ValueError, match=rf"^data.root: \S+nowhere does not exist.*{how}"):
        _ = build.build_videos(config) if videos else clips()


@pytest.mark.parametrize(("dataset", "download"), [("kitti-step", False), ("camvid", True), ("synthetic", True)])
def test_what_is_not_fetched(dataset: Any, download: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "fetch_dataset", lambda *arguments: pytest.fail("asked the Hub"))
    build.prepare_data(DataConfig(dataset=dataset, root=str(tmp_path / "data" / "x"), download=download))
    assert not list(tmp_path.iterdir())


def test_kitti_step_is_fetched_to_its_root(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(build, "fetch_dataset", lambda *arguments: asked.append(arguments))
    build.prepare_data(DataConfig(dataset="kitti-step", root="data/mine"))
    assert asked == [("kitti-step", "data/mine")]


FINE = {
    "leftImg8bit/train/aachen/a.png",
    "gtFine/train/aachen/a.png",
    "gtFinePanopticParts/train/aachen/a.tif",
}
EXTRA, COARSE = "leftImg8bit/train_extra/augsburg/a.png", "gtCoarse/train/aachen/a.png"


@pytest.mark.parametrize("dataset", ["cityscapes", "cityscapes-step"])
@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize(
    ("train_split", "val_split", "expected"),
    [("train", "val", FINE), ("train_extra", "val", {*FINE, EXTRA, COARSE}), ("train_extra",) * 2 + ({EXTRA, COARSE},)],
)
def test_zips_of_cityscapes_are_unpacked(
    dataset: Any, download: bool, train_split: str, val_split: str, expected: set[str], tmp_path: Path
) -> None:
    """Those of the splits of the run; never the 324 GB of neighbouring frames, which no training reads."""
    for name, inside in (
        ("leftImg8bit_trainvaltest.zip", "leftImg8bit/train/aachen/a.png"),
        ("gtFine_trainvaltest.zip", "gtFine/train/aachen/a.png"),
        ("gtFinePanopticParts_trainval.zip", "gtFinePanopticParts/train/aachen/a.tif"),
        ("leftImg8bit_trainextra.zip", EXTRA),
        ("gtCoarse.zip", COARSE),
        ("leftImg8bit_sequence_trainvaltest.zip", "leftImg8bit_sequence/train/aachen/a.png"),
    ):
        (tmp_path / name).write_bytes(make_zip([(inside, b"1"), ("README", b"2"), ("license.txt", b"3")]))
    root = tmp_path / "cityscapes"
    splits = {"train_split": train_split, "val_split": val_split}
    build.prepare_data(DataConfig(dataset=dataset, root=str(root), download=download, **splits))
    assert {p.relative_to(root).as_posix() for p in root.rglob("a.*")} == expected


@pytest.mark.parametrize("beside", [False, True])
def test_zips_that_the_reader_names_are_those_that_training_unpacks(beside: bool, tmp_path: Path) -> None:
    """Without preparation the error names both; with it there is none, or it names what is still missing."""
    write_fine(write_images(tmp_path / "tree"))
    root = tmp_path / "data" / "cityscapes"
    root.mkdir(parents=True)
    zips = [(root.parent if beside else root) / f"{name}_trainvaltest.zip" for name in ("leftImg8bit", "gtFine")]
    for path in zips:
        files = [p for p in (tmp_path / "tree" / path.stem.split("_")[0]).rglob("*.png")]
        path.write_bytes(make_zip((p.relative_to(tmp_path / "tree").as_posix(), p.read_bytes()) for p in files))
    data = DataConfig(dataset="cityscapes", label_spec="cityscapes", root=str(root))
    clips = partial(build.build_clips, data, "train", past_offsets=(), size=(4, 8))
    with pytest.raises(DataError, match=f"found no such folder; unpack {zips[0]}, {zips[1]} in {root} first$"):
        clips()
    build.prepare_data(data)
    assert len(clips()) == 4
    shutil.rmtree(root / "leftImg8bit")
    zips[0].unlink()
    with pytest.raises(DataError, match="found no such folder; get it with: pip install cityscapesscripts"):
        clips()


def test_an_unknown_dataset() -> None:
    data = DataConfig(dataset="nothing")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^data.dataset: expected synthetic, .*kitti-step.*, got 'nothing'"):
        build.build_clips(data, "train", past_offsets=(), size=(32, 64))


def test_every_dataset_of_the_presets_has_a_reader() -> None:
    assert {config.data.dataset for config in PRESETS.values()} <= {"synthetic", *build.READERS}


def test_every_choice_of_a_dataset_has_a_reader_and_a_spec() -> None:
    choices = set(get_args(get_type_hints(DataConfig)["dataset"]))
    assert choices == {"synthetic", *build.READERS}
    assert choices >= set(build.LABEL_SPECS_OF)
    for dataset, name in build.LABEL_SPECS_OF.items():
        assert name in LABEL_SPECS, dataset


def test_a_split_without_public_maps_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "test" / "0000" / "000000.png", np.zeros((4, 8, 3), np.uint8))
    data = DataConfig(dataset="kitti-step", root=str(tmp_path))
    message = r"^data.train_split, data.val_split: expected splits with public label maps, got 'test' of kitti-step$"
    with pytest.raises(ValueError, match=message):
        build.build_clips(data, "test", past_offsets=(), size=(4, 8))
    with pytest.raises(ValueError, match=message):
        build.build_videos(RunConfig(data=replace(data, val_split="test")))


def test_maps_are_kept_in_the_memory_that_is_granted(tmp_path: Path) -> None:
    root = str(write_fine(write_images(tmp_path)))
    for megabytes, kept in ((0, 0), (1, 1)):
        data = DataConfig(dataset="cityscapes", label_spec="cityscapes", root=root, map_cache_mb=megabytes)
        clips = build.build_clips(data, "train", past_offsets=(), size=(4, 8))
        clips[0]
        assert len(clips._cache) == kept


# one label space for several datasets


@pytest.mark.parametrize(("dataset", "trucks"), [("cityscapes", [1, 1]), ("cityscapes-step", [0, 0])])
def test_the_two_specs_of_cityscapes(dataset: Any, trucks: list[int], tmp_path: Path) -> None:
    data = DataConfig(dataset=dataset, label_spec=dataset, root=str(write_fine(write_images(tmp_path))))
    clips = build.build_clips(data, "train", past_offsets=(), size=(4, 8))
    assert clips[0].instance_map[0, 0, 3:5].tolist() == trucks
    assert build.describe_label_mapping(data) == ""


def test_maps_are_brought_into_the_spec_of_the_run(tmp_path: Path) -> None:
    """Cityscapes in KITTI-STEP's space: the same codes, trucks without instances; in CamVid's: trucks are void."""
    root = str(write_fine(write_images(tmp_path / "a", "val"), "val"))
    config = RunConfig(data=DataConfig(dataset="cityscapes", label_spec="kitti-step", root=root))
    videos = build.build_videos(config)
    _, class_map, instance_map = videos.read_frame("aachen_000010", 19)
    assert videos.label_spec.name == "kitti-step"
    assert videos.stills, "frames 282 apart are no video"
    assert class_map[0].tolist() == [255, 13, 13, 14, 14, 11, 0, 0]
    assert instance_map[0].tolist() == [0, 1, 3, 0, 0, 0, 0, 0]
    camvid = replace(config.data, label_spec="camvid")
    clip = build.build_clips(camvid, "val", past_offsets=(), size=(4, 8))[1]
    assert clip.class_map[0, 0].tolist() == [255, 8, 8, 255, 255, 9, 3, 3]
    assert not clip.instance_map.any()
    assert (clip.name, clip.frames.shape) == ("aachen_000010/000019", (1, 4, 8, 3))
    assert build.describe_label_mapping(camvid) == (
        "labels cityscapes -> camvid: become void: wall, traffic light, terrain, truck, bus, train, motorcycle, "
        "bicycle; classes without data: none"
    )


def test_synthetic_clips_in_another_space(tmp_path: Path) -> None:
    """Loader and videos of a run in CamVid's space: its codes, 0..11, and no instance."""
    options = "--data.label_spec camvid --model.num_class_bits 4 --model.num_instance_bits 0".split()
    config = tiny_config(tmp_path, *options)
    (batch,) = first_batches(config, 1)
    assert int(batch.class_codes.max()) <= 11
    assert len(batch.class_codes.unique()) > 3
    assert build.build_videos(config).read_frame("0000", 0)[1].max() in (10, 255)


def test_videos_are_those_of_the_validation_split(tmp_path: Path) -> None:
    options = "--validation.num_sequences 3 --validation.num_frames 5".split()
    videos = build.build_videos(tiny_config(tmp_path, *options))
    assert videos.sequence_ids == ("0000", "0001", "0002")
    assert videos.frame_ids("0002") == (0, 1, 2, 3, 4)
    image, class_map, _ = videos.read_frame("0001", 0)
    assert image.shape == (32, 64, 3)
    other = build.build_videos(tiny_config(tmp_path, *options, "--data.val_split", "test"))
    assert not (other.read_frame("0001", 0)[1] == class_map).all()


def test_augmentation_settings_reach_the_transform() -> None:
    """Every one of them, to the argument of its name."""
    names = {"past_drop_rate": "drop_rate", "past_swap_rate": "swap_rate", "past_edge_rate": "edge_rate"}
    values = {"hue": 0.1, "blur": 0.2, "noise": 0.3, "brightness": 0.4, "contrast": 0.5, "saturation": 0.6}
    rates = {"past_drop_rate": 0.15, "past_swap_rate": 0.25, "past_edge_rate": 0.35}
    config = DataConfig(scale_min=1.5, scale_max=2.5, flip_rate=0.7, past_shift=3, **values, **rates)
    transform = build.build_transform(config, (32, 64), (16, 32))
    assert {name: getattr(transform, name) for name in values} == values
    assert {name: getattr(transform.corruption, names[name]) for name in rates} == rates
    assert (transform.scale_range, transform.flip_rate, transform.corruption.shift) == ((1.5, 2.5), 0.7, 3)
    assert (transform.image_size, transform.mask_size) == ((32, 64), (16, 32))
    assert not build.build_transform(DataConfig(), (32, 64), (16, 32)).corruption


def test_pseudo_video_settings_reach_the_clips() -> None:
    """The clips inside have no past of their own; without the switch there is nothing around them."""
    values = {"camera_motion": 0.3, "paste_rate": 0.6, "paste_max": 7, "paste_motion": 0.9, "seed": 5}
    options: Any = {"past_offsets": (-3, -1), "size": (32, 64)}
    clips = build.build_clips(DataConfig(pseudo_video=True, **values), "train", **options)
    assert isinstance(clips, PseudoVideo)
    assert {name: getattr(clips, name) for name in values} == values
    assert (clips.past_offsets, clips.dataset.past_offsets) == ((-3, -1), ())
    assert clips[7].class_map.shape == (3, 32, 64)
    assert not isinstance(build.build_clips(DataConfig(), "train", **options), PseudoVideo)


def first_batches(config: RunConfig, count: int, **options: int) -> list[Batch]:
    model = build.build_model(config)
    batches = iter(build.build_train_loader(config, model, **{"start": 0, "num_processes": 1, **options}))
    return [next(batches) for _ in range(count)]


def same(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Batch)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def test_the_loader_begins_where_a_step_begins(tmp_path: Path) -> None:
    """Step 1 of runs with two micro-steps, on one process and on two."""
    config = tiny_config(tmp_path, "--train.accumulation", "2")
    batches = first_batches(config, 5)
    assert len(batches[0]) == 2
    assert batches[0].frame.shape == (2, 3, 32, 64)
    assert batches[0].class_codes.shape == (2, 3, 16, 32)
    assert same(first_batches(config, 1, start=1)[0], batches[2])
    assert same(first_batches(config, 1, start=1, num_processes=2)[0], batches[4])
    assert not same(batches[0], batches[2])


def test_the_loader_begins_behind_the_samples_seen(tmp_path: Path) -> None:
    """Batches of 2: after 8 samples comes batch 4, after 7 too (what is left of batch 3 comes in the next epoch)."""
    config = tiny_config(tmp_path)
    batches = first_batches(config, 5)
    for samples in (7, 8):
        assert same(first_batches(config, 1, start=1, samples=samples)[0], batches[4])


def test_bad_clips_are_skipped_where_that_is_wished(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", "--data.on_error", "skip")
    loader = build.build_train_loader(config, build.build_model(config), start=0, num_processes=1)
    assert isinstance(loader.dataset, SkippingClips)
    assert loader.dataset.listing == tmp_path / "run" / "bad_files.txt"


# own past maps


@pytest.mark.parametrize("option", ["--data.pseudo_video false", "--data.pseudo_video true"])
def test_own_past_maps_bring_older_maps_and_the_images_of_the_past(option: str, tmp_path: Path) -> None:
    """Maps at -4 to 0 for the past offsets -2 and -1, and two images; without the switch three maps and no image."""
    options = [*option.split(), "--model.past_offsets", "[-2,-1]"]
    batch = first_batches(tiny_config(tmp_path, *options, "--loss.own_past_rate", "0.1"), 1)[0].to("cpu")
    assert batch.class_codes.shape == (2, 5, 16, 32)
    assert batch.present.shape == (2, 5)
    assert batch.past_frames is not None
    assert batch.past_frames.shape == (2, 2, 3, 32, 64)
    assert batch.past_frames.float().std() > 1
    plain = first_batches(tiny_config(tmp_path, *options), 1)[0]
    assert plain.class_codes.shape == (2, 3, 16, 32)
    assert plain.past_frames is None


@pytest.mark.parametrize("name", build.READERS)
def test_every_reader_brings_images_of_the_past(name: str, tmp_path: Path) -> None:
    """The second frame of the trees; stills have no past, and black images."""
    WRITERS[name](tmp_path, name)
    spec = name if name in LABEL_SPECS else "kitti-step"
    config = DataConfig(dataset=name, root=str(tmp_path), label_spec=spec)  # type: ignore[arg-type]
    clip = build.build_clips(config, "val", past_offsets=(-2, -1), size=(1, 8), all_frames=True)[1]
    assert clip.frames.shape == (3, 1, 8, 3)
    assert (clip.frames.reshape(3, -1).max(1) > 0).tolist() == clip.present.tolist()


def test_settings_of_own_maps_reach_their_places() -> None:
    loss = {"self_aligned_rate": 0.2, "own_past_rate": 0.3, "own_past_steps": 7}
    config = replace(RunConfig(), loss=replace(RunConfig().loss, **loss, own_ramp=(3, 9)))
    module = build.build_training_loss(config, on_meta(config))
    assert (module.loss.self_aligned_rate, module.own_past_rate, module.own_past_steps) == (0.2, 0.3, 7)
    assert build.build_loop_settings(config).own_ramp == (3, 9)
    images = replace(config, model=replace(config.model, past_offsets=()))
    with pytest.raises(ValueError, match=r"^loss.own_past_rate: expected 0 where model.past_offsets is empty"):
        build.build_training_loss(images, on_meta(images))
