"""The page in headless Chromium on loopback: running, looking, correcting, uploads that are none, two users."""

from __future__ import annotations

import re
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from chromium import open_chromium
from PIL import Image
from serving import LOOPBACK, serve

from pix2seq_d.app.page import Page, import_gradio
from pix2seq_d.app.uploads import example_clip
from pix2seq_d.data.formats import write_image

OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def url(tiny_model: Any) -> Iterator[str]:
    with serve(tiny_model(num_instance_bits=5, num_steps=12)) as address:
        yield address


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[Any]:
    with open_chromium() as opened:
        yield opened


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[OpenPage]:
    """Opens the page for another user; in the end no request may have left this machine, and no script failed."""
    pages, asked, failed = [], [], []

    def open_one(width: int = 1280) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 800})
        pages.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(url)
        page.get_by_text("Press Run").wait_for()
        return page

    yield open_one
    for page in pages:
        page.close()
    assert {urlsplit(a).hostname for a in asked if a.startswith("http")} <= LOOPBACK
    assert {urlsplit(a).scheme for a in asked} <= {"http", "data", "blob"}
    assert failed == []


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def status(page: Any) -> str:
    return page.locator(".status").inner_text()


def picture(page: Any) -> str:
    return page.locator("#stage img").get_attribute("src")


def changed_picture(page: Any, before: str) -> str:
    page.wait_for_function("before => document.querySelector('#stage img').src !== before", arg=before)
    return picture(page)


def run_to_the_end(page: Any) -> None:
    press(page, "Run")
    page.get_by_text("Done: ").wait_for()


def upload(page: Any, *paths: Path) -> None:
    page.locator("input[type=file]").first.set_input_files([str(path) for path in paths])


def test_a_run_is_seen_step_by_step_and_looked_at(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    assert status(page).startswith("3 frames of 320x96.")
    page.evaluate("""() => {
        window.seen = [];
        new MutationObserver(() => window.seen.push(document.querySelector(".status")?.textContent))
            .observe(document.body, { childList: true, subtree: true, characterData: true });
    }""")
    run_to_the_end(page)
    seen = page.evaluate("window.seen")
    assert any(text and text.startswith("Frame 1 of 3, step ") for text in seen)
    assert "Frame 3 of 3" in seen
    last = picture(page)
    frame = page.get_by_label("number input for Frame")
    frame.fill("2")
    frame.press("Enter")
    shown = changed_picture(page, last)
    for layer in ("Panoptic", "Instance", "Uncertainty", "Frame"):
        page.get_by_role("radio", name=layer).check()
        shown = changed_picture(page, shown)
    assert page.locator(".segments li").count() > 0
    with page.expect_download() as download:
        press(page, "Download maps (.zip)")
    download.value.save_as(tmp_path / "maps.zip")
    with zipfile.ZipFile(tmp_path / "maps.zip") as archive:
        assert archive.namelist() == [f"panoptic/{k:06d}.png" for k in range(3)]


def test_a_mask_is_painted_and_propagated(open_page: OpenPage) -> None:
    page = open_page(500)  # a small canvas is drawn faster without a GPU
    run_to_the_end(page)
    press(page, "Correct this frame")
    page.locator("#editor canvas").first.wait_for()
    assert status(page).startswith("Correcting frame 3")
    press(page, "Apply paint")
    page.get_by_role("alert").wait_for()
    assert status(page).startswith("nothing is painted yet")
    page.get_by_label("Paint as").click()
    page.get_by_role("option", name="new car").click()
    box = page.locator("#editor canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    press(page, "Apply paint")
    page.get_by_text("Painted as car ").wait_for()
    name = status(page).removeprefix("Painted as ").split(".")[0]
    press(page, "Propagate")
    page.get_by_text("Done: ").wait_for()
    assert name in [text.split("\n")[0].strip() for text in page.locator(".segments li").all_inner_texts()]


def test_what_is_no_image_is_named_and_the_page_goes_on(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    for name, content in (("notes.png", b"no image"), ("empty.jpg", b""), ("readme.txt", b"text")):
        (tmp_path / name).write_bytes(content)
        upload(page, tmp_path / name)
        page.get_by_role("alert").get_by_text(f"{name}: expected").wait_for()
    (tmp_path / "large.png").write_bytes(bytes(2**20 + 1))
    upload(page, tmp_path / "large.png")
    refused = page.get_by_text("exceed the maximum allowed size")
    refused.wait_for()
    assert "large.png" in refused.inner_text()
    paths = [tmp_path / f"{k}.png" for k in (1, 2, 3)]
    for path, width in zip(paths, (16, 16, 17)):
        write_image(path, np.zeros((8, width, 3), np.uint8))
    upload(page, *paths)
    page.get_by_role("alert").get_by_text("3.png: expected 16x8 pixels as 1.png, got 17x8").wait_for()
    upload(page, *paths[:2])
    page.get_by_text("2 frames of 16x8. Press Run.").wait_for()
    run_to_the_end(page)
    assert status(page).startswith("Done: 2 frames.")


def test_two_users_and_a_stop(open_page: OpenPage) -> None:
    one, other = open_page(), open_page()
    for name in ("Steps, first frame", "Steps, later frames", "Samples of every frame"):
        one.get_by_label(f"number input for {name}").fill("8" if "Samples" in name else "100")
    press(one, "Run")
    one.get_by_text("of 100").wait_for()
    press(one, "Stop")
    one.get_by_text(re.compile("Stopped after [0-2] of 3 frames")).wait_for()
    assert status(other).endswith("Press Run.")
    assert other.get_by_role("button", name="Correct this frame").is_disabled()
    assert one.get_by_role("button", name="Run", exact=True).is_enabled()
    run_to_the_end(other)
    assert status(one).startswith("Stopped after ")


def test_nothing_is_wider_than_the_window(open_page: OpenPage) -> None:
    page = open_page()
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
        for control in page.locator("button:visible").all():
            box = control.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_the_zip_holds_what_is_painted_and_not_propagated(tiny_model: Any) -> None:
    """The last frame of a clip has none after it to propagate to; the handlers are called as the page calls them."""
    pytest.importorskip("gradio", reason="Gradio (extra `app`) is not installed")
    page = Page(tiny_model(num_instance_bits=5, num_steps=1, num_steps_next=1), max_frames=3)
    opened = page._opened(example_clip(2))
    session, folder = opened[page.session], opened[page.folder]
    assert opened[page.download]["interactive"] is False
    done = list(page._on_run(session, folder, "overlay", 1, 1, 1, 0))[-1]
    assert done[page.download]["interactive"] is True
    assert page._on_correct(session, 2)[page.download]["interactive"] is False
    session.paint(1, np.ones((96, 320), bool), (0, 0))
    back = page._on_back(session, 2, "overlay", folder, 1)
    with zipfile.ZipFile(back[page.download]["value"]) as archive, archive.open("panoptic/000001.png") as file:
        assert not np.asarray(Image.open(file)).any()


def test_a_frame_that_is_not_predicted_is_not_corrected(tiny_model: Any) -> None:
    pytest.importorskip("gradio", reason="Gradio (extra `app`) is not installed")
    page = Page(tiny_model(num_instance_bits=5, num_steps=1, num_steps_next=1), max_frames=3)
    session = page._opened(example_clip(2))[page.session]
    answer = page._on_correct(session, 2)
    assert "Frame 2 is not predicted yet: run first." in answer[page.status]
    assert page.workbench not in answer
    assert page._on_stop(session, None, 2, "overlay")[page.correct]["interactive"] is False


def test_no_telemetry_no_share_no_api(tiny_model: Any) -> None:
    pytest.importorskip("gradio", reason="Gradio (extra `app`) is not installed")
    page = Page(tiny_model(), max_frames=3)
    assert page.blocks.analytics_enabled is False
    config = page.blocks.get_config_file()
    assert {dependency["api_visibility"] for dependency in config["dependencies"]} == {"private"}


def test_a_port_that_is_taken(tiny_model: Any) -> None:
    pytest.importorskip("gradio", reason="Gradio (extra `app`) is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"^--host 127.0.0.1 --port {port}: expected a free port to listen on"):
            Page(tiny_model(), max_frames=3).launch(host="127.0.0.1", port=port, max_upload_mb=1, block=False)


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"pip install pix2seq_d\[app\]"):
        import_gradio()
