"""The parts of the page, without a browser: files and their addresses, choices by size, words, curves, copies."""

from __future__ import annotations

import json
import math
from html import unescape
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio")

from fastapi import FastAPI
from fastapi.testclient import TestClient
from videos import frames_of, write_video

import vsr
from vsr.errors import InputError, OptionError
from vsr.media.images import write_image
from vsr.models.cards import shipped_cards
from vsr.serve.app import make_app
from vsr.serve.errors import TooLargeError
from vsr.serve.page.choices import choose_for_image, image_models, video_model, video_models
from vsr.serve.page.compare_tab import choices_viewer
from vsr.serve.page.curve import curve
from vsr.serve.page.files import PageFiles
from vsr.serve.page.mount import page_parts
from vsr.serve.page.playable import browser_copy, frame_psnrs, playable_kind
from vsr.serve.page.words import error_text, message, shown_seconds, viewer
from vsr.serve.settings import Limits, Settings

# -- files ---------------------------------------------------------------------------------------------


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _client(files: PageFiles) -> TestClient:
    app = FastAPI()
    app.include_router(files.router())
    return TestClient(app)


def test_a_file_is_had_whole_and_in_ranges_by_its_address(tmp_path: Path) -> None:
    files = PageFiles(tmp_path / "page", 60)
    path = files.new("x.png")
    path.write_bytes(b"0123456789")
    client = _client(files)
    address = files.address(path, "my photo.png", "image/png")
    whole = client.get(address)
    assert (whole.content, whole.headers["content-type"]) == (b"0123456789", "image/png")
    assert whole.headers["content-disposition"].startswith("inline")
    part = client.get(address, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    saved = client.get(f"{address}?download=true").headers["content-disposition"]
    assert saved.startswith("attachment") and "my%20photo.png" in saved


def test_a_file_that_is_not_for_showing_is_only_downloaded(tmp_path: Path) -> None:
    files = PageFiles(tmp_path / "page", 60)
    page = tmp_path / "attack.html"
    page.write_text("<script>alert(1)</script>")
    for kind in (None, "text/html"):
        answer = _client(files).get(files.address(page, kind=kind))
        assert answer.headers["content-disposition"].startswith("attachment")


def test_files_of_the_page_go_when_their_time_is_up_and_others_stay(tmp_path: Path) -> None:
    clock = Clock()
    files = PageFiles(tmp_path / "page", 60, clock)
    own, other = files.new("own.png"), tmp_path / "result.mp4"
    own.write_bytes(b"x")
    other.write_bytes(b"y")
    addresses = [files.address(own), files.address(other)]
    clock.now = 61
    assert [_client(files).get(address).status_code for address in addresses] == [404, 404]
    assert not own.exists() and other.exists()


def test_the_name_of_an_upload_leads_nowhere_else(tmp_path: Path) -> None:
    files = PageFiles(tmp_path / "page", 60)
    assert files.new("../../evil.png").is_relative_to(tmp_path / "page")


# -- choices -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "size", "name"),
    [(4, (200, 150), "vdsr"), (4, (800, 600), "srcnn"), (2, (400, 300), "vdsr-x2"), (2, (1600, 900), "srcnn-x2")],
)
def test_classic_takes_vdsr_for_small_images_and_srcnn_for_large_ones(
    scale: int, size: tuple[int, int], name: str
) -> None:
    choice = choose_for_image("classic", scale, *size)
    assert (choice.name, choice.size) == (name, (size[0] * scale, size[1] * scale))
    assert f"{size[0]}×{size[1]}" in choice.why


def test_automatic_takes_a_light_network_for_a_large_image() -> None:
    assert choose_for_image("auto", 4, 500, 500).name == "srresnet"
    assert choose_for_image("auto", 4, 3000, 2000).name == "fast"
    assert choose_for_image("auto", 2, 500, 500).name == "fast-x2"


def test_every_model_on_offer_can_be_chosen() -> None:
    for _, name in image_models():
        assert not shipped_cards()[choose_for_image(name, 4, 64, 64).name].recurrent
    for _, name in video_models():
        assert video_model(name, 4)


def test_what_is_not_on_offer_is_refused() -> None:
    with pytest.raises(OptionError, match="not offered for images"):
        choose_for_image("../weights.safetensors", 4, 64, 64)
    with pytest.raises(OptionError, match="scale"):
        choose_for_image("auto", 40, 64, 64)
    with pytest.raises(OptionError, match="not offered for videos"):
        video_model("classic", 4)


# -- words ---------------------------------------------------------------------------------------------


def test_errors_are_told_in_plain_words_without_folders() -> None:
    error = InputError("/srv/secret/source: not an image that OpenCV can read")
    assert (
        error_text(error, {Path("/srv/secret/source"): "photo.png"}) == "photo.png: not an image that OpenCV can read."
    )
    assert error_text(OptionError("`scale=40`: must lie between 1 and 16")) == "Scale 40: must lie between 1 and 16."
    assert "/srv" not in error_text(InputError("cannot read /srv/secret/source"))


def test_an_error_of_our_own_making_shows_nothing_of_itself() -> None:
    assert "secret" not in error_text(RuntimeError("secret"))


def test_what_users_write_is_never_markup() -> None:
    attack = '"><script>alert(1)</script>\n\n# heading'
    for made in (message(attack, "error"), viewer("image", attack, attack, (attack, attack))):
        assert "<script" not in made
    assert "\n" not in message(attack)


@pytest.mark.parametrize(
    ("seconds", "words"), [(1.94, "1.9 s"), (47.2, "48 s"), (187, "3:07"), (3750, "1:02:30"), (59.5, "1:00")]
)
def test_times_are_short(seconds: float, words: str) -> None:
    assert shown_seconds(seconds) == words


# -- curve ---------------------------------------------------------------------------------------------


def test_a_curve_tells_its_mean_and_draws_equal_frames_too() -> None:
    drawn = curve([(0.0, 30.0), (0.04, 32.0), (0.08, math.inf)], "PSNR", ("s", "dB"))
    assert "mean 54.00, least 30.00, greatest 100.00 dB over 3 frames" in drawn
    assert len(drawn.partition('points="')[2].partition('"')[0].split()) == 3
    assert "nan" not in drawn and "inf" not in drawn


@pytest.mark.parametrize("points", [[(0.0, 30.0)], [(0.0, 30.0), (1.0, 30.0)]])
def test_a_curve_of_one_value_is_drawn(points: list[tuple[float, float]]) -> None:
    assert "nan" not in curve(points, "PSNR", ("s", "dB"))


# -- images and videos ---------------------------------------------------------------------------------


def test_the_page_refuses_large_images_by_their_header(tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", np.zeros((40, 50, 3), np.uint8))
    for limits, words in ((Limits(image_pixels=1999), "50×40"), (Limits(image_bytes=20), "20 bytes")):
        parts = page_parts(make_app(Settings(state=tmp_path / "state", limits=limits)).state.services)
        with pytest.raises(TooLargeError, match=words):
            parts.decode(tmp_path / "x.png")


def test_only_what_browsers_play_is_given_as_it_is(tmp_path: Path) -> None:
    video = write_video(tmp_path / "x.mp4", 6)
    vsr.enhance(video, tmp_path / "x.mkv", model="nano", codec="ffv1", backend="pytorch")
    (tmp_path / "text.mp4").write_text("no video")
    found = [playable_kind(tmp_path / name) for name in ("x.mp4", "x.mkv", "text.mp4")]
    assert found == ["video/mp4", None, None]
    browser_copy(tmp_path / "x.mkv", tmp_path / "copy.mp4")
    assert playable_kind(tmp_path / "copy.mp4") == "video/mp4"
    times = [[time for time, _ in frames_of(tmp_path / name)] for name in ("x.mp4", "copy.mp4")]
    assert times[0] == times[1]


def test_a_part_of_a_video_is_copied(tmp_path: Path) -> None:
    video = write_video(tmp_path / "x.mp4", 50)
    browser_copy(video, tmp_path / "copy.mp4", start_seconds=0.4, duration_seconds=0.8)
    assert [time for time, _ in frames_of(tmp_path / "copy.mp4")] == pytest.approx(
        [n / 25 for n in range(20)], abs=2e-3
    )


def test_every_frame_is_measured_against_the_original(tmp_path: Path) -> None:
    video = write_video(tmp_path / "x.mp4", 6)
    found = frame_psnrs(video, video)
    assert [each.seconds for each in found] == pytest.approx([n / 25 for n in range(6)], abs=1e-3)
    assert all(math.isinf(each.psnr_db) for each in found)
    with pytest.raises(InputError, match=r"y\.mp4: has fewer frames"):
        frame_psnrs(video, write_video(tmp_path / "y.mp4", 4))
    with pytest.raises(InputError, match="64x48"):
        frame_psnrs(video, write_video(tmp_path / "z.mp4", 6, (64, 48)))


def test_choices_of_the_viewer_are_json() -> None:
    made = choices_viewer([("fast", "a?b=1&c"), ('"x"', "d")])
    listed = json.loads(unescape(made.partition('choices="')[2].partition('"')[0]))
    assert listed == [{"label": "fast", "address": "a?b=1&c"}, {"label": '"x"', "address": "d"}]
