"""Makes the picture of docs/app.md: PYTHONPATH=tests python tests/app/screenshot.py docs/app.png."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from chromium import open_chromium
from PIL import Image
from serving import serve

from pix2seq_d.data.formats import write_bytes
from pix2seq_d.models.pix2seq_d import Pix2SeqD


def take_picture(path: Path) -> None:
    """The page at 1280x800 after a run of the example clip, in 256 colours."""
    model = Pix2SeqD.from_pretrained("checkpoints/synthetic-tiny").eval()
    with serve(model, quick=False) as url, open_chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(url)
        page.get_by_text("Press Run").wait_for()
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("Done: ").wait_for(timeout=300_000)
        page.wait_for_timeout(500)  # until the last picture is decoded
        shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    data = io.BytesIO()
    shot.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    write_bytes(path, data.getvalue())


if __name__ == "__main__":
    take_picture(Path(sys.argv[1]))
