from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from vsr.color.resample import reduce_bicubic
from vsr.errors import InputError, OptionError
from vsr.media.image_damage import find_damage, watched_decoding
from vsr.media.images import find_images, picture_size, read_rgb
from vsr.quality.metrics import luma_bt601
from vsr.train import data
from vsr.train.data import PatchBank
from vsr.train.degrade import DEGRADATIONS, LowFrame
from vsr.train.shards import Patches

KIB = 1024


def drawing(height: int, width: int, seed: int = 7) -> np.ndarray:
    """(height, width, 3) uint8 with smooth edges at every angle."""
    rng = np.random.default_rng(seed)
    canvas = np.full((height, width, 3), 128, np.uint8)
    for _ in range(40):
        start, end = rng.integers(0, width, 2), rng.integers(0, height, 2)
        color = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.line(canvas, (int(start[0]), int(end[0])), (int(start[1]), int(end[1])), color, 4, cv2.LINE_AA)
    return cv2.GaussianBlur(canvas, (0, 0), 1.0)


@pytest.fixture
def drawings(tmp_path: Path) -> list[Path]:
    for index, (height, width) in enumerate([(96, 80), (64, 131), (70, 70), (90, 65), (64, 64)]):
        cv2.imwrite(str(tmp_path / f"{index}.png"), drawing(height, width, index))
    return find_images(tmp_path)


@pytest.fixture
def flat_images(tmp_path: Path) -> list[Path]:
    """Image number n is of the one value 10·n + 10; 12 KiB each."""
    for index in range(20):
        cv2.imwrite(str(tmp_path / f"{index:02}.png"), np.full((64, 64, 3), 10 * index + 10, np.uint8))
    return find_images(tmp_path)


def same(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def draw(bank: PatchBank, step: int, batch: int = 8) -> tuple[Tensor, Tensor]:
    bank.seek(step)
    return bank.sample(batch, np.random.default_rng(step))


# -- patches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("degradation", ["bicubic", "video"])
@pytest.mark.parametrize("scale", [2, 4])
def test_low_and_high_patches_show_the_same_place_the_same_way_up(
    drawings: list[Path], degradation: str, scale: int
) -> None:
    with PatchBank(drawings, scale, patch=16, degradation=degradation) as bank:
        low, high = bank.sample(64, np.random.default_rng(0))
    assert low.shape == (64, 3, 16, 16) and high.shape == (64, 3, 16 * scale, 16 * scale)
    shrunk = torch.nn.functional.avg_pool2d(luma_bt601(high), scale)
    differences = []
    for change in (lambda x: x, lambda x: x.flip(2), lambda x: x.flip(3), lambda x: x.mT, lambda x: x.roll(1, 3)):
        difference = (change(shrunk) - luma_bt601(low)).abs()[..., 2:-2, 2:-2].mean((1, 2, 3))
        differences.append(difference)
    right, wrong = differences[0], torch.stack(differences[1:]).amin(0)
    assert (right < wrong).all()
    assert right.mean() < 0.6 * wrong.mean()


def test_patches_come_in_all_eight_orientations(tmp_path: Path) -> None:
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0] += np.arange(64, dtype=np.uint8)[:, None] * 3  # blue: down
    ramp[..., 2] += np.arange(64, dtype=np.uint8)[None] * 3  # red: to the right
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    low, high = PatchBank(find_images(tmp_path), 2, patch=8).sample(200, np.random.default_rng(0))
    for patches in (low.int(), high.int()):
        red, blue = patches[:, 0], patches[:, 2]
        steps = [t[:, b, c] - t[:, 0, 0] for t in (red, blue) for b, c in ((0, -1), (-1, 0))]
        assert len({tuple(int(v) for v in row) for row in torch.stack(steps, 1).sign()}) == 8


def test_gather_on_a_device_gives_the_patches_of_the_cpu() -> None:
    rng = np.random.default_rng(0)
    block = torch.from_numpy(rng.integers(0, 256, 3 * 50 * 40, dtype=np.uint8))
    corner = rng.integers(0, 10, 16) * 40 + rng.integers(0, 10, 16)
    patches = Patches.turned(corner, np.full(16, 2000), np.full(16, 40), 30, np.arange(16) % 8)
    assert torch.equal(patches.cut(block, 30), patches.gathered(block, 30))


def test_sampling_is_repeatable_and_takes_all_its_chance_from_the_generator(drawings: list[Path]) -> None:
    bank = PatchBank(drawings, scale=2, patch=8)
    rng = np.random.default_rng(3)
    first, state = bank.sample(4, rng), rng.bit_generator.state
    second = bank.sample(4, rng)
    assert not same(first, second)
    rng.bit_generator.state = state
    assert same(PatchBank(drawings, scale=2, patch=8, seed=9).sample(4, rng), second)


def test_images_are_drawn_in_proportion_to_their_area(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), np.full((32, 32, 3), 50, np.uint8))
    cv2.imwrite(str(tmp_path / "large.png"), np.full((96, 32, 3), 200, np.uint8))
    low, _ = PatchBank(find_images(tmp_path), 2, patch=8).sample(2000, np.random.default_rng(0))
    assert (low[:, 0, 0, 0] == 200).double().mean().item() == pytest.approx(0.75, abs=0.03)


def test_the_very_last_pixel_is_reached(tmp_path: Path) -> None:
    image = np.zeros((40, 48, 3), np.uint8)
    image[-2:, -2:] = 255
    cv2.imwrite(str(tmp_path / "corner.png"), image)
    _, high = PatchBank(find_images(tmp_path), 2, patch=16).sample(400, np.random.default_rng(0))
    assert (high == 255).any()


# -- image files -----------------------------------------------------------------------------------


def test_any_kind_of_image_will_do(tmp_path: Path) -> None:
    color = drawing(67, 83)
    cv2.imwrite(str(tmp_path / "gray.png"), color[..., 0])
    cv2.imwrite(str(tmp_path / "deep.png"), color.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack((color, color[..., :1])))
    cv2.imwrite(str(tmp_path / "lossless.webp"), color, [cv2.IMWRITE_WEBP_QUALITY, 101])
    cv2.imwrite(str(tmp_path / "lossy.webp"), color, [cv2.IMWRITE_WEBP_QUALITY, 90])
    cv2.imwrite(str(tmp_path / "alpha.webp"), np.dstack((color, color[..., :1])), [cv2.IMWRITE_WEBP_QUALITY, 90])
    cv2.imwrite(str(tmp_path / "baseline.jpg"), color)
    cv2.imwrite(str(tmp_path / "progressive.JPEG"), color, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    cv2.imwrite(str(tmp_path / "plain.bmp"), color)
    cv2.imwrite(str(tmp_path / "plain.tiff"), color)
    paths = find_images(tmp_path)
    assert len(paths) == 10
    for path in paths:
        assert picture_size(path) == (67, 83)
        assert read_rgb(path).shape == (3, 67, 83)
        for degradation in DEGRADATIONS:
            with PatchBank([path], 4, patch=12, degradation=degradation) as bank:
                low, high = bank.sample(2, np.random.default_rng(0))
            assert low.shape == (2, 3, 12, 12) and high.shape == (2, 3, 48, 48)
    assert torch.equal(read_rgb(tmp_path / "deep.png"), read_rgb(tmp_path / "lossless.webp"))


def test_jpeg_laid_on_its_side_by_exif(tmp_path: Path) -> None:
    """Orientation 6: stored 80 wide and 48 high, shown 48 wide and 80 high."""
    _, jpeg = cv2.imencode(".jpg", drawing(48, 80))
    ifd = b"\x01\x00" + b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00" + bytes(4)
    exif = b"Exif\x00\x00" + b"II*\x00\x08\x00\x00\x00" + ifd
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "side.jpg").write_bytes(jpeg[:2].tobytes() + segment + jpeg[2:].tobytes())
    assert sorted(picture_size(tmp_path / "side.jpg")) == [48, 80]
    assert read_rgb(tmp_path / "side.jpg").shape == (3, 80, 48)
    low, _ = PatchBank([tmp_path / "side.jpg"], 2, patch=24).sample(4, np.random.default_rng(0))
    assert low.shape == (4, 3, 24, 24)


def test_images_smaller_than_a_patch_are_counted(drawings: list[Path]) -> None:
    bank = PatchBank(drawings, scale=2, patch=35)  # needs 70 pixels
    assert (bank.num_images, bank.num_skipped) == (2, 3)
    with pytest.raises(InputError, match="smaller than a patch of 400"):
        PatchBank(drawings, scale=2, patch=200)


@pytest.mark.parametrize("content", [b"", b"not an image, whatever its name says it is"])
def test_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), drawing(64, 64))
    (tmp_path / "bad.png").write_bytes(content)
    lines: list[str] = []
    bank = PatchBank(find_images(tmp_path), 2, patch=8)
    bank.tell(lines.append)
    assert (bank.num_images, list(bank.unusable)) == (1, [tmp_path / "bad.png"])
    assert len(lines) == 1 and "bad.png" in lines[0]
    with pytest.raises(InputError, match=r"no image can be used; .*bad\.png"):
        PatchBank([tmp_path / "bad.png"], 2, patch=8)


@pytest.mark.parametrize("degradation", ["bicubic", "video"])
def test_image_without_pixels_is_named_though_a_thread_reads_it(tmp_path: Path, degradation: str) -> None:
    cv2.imwrite(str(tmp_path / "bad.png"), drawing(64, 64))
    (tmp_path / "bad.png").write_bytes((tmp_path / "bad.png").read_bytes()[:40])  # the header is whole
    with pytest.raises(InputError, match=r"bad\.png"):
        PatchBank(find_images(tmp_path), 2, patch=8, degradation=degradation).sample(1, np.random.default_rng(0))


def test_unknown_degradation_names_the_ones_there_are(drawings: list[Path]) -> None:
    with pytest.raises(OptionError, match="bicubic, gaussian, video"):
        PatchBank(drawings, 2, patch=8, degradation="rain")


# -- shards ------------------------------------------------------------------------------------------


@pytest.fixture
def short_periods(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(data, "STEPS_PER_SHARD", 10)
    return 10


def test_images_that_fit_are_one_shard_that_never_changes(flat_images: list[Path], short_periods: int) -> None:
    bank = PatchBank(flat_images, 2, patch=8)
    before = bank.sample(8, np.random.default_rng(0))
    bank.seek(100 * short_periods)
    assert bank.num_shards == 1 and same(before, bank.sample(8, np.random.default_rng(0)))


def test_memory_stays_within_its_bound_and_every_image_has_its_turn(
    flat_images: list[Path], short_periods: int
) -> None:
    max_bytes = 100 * KIB  # all together take 300 KiB
    with PatchBank(flat_images, 2, patch=8, max_bytes=max_bytes) as bank:
        assert bank.num_shards > 6
        seen: list[int] = []
        for step in range(bank.num_shards * short_periods):
            low, high = draw(bank, step, batch=16)
            assert bank.num_bytes <= max_bytes
            assert (low.flatten(1)[:, :64] == high.flatten(1)[:, :64]).all()
            seen += low[:, 0, 0, 0].tolist()
    counts = np.array([seen.count(10 * index + 10) for index in range(20)])
    assert (counts > 0.4 * counts.mean()).all()


@pytest.mark.parametrize("degradation", ["bicubic", "video"])
def test_shards_walked_through_are_those_met_by_going_straight_to_a_step(
    drawings: list[Path], degradation: str, short_periods: int
) -> None:
    max_bytes = {"bicubic": 100, "video": 200}[degradation] * KIB

    def bank(seed: int = 5) -> PatchBank:
        return PatchBank(drawings, 2, patch=8, degradation=degradation, seed=seed, max_bytes=max_bytes)

    steps = [0, 9, 10, 25, 31, 77]
    with bank() as walking:
        assert walking.num_shards > 1
        walked = [draw(walking, step) for step in range(78)]
    for step in steps:
        with bank() as straight:
            assert same(draw(straight, step), walked[step])
    with bank() as jumping:  # and back again
        assert all(same(draw(jumping, step), walked[step]) for step in reversed(steps))
    with bank(seed=6) as other:
        assert not all(same(draw(other, step), walked[step]) for step in steps)


def test_random_degradations_are_made_anew(drawings: list[Path], short_periods: int) -> None:
    with PatchBank(drawings, 2, patch=8, degradation="video") as bank:
        assert bank.num_shards == 1
        patches = []
        for step in (0, short_periods - 1, short_periods):
            bank.seek(step)
            patches.append(bank.sample(8, np.random.default_rng(0)))
    assert same(patches[0], patches[1]) and not same(patches[1], patches[2])


def test_broken_image_is_named_at_the_start_or_when_its_turn_comes(flat_images: list[Path], short_periods: int) -> None:
    whole = flat_images[0].read_bytes()
    lines: list[str] = []
    with PatchBank(flat_images, 2, patch=8, max_bytes=100 * KIB) as bank:
        bank.tell(lines.append)
        flat_images[0].write_bytes(whole[: len(whole) // 2])  # after the start
        for step in range(0, bank.num_shards * short_periods, short_periods):
            draw(bank, step)
    assert len(lines) == 1 and flat_images[0].name in lines[0]


def test_unusable_files_are_left_out_and_listed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each is what users' folders hold; none ends the training, and no decoder writes lines of its own."""
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"good{index}.png"), drawing(64, 64, index))
    png, jpeg = (cv2.imencode(suffix, drawing(64, 64))[1].tobytes() for suffix in (".png", ".jpg"))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "._good0.png").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "flipped.png").write_bytes(png[:200] + bytes([png[200] ^ 1]) + png[201:])
    lines: list[str] = []
    with PatchBank(find_images(tmp_path), 2, patch=8, degradation="video") as bank:
        bank.tell(lines.append)
        bank.sample(2, np.random.default_rng(0))
    assert bank.num_images == 3
    names = {"empty.png", "text.jpg", "._good0.png", "folder.png", "dangling.png", "cut.png", "cut.jpg", "flipped.png"}
    assert {path.name for path in bank.unusable} == names
    assert len(lines) == len(names)
    assert capfd.readouterr() == ("", "")


def damaged_jpeg(num_bytes: int = 200) -> bytes:
    """A photograph with other bytes in its middle, and an end."""
    rng = np.random.default_rng(3)
    image = cv2.GaussianBlur(rng.integers(0, 256, (128, 128, 3), np.uint8), (0, 0), 1)
    jpeg = bytearray(cv2.imencode(".jpg", image)[1].tobytes())
    middle = len(jpeg) // 2
    jpeg[middle : middle + num_bytes] = bytes(rng.integers(0, 255, num_bytes, np.uint8))
    return bytes(jpeg)


def test_a_jpeg_that_is_damaged_in_its_middle_is_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its structure is whole; libjpeg fills up what it cannot decode, and says so on stderr."""
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"good{index}.jpg"), drawing(64, 64, index))
    (tmp_path / "middle.jpg").write_bytes(damaged_jpeg())
    lines: list[str] = []
    with PatchBank(find_images(tmp_path), 2, patch=8) as bank:
        bank.tell(lines.append)
        bank.sample(2, np.random.default_rng(0))
    assert len(lines) == 1
    assert "middle.jpg: is not a whole image: libjpeg says: Corrupt JPEG data" in lines[0]
    assert capfd.readouterr() == ("", "")


def test_lines_of_others_are_not_lost_while_a_jpeg_is_decoded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jpeg = damaged_jpeg()

    def decode() -> Any:
        os.write(2, b"a line of another thread\n")
        return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)

    image, damage = watched_decoding(decode, jpeg)
    assert image.shape == (128, 128, 3) and "Corrupt JPEG data" in damage
    assert capfd.readouterr().err == "a line of another thread\n"


def test_what_cameras_fill_a_file_up_with_is_no_damage() -> None:
    jpeg = cv2.imencode(".jpg", drawing(64, 64))[1].tobytes()
    padded = jpeg[:-2] + bytes(20) + jpeg[-2:]
    image, damage = watched_decoding(lambda: cv2.imdecode(np.frombuffer(padded, np.uint8), 1), padded)
    assert image is not None and damage == ""


def test_a_thumbnail_does_not_make_a_cut_photograph_whole() -> None:
    jpeg = cv2.imencode(".jpg", drawing(64, 64))[1].tobytes()
    exif = b"\xff\xe1" + (len(jpeg) + 2).to_bytes(2, "big") + jpeg
    assert find_damage(jpeg[:2] + exif + jpeg[2:]) == ""
    assert find_damage(jpeg[:2] + exif + jpeg[2:-40]) == "it is cut off"


def test_closing_does_not_wait_for_the_rest_of_a_shard(
    flat_images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second shard's making is held up at its first image, until `close` waits for it."""
    num_made, go_on = [0], threading.Event()

    class Slow:
        is_random = True
        num_frames = 1

        def __call__(self, high: Tensor, scale: int, smallest: int, rng: np.random.Generator) -> list[LowFrame]:
            num_made[0] += 1
            if num_made[0] > 20:
                go_on.wait(30)
            return [LowFrame(reduce_bicubic(high, scale))]

    monkeypatch.setitem(DEGRADATIONS, "video", Slow())
    bank = PatchBank(flat_images, 2, patch=8, degradation="video")
    bank.seek(0)
    threading.Timer(0.3, go_on.set).start()
    bank.close()
    assert num_made[0] <= 21
    assert not any(t.name == "vsr-train-images" for t in threading.enumerate())
    assert bank.sample(1, np.random.default_rng(0))[0].shape == (1, 3, 8, 8)  # the current shard stays


def test_too_little_memory_for_an_image_is_said(drawings: list[Path]) -> None:
    with pytest.raises(OptionError, match="allow more"):
        PatchBank(drawings, 2, patch=8, max_bytes=20 * KIB)
