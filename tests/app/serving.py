"""The page, served on loopback for headless Chromium; who needs either skips with a reason where it is missing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pix2seq_d.app import page as app_page
from pix2seq_d.app import views
from pix2seq_d.app.page import Page
from pix2seq_d.app.uploads import example_clip
from pix2seq_d.models.pix2seq_d import Pix2SeqD

LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@contextmanager
def serve(model: Pix2SeqD, *, quick: bool = True) -> Iterator[str]:
    """The URL of a page; on leaving, no other host than this one may have been looked up.

    Args:
        model: to try.
        quick: three frames in the example clip, and pictures no larger than the frames.
    """
    pytest.importorskip("gradio", reason="Gradio (extra `app`) is not installed")
    asked, look_up = set(), socket.getaddrinfo

    def noted(host: Any, *arguments: Any, **named: Any) -> Any:
        asked.add(host.decode() if isinstance(host, bytes) else host)
        return look_up(host, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", noted)
        if quick:
            patch.setattr(app_page, "example_clip", lambda: example_clip(3))
            patch.setattr(views, "SMALL_VIEW", (1, 1))
        page = Page(model, max_frames=60)
        _, url = page.launch(host="127.0.0.1", port=None, max_upload_mb=1, block=False)
        yield url
        page.blocks.close(verbose=False)
    assert asked <= LOOPBACK
