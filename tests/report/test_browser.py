"""The page in headless Chromium: what is seen, what the keys do, and that nothing in the data runs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import open_chromium
from PIL import Image
from result_folder import write_results

from pix2seq_d.data.sources import open_sources
from pix2seq_d.report.write import write_report

EVIL = "<img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium("--disable-gpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    source, output = write_results(root, sequences=("a", EVIL), count=4)
    scores = {"pq": {"pq": 0.5, "per_class": {EVIL: {"pq": 0.25, "valid": True}}}}
    (root / "metrics.json").write_text(json.dumps(scores))
    return write_report(output, open_sources(source), scores=root / "metrics.json", path=root / "a <b> & c.html")


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The page, opened from disk; no error, no warning and no request may have come up in the end."""
    page, heard = browser.new_page(viewport={"width": 1000, "height": 900}), []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(report.as_uri())
    yield page
    assert heard == [report.as_uri()]
    assert page.evaluate("window.hacked") is None
    page.close()


def position(page: Any) -> str:
    return page.locator("#position").inner_text()


def rows(page: Any) -> list[list[str]]:
    return page.eval_on_selector_all(
        "#segments tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )


def shown_layers(page: Any) -> list[int]:
    return page.eval_on_selector_all(
        "#stage img", "all => all.flatMap((image, k) => image.hidden || !image.naturalWidth ? [] : [k])"
    )


def colour_at(page: Any, x: float, y: float) -> tuple[int, ...]:
    """The pixel of the stage, as the screen has it, at shares of its width and height."""
    page.evaluate("Promise.all([...document.querySelectorAll('#stage img[src]')].map(image => image.decode()))")
    with Image.open(io.BytesIO(page.locator("#stage").screenshot())) as image:
        return image.convert("RGB").getpixel((int(x * image.width), int(y * image.height)))


def test_segments_and_scores_as_text(page: Any) -> None:
    thing = "<script>window.hacked = 1</script>"
    assert rows(page) == [
        [thing, "7", "24", "0.200", "0, 8, 6, 4"],
        ["ground", "\u2013", "756", "1.000", "0, 0, 39, 20"],
    ]
    assert page.locator("#legend").inner_text().split("\n") == ["ground", f"{thing} (objects)"]
    assert page.locator("#scores td").all_inner_texts() == ["50.00", "25.00", "-", "-", "-"]
    assert page.locator("#scores tbody th").all_inner_texts() == ["PQ", EVIL]
    assert "seed" in page.locator("#settings").inner_text()


def test_several_samples(browser: Any, tmp_path: Path) -> None:
    """Frame (200, 0, 10) under 102 of 255 of (255, 140, 0): (222, 56, 6); on the object 204 of (230, 0, 230) on top."""
    source, output = write_results(tmp_path, sequences=("a",), samples=True)
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.goto(write_report(output, open_sources(source)).as_uri())
    assert page.locator("#segments thead th").all_inner_texts()[3:5] == ["Confidence", "Agreement"]
    assert [row[3:] for row in rows(page)] == [["0.200", "0.250", "0, 8, 6, 4"], ["1.000", "0.990", "0, 0, 39, 20"]]
    page.get_by_role("button", name="window.hacked").focus()
    assert (
        abs(page.locator("#box").bounding_box()["width"] / page.locator("#stage").bounding_box()["width"] - 0.15) < 0.01
    )
    page.get_by_label("Panoptic").uncheck()
    page.get_by_label("Opacity").fill("100")
    page.get_by_label("Uncertain class").check()
    assert shown_layers(page) == [0, 5]
    assert all(abs(a - b) <= 12 for a, b in zip(colour_at(page, 0.3, 0.1), (222, 56, 6)))
    assert all(abs(a - b) <= 12 for a, b in zip(colour_at(page, 0.8, 0.1), (200, 0, 10)))
    page.keyboard.press("7")
    assert shown_layers(page) == [0, 5, 6]
    assert all(abs(a - b) <= 12 for a, b in zip(colour_at(page, 0.07, 0.5), (228, 11, 185)))
    page.get_by_label("Uncertain class").uncheck()
    assert shown_layers(page) == [0, 6]
    page.close()


def test_keys(page: Any) -> None:
    seen = [position(page)]
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "Home", "Shift+ArrowRight"):
        page.keyboard.press(key)
        seen.append(position(page))
    assert [s[0] for s in seen] == ["0", "1", "2", "1", "3", "3", "0", "3"]
    assert seen[1] == "1 (2/4)"
    assert rows(page)[0][4] == "3, 8, 6, 4"
    assert page.locator("#seek").input_value() == "3"


def test_layers_and_opacity_on_the_screen(page: Any) -> None:
    """Frame (200, 0, 10) under ground (0, 128, 0) at 60 %: (80, 77, 4)."""
    assert shown_layers(page) == [0, 1]
    assert all(abs(a - b) <= 5 for a, b in zip(colour_at(page, 0.5, 0.1), (80, 77, 4)))
    page.keyboard.press("2")
    assert shown_layers(page) == [0]
    assert all(abs(a - b) <= 5 for a, b in zip(colour_at(page, 0.5, 0.1), (200, 0, 10)))
    page.get_by_label("Low confidence").check()
    page.get_by_label("Opacity").fill("100")
    assert shown_layers(page) == [0, 4]
    red, green, blue = colour_at(page, 0.07, 0.5)  # on the object: 80 % of (255, 45, 85) over the frame
    assert all(abs(a - b) <= 12 for a, b in zip((red, green, blue), (244, 36, 70)))


def test_playing_goes_round_and_stops(page: Any) -> None:
    page.evaluate("""() => {
        const position = document.getElementById("position");
        window.seen = [];
        window.round = new Promise((done) => {
            new MutationObserver(() => {
                if (window.seen.push(position.textContent[0]) > 5) done();
            }).observe(position, { childList: true });
        });
    }""")
    page.keyboard.press("Space")
    assert page.locator("#play").get_attribute("aria-pressed") == "true"
    page.evaluate("window.round")  # the policy of the page forbids the eval of wait_for_function
    page.get_by_role("button", name="Pause").click()
    assert page.locator("#play").get_attribute("aria-pressed") == "false"
    seen = page.evaluate("window.seen")
    page.wait_for_timeout(300)
    assert page.evaluate("window.seen") == seen
    assert seen == [str((k + 1) % 4) for k in range(len(seen))]


def test_stills_are_stepped_through_not_played(browser: Any, tmp_path: Path) -> None:
    source, output = write_results(tmp_path, sequences=("a",), settings={"stills": True})
    page = browser.new_page()
    page.goto(write_report(output, open_sources(source)).as_uri())
    assert page.locator("#play").is_hidden()
    assert page.get_by_text("Speed").is_hidden()
    assert "play" not in page.locator(".hint").inner_text()
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert position(page) == "0 (1/3)"
    page.keyboard.press("ArrowRight")
    assert position(page) == "1 (2/3)"
    page.close()


def test_a_row_shows_its_box(page: Any) -> None:
    assert page.locator("#box").is_hidden()
    page.get_by_role("button", name="window.hacked").focus()
    box, stage = (page.locator(name).bounding_box() for name in ("#box", "#stage"))
    assert abs(box["width"] / stage["width"] - 6 / 40) < 0.01
    assert abs((box["y"] - stage["y"]) / stage["height"] - 8 / 20) < 0.01


def test_another_sequence(page: Any) -> None:
    page.keyboard.press("End")
    assert page.locator("#stage").get_attribute("aria-label") == f"Frame 3 of sequence {EVIL}"
    page.locator("#sequence").select_option(index=1)
    assert position(page) == "0 (1/4)"
    assert page.locator("#stage").get_attribute("aria-label") == "Frame 0 of sequence a"


def test_every_control_has_a_name(page: Any) -> None:
    for control in page.locator("button, input, select").all():
        named = control.evaluate(
            "e => e.getAttribute('aria-label') || e.textContent || e.labels?.[0]?.textContent || ''"
        )
        assert named.strip()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(browser: Any, report: Path, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(report.as_uri())
    colours = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    ink, paper = (sum(map(int, c[4:-1].split(","))) / 3 for c in colours)
    assert (ink < 60 and paper > 240) if scheme == "light" else (ink > 220 and paper < 30)
    page.close()
