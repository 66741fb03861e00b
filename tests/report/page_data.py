"""What a page holds, read from its text."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def blocks(path: Path, kind: str) -> list[Any]:
    """The JSON blocks of a class."""
    text = path.read_text("utf-8")
    return [json.loads(b) for b in re.findall(rf'<script type="application/json" class="{kind}">(.*?)</script>', text)]


def picture(uri: str, mode: str = "RGBA") -> np.ndarray:
    """The pixels of a data URI."""
    head, _, data = uri.partition(";base64,")
    assert head in ("data:image/jpeg", "data:image/png")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.array(image.convert(mode))
