"""The page in a real browser, headless Chromium: images, videos and errors as a user meets them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("gradio")
pytest.importorskip("playwright", reason="could not import 'playwright', which drives the browser")

import uvicorn
from playwright.sync_api import BrowserContext, Error, Page, expect, sync_playwright
from videos import Gate, frames_of, write_video
from waiting import PATIENCE_SECONDS, until

import vsr
from vsr.media.images import read_image, write_image
from vsr.serve.app import make_app
from vsr.serve.page.mount import mount_page, page_parts
from vsr.serve.settings import Settings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed"),
]
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_OPTIONS += ["--disable-component-update", "--disable-sync"]
_PATIENCE_MS = PATIENCE_SECONDS * 1000
expect.set_options(timeout=_PATIENCE_MS)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the page, on a free port of this machine."""
    settings = Settings(state=tmp_path_factory.mktemp("state"), device="cpu", backend="pytorch", model="nano")
    app = make_app(settings)
    mount_page(app, page_parts(app.state.services))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a browser for all tests of the file."""
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        except Error as error:
            pytest.skip(f"Chromium does not start here: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[BrowserContext]:
    """Keep the files of the page between the tests, as a browser does, at a phone's width."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, accept_downloads=True)
    context.set_default_timeout(_PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """Open the page anew; refused by the policy, or asked of another server, nothing may be."""
    page = context.new_page()
    complaints: list[str] = []
    page.on("request", lambda request: complaints.append(request.url) if _is_foreign(request.url, address) else None)
    page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    page.goto(address, wait_until="commit")
    expect(page.locator("#image-run")).to_be_visible()
    yield page
    page.evaluate("localStorage.clear()")  # the job of this test, which the page would go on with
    page.close()
    assert complaints == []


def _is_foreign(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def _choose(page: Page, field: str, path: Path) -> None:
    page.set_input_files(f"#{field} input[type=file]", path)


def _choose_in_list(page: Page, field: str, path: Path) -> None:
    """Choose a file for a field that lists its name, and wait until it is there.

    The finished list has name and ending in elements of their own; the whole name as a text is shown
    while the file is on its way, which may be too short to be seen.
    """
    _choose(page, field, path)
    expect(page.locator(f"#{field} td[aria-label='{path.name}']")).to_be_visible()


def _says(page: Page, field: str, words: str | re.Pattern[str]) -> None:
    expect(page.locator(f"#{field}")).to_contain_text(words)


def _download(page: Page, tab: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator(f"#{tab}-status .vsr-download").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def _pick(page: Page, field: str, words: str) -> None:
    page.locator(f"#{field} input").click()
    page.get_by_role("option", name=words).click()


# -- images --------------------------------------------------------------------------------------------


def test_an_image_with_alpha_is_enlarged_compared_and_downloaded(page: Page, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 4), np.uint8)
    write_image(tmp_path / "my photo.png", image)
    _pick(page, "image-model", "nano")
    _choose(page, "image-file", tmp_path / "my photo.png")
    _says(page, "image-status", "32×24 → 128×96 pixels")
    page.click("#image-run")
    _says(page, "image-status", re.compile(r"in [\d.]+ s"))
    saved = _download(page, "image", tmp_path)
    assert saved.name == "my photo_x4.png"
    expected = vsr.load_model("nano", backend="pytorch", device="cpu").upscale_image(image)
    assert np.array_equal(read_image(saved), expected)


def test_the_line_moves_by_pointer_and_keys_and_the_image_zooms(page: Page, tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    _pick(page, "image-model", "nano")
    _choose(page, "image-file", tmp_path / "x.png")
    _says(page, "image-status", "32×24 → 128×96 pixels")  # Gradio 6.31 may lose one of two events of one moment
    page.click("#image-run")
    viewer = page.locator("#image-result vsr-viewer")
    stage, line, after = viewer.locator(".stage"), viewer.locator(".cut"), viewer.locator(".after")
    expect(line).to_have_value("50")
    box = stage.bounding_box()
    assert box is not None and box["width"] <= 390
    stage.click(position={"x": box["width"] * 0.25, "y": 20})
    expect(line).to_have_value(re.compile(r"^2[45]"))
    expect(after).to_have_attribute("style", re.compile(r"inset\(0(px)? 0(px)? 0(px)? 2[45]"))
    stage.focus()
    page.keyboard.press("End")
    expect(line).to_have_value("100")
    page.keyboard.press("Home")
    page.keyboard.press("Shift+ArrowRight")
    expect(line).to_have_value("10")
    page.keyboard.press("+")
    expect(viewer.locator(".content")).to_have_attribute("style", re.compile(r"scale\(1\.5\)"))
    viewer.get_by_label("Fit").click()
    expect(viewer.locator(".content")).to_have_attribute("style", re.compile(r"scale\(1\)"))


def test_what_is_no_image_or_no_video_gives_a_message_and_not_a_path(page: Page, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image at all" * 10)
    cv2.imwrite(str(tmp_path / "x.jpg"), np.zeros((8, 8, 3), np.uint8))
    for tab, name, words in (("Image", "broken.png", "valid image"), ("Video", "x.jpg", "not a video")):
        page.get_by_role("tab", name=tab).click()
        _choose(page, f"{tab.lower()}-file", tmp_path / name)
        alert = page.locator(f"#{tab.lower()}-status [role=alert]")
        expect(alert).to_contain_text(words)
        assert os.sep not in alert.inner_text()


def test_models_are_compared_side_by_side(page: Page, tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("srgan", exact=True).uncheck()
    page.get_by_label("nano", exact=True).check()
    _choose_in_list(page, "compare-file", tmp_path / "x.png")
    page.click("#compare-run")
    viewer = page.locator("#compare-result vsr-viewer")
    expect(viewer.locator(".tag.a")).to_have_text("nano")
    viewer.locator("select.left").select_option("original")
    expect(viewer.locator(".tag.b")).to_have_text("original")
    expect(page.locator("#compare-result .vsr-download")).to_have_count(2)


def test_tabs_go_by_keys_and_nothing_is_wider_than_a_phone(page: Page) -> None:
    assert len({tab.bounding_box()["height"] for tab in page.get_by_role("tab").all()}) == 1
    page.get_by_role("tab", name="Image").focus()
    for name, button in (("Video", "#video-preview"), ("Compare", "#compare-run"), ("Image", "#image-run")):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=name, selected=True)).to_be_focused()
        expect(page.locator(button)).to_be_visible()
        expect(page.get_by_role("tabpanel")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


# -- videos --------------------------------------------------------------------------------------------


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A short video."""
    return write_video(tmp_path / "clip.mp4", 100, (64, 48))


def _open_video(page: Page, video: Path) -> None:
    page.get_by_role("tab", name="Video").click()
    _pick(page, "video-model", "nano")
    _choose(page, "video-file", video)
    _says(page, "video-status", "64×48 pixels")


def test_a_video_is_previewed_and_played(page: Page, video: Path, tmp_path: Path) -> None:
    _open_video(page, video)
    page.click("#video-preview")
    _says(page, "video-status", "75 frames at 256×192")
    viewer = page.locator("#video-result vsr-viewer")
    expect(viewer.locator(".time")).to_have_text(re.compile("/ 0:0[23]"))
    viewer.locator("video").evaluate_all("videos => videos.forEach((video) => (video.loop = true))")  # plays on
    viewer.get_by_label("Play").click()
    expect(viewer.get_by_label("Pause")).to_be_visible()
    expect(viewer.locator(".seek")).not_to_have_value("0")
    viewer.get_by_label("Position in the video").fill("500")
    saved = _download(page, "video", tmp_path)
    assert saved.name == "clip_preview.mp4" and len(frames_of(saved)) == 75


def test_a_video_is_paused_gone_on_with_measured_and_downloaded(
    page: Page, video: Path, tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vsr.jobs import resume

    monkeypatch.setattr(resume, "_FEWEST_FRAMES", 8)  # frames of a segment, after which a job can pause
    monkeypatch.setattr(resume, "_MOST_FRAMES", 8)
    reference = write_video(tmp_path / "reference.mp4", 100, (256, 192))
    _open_video(page, video)
    page.get_by_text("More options").click()
    _choose_in_list(page, "video-reference", reference)
    gate.num_frames = 4
    page.click("#video-run")
    gate.wait()
    page.click("#video-pause")
    expect(page.locator("#video-resume")).to_be_visible()
    gate.open()
    progress = page.locator("#video-status .vsr-progress")
    expect(progress).to_have_attribute("data-state", "paused")
    page.click("#video-resume")
    _says(page, "video-status", "100 frames at 256×192")
    _says(page, "video-plot", "over 100 frames")
    expect(page.locator("#video-result vsr-viewer")).to_be_visible()
    saved = _download(page, "video", tmp_path)
    assert saved.name == "clip_upscaled.mp4"
    assert [time for time, _ in frames_of(saved)] == [time for time, _ in frames_of(video)]


def test_a_video_is_cancelled(page: Page, video: Path, gate: Gate) -> None:
    gate.num_frames = 4
    _open_video(page, video)
    page.click("#video-run")
    gate.wait()
    page.click("#video-cancel")
    expect(page.locator("#video-cancel")).not_to_be_visible()
    gate.open()
    _says(page, "video-status", "Cancelled")


def test_a_job_is_found_again_after_the_page_is_loaded_anew(page: Page, video: Path, gate: Gate) -> None:
    gate.num_frames = 4
    _open_video(page, video)
    kept = "localStorage.getItem('vsr-job')"
    before = page.evaluate(kept)
    page.click("#video-run")
    gate.wait()
    until(lambda: page.evaluate(kept) != before)  # the job runs before the browser has heard of it
    page.reload(wait_until="commit")
    page.get_by_role("tab", name="Video").click()
    expect(page.locator("#video-cancel")).to_be_visible()
    gate.open()
    _says(page, "video-status", "100 frames at 256×192")
