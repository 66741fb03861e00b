"""The single calls equal the classes, for one frame, stacks, sequences and tensors, and pass every option on."""

import inspect

import numpy as np
import pytest
import torch
from metric_oracles import LAYOUT, draw, videos

from pix2seq_d import metrics
from pix2seq_d.metrics import (
    MeanIoU,
    PanopticQuality,
    SegmentationTrackingQuality,
    VideoPanopticQuality,
    j_and_f,
    mean_iou,
    panoptic_quality,
    segmentation_tracking_quality,
    video_panoptic_quality,
)

PANOPTIC = {
    panoptic_quality: PanopticQuality,
    video_panoptic_quality: VideoPanopticQuality,
    segmentation_tracking_quality: SegmentationTrackingQuality,
}


def frames_of(seed=0, length=5):
    frames = [(*pred, *target) for _, target, pred in videos(seed, (length,))]
    return [list(maps) for maps in zip(*frames)]


@pytest.mark.parametrize("function", PANOPTIC)
def test_a_video_as_list_stack_and_tensor(function):
    maps = frames_of()
    metric = PANOPTIC[function](**LAYOUT)
    for frame in zip(*maps):
        metric.update(*frame)
    expected = metric.compute()
    assert function(*maps, **LAYOUT) == expected
    assert function(*(np.stack(m) for m in maps), **LAYOUT) == expected
    assert function(*(torch.from_numpy(np.stack(m)) for m in maps), **LAYOUT) == expected


@pytest.mark.parametrize("function", PANOPTIC)
def test_one_frame(function):
    maps = [m[0] for m in frames_of()]
    metric = PANOPTIC[function](**LAYOUT)
    metric.update(*maps)
    assert function(*maps, **LAYOUT) == metric.compute()


@pytest.mark.parametrize("function", PANOPTIC)
def test_options_are_those_of_the_class(function):
    names = list(inspect.signature(function).parameters.values())[4:]
    of_class = list(inspect.signature(PANOPTIC[function]).parameters.values())
    assert [(p.name, p.default) for p in names] == [(p.name, p.default) for p in of_class]


@pytest.mark.parametrize(
    ("function", "option"),
    [
        (panoptic_quality, {"ignore_crowd": False}),
        (panoptic_quality, {"subtract_void": False}),
        (panoptic_quality, {"crowd_excuses": "any_class"}),
        (panoptic_quality, {"empty_classes": "zero"}),
        (video_panoptic_quality, {"windows": (2,)}),
        (video_panoptic_quality, {"ignore_crowd": True}),
        (video_panoptic_quality, {"subtract_void": False}),
        (video_panoptic_quality, {"empty_classes": "zero"}),
        (segmentation_tracking_quality, {"void_in_tracks": False}),
    ],
)
def test_every_option_has_an_effect(function, option):
    pixels = draw("p0 p0 p0 . . c1 c1 r r r"), draw("c5 c5 p7 c1 c1 c1 c1 r r r")
    maps = [[m, m] for m in (*pixels[1], *pixels[0])]
    results = [function(*maps, **LAYOUT, **chosen) for chosen in ({}, option)]
    assert results[0] != results[1]


def test_mean_iou():
    maps = frames_of(1)
    metric = MeanIoU(4)
    for frame in zip(*maps):
        metric.update(*frame)
    assert mean_iou(maps[0], maps[2], num_classes=4) == metric.compute()
    assert mean_iou(draw("c1 c2")[0], draw("c r")[0], num_classes=4)["pixel_accuracy"] == 0.5


def test_instances_may_be_left_out_without_things():
    target, pred = draw("r r s")[0], draw("r s s")[0]
    result = panoptic_quality(pred, None, target, None, num_classes=4, thing_ids=())
    assert result["n"] == 2


def test_numbers_of_frames_that_differ():
    maps = frames_of()
    with pytest.raises(ValueError, match=r"expected equally many frames of all maps, got {'target_semantic': 5, 'pred"):
        panoptic_quality(maps[0][:3], *maps[1:], **LAYOUT)
    with pytest.raises(ValueError, match=r"expected equally many frames of all maps, got {'pred': 4, 'target': 5}"):
        j_and_f(maps[1][:4], maps[3])


def test_no_frames():
    assert panoptic_quality([], [], [], [])["num_frames"] == 0


def test_frames_are_named():
    maps = frames_of()
    maps[0][3] = maps[0][3] + 100
    with pytest.raises(ValueError, match=r"^sequence '0', frame 3: expected pred_semantic class ids"):
        video_panoptic_quality(*maps, **LAYOUT)


def test_public_names():
    assert set(metrics.__all__) <= set(dir(metrics))
    assert all(callable(getattr(metrics, name)) and inspect.getdoc(getattr(metrics, name)) for name in metrics.__all__)
