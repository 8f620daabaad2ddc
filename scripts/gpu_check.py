"""Check the way of a frame on the GPU of this machine, in parts, with no data but the sample: at most nine minutes.

python scripts/gpu_check.py
python scripts/gpu_check.py environment planes steady --device cuda:1

Prints a table with a line for each check, and writes benchmarks/gpu-NAME.json. On a machine without an NVIDIA GPU all
that needs none runs on the CPU, and the other lines are skipped by name. Exit code 1 where a line fails.
"""

from __future__ import annotations

import functools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import av
import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.backends.compiled import FusedSamples, compile_step
from vsr.backends.engine import Engine, Precision, own_stream
from vsr.backends.engine_store import EngineStore
from vsr.backends.installed import describe_backends, is_installed
from vsr.backends.select import EngineMaker, Place
from vsr.backends.tuning import processor_name
from vsr.color.encoding import Coding, encode_bands, encode_step, encode_whole
from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.color.sub_pixels import Samples, samples_step
from vsr.errors import VsrError
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.jobs.encoding import check_encoder_size
from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.media.av_frames import load_planes, store_planes
from vsr.media.endpoints import File
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import VideoReader
from vsr.media.write.options import EncodingOptions
from vsr.models.cards import ModelCard, shipped_cards
from vsr.models.nets.recurrent import details
from vsr.models.weights import load_int8_net, load_with_card
from vsr.pipeline import temporal
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.color_path import Target
from vsr.pipeline.loading import ModelOptions, signature_of, upscaler_of_net
from vsr.pipeline.motion import taps_of, warp
from vsr.pipeline.processor import Result, make_processor
from vsr.pipeline.temporal import TemporalProcessor
from vsr.pipeline.upscaler import Upscaler
from vsr.pipeline.warping import TapsWay, make_warping
from vsr.quality.provenance import versions

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "sample.mp4"
TOLERANCE = 2 / 255  # of a network in any precision, against fp32 on the CPU: that of a job's own check
SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
SMALL = (160, 96)  # of networks with memory on a CPU
LARGE = {"1080p": (1920, 1080), "2880p": (5120, 2880), "4320p": (7680, 4320)}
LEAST_SHARE = 0.9  # of the slower of network and encoder alone, that a whole job reaches
MOST_GROWTH_MIB = 64.0


@dataclass(frozen=True, slots=True)
class Line:
    """A check and its outcome: "pass", "fail" or "skip", with what was found or the reason."""

    part: str
    name: str
    outcome: str
    detail: str = ""


class Skip(Exception):
    """A check cannot be made here; its text says why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the checks run on. models: names of those to try.  deadline: by `time.monotonic`."""

    device: torch.device
    models: tuple[str, ...]
    deadline: float

    def need_gpu(self) -> None:
        if self.device.type != "cuda":
            raise Skip("no NVIDIA GPU that this PyTorch can use")

    def need_tensorrt(self) -> None:
        self.need_gpu()
        if not is_installed("tensorrt"):
            raise Skip("TensorRT is not installed")


Check = Callable[[], str]  # returns what was found; raises Skip, AssertionError and any other error
Checks = Iterator[tuple[str, Check]]


# -- environment -----------------------------------------------------------------------------------------


def environment(setting: Setting) -> Checks:
    """What there is, and what NVENC and NVDEC take."""
    yield "versions", lambda: "; ".join([f"torch {torch.__version__}", *describe_backends()[1:]])
    yield "GPU", functools.partial(_gpu, setting)
    for codec in ("h264_nvenc", "hevc_nvenc", "av1_nvenc"):
        for title, size in LARGE.items():
            for format_ in ("yuv420p", "p010le"):
                name = f"{codec} {title} {10 if format_ == 'p010le' else 8} bit, decoded by NVDEC"
                yield name, functools.partial(_hardware_codec, setting, codec, size, format_)


def _gpu(setting: Setting) -> str:
    setting.need_gpu()
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    names = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    return f"{names}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def _hardware_codec(setting: Setting, codec: str, size: tuple[int, int], format_: str) -> str:
    setting.need_gpu()
    if codec == "h264_nvenc" and format_ == "p010le":
        raise Skip("H.264 on a GPU has 8 bits")
    try:
        check_encoder_size(codec, *size)
    except VsrError as error:
        raise Skip(str(error)) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.mkv"
        _write_clip(path, size, num_frames=8, codec=codec, format_=format_)
        planes = [_all_planes(path, gpu) for gpu in (None, setting.device.index or 0)]
    if codec == "av1_nvenc":
        assert len(planes[0]) == len(planes[1]), "frames are lost"
        return "decoded"
    assert all(torch.equal(a, b) for a, b in zip(*planes, strict=True)), "NVDEC and the CPU differ"
    return "the same samples as on the CPU"


def _write_clip(path: Path, size: tuple[int, int], num_frames: int, codec: str, format_: str = "yuv420p") -> None:
    """Write the beginning of the sample at another size."""
    with av.open(str(SAMPLE)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options={"preset": "ultrafast"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = *size, format_  # type: ignore[attr-defined]
        for number, frame in enumerate(source.decode(video=0)):
            if number == num_frames:
                break
            scaled = frame.reformat(*size, format=format_, threads=1)
            scaled.pts, scaled.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(scaled))  # type: ignore[attr-defined]
        output.mux(stream.encode(None))  # type: ignore[attr-defined]


def _all_planes(path: Path, gpu: int | None, notes: list[str] | None = None) -> list[Tensor]:
    with VideoReader(File(path), InputOptions(), gpu=gpu, warn=(notes if notes is not None else []).append) as reader:
        batches = [chunk.batch for chunk in reader.chunks(4) if chunk.batch is not None]
    return [plane for batch in batches for plane in batch.planes]


# -- networks --------------------------------------------------------------------------------------------


def models(setting: Setting) -> Checks:
    """Each model, precision and backend against fp32 on the CPU, on a crop of the sample."""
    backends = ("pytorch", "tensorrt") if setting.device.type == "cuda" else ("pytorch", "openvino")
    for name in setting.models:
        for backend in backends:
            for precision in ("fp32", "fp16", "bf16", "int8"):
                yield f"{name} {backend} {precision}", functools.partial(_model, setting, name, backend, precision)


def _model(setting: Setting, name: str, backend: str, precision: Precision) -> str:
    card, net = load_with_card(name)
    if precision == "int8" and (backend == "pytorch" or not card.int8_weights):
        raise Skip("no weights for int8" if backend != "pytorch" else "PyTorch has no engine for int8")
    if precision == "fp16" and setting.device.type == "cpu":
        raise Skip("CPUs compute in fp32, bf16 or int8")
    if backend != "pytorch" and not is_installed(backend):
        raise Skip(f"{backend} is not installed")
    place = Place(setting.device, backend)  # type: ignore[arg-type]
    maker = EngineMaker(net, signature_of(card), place, load_quantized=functools.partial(load_int8_net, card))
    engine = maker.make(precision)
    found = _stepped(engine, card)
    reference = maker.make_reference() if precision == "int8" else _on_cpu(net, card)
    wanted = _stepped(reference, card)
    differences = [(a.clamp(0, 1) - b.clamp(0, 1)).abs() for a, b in zip(found, wanted, strict=True)]
    if card.recurrent and precision == "int8":  # single pixels stray, as values fall to the other side
        worst, most = max(float(each.square().mean().sqrt()) for each in differences), TOLERANCE / 2
    else:  # the roundings of several steps add up
        worst, most = max(float(each.max()) for each in differences), TOLERANCE * (2 if card.recurrent else 1)
    assert worst <= most, f"differs by {worst * 255:.2f} code values"
    return f"within {worst * 255:.3f} code values"


def _stepped(engine: Engine, card: ModelCard) -> list[Tensor]:
    """The images of a network, on the CPU; of one with a state those of three steps, each with the state before."""
    signature, inputs = signature_of(card), [x.to(engine.device) for x in _crop(card)]
    images: list[Tensor] = []
    for _ in range(3 if card.recurrent else 1):
        outputs = dict(zip(signature.outputs, engine(*inputs), strict=True))
        images += [outputs[name].float().cpu() for name in ("y",) if name in outputs]
        for taken, given in signature.states:
            inputs[signature.input_names.index(taken)] = outputs[given]
            images.append((details(outputs[given], card.scale)[0] + inputs[0][:, :1]).cpu())
    return images


def _on_cpu(net: nn.Module, card: ModelCard) -> Engine:
    return EngineMaker(net, signature_of(card), Place(torch.device("cpu"), "pytorch")).make("fp32")


def _crop(card: ModelCard) -> tuple[Tensor, ...]:
    """Inputs of 96×64 pixels: the sample for images, zeros for a state."""
    with av.open(str(SAMPLE)) as file:
        rgb = next(file.decode(video=0)).to_ndarray(format="rgb24")[40:104, 60:156]
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255
    shown = {3: image, 1: image[:, 1:2]}
    return tuple(shown.get(c, torch.zeros(1, c, 64, 96)) for _, c in signature_of(card).inputs)


# -- planes ----------------------------------------------------------------------------------------------


class _Nearest:
    """An engine that repeats pixels, so that only colour and transfers are compared."""

    def __init__(self, device: torch.device) -> None:
        self.name, self.device, self.dtype = "nearest", device, torch.float32

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (F.interpolate(inputs[0], scale_factor=2.0, mode="nearest"),)


def planes(setting: Setting) -> Checks:
    """Planes of 8, 10 and 12 bit on the GPU against the CPU, and decoding."""
    for format_ in ("yuv420p", "yuv420p10le", "yuv420p12le", "yuv444p10le", "gbrp"):
        for color in ("y", "rgb"):
            yield f"{format_}, network of {color}", functools.partial(_planes, setting, format_, color)
    yield "RGB to planes, compiled against in bands", functools.partial(_compiled_planes, setting)
    yield "samples of a state, by one kernel against the CPU", functools.partial(_samples, setting)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        name = f"state of {str(dtype).partition('.')[2]} along motion, by one kernel against the CPU"
        yield name, functools.partial(_warped, setting, dtype)
    yield "the sample by NVDEC, fetched by DLPack", functools.partial(_nvdec, setting)
    yield "frames for the encoder, as they were fetched", functools.partial(_wrapped, setting)


def _planes(setting: Setting, format_: str, color: str) -> str:
    batch = _noise(format_)
    target = Target(2 * batch.width, 2 * batch.height, FORMATS[format_], batch.color)
    card = ModelCard("nearest", "luma", {}, 2, color, 0)  # type: ignore[arg-type]
    outs = [
        Upscaler(CheckedNetwork(card, lambda precision, device=device: _Nearest(device), "fp32")).upscale(batch, target)
        for device in (setting.device, torch.device("cpu"))
    ]
    pairs = [(a.to(torch.int32), b.to(torch.int32)) for a, b in zip(outs[0].planes, outs[1].planes, strict=True)]
    worst = max(int((a - b).abs().max()) for a, b in pairs)
    share = sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)
    assert worst <= 1 and share < 1e-3, f"off by up to {worst} codes, {share:.2%} of all samples"
    return f"{share:.4%} of samples off by one"


def _compiled_planes(setting: Setting) -> str:
    setting.need_gpu()
    color = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, bit_depth=10)
    rgb, coding = torch.rand(1, 3, 1440, 2560, device=setting.device), Coding.of(color, (1, 1), setting.device)
    step = compile_step(encode_step)
    pairs = list(zip(encode_whole(rgb, coding, step), encode_bands(rgb, coding), strict=True))
    differing = sum(int((a.to(torch.int32) != b.to(torch.int32)).sum()) for a, b in pairs)
    assert differing == 0, f"{differing} samples differ"
    wait = functools.partial(torch.cuda.synchronize, setting.device)
    whole, bands = (
        _seconds(run, wait) for run in (lambda: encode_whole(rgb, coding, step), lambda: encode_bands(rgb, coding))
    )
    return f"the same samples; {whole * 1e3:.2f} ms for 1440p, {bands * 1e3:.2f} ms in bands"


def _warped(setting: Setting, dtype: torch.dtype) -> str:
    """Warp a state as large as that of `video` at 720p along a flow that leaves the frame."""
    width, height = SIZES["720p"] if setting.device.type == "cuda" else SMALL
    flow = (
        F.interpolate(torch.randn(1, 2, 9, 16) * 20, (height, width), mode="bicubic").permute(0, 2, 3, 1).contiguous()
    )
    x, notes, times = torch.rand(1, 88, height, width).to(dtype), list[str](), list[str]()
    exact = warp(x.float(), taps_of(flow))
    for order, title in ((torch.channels_last, "channels last"), (torch.contiguous_format, "channels first")):
        on_device, along = x.contiguous(memory_format=order).to(setting.device), flow.to(setting.device)
        way = make_warping(setting.device, notes.append)(along)
        strays = (way.state(on_device, 0).float().cpu() - exact).abs().max()
        most = 1e-5 + torch.finfo(dtype).eps * (1 if setting.device.type == "cuda" else 4)  # taps round weights, too
        assert strays <= most, f"{title}: differs by {strays:.2g}"
        times.append(f"{title} {_device_ms(setting, functools.partial(way.state, on_device, 0)):.2f} ms")
        times.append(f"by taps {_device_ms(setting, functools.partial(TapsWay(along).state, on_device, 0)):.2f} ms")
    assert not notes, "; ".join(notes)
    return ", ".join(times)


def _samples(setting: Setting) -> str:
    """Make the luma of 2880p of a state as that of `video`."""
    setting.need_gpu()
    notes, samples = list[str](), Samples(1020.0, 1020.0, 10)
    state = torch.randn(1, 88, 720, 1280).mul_(0.3).to(torch.float16).contiguous(memory_format=torch.channels_last)
    base, on_device = torch.rand(1, 1, 720, 1280), state.to(setting.device)[:, 64:80]
    run = functools.partial(FusedSamples(note=notes.append), on_device, base.to(setting.device), samples)
    found, wanted = run(), samples_step(state[:, 64:80], base, samples.constants(base.device), 4, True)
    assert found is not None and not notes, "; ".join(notes)
    strays = (found.cpu().to(torch.int32) - wanted.to(torch.int32)).abs()
    assert strays.max() <= 1, f"off by up to {int(strays.max())} codes"
    return f"{float((strays > 0).float().mean()):.4%} of samples off by one; {_device_ms(setting, run):.2f} ms"


def _device_ms(setting: Setting, run: Callable[[], object], rounds: int = 10) -> float:
    """Return the time of a run on the device, by its own clock where it is a GPU; the shortest of some."""
    if setting.device.type != "cuda":
        return _seconds(run, lambda: None, rounds=2) * 1e3
    times = list[float]()
    for _ in range(rounds):
        begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        run()
        done.record()
        done.synchronize()
        times.append(begun.elapsed_time(done))
    return min(times)


def _noise(name: str, height: int = 90, width: int = 160, num_frames: int = 2) -> FrameBatch:
    format_ = FORMATS[name]
    generator, made = torch.Generator().manual_seed(1), allocate_planes(format_, num_frames, height, width)
    for plane in made:
        plane.copy_((torch.rand(plane.shape, generator=generator) * (2**format_.bit_depth - 1)).to(torch.int32))
    matrix = Matrix.RGB if format_.kind == "rgb" else Matrix.BT709
    range_ = Range.FULL if format_.kind == "rgb" else Range.LIMITED
    color = Color(matrix, Primaries.BT709, Transfer.BT709, range_, ChromaLocation.LEFT, format_.bit_depth)
    numbers = tuple(range(num_frames))
    return FrameBatch(made, numbers, (1,) * num_frames, Fraction(1, 25), color)


def _nvdec(setting: Setting) -> str:
    setting.need_gpu()
    notes: list[str] = []
    with own_stream(setting.device):
        ours = _all_planes(SAMPLE, setting.device.index or 0, notes)
    theirs = _all_planes(SAMPLE, None)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), "samples differ"
    assert not notes, "; ".join(notes)
    return f"{len(ours)} planes are the same"


def _wrapped(setting: Setting) -> str:
    """Planes from the GPU must reach the encoder without a copy, and any others with the same samples."""
    batch, kinds = _noise("yuv420p"), []
    for name in ("yuv420p", "nv12", "p010le"):
        color = replace(batch.color, bit_depth=FORMATS[name].bit_depth)
        out = _upscaler(setting, "nano", "pytorch").upscale(batch, Target(640, 384, FORMATS[name], color))
        frame, again = store_planes(out, 1, FORMATS[name]), allocate_planes(FORMATS[name], 1, 384, 640)
        load_planes(frame, FORMATS[name], again, 0)
        assert all(torch.equal(a[1:], b) for a, b in zip(out.planes, again, strict=True)), f"{name}: samples differ"
        is_shared = frame.planes[0].buffer_ptr == out.planes[0][1].data_ptr()
        kinds.append(f"{name} {'shared' if is_shared else 'copied'}")
        assert setting.device.type == "cpu" or is_shared == (name != "p010le"), ", ".join(kinds)
    return ", ".join(kinds)


# -- the steady state ------------------------------------------------------------------------------------


def steady(setting: Setting) -> Checks:
    """Runs that must equal each other, and waits that must not be there."""
    yield "engine: runs 1, 2 and 100 are equal", functools.partial(_equal_runs, setting, "auto")
    yield "TensorRT and its graph: runs 1, 2 and 100 are equal", functools.partial(_equal_runs, setting, "tensorrt")
    yield "a state: steps 1 to 8 are equal twice", functools.partial(_equal_steps, setting)
    for backend, title in (("pytorch", "PyTorch"), ("tensorrt", "TensorRT")):
        name = f"a state and its graph, {title}: runs 1, 2 and 100 are equal, and equal steps without"
        yield name, functools.partial(_equal_graph_steps, setting, backend)
    for name in ("nano", "srgan", "video-fast", "video"):
        yield f"{name}: nothing waits but the fetch", functools.partial(_waits, setting, name)
    yield "several GPUs make the file of one", functools.partial(_several, setting)


def _upscaler(setting: Setting, model: str, backend: str = "auto") -> Upscaler:
    card, net = load_with_card(model)
    options = ModelOptions(precision="fp16" if setting.device.type == "cuda" else "fp32")
    return upscaler_of_net(card, net, options, place=Place(setting.device, backend))  # type: ignore[arg-type]


def _equal_runs(setting: Setting, backend: str) -> str:
    if backend == "tensorrt":
        setting.need_tensorrt()
    engine, x = _upscaler(setting, "nano", backend).engine, torch.rand(2, 1, 90, 160, device=setting.device)
    outs = {number: out for number in range(1, 101) if (out := engine(x)[0]) is not None and number in (1, 2, 100)}
    assert torch.equal(outs[1], outs[2]) and torch.equal(outs[1], outs[100]), "runs differ"
    return engine.name


def _equal_steps(setting: Setting) -> str:
    """Run a clip twice through a network with a state; the second time in other batches."""
    upscaler, frames = _upscaler(setting, "video-fast"), _moving(8)
    target = Target(frames.width * 4, frames.height * 4, FORMATS["yuv420p"], frames.color)
    runs = []
    for size in (4, 4, 2) if setting.device.type == "cuda" else (4, 2):
        processor = make_processor(upscaler, target)
        results = [result for part in frames.split(size) for result in processor.push(part)]
        runs.append([result().planes for result in (*results, *processor.flush())])
    whole = [[torch.cat(planes) for planes in zip(*run, strict=True)] for run in runs]
    assert all(torch.equal(a, b) for run in whole[1:] for a, b in zip(run, whole[0], strict=True)), "runs differ"
    return upscaler.engine.name


def _equal_graph_steps(setting: Setting, backend: str) -> str:
    """Run a clip a hundred times through a network with a state, as a graph; and once without."""
    setting.need_gpu()
    if backend == "tensorrt":
        setting.need_tensorrt()
    upscaler, frames = _upscaler(setting, "video-fast", backend), _moving(8)
    target = Target(frames.width * 4, frames.height * 4, FORMATS["yuv420p"], frames.color)
    with mock.patch.object(temporal, "make_runner", return_value=None):
        plain = TemporalProcessor(upscaler.network, target)
    graphed = TemporalProcessor(upscaler.network, target)
    wanted, runs = _whole_clip(plain, frames), {number: _whole_clip(graphed, frames) for number in range(1, 3)}
    for _ in range(3, 101):
        runs[100] = _whole_clip(graphed, frames)
    assert graphed.is_graphed and not plain.is_graphed, "the steps are not replayed"
    for number, found in runs.items():
        differing = sum(int((a != b).sum()) for a, b in zip(found, wanted, strict=True))
        assert differing == 0, f"{differing} samples of run {number} differ"
    return upscaler.engine.name


def _whole_clip(processor: TemporalProcessor, frames: FrameBatch) -> list[Tensor]:
    """Return all planes of all frames."""
    processor.reset()
    results = [result for part in frames.split(2) for result in processor.push(part)]
    done = [result().planes for result in (*results, *processor.flush())]
    return [torch.cat(planes) for planes in zip(*done, strict=True)]


def _moving(num_frames: int) -> FrameBatch:
    """The beginning of the sample, in which there is motion."""
    with VideoReader(File(SAMPLE), InputOptions()) as reader:
        batch = next(reader.chunks(num_frames)).batch
    assert batch is not None and batch.num_frames == num_frames
    return batch


def _waits(setting: Setting, model: str) -> str:
    setting.need_gpu()
    upscaler, frames = _upscaler(setting, model, "pytorch"), _moving(100)
    target = Target(frames.width * 4, frames.height * 4, FORMATS["yuv420p"], frames.color)
    batches = frames.split(2)
    processor = make_processor(upscaler, target)
    for result in (result for batch in batches[:40] for result in processor.push(batch)):
        result()  # what happens once: kernels are chosen, the precision is checked along the first frames
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [result for batch in batches[40:43] for result in processor.push(batch)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    num_frames = sum(result().num_frames for result in results)
    assert num_frames == 6, f"{num_frames} frames came out"
    if not isinstance(processor, TemporalProcessor):
        return "three batches queued"
    assert processor.is_graphed, "the steps are not replayed as a graph"
    return "three batches queued, their steps as a graph"


def _several(setting: Setting) -> str:
    setting.need_gpu()
    if torch.cuda.device_count() < 2:
        raise Skip("one GPU")
    files: list[list[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        for device in (str(setting.device), "all"):
            path = Path(folder) / f"{device.replace(':', '')}.mkv"
            enhance_file(SAMPLE, path, JobOptions.of(model="nano", device=device, precision="fp16", reuse=False))
            with av.open(str(path)) as file:
                files.append([bytes(packet) for packet in file.demux(video=0)])
    assert files[0] == files[1], "packets differ"
    return f"{torch.cuda.device_count()} GPUs"


# -- memory ----------------------------------------------------------------------------------------------


def memory(setting: Setting) -> Checks:
    """Little memory, and many frames."""
    for percent in (50, 25, 10):
        yield f"edsr on 720p with {percent} % of the memory", functools.partial(_little_memory, setting, percent)
    for name in ("srgan", "video"):
        yield f"{name}: the peak that is counted ahead", functools.partial(_peak, setting, name)
    for name in ("nano", "video-fast"):
        yield f"{name}: memory stays flat", functools.partial(_flat, setting, name)


def _little_memory(setting: Setting, percent: int) -> str:
    setting.need_gpu()
    notes: list[str] = []
    card, net = load_with_card("edsr")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(percent / 100, setting.device)
    try:
        place = Place(setting.device, "pytorch")
        upscaler = upscaler_of_net(card, net, ModelOptions(precision="fp16"), place=place, note=notes.append)
        batch = _noise("yuv420p", 720, 1280, 4)
        out = upscaler.upscale(batch, Target(5120, 2880, FORMATS["yuv420p"], batch.color))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, setting.device)
        torch.cuda.empty_cache()
    assert out.num_frames == 4, "frames are lost"
    return "; ".join(notes) or "all at once"


def _peak(setting: Setting, model: str) -> str:
    """The first batch is chosen by a count of what the network holds at a time: it must hold no more."""
    upscaler = _upscaler(setting, model, "pytorch")
    assert upscaler.peak_bytes is not None
    counted = upscaler.peak_bytes(360, 640)
    setting.need_gpu()
    shapes = [(1, channels, 360, 640) for _, channels in signature_of(upscaler.card).inputs]
    for _ in range(2):
        inputs = [torch.rand(shape, device=setting.device) for shape in shapes]
        before = torch.cuda.memory_allocated(setting.device) - sum(x.nbytes for x in inputs)
        torch.cuda.reset_peak_memory_stats(setting.device)
        upscaler.engine(*inputs)
        measured = torch.cuda.max_memory_allocated(setting.device) - before
    found = f"counted {counted / 2**20:.0f} MiB, measured {measured / 2**20:.0f}"
    assert measured <= 1.5 * counted, found
    return found


def _flat(setting: Setting, model: str) -> str:
    is_gpu = setting.device.type == "cuda"
    upscaler, batch = _upscaler(setting, model, "pytorch"), _noise("yuv420p", 90, 160, 4)
    target = Target(640, 360, FORMATS["yuv420p"], batch.color)
    num_batches = 500 if is_gpu else 5
    processor = make_processor(upscaler, target)

    def run(number: int) -> None:
        for _ in range(number):
            for result in processor.push(batch):
                result()

    def used_mib() -> float:
        on_gpu = torch.cuda.memory_reserved(setting.device) / 2**20 if is_gpu else 0.0
        return on_gpu + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    run(num_batches // 5)
    before = used_mib()
    run(num_batches)
    growth = used_mib() - before
    assert growth < MOST_GROWTH_MIB, f"{growth:.0f} MiB more after {4 * num_batches} frames"
    return f"{growth:.1f} MiB more after {4 * num_batches} frames"


# -- engines ---------------------------------------------------------------------------------------------


def engines(setting: Setting) -> Checks:
    """TensorRT's engines: built, loaded, damaged, of another version."""
    yield "built, and loaded by the next", functools.partial(_kept, setting, None)
    yield "damaged, and built again", functools.partial(_kept, setting, lambda path: path.write_bytes(b"damaged"))
    yield "of another version, and built again", functools.partial(_kept, setting, _age)


def _age(path: Path) -> None:
    record = path.with_name(path.name + ".json")
    record.write_text(re.sub(r'"tensorrt": "[^"]*"', '"tensorrt": "9.0"', record.read_text("utf-8")), "utf-8")


def _kept(setting: Setting, change: Callable[[Path], object] | None) -> str:
    setting.need_tensorrt()
    card, net = load_with_card("nano")
    notes: list[str] = []
    before = os.environ.get("VSR_ENGINES")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VSR_ENGINES"] = folder
        try:
            place, x = Place(setting.device, "tensorrt"), torch.rand(1, 1, 64, 96, device=setting.device)
            first = EngineMaker(net, signature_of(card), place).make("fp16")(x)[0]
            if change is not None:
                change(next(iter(EngineStore().entries())).path)
            second = EngineMaker(net, signature_of(card), place, note=notes.append).make("fp16")(x)[0]
        finally:
            os.environ.pop("VSR_ENGINES") if before is None else os.environ.update(VSR_ENGINES=before)
    assert (change is not None) == any("building" in note for note in notes), "; ".join(notes)
    assert (first - second).abs().max() < TOLERANCE
    return "; ".join(notes) or "loaded"


# -- speed -----------------------------------------------------------------------------------------------


def speed(setting: Setting) -> Checks:
    """Where the time of a batch goes, and frames a second from file to file."""
    yield "time of a batch", functools.partial(_batch_times, setting)
    for title, size in SIZES.items():
        for codec in (None, "libx264", "hevc_nvenc"):
            name = f"{title}, {codec or 'no encoder'}: at least {LEAST_SHARE:.0%} of the slower stage alone"
            yield name, functools.partial(_frame_rate, setting, size, codec, "nano")
    for name in ("video-fast", "video"):
        size = SIZES["480p"] if setting.device.type == "cuda" else SMALL
        yield f"{name} at {size[1]}p, no encoder", functools.partial(_frame_rate, setting, size, None, name)


def _batch_times(setting: Setting) -> str:
    upscaler, batch = _upscaler(setting, "nano"), _noise("yuv420p", 180, 320, 4)
    target = Target(1280, 720, FORMATS["yuv420p"], batch.color)
    x = torch.rand(4, 1, 180, 320, device=setting.device)
    upscaler.upscale(batch, target)
    wait = functools.partial(torch.cuda.synchronize, setting.device) if setting.device.type == "cuda" else lambda: None
    network = _seconds(lambda: upscaler.engine(x), wait)
    whole = _seconds(lambda: upscaler.upscale(batch, target), wait)
    begun = time.perf_counter()
    fetch = upscaler.submit(batch, target)
    queued = time.perf_counter() - begun
    fetch()
    values = {"network": network, "whole": whole, "until queued": queued}
    return ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in values.items())


def _seconds(run: Callable[[], object], wait: Callable[[], object], rounds: int = 5) -> float:
    """Return the shortest time of a run and of the device's work for it."""
    shortest = float("inf")
    for _ in range(rounds):
        wait()
        begun = time.perf_counter()
        run()
        wait()
        shortest = min(shortest, time.perf_counter() - begun)
    return shortest


def _frame_rate(setting: Setting, size: tuple[int, int], codec: str | None, model: str) -> str:
    is_gpu = setting.device.type == "cuda"
    if codec == "hevc_nvenc" or not (is_gpu or size in (SIZES["480p"], SMALL)):
        setting.need_gpu()
    if model == "video":
        setting.need_gpu()  # seconds a frame on a CPU
    num_frames = 60 if is_gpu else 4
    upscaler = _upscaler(setting, model)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "in.mkv"
        _write_clip(clip, size, num_frames, "libx264")
        alone = _frames_without_encoder(upscaler, clip)
        if codec is None:
            return f"{alone:.1f} frames a second"
        options = JobOptions(encoding=EncodingOptions(codec=codec))
        report = enhance_file(clip, Path(folder) / "out.mkv", options, upscaler=upscaler)
    stages = report.stage_seconds or {}
    whole, encoder = report.num_frames / report.seconds, report.num_frames / stages["encode"]
    share = whole / min(alone, encoder)
    found = f"{whole:.1f} frames a second, {share:.0%}; network {alone:.1f}, encoder {encoder:.1f}"
    assert share >= LEAST_SHARE or not is_gpu, found
    return found


def _frames_without_encoder(upscaler: Upscaler, clip: Path) -> float:
    """Decode and upscale, and drop the frames; frames a second after the first batch."""
    with VideoReader(File(clip), InputOptions()) as reader:
        info = reader.info
        target = Target(info.width * 4, info.height * 4, info.pixel_format, info.color)
        processor, waiting, num_frames, begun = make_processor(upscaler, target), list[Result](), 0, 0.0
        started = time.perf_counter()
        for chunk in reader.chunks(2):
            if chunk.batch is None:
                continue
            waiting += processor.push(chunk.batch)
            while len(waiting) > processor.num_in_flight:
                done = waiting.pop(0)()
                num_frames += done.num_frames if begun else 0
                begun = begun or time.perf_counter()
        num_frames += sum(result().num_frames for result in (*waiting, *processor.flush()))
        return num_frames / (time.perf_counter() - (begun or started))


# -- the command -----------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Setting], Checks]] = {
    part.__name__: part for part in (environment, planes, steady, models, memory, engines, speed)
}


@contextmanager
def _own_engines() -> Iterator[None]:
    """Keep engines of the checks out of the folder of the user's."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("VSR_ENGINES", folder)
        yield


def outcome(part: str, name: str, check: Check, deadline: float) -> Line:
    """Make a check; whatever goes wrong in it is a line."""
    if time.monotonic() > deadline:
        return Line(part, name, "skip", "no time left; run this part alone")
    try:
        return Line(part, name, "pass", check())
    except Skip as reason:
        return Line(part, name, "skip", str(reason))
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return Line(part, name, "fail", text[:300])


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--device", default="auto", show_default=True, help="auto, cuda, cuda:N or cpu.")
@click.option("--models", "names", multiple=True, help="Models to compare.  [default: all]")
@click.option("--minutes", default=9.0, show_default=True, help="After which no further check begins.")
@click.option("--out", type=click.Path(path_type=Path), help="The result.  [default: benchmarks/gpu-NAME.json]")
def main(parts: tuple[str, ...], device: str, names: tuple[str, ...], minutes: float, out: Path | None) -> None:
    """Check PARTS, or all, on a GPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    setting = Setting(torch.device(device), names or tuple(shipped_cards()), time.monotonic() + 60 * minutes)
    title = torch.cuda.get_device_name(setting.device) if setting.device.type == "cuda" else processor_name() or "CPU"
    lines: list[Line] = []
    with _own_engines():
        for part in parts or PARTS:
            for name, check in PARTS[part](setting):
                lines.append(outcome(part, name, check, setting.deadline))
                line = lines[-1]
                click.echo(f"{line.outcome:<6}{line.part:<13}{line.name}  {line.detail}")
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    path = out or ROOT / "benchmarks" / f"gpu-{slug}.json"
    counts = {each: sum(line.outcome == each for line in lines) for each in ("pass", "fail", "skip")}
    values = {"device": title, "versions": versions(), "counts": counts, "lines": [asdict(line) for line in lines]}
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
    click.echo(f"{title}: " + ", ".join(f"{count} {each}" for each, count in counts.items()) + f"; {path}")
    sys.exit(1 if counts["fail"] else 0)


if __name__ == "__main__":
    main()
