"""ImageNet weights for the encoder's ResNet, from the Hub or a local safetensors file."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file

from pix2seq_d.models.image_encoder import ResNet


def load_encoder_weights(resnet: ResNet, name_or_path: str, *, filename: str = "model.safetensors") -> None:
    """Loads torchvision-named ResNet weights; the classifier `fc.*` and `num_batches_tracked` are left out.

    Args:
        resnet: of the matching depth, with norm "frozen_batch".
        name_or_path: Hub id, or a safetensors file.
        filename: file of the Hub repository.

    Raises:
        ValueError: weights that cannot be fetched or read, or that belong to another ResNet.
    """
    path = Path(name_or_path) if Path(name_or_path).is_file() else _download(name_or_path, filename)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: expected a safetensors file, got {error}") from None
    state = {k: v for k, v in state.items() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")}
    own = resnet.state_dict()
    differing = sorted(
        k for k in own.keys() | state.keys() if k not in own or k not in state or own[k].shape != state[k].shape
    )
    if differing:
        raise ValueError(
            f"{name_or_path}: weights of another ResNet, {len(differing)} tensors differ, the first is {differing[0]}; "
            'torchvision\'s ResNets need model.norm "frozen_batch" and their own block, widths and depths'
        )
    resnet.load_state_dict(state)


def _download(name: str, filename: str) -> Path:
    try:
        return Path(hf_hub_download(name, filename))
    except Exception as error:  # the client's errors and its transport's have no common base
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"encoder weights {name}/{filename}: could not be fetched from the Hub ({reason}); connect once to fill "
            "the cache, give the path of a safetensors file, or train from random weights: "
            "--train.encoder_weights '' --model.norm group"
        ) from None
