"""What the page shows of a session: pictures (H, W, 3) uint8 of a convenient size, names, and small pieces of HTML."""

from __future__ import annotations

import html

import numpy as np

from pix2seq_d.app.session import UNDECIDED, Progress, Segment, Session
from pix2seq_d.labels import LabelSpec
from pix2seq_d.palette import colour_instances, colour_panoptic
from pix2seq_d.pictures import resize_picture, text_picture
from pix2seq_d.visualize import overlay, uncertainty_overlay

LAYERS = ("overlay", "panoptic", "instance", "uncertainty", "frame")
SMALL_VIEW, LARGE_VIEW = (720, 960), (960, 1280)  # (height, width) that pictures are enlarged and scaled down to
_LABEL_SIZE = 13  # of numbers on a picture, in pixels


def view_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which frames of size (H, W) are shown."""
    scale = min(bound / n for bound, n in zip(LARGE_VIEW, size))
    if scale >= 1:  # by whole factors, so that pixels stay alike
        scale = max(1, min(bound // n for bound, n in zip(SMALL_VIEW, size)))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def draw_frame(session: Session, index: int, layer: str) -> np.ndarray:
    """A layer of a frame; the frame itself where nothing is predicted yet."""
    size = view_size(session.clip.size)
    frame = resize_picture(session.clip.frames[index], size)
    maps = session.maps(index)
    if maps is None or layer == "frame":
        return frame
    if layer == "uncertainty":
        return uncertainty_overlay(frame, _nearest(session.uncertainty(index), size))
    return _draw_maps(frame, maps, layer, session.spec)


def draw_estimate(session: Session, progress: Progress, layer: str) -> np.ndarray:
    """What the sampler takes for the map of a frame by now."""
    assert progress.estimate is not None
    frame = resize_picture(session.clip.frames[progress.index], view_size(session.clip.size))
    return _draw_maps(frame, progress.estimate, layer, session.spec)


def _draw_maps(frame: np.ndarray, maps: tuple[np.ndarray, np.ndarray], layer: str, spec: LabelSpec) -> np.ndarray:
    """At the size of the frame; the panoptic map where the layer is not one of maps."""
    class_map, instance_map = (_nearest(values, frame.shape) for values in maps)
    if layer == "overlay":
        return overlay(frame, class_map, instance_map, spec)
    return (colour_instances if layer == "instance" else colour_panoptic)(class_map, instance_map, spec)


def draw_to_correct(session: Session, index: int) -> np.ndarray:
    """The overlay with the numbers of its objects above them."""
    picture = draw_frame(session, index, "overlay")
    maps = session.maps(index)
    assert maps is not None
    for segment in session.segments(index):
        if segment.instance_id:
            rows, columns = np.nonzero((maps[0] == segment.class_id) & (maps[1] == segment.instance_id))
            height, width = maps[0].shape
            _write(picture, str(segment.instance_id), rows.min() / height, (columns.mean() + 0.5) / width)
    return picture


def _write(picture: np.ndarray, text: str, bottom: float, centre: float) -> None:
    """Text on white that stands on a height, around a column, given as shares of the picture; it stays inside."""
    label = text_picture(text, size=_LABEL_SIZE)[: picture.shape[0], : picture.shape[1]]
    height, width = label.shape[:2]
    top = int(np.clip(bottom * picture.shape[0] - height - 2, 0, picture.shape[0] - height))
    left = int(np.clip(centre * picture.shape[1] - width / 2, 0, picture.shape[1] - width))
    picture[top : top + height, left : left + width] = label


def _nearest(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, values.shape))
    return values[np.ix_(rows, columns)]


def painted_mask(layers: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of the frame: where one of the (h, w, 4) uint8 layers of an editor is painted, at any size."""
    mask = np.zeros(size, bool)
    for layer in layers:
        mask |= _nearest(layer[..., 3] > 127, size)
    return mask


# Names


def name_of(spec: LabelSpec, class_id: int, instance_id: int = 0) -> str:
    """Of a segment: the class, and the number of the object."""
    return f"{spec.class_names[class_id]} {instance_id}" if instance_id else spec.class_names[class_id]


def targets(session: Session, index: int) -> dict[str, tuple[int, int]]:
    """What paint can stand for, by name: objects of the frame, new ones, stuff, and that the model shall decide."""
    spec, new = session.spec, session.new_object()
    things = sorted((s.class_id, s.instance_id) for s in session.segments(index) if s.instance_id)
    found = {name_of(spec, *key): key for key in things}
    found |= {f"new {spec.class_names[c]}": (c, new) for c in spec.thing_ids}
    found |= {name_of(spec, c): (c, 0) for c in spec.stuff_ids}
    return {**found, "let the model decide": UNDECIDED}


# HTML; every text from elsewhere is escaped here


def status_html(text: str, *, is_error: bool = False) -> str:
    """The line above the picture."""
    role = 'role="alert" class="status wrong"' if is_error else 'role="status" class="status"'
    return f"<div {role}>{html.escape(text)}</div>"


def segments_html(session: Session, index: int) -> str:
    """The segments of a frame as a row of names in their colours."""
    return f'<ul class="segments">{"".join(_chip(session.spec, s) for s in session.segments(index))}</ul>'


def _chip(spec: LabelSpec, segment: Segment) -> str:
    ids = np.array([[segment.class_id]]), np.array([[segment.instance_id]])
    red, green, blue = colour_panoptic(*ids, spec)[0, 0].tolist()
    name = html.escape(name_of(spec, segment.class_id, segment.instance_id))
    sure = "" if segment.confidence is None else f", {segment.confidence:.0%} sure"
    return (
        f'<li><i style="background: rgb({red} {green} {blue})"></i>{name} <small>{segment.share:.1%}{sure}</small></li>'
    )
