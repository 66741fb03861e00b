"""app.py: arguments, and the page served until Ctrl-C."""

from __future__ import annotations

import argparse
import logging

from pix2seq_d.app.page import Page, import_gradio
from pix2seq_d.engine.checkpoint import find_model
from pix2seq_d.pipeline import Pix2SeqDPipeline

logger = logging.getLogger(__name__)


def add_app_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of app.py."""
    add = parser.add_argument
    text = "saved model, run folder, checkpoint or Hub id (default: checkpoints/synthetic-tiny)"
    add("--checkpoint", default="checkpoints/synthetic-tiny", metavar="PATH_OR_HUB_ID", help=text)
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: 127.0.0.1, this machine alone)")
    add("--port", type=int, default=7860, metavar="N", help="to listen on (default: 7860)")
    add("--max_upload_mb", type=int, default=64, metavar="N", help="largest file that may be uploaded (default: 64)")
    add(
        "--max_frames",
        type=int,
        default=60,
        metavar="N",
        help="frames of a clip, further ones are left out (default: 60)",
    )
    add("--device", metavar="NAME", help='"cpu", "cuda", "cuda:1", ... (default: a GPU if there is one)')


def run_app(arguments: argparse.Namespace) -> None:
    """Serves the page.

    Raises:
        ValueError: a limit below 1 or a port that is none.
        ImportError: Gradio is not installed.
        OSError: the port is taken.
    """
    for name in ("max_upload_mb", "max_frames"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name}: expected at least 1, got {getattr(arguments, name)}")
    if not 1 <= arguments.port <= 65535:
        raise ValueError(f"--port: expected 1..65535, got {arguments.port}")
    import_gradio()  # refused now, not when the model is loaded
    pipeline = Pix2SeqDPipeline.from_pretrained(find_model(arguments.checkpoint), device=arguments.device)
    page = Page(pipeline.model, max_frames=arguments.max_frames)
    logger.info("http://%s:%d: the page; Ctrl-C ends it", arguments.host, arguments.port)
    page.launch(host=arguments.host, port=arguments.port, max_upload_mb=arguments.max_upload_mb)
