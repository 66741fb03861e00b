"""Pix2SeqD = image encoder + mask denoiser + the settings that inference needs, saved and loaded as one folder.

B batch, T past frames, G code groups, K bit planes, S logit planes, H W image size, h w mask size.
"""

import inspect
import json
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pix2seq_d.bits import BitCodec
from pix2seq_d.labels import LabelSpec
from pix2seq_d.models.denoiser import DenoiserCondition, TransUNet
from pix2seq_d.models.image_encoder import ImageEncoder, ImageFeatures, ResNet
from pix2seq_d.video.conditioning import encode_past

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
TARGETS = ("softmax", "mse")


class Pix2SeqD(nn.Module, ModelHubMixin, library_name="pix2seq_d", license="apache-2.0"):
    """The whole model. Every argument is JSON-able and stands in config.json.

    Args:
        label_spec: a LabelSpec or its `to_dict`.
        image_size: (H, W) the model was trained at; frames are fitted into it at inference.
        mask_stride: image size / mask size.
        num_class_bits: bits of the class code; at least the spec's.
        num_instance_bits: bits of the instance code; 0 = semantic segmentation only.
        bit_scale: amplitude b of the analog bits.
        target: "softmax" (logits per code) or "mse" (bits), as in DiffusionLoss.
        schedule: name of the noise schedule.
        self_cond: whether the denoiser takes its previous estimate.
        past_offsets: frames whose maps condition the next one, oldest first, for example (-2, -1); () for images.
        block, stem_width, stage_widths, stage_depths, stage_strides, norm: backbone, see ResNet.
        encoder_dim, encoder_layers, encoder_heads, pyramid_dim, cond_channels: see ImageEncoder.
        denoiser_widths, denoiser_blocks, denoiser_dim, denoiser_layers, denoiser_heads: see TransUNet.
        dropout: in both transformers and the residual blocks.
        sampler, num_steps, num_steps_next, td_steps, min_pixels: defaults of inference (first frames, later frames,
            asymmetric time interval in steps, smallest segment kept in pixels of the frame).
    """

    def __init__(
        self,
        *,
        label_spec: LabelSpec | dict[str, Any],
        image_size: tuple[int, int] = (384, 1248),
        mask_stride: int = 2,
        num_class_bits: int = 5,
        num_instance_bits: int = 6,
        bit_scale: float = 0.1,
        target: str = "softmax",
        schedule: str = "cosine",
        self_cond: bool = False,
        past_offsets: tuple[int, ...] = (-2, -1),
        block: str = "bottleneck",
        stem_width: int = 64,
        stage_widths: tuple[int, ...] = (64, 128, 256, 512),
        stage_depths: tuple[int, ...] = (3, 4, 6, 3),
        stage_strides: tuple[int, ...] = (1, 2, 2, 1),
        norm: str = "group",
        encoder_dim: int = 512,
        encoder_layers: int = 12,
        encoder_heads: int = 8,
        pyramid_dim: int = 256,
        cond_channels: int = 256,
        denoiser_widths: tuple[int, ...] = (128, 128, 256, 256),
        denoiser_blocks: int = 1,
        denoiser_dim: int = 512,
        denoiser_layers: int = 6,
        denoiser_heads: int = 8,
        dropout: float = 0.0,
        sampler: str = "ddim",
        num_steps: int = 20,
        num_steps_next: int = 10,
        td_steps: float = 1.0,
        min_pixels: int = 0,
    ) -> None:
        super().__init__()
        self.label_spec = label_spec if isinstance(label_spec, LabelSpec) else LabelSpec.from_dict(label_spec)
        if num_class_bits < self.label_spec.num_class_bits:
            raise ValueError(
                f"num_class_bits: expected at least {self.label_spec.num_class_bits}, got {num_class_bits}"
            )
        if target not in TARGETS:
            raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
        if any(o >= 0 for o in past_offsets):
            raise ValueError(f"past_offsets: expected negative numbers, got {past_offsets}")
        bits = (num_class_bits, num_instance_bits) if num_instance_bits else (num_class_bits,)
        self.codec = BitCodec(bits, bit_scale)
        self.image_size, self.mask_stride = (image_size[0], image_size[1]), mask_stride
        self.target, self.schedule, self.past_offsets = target, schedule, tuple(past_offsets)
        self.sampler, self.num_steps, self.num_steps_next = sampler, num_steps, num_steps_next
        self.td_steps, self.min_pixels = td_steps, min_pixels
        resnet = ResNet(
            block=block,
            stem_width=stem_width,
            widths=tuple(stage_widths),
            depths=tuple(stage_depths),
            strides=tuple(stage_strides),
            norm=norm,
        )
        self.encoder = ImageEncoder(
            resnet,
            dim=encoder_dim,
            num_layers=encoder_layers,
            num_heads=encoder_heads,
            pyramid_dim=pyramid_dim,
            out_channels=cond_channels,
            mask_stride=mask_stride,
            dropout=dropout,
        )
        self.denoiser = TransUNet(
            num_bits=self.codec.num_bits,
            out_channels=self.codec.num_logits if target == "softmax" else self.codec.num_bits,
            cond_channels=cond_channels + len(past_offsets) * self.codec.num_bits,
            token_dim=encoder_dim,
            data_std=bit_scale,
            widths=tuple(denoiser_widths),
            num_blocks=denoiser_blocks,
            dim=denoiser_dim,
            num_layers=denoiser_layers,
            num_heads=denoiser_heads,
            self_cond=self_cond,
            dropout=dropout,
            code_bits=self.codec.code_bits() if target == "softmax" else None,
        )
        self.size_divisor = max(self.encoder.stride, mask_stride * self.denoiser.size_divisor)
        if any(s % self.size_divisor for s in self.image_size):
            raise ValueError(f"image_size: expected multiples of {self.size_divisor}, got {self.image_size}")

    @property
    def mask_size(self) -> tuple[int, int]:
        """(h, w) of the maps at `image_size`."""
        return self.image_size[0] // self.mask_stride, self.image_size[1] // self.mask_stride

    @property
    def num_instance_codes(self) -> int:
        """Codes for objects, "no instance" not counted."""
        return self.codec.group_codes[1] - 1 if len(self.codec.group_bits) > 1 else 0

    def condition(self, frame: Tensor, past_codes: Tensor, present: Tensor) -> DenoiserCondition:
        """What a frame's denoising steps share.

        Args:
            frame: (B, 3, H, W) RGB in [0, 1].
            past_codes: (B, T, G, h, w) int64 codes of the past maps, oldest first.
            present: (B, T) bool, False = no such map.
        """
        return self.condition_features(self.encoder(frame), past_codes, present)  # the encoder runs once per frame

    def condition_features(self, features: ImageFeatures, past_codes: Tensor, present: Tensor) -> DenoiserCondition:
        """As `condition`, of the encoder's features of the frame."""
        past = encode_past(past_codes, present, self.codec).to(features.map.dtype)  # (B, T K, h, w)
        return self.denoiser.precompute(torch.cat([features.map, past], 1), features.tokens)

    def bind(self, cond: DenoiserCondition) -> "BoundDenoiser":
        """The denoiser with its conditioning bound, as samplers call it."""
        return BoundDenoiser(self, cond)

    def configure(
        self,
        *,
        num_steps: int | None = None,
        num_steps_next: int | None = None,
        td_steps: float | None = None,
        sampler: str | None = None,
        min_pixels: int | None = None,
    ) -> None:
        """Changes defaults of inference, here and in the config.json that is saved; None keeps a value."""
        values = {
            "num_steps": num_steps,
            "num_steps_next": num_steps_next,
            "td_steps": td_steps,
            "sampler": sampler,
            "min_pixels": min_pixels,
        }
        chosen = {name: value for name, value in values.items() if value is not None}
        for name, value in chosen.items():
            setattr(self, name, value)
        assert isinstance(self._hub_mixin_config, dict)
        self._hub_mixin_config = self._hub_mixin_config | chosen

    # weights on disk and on the Hub

    def _save_pretrained(self, save_directory: Path) -> None:
        partial = save_directory / (WEIGHTS_NAME + ".partial")
        try:
            save_file({k: v.contiguous() for k, v in self.state_dict().items()}, partial, metadata={"format": "pt"})
        except SafetensorError as error:
            partial.unlink(missing_ok=True)
            raise OSError(f"{save_directory / WEIGHTS_NAME}: cannot write the file: {error}") from None
        partial.chmod(save_directory.stat().st_mode & 0o666)  # safetensors makes it private, whatever the umask
        os.replace(partial, save_directory / WEIGHTS_NAME)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> "Pix2SeqD":
        """Loads a model from a folder or from the Hub, in eval mode and float32.

        Args:
            pretrained_model_name_or_path: folder with config.json and model.safetensors, or a Hub id.
            revision: branch, tag or commit on the Hub.
            cache_dir: where downloads are kept.
            token: Hub token.
            local_files_only: never ask the network.

        Raises:
            ValueError: a missing file, unknown, missing or wrong entries in config.json, or weights of another model.
        """
        files = {}
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            files[name] = _find_file(
                str(pretrained_model_name_or_path), name, revision, cache_dir, token, local_files_only
            )
        arguments = read_config(files[CONFIG_NAME])
        try:
            model = cls(**arguments)
        except (TypeError, ValueError, RuntimeError, LookupError) as error:
            raise ValueError(f"{files[CONFIG_NAME]}: {error}") from None
        load_weights(model, files[WEIGHTS_NAME])
        return model.eval()


class BoundDenoiser:
    """`(x_t, gamma, self_cond) -> x0` for one conditioning; `logits` keeps the last prediction for decoding."""

    def __init__(self, model: Pix2SeqD, cond: DenoiserCondition) -> None:
        self.model, self.cond = model, cond
        self.logits: Tensor | None = None  # (B, S, h, w) after a call

    def __call__(self, x_t: Tensor, gamma: Tensor, self_cond: Tensor | None = None) -> Tensor:
        self.logits = self.model.denoiser(x_t, gamma, self.cond, self_cond).float()
        return self.model.codec.expected_bits(self.logits) if self.model.target == "softmax" else self.logits


def read_config(path: Path) -> dict[str, Any]:
    """Arguments of Pix2SeqD from config.json; ValueError for unreadable JSON, unknown or missing keys."""
    try:
        values = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(values).__name__}")
    known = set(inspect.signature(Pix2SeqD.__init__).parameters) - {"self"}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{path}: unknown keys {', '.join(unknown)}: not a Pix2SeqD of this version")
    if missing := sorted(known - set(values)):
        raise ValueError(f"{path}: missing keys {', '.join(missing)}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a safetensors file strictly: ValueError naming the file and the first differing tensors."""
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: expected a safetensors file, got {error}") from None
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    if own != found:
        names = sorted(k for k in own.keys() | found.keys() if own.get(k) != found.get(k))
        first = ", ".join(f"{k} (expected {own.get(k)}, got {found.get(k)})" for k in names[:3])
        raise ValueError(f"{path}: weights of another model: {len(names)} tensors differ: {first}")
    model.load_state_dict(state, strict=True)


def _find_file(
    name_or_path: str, name: str, revision: str | None, cache_dir: Any, token: Any, local_files_only: bool
) -> Path:
    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: expected {CONFIG_NAME} and {WEIGHTS_NAME}, found no {name}")
        return folder / name
    try:
        path = hf_hub_download(
            name_or_path, name, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
    except Exception as error:  # the client's errors and its transport's have no common base
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{name_or_path}: neither a folder nor a model on the Hub that can be read: {reason}"
        ) from None
    return Path(path)
