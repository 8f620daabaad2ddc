"""Upscale frames one by one: colour, network, resize and colour again, on the engine's device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vsr.backends.compiled import CompiledEncoding
from vsr.backends.engine import Engine, Precision, release_buffers
from vsr.backends.transfers import Planes, Transfers, make_transfers
from vsr.color import conversion as convert
from vsr.color.encoding import Encode, encode_bands
from vsr.color.pixel_formats import as_stored
from vsr.color.resample import resample
from vsr.errors import OptionError
from vsr.frames import FrameBatch, Matrix
from vsr.models.cards import ModelCard
from vsr.pipeline.checked_network import GAVE_NAN, CheckedNetwork, Network
from vsr.pipeline.color_path import NetworkColor, Target, batch_to_network, rgb_to_network
from vsr.pipeline.first_batch import frames_that_fit, free_bytes
from vsr.pipeline.memory import BatchLimit

__all__ = ["Upscaler"]

FetchPlanes = Callable[[], Planes]


class Upscaler:
    """A model ready to run on frames and images: a network, and the colour path and the transfers around it.

    Keeps the limits it has found (the batch and tile that fit in memory, a safer precision), and no frames.
    peak_bytes: tells what the network holds for a frame of a height and width; to be set where that is known.
    others: the same model on devices that take the batches of a video in turn with this one; see `InTurn`.
    """

    peak_bytes: Callable[[int, int], int] | None = None
    others: tuple[Upscaler, ...] = ()

    def __init__(self, network: CheckedNetwork, transfers: Transfers | None = None) -> None:
        """transfers: bring planes to the engine's device and back; chosen by the device unless given."""
        self.network = network
        self._color: NetworkColor = "y" if network.card.color == "y" else "rgb"
        self._transfers = transfers or make_transfers(self.device)
        self._encode: Encode = CompiledEncoding(note=network.note) if self.device.type == "cuda" else encode_bands
        self._limit = BatchLimit(self.device, network.note, lambda: release_buffers(network.engine))

    @property
    def card(self) -> ModelCard:
        return self.network.card

    @property
    def engine(self) -> Engine:
        return self.network.engine

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def precision(self) -> Precision:
        return self.network.precision

    @property
    def numerics_key(self) -> tuple[object, ...]:
        """All that the last bits of a result depend on beside the frames."""
        return *self.network.numerics_key, self._limit.num_frames

    @property
    def num_in_flight(self) -> int:
        """Batches to submit before the result of the one before is asked for."""
        return self._transfers.num_in_flight

    def frames_that_fit(self, width: int, height: int) -> int | None:
        """Return about how many frames of a size in pixels fit in a GPU's free memory; None where nothing is known."""
        if self.device.type != "cuda" or self.peak_bytes is None:
            return None
        free, out_pixels = free_bytes(self.device), self.card.scale**2 * width * height
        peak = self.peak_bytes(height, width)
        return frames_that_fit(free, peak, out_pixels, is_recurrent=self.card.recurrent)

    def upscale(self, batch: FrameBatch, target: Target) -> FrameBatch:
        """Upscale a batch of native planes to the target's planes, on the CPU; PTS and durations are kept."""
        return self.submit(batch, target)()

    @torch.inference_mode()
    def submit(self, batch: FrameBatch, target: Target, network: Network | None = None) -> Callable[[], FrameBatch]:
        """Queue the work on a batch; a call of the result waits for it and gives what `upscale` gives.

        Batches may be submitted before the results of others are asked for, by the same thread. The planes of the
        batch must not be changed until then: a batch in which NaN or Inf turn up is done again.

        Args:
            network: runs in place of the upscaler's own, through which it computes the same values.
        """

        def work(part: FrameBatch) -> FetchPlanes:
            return self._submitted(part, target, network or self.network)

        fetches = self._limit.run(batch, work)

        def result() -> FrameBatch:
            planes = _joined([fetch() for fetch in fetches])
            return FrameBatch(planes, batch.pts, batch.durations, batch.time_base, target.color)

        return result

    def _submitted(self, batch: FrameBatch, target: Target, network: Network) -> FetchPlanes:
        """Queue upload, network and download of a batch; return what fetches its planes."""
        prepared = batch_to_network(self._transfers.upload(batch.planes), batch, target, self._color, self._encode)
        computed = network.run(prepared.x)
        planes = as_stored(prepared.finish(computed.outputs[0]), target.pixel_format)
        fetch, engine = self._transfers.download((*planes, computed.is_finite)), self.engine

        def fetched() -> Planes:
            *planes, is_finite = fetch()
            if is_finite:
                return tuple(planes)
            if self.engine is engine:  # else a batch before this one has led away from it already
                self.network.fall_back(GAVE_NAN)
            return self.upscale(batch, target).planes

        return fetched

    def upscale_image(self, image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Upscale one image: (H, W, 3) or (H, W, 4) RGB(A), or (H, W) gray; uint8 or uint16, and so the result.

        Alpha is resized bicubically. Raises ValueError for other shapes and dtypes.

        Args:
            size: (width, height) of the result in pixels; by the network's scale unless given.
        """
        return self.upscale_images([image], size)[0]

    @torch.inference_mode()
    def upscale_images(self, images: Sequence[np.ndarray], size: tuple[int, int] | None = None) -> list[np.ndarray]:
        """Upscale images of one height and width together; the results are those of `upscale_image`, bit for bit.

        Args:
            size: see `upscale_image`.
        """
        if self.card.recurrent:
            raise OptionError(f"`model={self.card.name}` needs the frames of a video; `model=srresnet` is for images")
        prepared = [_ImageOnItsWay.of(image, self, size) for image in images]
        # CPU engines compute each image of a batch by itself; kernels of a GPU round otherwise for another batch.
        at_once = len(prepared) if self.device.type == "cpu" else 1
        results = []
        for first in range(0, len(prepared), at_once):
            part = prepared[first : first + at_once]
            outs = self.network(torch.cat([each.x for each in part]))[0]
            results += [each.finish(out) for each, out in zip(part, torch.split(outs, 1), strict=True)]
        return results


@dataclass(frozen=True, slots=True)
class _ImageOnItsWay:
    """An image that is ready for the network, and the rest of its way.

    x: the network's input, (1, C, H, W).  finish: makes the upscaled image of the network's output.
    """

    x: Tensor
    finish: Callable[[Tensor], np.ndarray]

    @classmethod
    def of(cls, image: np.ndarray, upscaler: Upscaler, size: tuple[int, int] | None) -> _ImageOnItsWay:
        peak = _image_peak(image)
        pixels = torch.from_numpy(np.require(np.atleast_3d(image), requirements=["C", "W"])).permute(2, 0, 1)[None]
        if pixels.dtype == torch.uint16:
            pixels = pixels.to(torch.int32)  # of 16 bits, not every device has an unsigned type
        x = pixels.to(upscaler.device).to(torch.float32) / peak
        scale, color = upscaler.card.scale, upscaler.network.card.color
        width, height = size or (image.shape[1] * scale, image.shape[0] * scale)
        prepared = rgb_to_network(x[:, :3].expand(-1, 3, -1, -1), (height, width), "y" if color == "y" else "rgb")

        def finish(out: Tensor) -> np.ndarray:
            rgb = prepared.finish(out)[0].clamp_(0, 1)
            if image.ndim == 2:
                rgb = convert.rgb_to_ycbcr(rgb, Matrix.SMPTE170M)[0]
            if x.shape[1] == 4:
                rgb = torch.cat((rgb, resample(x[:, 3:], (height, width)).clamp(0, 1)), 1)
            return _as_array(rgb, peak, image)

        return cls(prepared.x, finish)


def _as_array(x: Tensor, peak: int, like: np.ndarray) -> np.ndarray:
    """Round (1, C, H, W) in [0, 1] to an array of the kind of another."""
    out = x.mul(peak).add_(0.5)[0].permute(1, 2, 0).cpu().numpy().astype(like.dtype)
    return out[..., 0] if like.ndim == 2 else out


def _joined(parts: list[Planes]) -> Planes:
    return parts[0] if len(parts) == 1 else tuple(torch.cat(planes) for planes in zip(*parts, strict=True))


def _image_peak(image: np.ndarray) -> int:
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"an image must be uint8 or uint16, not {image.dtype}")
    if image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ValueError(f"an image must be (H, W, 3), (H, W, 4) or (H, W), not {image.shape}")
    return 255 if image.dtype == np.uint8 else 65535
