"""The calls of `import vsr`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vsr.cluster.run import enhance_file_on
from vsr.cluster.start import start_pool
from vsr.cluster.worker_options import WorkerOptions
from vsr.errors import OptionError
from vsr.events import Note, NoteCode, Progress
from vsr.files import file_state
from vsr.jobs.arguments import image_array, like_image, plain_options
from vsr.jobs.model_cache import GivenModel, ModelCache, ModelSource
from vsr.jobs.options import JobOptions, OutputPolicy
from vsr.jobs.purposes import describe_purpose, options_for
from vsr.jobs.report import JobReport
from vsr.jobs.run import enhance_file
from vsr.jobs.save_frames import save_frames
from vsr.jobs.upscale_frames import upscale_frames
from vsr.media.read.decoder import HwAccelMode
from vsr.media.read.deinterlace import DeinterlaceMode
from vsr.media.read.options import InputOptions
from vsr.media.verification.verify import Verification, verify_files
from vsr.media.write.options import EncodingOptions
from vsr.media.write.stream_plan import AudioMode
from vsr.pipeline.loading import ModelOptions, load_model
from vsr.pipeline.upscaler import Upscaler
from vsr.video import Frame, Image, Number, Video, exact, open_video

__all__ = ["enhance", "load_model", "open_video", "save_video", "upscale", "upscale_image", "verify"]


def _ignored(line: str) -> None:
    """Take a note that nobody asked for."""


def enhance(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    model: str | PathLike[str] | Upscaler = "auto",
    scale: float | None = None,
    size: str | tuple[int, int] | None = None,
    fidelity: float | None = None,
    restore: float | None = None,
    purpose: str | None = None,
    square: bool = False,
    device: str | torch.device = "auto",
    backend: str = "auto",
    precision: str = "auto",
    batch: int | None = None,
    tile: int | None = None,
    reuse: bool = True,
    model_range: str | None = None,
    model_order: str | None = None,
    model_scale: int | None = None,
    input_format: str | None = None,
    video_size: str | None = None,
    pixel_format: str | None = None,
    framerate: Number | None = None,
    start_seconds: Number | None = None,
    duration_seconds: Number | None = None,
    maps: Sequence[str] = (),
    deinterlace: DeinterlaceMode = "auto",
    hwaccel: HwAccelMode = "none",
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    encoder_options: Mapping[str, str] | None = None,
    format: str | None = None,
    audio: AudioMode = "copy",
    audio_bitrate: int | None = None,
    overwrite: bool = False,
    resume: bool | None = None,
    strict: bool = False,
    verify: bool = True,
    report: str | PathLike[str] | None = None,
    reference: str | PathLike[str] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    storage: str | PathLike[str] | None = None,
    note: Callable[[Note], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> JobReport:
    """Upscale a video file to a video file, or an image to an image, as `vsr enhance` does.

    Args:
        source: A video or an image; a pattern ("%06d.png", "*.png") or a folder of images; "-" is stdin.
        output: The file to write; or a numbered pattern or a folder; "-" is stdout.
        model: "auto", a name that `vsr models` lists, the path of a weights file, or what `load_model` returned.
        scale: Output pixels per input pixel, 1 to 16; by default the model's own.
        size: "1920x1080", "480p", "720p", "1080p", "1440p", "4k" or "8k", or (width, height), instead of a scale.
        fidelity: Instead of a model, 0 (invented, sharp detail) to 1 (closest to the source).
        restore: 0 (faithful to every pixel) to 1 (rid of noise and of what codecs leave behind).
        purpose: What the source is, instead of single options: "old-video", "phone", "web", "clean", "screen" or
            "anime"; a note says what it stands for.
        square: Make pixels square where those of the source are not, as on DVDs.
        device: "auto", "cpu", "cuda", "cuda:1", "mps"; "cuda:0,cuda:1" or "all" GPUs take batches in turn; "gpu" is an
            Intel GPU with the backend "openvino".
        backend: "auto", "tensorrt", "openvino" or "pytorch".
        precision: "auto", "int8", "fp16", "bf16" or "fp32".
        batch: Frames that the network takes at once; by default by their size.
        tile: Side of a tile in input pixels, to save memory; by default whole frames.
        reuse: Compute only the parts of a frame that differ from the frame before; the output is the same.
        model_range, model_order, model_scale: Of a file of another project, where the test at its loading errs; as for
            `load_model`.
        input_format: FFmpeg's name of the source's format, where it cannot be recognised, such as "rawvideo".
        video_size, pixel_format: Of raw video, such as "640x360" and "yuv420p".
        framerate: Frames a second of raw video and of images.
        start_seconds, duration_seconds: The part to upscale, in seconds of the source.
        maps: Streams to take, each as ffmpeg's -map names them; by default all.
        deinterlace: "auto" (where the video says that it is interlaced), "on", "off" or "double" (a frame a field).
        hwaccel: "none" decodes on the CPU, "cuda" on a GPU, "auto" on the GPU that runs the network.
        codec, crf, preset, pix_fmt: Of the video encoder, by FFmpeg's names; crf is its quality, lower is better.
        encoder_options: Any other options of the encoder, such as {"tune": "film"}.
        format: FFmpeg's name of the output's container; by default by the suffix.
        audio: "copy", "aac", "opus" or "none".
        audio_bitrate: Of audio that is transcoded, in bits a second, such as 192000; by default the encoder's own.
        overwrite: Replace an output that exists.
        resume: True keeps what is done when the job is stopped, and goes on from there; None does so for jobs of more
            than ten minutes; False starts anew.
        strict: Raise StrictError, rather than warn, where the output cannot hold a part of the source.
        verify: Read the output back and compare its frames, timestamps and streams with the source's.
        report: File for the figures of the job, as JSON.
        reference: The sharp original, to which the report gives every frame's PSNR.
        workers: Make segments of the video side by side in so many processes, on all GPUs or on shares of the cores.
        cluster: Make them on a Ray cluster: "auto" for the one of this machine, "ray://HOST:PORT" or "HOST:PORT"; with
            `workers`, on so many. docs/cluster.md has more.
        storage: Folder that all machines of the cluster see by this name.
        note: Called with each note: a string with a `code`.
        on_progress: Called after each batch.

    Returns:
        What was done: output, model, engine, frames, size, seconds.

    Raises the errors of `vsr.errors`.
    """
    options = dict(locals())  # the first statement: the arguments alone, under the names that the parts have
    del options["source"], options["output"], options["note"], options["on_progress"]
    asked = WorkerOptions(options.pop("workers"), options.pop("cluster"), _path(options.pop("storage")))
    upscaler = model if isinstance(model, Upscaler) else None
    if upscaler is not None:
        options["model"] = upscaler.card.name
    options = plain_options(options)
    word = options.pop("purpose")
    if word is not None:
        chosen = options_for(word, options)
        options |= chosen
        if note is not None:
            note(Note(NoteCode.MODEL, describe_purpose(word, chosen)))
    for key in ("start_seconds", "duration_seconds", "framerate"):
        options[key] = exact(options[key])
    for key in ("reference", "report"):
        options[key] = _path(options[key])
    options |= {"maps": tuple(maps), "encoder_options": dict(encoder_options or {})}
    listeners: dict[str, Any] = {"note": note, "on_progress": on_progress}
    given = {name: listener for name, listener in listeners.items() if listener is not None}
    job_options = JobOptions.of(**options)
    if not asked.are_wanted:
        return enhance_file(Path(source), Path(output), job_options, upscaler=upscaler, **given)
    if upscaler is not None:
        raise OptionError("`workers`: load a model of their own; give its name, or the path of its file")
    with start_pool(asked, job_options.model.device, job_options.model.backend) as pool:
        return enhance_file_on(pool, Path(source), Path(output), job_options, **given)


def _path(name: str | PathLike[str] | None) -> Path | None:
    return None if name is None else Path(name)


def upscale(
    frames: Video | Iterable[Frame | Image],
    model: str | PathLike[str] | Upscaler = "auto",
    *,
    scale: float | None = None,
    size: str | tuple[int, int] | None = None,
    fidelity: float | None = None,
    restore: float | None = None,
    device: str | torch.device = "auto",
    backend: str = "auto",
    precision: str = "auto",
    batch: int | None = None,
    tile: int | None = None,
    reuse: bool = True,
    model_range: str | None = None,
    model_order: str | None = None,
    model_scale: int | None = None,
    note: Callable[[str], None] = _ignored,
) -> Iterator[Frame]:
    """Upscale frames lazily, in their order; a few are in memory at a time.

    Args:
        frames: A `Video`; or any iterable of frames, or of arrays or tensors: (H, W, 3) RGB of one size, uint8, uint16,
            or float from 0 to 1. They come out as they went in: as arrays or tensors of the same kind.
        model: "auto", a name that `vsr models` lists, the path of a weights file, or what `load_model` returned.
        scale, size, fidelity, restore, device, backend, precision, batch, tile, reuse: As for `enhance`.
        model_range, model_order, model_scale: As for `load_model`.
        note: Called with one line for anything worth knowing.

    Returns:
        An iterator of frames, with the times of those that went in. Close it to end early.

    Raises the errors of `vsr.errors`, and ValueError for frames that are no images or do not go together.
    """
    values = dict(locals())  # the first statement, as in `enhance`
    del values["frames"], values["note"]
    if isinstance(model, Upscaler):
        values["model"] = model.card.name
    options = ModelOptions(**plain_options(values))
    JobOptions(model=options)  # raises OptionError now rather than with the first frame
    models: ModelSource = GivenModel(model) if isinstance(model, Upscaler) else ModelCache()
    return upscale_frames(frames, options, models, note)


def save_video(
    path: str | PathLike[str],
    frames: Iterable[Frame | Image],
    *,
    like: Video | None = None,
    frame_rate: Number | None = None,
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    encoder_options: Mapping[str, str] | None = None,
    format: str | None = None,
    audio: AudioMode = "copy",
    overwrite: bool = False,
    strict: bool = False,
    verify: bool = True,
    note: Callable[[str], None] = _ignored,
) -> int:
    """Write frames to a video file; it is there when it is complete and checked, or not at all.

    Args:
        path: The file.
        frames: Frames, arrays or tensors of one size, (H, W, 3) RGB: uint8, uint16, or float from 0 to 1.
        like: The video they were made of: its audio, subtitles, chapters, metadata, colour, shape and rotation are
            carried over. Frames without times are shown when its frames are, and must be as many.
        frame_rate: Frames a second of frames without times, where there is no such video.
        codec, crf, preset, pix_fmt, encoder_options, format, audio: Of the encoding, as for `enhance`.
        overwrite, strict, verify: As for `enhance`.
        note: Called with one line for anything worth knowing, such as what the file cannot hold.

    Returns:
        The number of frames.

    Raises the errors of `vsr.errors`, and ValueError for frames that are no images or do not go together.
    """
    encoding = EncodingOptions(codec, crf, preset, pix_fmt, dict(encoder_options or {}), format, audio)
    policy = OutputPolicy(overwrite=overwrite, strict=strict, verify=verify)
    return save_frames(Path(path), frames, like, exact(frame_rate), encoding, policy, note)


@functools.lru_cache(maxsize=2)
def _loaded(model: str, state: tuple[int, ...]) -> Upscaler:
    """Load a model. state: of its file, by which another content is noticed."""
    return load_model(model)


def upscale_image(array: Image, model: str | PathLike[str] | Upscaler = "fast") -> Image:
    """Upscale one image, or a batch of images, by the model's own scale.

    Args:
        array: (H, W, 3) RGB, uint8, uint16 or float from 0 to 1, an array, a tensor or an image of PIL, and so the
            result (an array for PIL); also (H, W, 4) RGBA and (H, W) gray. A batch is (N, H, W, 3) or (N, H, W, 4).
        model: A name that `vsr models` lists or the path of a weights file, which stays loaded for the next call, as
            long as the file is the same; or what `load_model` returned.

    Raises ModelError for an unknown model, ValueError for an array of another shape or dtype, TypeError for anything
    else.
    """
    if isinstance(model, Upscaler):
        upscaler = model
    else:
        name = plain_options({"model": model})["model"]
        upscaler = _loaded(name, file_state(Path(name)))
    images = image_array(array)
    if images.ndim == 4 and len(images):
        result = np.stack([upscaler.upscale_image(image) for image in images])
    else:
        result = upscaler.upscale_image(images)
    return like_image(result, array)


def verify(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    start_seconds: Number | None = None,
    duration_seconds: Number | None = None,
    maps: Sequence[str] = (),
    deinterlace: Literal["auto", "off", "double"] = "auto",
    ignore: Sequence[str] = (),
    note: Callable[[str], None] = _ignored,
) -> Verification:
    """Compare the output of any tool with its source, as `vsr verify` does.

    Frames, timestamps, other streams, chapters, colour, shape, rotation and metadata must be the source's; another
    size and another video codec are expected. Both files are decoded to their ends.

    Args:
        source, output: The two videos.
        start_seconds, duration_seconds, maps: The part of the source that the output was made of, as for `enhance`.
        deinterlace: "double" where the output has a frame for each field, "off" where it has one for each frame;
            "auto" tells by its number of frames, if the source is interlaced.
        ignore: Codes of differences to pass over, such as "metadata"; see `DifferenceCode`.
        note: Called with one line for anything out of the ordinary in either file, such as damage.

    Returns:
        The report: `is_same`, `differences` (each with `code`, `text` and `stream`), `to_json()`;
        `raise_for_differences()` raises VerificationError.

    Raises InputError where a file cannot be read, OptionError for an unknown code.
    """
    options = InputOptions(
        maps=tuple(maps),
        start_seconds=exact(start_seconds),
        duration_seconds=exact(duration_seconds),
        deinterlace=deinterlace,
    )
    return verify_files(Path(source), Path(output), options, ignore=ignore, note=note)
