"""The names of `import vsr`, and its calls on frames and images."""

from __future__ import annotations

import functools
import inspect
import subprocess
import sys
import typing
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty_copies import NUM_FRAMES, make_source

import vsr
from vsr.errors import InputError, OptionError, OutputError
from vsr.models.cards import ModelCard
from vsr.models.weights import build_net, save_model_file
from vsr.pipeline.loading import ModelOptions, upscaler_of_net

upscale = functools.partial(vsr.upscale, backend="pytorch", precision="fp32")  # which starts at once
CALLS = ["enhance", "load_model", "open_video", "save_video", "upscale", "upscale_image", "verify"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("clips") / "source.mp4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ×2 luma network as a model file, untrained but for its skip connection."""
    card = ModelCard("tiny", "luma", {"features": 4, "depth": 0, "scale": 2}, 2, "y", 2)
    state = build_net(card).state_dict()
    state["tail.weight"] = torch.zeros_like(state["tail.weight"])
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model_file(path, card, state)
    return path


# -- names ---------------------------------------------------------------------------------------------


def test_every_public_name_is_there_and_listed() -> None:
    assert sorted(vsr.__all__) == vsr.__all__
    for name in vsr.__all__:
        assert getattr(vsr, name) is not None
        assert name in dir(vsr)
    assert {*CALLS, "Frame", "Video", "VsrError", "Verification", "DifferenceCode"} <= set(vsr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'enhanse'"):
        _ = vsr.enhanse  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CALLS)
def test_signatures_name_and_type_every_option(name: str) -> None:
    call = getattr(vsr, name)
    hints = typing.get_type_hints(call)
    for parameter in inspect.signature(call).parameters.values():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        assert hints[parameter.name] is not typing.Any
    assert "return" in hints
    assert call.__doc__


def test_import_does_not_wait_for_torch() -> None:
    code = "import sys, vsr; vsr.VsrError; print(sorted({'torch', 'numpy', 'av', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- upscale -------------------------------------------------------------------------------------------


def test_a_video_is_upscaled_in_order_with_its_times(source: Path, model: Path) -> None:
    with vsr.open_video(source) as video:
        before = list(video)
        after = list(upscale(video, str(model)))
    assert [(f.pts, f.duration, f.time_base) for f in after] == [(f.pts, f.duration, f.time_base) for f in before]
    for small, large in zip(before, after, strict=True):
        assert large.data.shape == (96, 128, 3)
        assert abs(float(large.data.mean()) - float(small.data.mean())) < 2  # each has a brightness of its own


def test_the_result_is_that_of_the_job(source: Path, model: Path, tmp_path: Path) -> None:
    """As frames in memory, it is what the job's lossless RGB file holds."""
    options = {"backend": "pytorch", "precision": "fp32"}
    vsr.enhance(source, tmp_path / "job.mkv", model=str(model), codec="libx264rgb", crf=0, **options)  # type: ignore[arg-type]
    with vsr.open_video(source) as video, vsr.open_video(tmp_path / "job.mkv") as job:
        frames = upscale(video, str(model))
        for mine, its in zip(frames, job, strict=True):
            assert np.array_equal(mine.data, its.data)


@pytest.mark.parametrize("batch", [1, 5])
def test_arrays_come_out_as_they_went_in(model: Path, batch: int) -> None:
    arrays = [np.full((6, 8, 3), 20 * i, np.uint8) for i in range(7)]
    frames = list(upscale(iter(arrays), str(model), batch=batch))
    assert [f.data.shape for f in frames] == [(12, 16, 3)] * 7
    assert [f.pts for f in frames] == [None] * 7
    assert [f.pts_seconds for f in frames] == [None] * 7
    for i, frame in enumerate(frames):
        assert frame.data.dtype == np.uint8
        assert abs(float(frame.data.mean()) - 20 * i) <= 1


def test_deep_and_float_images_and_tensors(model: Path) -> None:
    deep = next(upscale([np.full((6, 8, 3), 30000, np.uint16)], str(model))).data
    assert deep.dtype == np.uint16
    assert abs(float(deep.astype(np.float64).mean()) - 30000) < 100
    floats = next(upscale([torch.full((6, 8, 3), 0.25)], str(model))).data
    assert isinstance(floats, torch.Tensor)
    assert floats.dtype == torch.float32
    assert abs(float(floats.mean()) - 0.25) < 0.01
    mirrored = next(upscale([np.full((6, 8, 3), 99, np.uint8)[..., ::-1]], str(model))).data
    assert isinstance(mirrored, np.ndarray)


def test_upscaling_is_lazy_and_bounded(model: Path) -> None:
    asked = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal asked
        while True:
            asked += 1
            yield np.zeros((6, 8, 3), np.uint8)

    frames = upscale(endless(), str(model), batch=2)
    assert asked == 0
    for _ in range(5):
        next(frames)
    assert asked <= 10
    frames.close()  # type: ignore[attr-defined]


def test_a_loaded_model_serves_several_videos(source: Path, model: Path) -> None:
    loaded = vsr.load_model(str(model), backend="pytorch")
    with vsr.open_video(source, duration_seconds=0.1) as video:
        assert len(list(upscale(video, loaded))) == len(list(upscale(video, loaded))) == 3


@pytest.mark.parametrize("size", [None, "40x30"])
def test_size_and_scale(source: Path, model: Path, size: str | None) -> None:
    arrays = [np.zeros((15, 20, 3), np.uint8)]
    scale = 3.0 if size is None else None
    shape = next(upscale(arrays, str(model), size=size, scale=scale)).data.shape
    assert shape == ((45, 60, 3) if size is None else (30, 40, 3))


def test_wrong_options_are_refused_at_once(model: Path) -> None:
    with pytest.raises(OptionError, match="scale"):
        upscale([], str(model), scale=40)
    with pytest.raises(OptionError, match="output"):
        vsr.open_video("input.mp4", output="list")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "no frames"),
        ([np.zeros((4, 4), np.uint8)], r"frame 0 is \(4, 4\)"),
        ([np.zeros((4, 4, 4), np.uint8)], r"\(H, W, 3\)"),
        ([np.zeros((4, 4, 3), np.int64)], "uint8, uint16"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], "frame 1 is"),
        (["a.png"], "frame 0 is str"),
        ([vsr.Frame(np.zeros((4, 4, 3), np.uint8), 1), vsr.Frame(np.zeros((4, 4, 3), np.uint8), 1)], "not after"),
        ([vsr.Frame(np.zeros((4, 4, 3), np.uint8), 1), np.zeros((4, 4, 3), np.uint8)], "another clock"),
    ],
)
def test_frames_that_are_none_are_named(model: Path, frames: list[np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        list(upscale(frames, str(model)))


# -- images --------------------------------------------------------------------------------------------


def test_a_batch_of_images_equals_its_images(model: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 10, 14, 3), np.uint8)
    batch = vsr.upscale_image(images, str(model))
    assert batch.shape == (3, 20, 28, 3)
    for image, upscaled in zip(images, batch, strict=True):
        assert np.array_equal(vsr.upscale_image(image, str(model)), upscaled)
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        vsr.upscale_image(images[:0], str(model))


# -- save_video ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("has_times", [True, False])
def test_all_else_is_carried_over(source: Path, model: Path, tmp_path: Path, suffix: str, has_times: bool) -> None:
    output = tmp_path / f"output{suffix}"
    with vsr.open_video(source) as video:
        frames = upscale(video, str(model))
        given = frames if has_times else (frame.data for frame in frames)
        assert vsr.save_video(output, given, like=video) == NUM_FRAMES
    found = vsr.verify(source, output, ignore=["stream-codec"])  # mov_text becomes ASS in Matroska
    assert found.is_same, str(found)
    with vsr.open_video(output) as saved:
        assert (saved.info.width, saved.info.height) == (128, 96)
        for small, large in zip(vsr.open_video(source), saved, strict=True):
            assert abs(float(large.data.mean()) - float(small.data.mean())) < 3


def test_frames_with_times_of_their_own_keep_them(source: Path, tmp_path: Path) -> None:
    """Every other frame of a video, beside all of its sound."""
    output = tmp_path / "output.mp4"
    with vsr.open_video(source) as video:
        kept = [frame for i, frame in enumerate(video) if i % 2]
        vsr.save_video(output, kept, like=video)
    with vsr.open_video(output) as saved:
        assert [f.pts_seconds for f in saved] == [f.pts_seconds for f in kept]
    codes = {d.code for d in vsr.verify(source, output).differences}
    assert codes == {vsr.DifferenceCode.FRAMES}


def test_a_rate_for_arrays_without_times(tmp_path: Path) -> None:
    output = tmp_path / "output.mkv"
    arrays = [np.full((48, 64, 3), 20 * i, np.uint8) for i in range(6)]
    assert vsr.save_video(output, arrays, frame_rate="30000/1001", codec="libx264rgb", crf=0) == 6
    with vsr.open_video(output) as saved:
        frames = list(saved)
    assert [round(f.pts_seconds or 0, 3) for f in frames] == [round(i * 1001 / 30000, 3) for i in range(6)]
    assert all(np.array_equal(a, f.data) for a, f in zip(arrays, frames, strict=True))


def test_deep_frames_stay_deep(tmp_path: Path) -> None:
    arrays = [np.full((64, 64, 3), 1000 * i + 7, np.uint16) for i in range(4)]
    vsr.save_video(tmp_path / "output.mkv", arrays, frame_rate=25, codec="ffv1", pix_fmt="gbrp16le")
    with vsr.open_video(tmp_path / "output.mkv", output="torch") as saved:
        for array, frame in zip(arrays, saved, strict=True):
            assert isinstance(frame.data, torch.Tensor)
            assert np.array_equal(frame.data.numpy(), array)


def test_nothing_is_left_of_a_file_that_fails(source: Path, tmp_path: Path) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield np.zeros((48, 64, 3), np.uint8)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        vsr.save_video(tmp_path / "a.mp4", failing(), frame_rate=25)
    with vsr.open_video(source) as video:
        for number in (NUM_FRAMES - 1, NUM_FRAMES + 1):
            arrays = [np.zeros((48, 64, 3), np.uint8)] * number
            with pytest.raises(InputError, match="frames"):
                vsr.save_video(tmp_path / "b.mp4", arrays, like=video)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_saved_is_refused_first(source: Path, tmp_path: Path) -> None:
    array = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(OptionError, match="frame_rate"):
        vsr.save_video(tmp_path / "a.mp4", [array])
    with pytest.raises(OptionError, match="name one"):
        vsr.save_video(tmp_path / "a.png", [array], frame_rate=25)
    with pytest.raises(OptionError, match="even sides"):
        vsr.save_video(tmp_path / "a.mp4", [array[1:]], frame_rate=25, pix_fmt="yuv420p")
    with pytest.raises(OutputError, match="overwrite=True"):
        vsr.save_video(source, [array], frame_rate=25)
    with vsr.open_video(source) as video, pytest.raises(OutputError, match="input itself"):
        vsr.save_video(source, [array], like=video, overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_can_be_changed_on_the_way(source: Path, tmp_path: Path) -> None:
    with vsr.open_video(source) as video:
        dark = (replace(frame, data=frame.data // 2) for frame in video)
        vsr.save_video(tmp_path / "dark.mp4", dark, like=video)
        for before, after in zip(video, vsr.open_video(tmp_path / "dark.mp4"), strict=True):
            assert abs(float(after.data.mean()) - float(before.data.mean()) / 2) < 4


@pytest.mark.parametrize("as_arrays", [False, True])
def test_a_network_with_memory_gives_every_frame_once_whatever_the_batch(source: Path, as_arrays: bool) -> None:
    options = {"features": 4, "blocks": 1, "scale": 2}
    card = ModelCard("small", "recurrent", options, 2, "yuv", halo=4, recurrent=True, restart_interval=6, warm_up=2)
    torch.manual_seed(5)
    model = upscaler_of_net(card, build_net(card).eval(), ModelOptions(backend="pytorch", precision="fp32"))

    def results(batch: int) -> list[np.ndarray]:
        with vsr.open_video(source) as video:
            frames = (frame.data for frame in video) if as_arrays else video
            return [np.asarray(frame.data) for frame in vsr.upscale(frames, model, batch=batch)]

    one, five = results(1), results(5)
    assert len(one) == len(five) == NUM_FRAMES
    assert all(np.array_equal(a, b) for a, b in zip(one, five, strict=True))
    with vsr.open_video(source) as video:
        for small, large in zip(video, one, strict=True):
            assert large.shape == (96, 128, 3)
            assert abs(float(large.mean()) - float(small.data.mean())) < 12  # frames lie further apart


# -- values of other types -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"scale": np.float32(1.5)},
        {"scale": "1.5"},
        {"scale": np.int64(1)},
        {"size": (30, 40)},
        {"size": [np.int64(30), 40]},
        {"device": torch.device("cpu")},
        {"batch": np.int32(2)},
    ],
    ids=str,
)
def test_sensible_values_of_other_types_are_taken(model: Path, options: dict[str, typing.Any]) -> None:
    frames = [np.zeros((20, 20, 3), np.uint8)]
    shape = next(upscale(frames, model, **options)).data.shape
    wanted = {"scale": round(20 * float(options.get("scale", 2))), "size": 30}
    assert shape[1] == (30 if "size" in options else wanted["scale"])


def test_a_model_is_loaded_by_a_path_and_a_device_of_pytorch(model: Path) -> None:
    upscaler = vsr.load_model(model, device=torch.device("cpu"))
    image = np.zeros((4, 4, 3), np.uint8)
    image.flags.writeable = False
    with warnings.catch_warnings(action="error"):
        assert vsr.upscale_image(image, upscaler).shape == (8, 8, 3)
    with pytest.raises(TypeError, match="`model`: is a name or a file, not of type Upscaler"):
        vsr.load_model(upscaler)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": "four"}, r"`scale`: is a number, not 'four' \(str\)"),
        ({"scale": [4]}, "`scale`: is a number"),
        ({"scale": True}, "`scale`"),
        ({"size": 360}, "`size`: is WIDTHxHEIGHT"),
        ({"size": (360, 2.5)}, "`size`: is a whole number"),
        ({"tile": 2.5}, "`tile`: is a whole number"),
        ({"device": 0}, "`device`: is a string"),
        ({"model": 7}, "`model`: is a string"),
    ],
)
def test_values_of_wrong_types_are_one_type_error(options: dict[str, typing.Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        vsr.upscale([np.zeros((4, 4, 3), np.uint8)], **options)
    with pytest.raises(TypeError, match=words):
        vsr.enhance("in.mp4", "out.mp4", **options)


@pytest.mark.parametrize(
    "options",
    [{"tile": 0}, {"tile": -5}, {"tile": 1}, {"scale": float("nan")}, {"restore": 1.5}, {"restore": 0.5, "fidelity": 1},
     {"model": "vdsr", "restore": 0.5}],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_refused_behind_the_command_line(options: dict[str, typing.Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options)) if "model" not in options else "restore"):
        vsr.upscale([np.zeros((4, 4, 3), np.uint8)], **options)


@pytest.mark.parametrize("crf", [99, -2, float("nan")])
def test_a_quality_beyond_the_scale_is_refused(source: Path, tmp_path: Path, crf: float) -> None:
    with pytest.raises(OptionError, match="`crf="):
        vsr.enhance(source, tmp_path / "out.mp4", crf=crf)


def test_images_of_other_kinds(model: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (10, 14, 3), np.uint8)
    expected = vsr.upscale_image(image, model)
    tensor = vsr.upscale_image(torch.from_numpy(image), model)
    assert isinstance(tensor, torch.Tensor) and np.array_equal(tensor.numpy(), expected)

    class OfPillow:  # what an image of Pillow offers
        __array_interface__ = image.__array_interface__

    assert np.array_equal(vsr.upscale_image(OfPillow(), model), expected)  # type: ignore[arg-type]
    floats = vsr.upscale_image(image.astype(np.float32) / 255, model)
    assert floats.dtype == np.float32 and np.abs(np.asarray(floats) * 255 - expected).max() < 0.51
    with pytest.raises(TypeError, match=r"not \[\[1, 2\]\] \(list\)"):
        vsr.upscale_image([[1, 2]], model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="from 0 to 1, and this one from 0 to 255"):
        vsr.upscale_image(np.array([[[0.0, 255.0, 3.0]]]), model)


def test_a_model_file_that_changes_is_read_again(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(model.read_bytes())
    image = np.full((6, 6, 3), 100, np.uint8)
    before = vsr.upscale_image(image, path)
    card = ModelCard("tiny", "luma", {"features": 4, "depth": 0, "scale": 2}, 2, "y", 2)
    state = build_net(card).state_dict()
    state["tail.weight"] = torch.zeros_like(state["tail.weight"])
    state["tail.bias"] = torch.full_like(state["tail.bias"], 0.2)
    save_model_file(path, card, state)
    assert np.asarray(vsr.upscale_image(image, path)).mean() > np.asarray(before).mean() + 20


def test_a_loaded_model_serves_a_job(source: Path, model: Path, tmp_path: Path) -> None:
    loaded = vsr.load_model(str(model), backend="pytorch", precision="fp32")
    report = vsr.enhance(source, tmp_path / "out.mp4", model=loaded)
    assert report.model == "tiny" and report.num_frames == NUM_FRAMES
