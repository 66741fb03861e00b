"""Starting a model from another one's weights, as training does from pretraining; codes may mean other classes in it.

Most tensors know nothing of codes and go over whole. Four do: those for the bit planes that the denoiser reads (of x_t
and of past maps), and for the logits that it gives. K bit planes, S logit planes; -1 stands for "no counterpart".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pix2seq_d.engine.checkpoint import CheckpointError
from pix2seq_d.label_mapping import class_table
from pix2seq_d.models.pix2seq_d import Pix2SeqD

logger = logging.getLogger(__name__)

STEM, STEM_COND, OUT_WEIGHT, OUT_BIAS = (
    f"denoiser.{name}" for name in ("stem.weight", "stem_cond.weight", "out.weight", "out.bias")
)


@dataclass(frozen=True)
class CodeMatch:
    """Where the target's codes are found in the source.

    Attributes:
        rows: S entries, the logit plane of the source whose code means the same.
        planes: K entries, the bit plane of the source that means the same.
    """

    rows: list[int]
    planes: list[int]


def match_codes(source: Pix2SeqD, target: Pix2SeqD) -> CodeMatch:
    """Class codes by the name of the class (or its synonym), instance codes by number, bits by their significance.

    A bit of the class code tells one half of the classes from the other. It means the same only where every class
    that both sides have keeps its code; otherwise no bit of the class code has a counterpart.
    """
    bits, own_bits = source.codec.group_bits, target.codec.group_bits
    codes = _class_codes(source, target)
    unused = range(max(m.label_spec.num_classes for m in (source, target)) + 1, 1 << min(bits[0], own_bits[0]))
    meaning = codes | {c: c for c in unused}  # no class, here and there
    rows = [meaning.get(c, -1) for c in range(1 << own_bits[0])]
    keep = len(codes) > 1 and all(a == b for a, b in codes.items())
    planes = _by_significance(own_bits[0], bits[0] if keep else 0, 0)
    if len(own_bits) > 1:
        there = len(bits) > 1
        rows += [(1 << bits[0]) + c if there and c < 1 << bits[1] else -1 for c in range(1 << own_bits[1])]
        planes += _by_significance(own_bits[1], bits[1] if there else 0, bits[0])
    return CodeMatch(rows, planes)


def copy_weights(source: Pix2SeqD, target: Pix2SeqD, *, name: str, tell: bool = True) -> None:
    """Starts `target` from `source`; the log lists every tensor that does not go over whole.

    Tensors of equal name and shape are copied. Those that depend on codes are copied by `match_codes`: logits of the
    same code stay what they were; bit planes that the source does not know, past maps included, start at zero, so that
    the model begins as one that does not look at them. All else keeps its random start.

    Args:
        source: model to start from.
        target: model that is to be trained; changed in place.
        name: of the source, for messages.
        tell: write the log; of several processes one is enough.

    Raises:
        CheckpointError: less than half of the target's weights would come from the source; nothing is changed.
    """
    found, own = source.state_dict(), target.state_dict()
    match = match_codes(source, target)
    parts = _coded_tensors(source, target, match)
    whole = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape and k not in _CODED}
    count = sum(v.numel() for v in whole.values()) + sum(p.copied for p in parts.values())
    share = count / max(1, sum(v.numel() for v in own.values()))
    if share < 0.5:
        raise CheckpointError(f"{name}: only {share:.0%} of the weights fit this model configuration")
    target.load_state_dict({**whole, **{k: p.value for k, p in parts.items()}}, strict=False)
    if not tell:
        return
    if told := _describe_classes(source, target, match):
        logger.warning("%s: %s", name, told)
    _list(f"{name}: %d tensors are taken in part: %s", [f"{k} ({p.note})" for k, p in parts.items() if p.note])
    _list(f"{name}: %d tensors keep their random start: %s", sorted(set(own) - set(whole) - set(parts)))
    _list(f"{name}: %d tensors have no place in this model: %s", sorted(set(found) - set(own)))


_CODED = (STEM, STEM_COND, OUT_WEIGHT, OUT_BIAS)


@dataclass(frozen=True)
class _Part:
    """A tensor put together from the source's, the number of copied values, and what is to be said of it."""

    value: Tensor
    copied: int
    note: str


def _coded_tensors(source: Pix2SeqD, target: Pix2SeqD, match: CodeMatch) -> dict[str, _Part]:
    """The tensors that depend on codes, where the widths of the networks let them be copied."""
    found, own = source.state_dict(), target.state_dict()
    parts = {}
    for name, index in ((STEM, _stem_inputs(source, target, match)), (STEM_COND, _cond_inputs(source, target, match))):
        if index and found[name].shape[0] == own[name].shape[0]:
            value, copied = _place(found[name].transpose(0, 1), torch.zeros_like(own[name]).transpose(0, 1), index)
            parts[name] = _Part(value.transpose(0, 1), copied, _note(index, found[name].shape[1], "inputs"))
    if source.target == target.target:
        for name in (OUT_WEIGHT, OUT_BIAS):
            if found[name].shape[1:] == own[name].shape[1:]:
                parts[name] = _outputs(found[name], own[name], source, target, match)
    return parts


def _stem_inputs(source: Pix2SeqD, target: Pix2SeqD, match: CodeMatch) -> list[int]:
    """Planes of x_t, then those of the estimate that is fed back."""
    index = list(match.planes)
    if target.denoiser.self_cond:
        index += _shifted(match.planes, source.codec.num_bits if source.denoiser.self_cond else None)
    return index


def _cond_inputs(source: Pix2SeqD, target: Pix2SeqD, match: CodeMatch) -> list[int]:
    """Channels of the image, then the planes of each past map; [] where the image has other channels."""
    channels, own = (
        m.denoiser.stem_cond.in_channels - len(m.past_offsets) * m.codec.num_bits for m in (source, target)
    )
    if channels != own:
        return []
    index = list(range(channels))
    for offset in target.past_offsets:
        known = offset in source.past_offsets
        place = source.past_offsets.index(offset) * source.codec.num_bits + channels if known else None
        index += _shifted(match.planes, place)
    return index


def _outputs(found: Tensor, own: Tensor, source: Pix2SeqD, target: Pix2SeqD, match: CodeMatch) -> _Part:
    """Rows of the last layer. Evidence of a bit that does not go over moves into the logits of its codes."""
    if target.target == "mse":
        value, copied = _place(found, own.clone(), match.planes)
        return _Part(value, copied, _note(match.planes, len(found), "outputs"))
    logits, evidence = found.split((source.codec.num_logits, source.codec.num_bits))
    gone = torch.ones(source.codec.num_bits)
    gone[[k for k in match.planes if k >= 0]] = 0
    folded = torch.cat([logits + torch.tensordot(source.codec.code_bits() * gone, evidence, 1), evidence])
    value = own.clone()
    value[target.codec.num_logits :] = 0
    index = match.rows + _shifted(match.planes, source.codec.num_logits)
    value, copied = _place(folded, value, index)
    return _Part(value, copied, _note(index, len(found), "outputs"))


def _class_codes(source: Pix2SeqD, target: Pix2SeqD) -> dict[int, int]:
    """Class code of the target -> that of the source; void is void."""
    spec = source.label_spec
    table = class_table(target.label_spec, spec)[: target.label_spec.num_classes]
    return {0: 0} | {c + 1: int(i) + 1 for c, i in enumerate(table) if i != spec.void_id}


def _describe_classes(source: Pix2SeqD, target: Pix2SeqD, match: CodeMatch) -> str:
    old, new = source.label_spec, target.label_spec
    if old.class_names == new.class_names:
        return ""
    codes = _class_codes(source, target)
    pairs = [(n, old.class_names[codes[c] - 1] if c in codes else None) for c, n in enumerate(new.class_names, 1)]
    taken = ", ".join(n if n == o else f"{n} (from {o})" for n, o in pairs if o is not None) or "none"
    absent = ", ".join(n for n, o in pairs if o is None) or "none"
    bits = "keep their meaning" if match.planes[target.codec.group_bits[0] - 1] >= 0 else "are new"
    return f"classes of {new.name} that start from {old.name}: {taken}; new: {absent}; bits of the class code {bits}"


def _by_significance(count: int, source_count: int, first: int) -> list[int]:
    """Planes are written most significant bit first."""
    missing = count - source_count
    return [first + i - missing if i >= missing and source_count else -1 for i in range(count)]


def _shifted(index: Sequence[int], by: int | None) -> list[int]:
    return [-1 if by is None or i < 0 else i + by for i in index]


def _place(found: Tensor, value: Tensor, index: Sequence[int]) -> tuple[Tensor, int]:
    """Writes row index[i] of `found` into row i of `value`; also returns the number of values written."""
    known = [i for i, k in enumerate(index) if k >= 0]
    value[known] = found[[index[i] for i in known]]
    return value, value[known].numel()


def _note(index: Sequence[int], source_count: int, kind: str) -> str:
    """Empty where nothing is new and nothing left out."""
    known = sum(k >= 0 for k in index)
    if known == len(index) == source_count:
        return ""
    return f"{known} of {len(index)} {kind}, of {source_count} there"


def _list(message: str, names: Sequence[str]) -> None:
    if names:
        logger.warning(message.replace("%d", str(len(names))).replace("%s", ", ".join(names)))
