from __future__ import annotations

import pytest
import torch

from vsr.errors import OptionError
from vsr.jobs.options import JobOptions
from vsr.jobs.plan import Footage, choose_batch, choose_model, choose_size
from vsr.pipeline.loading import ModelOptions

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("options", "device", "is_image", "size", "name"),
    [
        (ModelOptions(), CPU, False, (320, 180), "video-fast"),
        (ModelOptions(precision="int8"), CPU, False, (320, 180), "video-fast"),
        (ModelOptions(precision="int8"), GPU, False, (320, 180), "fast"),  # whose network has weights for it
        (ModelOptions(scale=2), CPU, False, (320, 180), "fast-x2"),
        (ModelOptions(scale=1.5), GPU, False, (320, 180), "fast-x2"),
        (ModelOptions(scale=3), CPU, False, (320, 180), "video-fast"),
        (ModelOptions(size="1080p"), CPU, False, (1280, 720), "fast-x2"),
        (ModelOptions(size="4k"), CPU, False, (1280, 720), "video-fast"),
        (ModelOptions(), CPU, False, (1920, 1080), "nano"),
        (ModelOptions(), GPU, False, (1280, 720), "video"),
        (ModelOptions(), CPU, True, (640, 480), "srresnet"),
        (ModelOptions(), CPU, True, (4000, 3000), "fast"),
        (ModelOptions(model="fast-x2"), GPU, True, (640, 480), "fast-x2"),
    ],
)
def test_auto_takes_what_the_device_can_bear(
    options: ModelOptions, device: torch.device, is_image: bool, size: tuple[int, int], name: str
) -> None:
    chosen, reason = choose_model(options, Footage(*size, is_image), device)
    assert chosen == name
    assert "auto" in reason or options.model != "auto"


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        ("1080p", (640, 360), (1920, 1080)),
        ("4k", (640, 360), (3840, 2160)),
        ("1080p", (360, 640), (1080, 1920)),  # a phone held upright
        ("1080p", (720, 576), (1350, 1080)),
        ("1280x720", (320, 180), (1280, 720)),
        ("1280X720".lower(), (320, 180), (1280, 720)),
    ],
)
def test_size_in_pixels(text: str, source: tuple[int, int], expected: tuple[int, int]) -> None:
    assert choose_size(ModelOptions(size=text), 4, *source, (True, True)) == expected


def test_odd_sizes_that_follow_from_a_scale_become_even_where_chroma_needs_it() -> None:
    assert choose_size(ModelOptions(scale=3), 4, 33, 17, (True, True)) == (100, 52)
    assert choose_size(ModelOptions(scale=3), 4, 33, 17, (False, False)) == (99, 51)


@pytest.mark.parametrize(
    "options",
    [{"scale": 0.5}, {"scale": 2, "size": "4k"}, {"batch": 0}, {"tile": -1}, {"model": "fast", "fidelity": 0.5}],
)
def test_options_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        JobOptions.of(**options)


def test_a_batch_on_a_cpu_has_frames_to_run_side_by_side() -> None:
    assert choose_batch(None, 320, 180, CPU) == 4
    assert choose_batch(None, 1920, 1080, CPU) == 2
    assert choose_batch(7, 1920, 1080, CPU) == 7
    assert choose_batch(None, 1280, 720, GPU) == 4
    assert choose_batch(None, 1280, 720, GPU, fitting=3) == 3, "what the memory takes"
    assert choose_batch(None, 1280, 720, GPU, fitting=100) == 4
    assert choose_batch(7, 1280, 720, GPU, fitting=3) == 7, "what was asked for is halved when memory runs out"


def test_480p_is_a_size() -> None:
    assert choose_size(ModelOptions(size="480p"), 4, 320, 240, (True, True)) == (640, 480)
