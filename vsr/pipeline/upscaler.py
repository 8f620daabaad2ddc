"""Frames in, larger frames out: colour, network, resize and colour again, on the engine's device."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.engine import Engine, Precision, safer_precisions
from vsr.backends.torch_engine import TorchEngine
from vsr.backends.transfers import Planes, Transfers, make_transfers
from vsr.color import conversion as convert
from vsr.color.pixel_formats import FORMATS
from vsr.color.resample import resample
from vsr.color.rgb import planes_of_rgb
from vsr.errors import EngineError
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.models.cards import ModelCard
from vsr.pipeline.color_path import Target
from vsr.pipeline.precision_gate import GATE_TOLERANCE, PrecisionGate
from vsr.pipeline.tiles import TiledNetwork, is_out_of_memory

__all__ = ["Upscaler"]

GAVE_NAN = "gave NaN or Inf"


class Upscaler:
    """A model ready to run: its card, an engine, and everything around the network.

    Instances keep what they learn (batch and tile that fit in memory, a safer precision), not frames.
    """

    def __init__(
        self,
        card: ModelCard,
        make_engine: Callable[[Precision], Engine],
        precision: Precision,
        tile: int | None = None,
        note: Callable[[str], None] = lambda line: None,
        *,
        make_reference: Callable[[], Engine] | None = None,
        is_fixed: bool = False,
        transfers: Transfers | None = None,
    ) -> None:
        """make_reference: of an engine whose numbers are trusted; make_engine("fp32") unless given.

        is_fixed: whether the reference must not take over when `make_engine` fails at every precision.
        transfers: the way of planes to the engine's device and back; what suits the device unless given.
        """
        self.card, self.precision, self._make_engine, self._note = card, precision, make_engine, note
        self._make_reference, self._is_fixed = make_reference, is_fixed
        self._tiled = TiledNetwork(make_engine(precision), card, tile, note)
        self._is_checked = self._is_trusted()
        self._transfers = transfers or make_transfers(self.device)
        self._max_frames: int | None = None  # of a batch, where memory beside the network is short
        # Called with the network's input and the network, in its place; must give the same.
        self.shortcut: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor] | None = None
        self._is_finite = torch.tensor(True)  # what the network gave last, all of it; on the device

    @property
    def engine(self) -> Engine:
        return self._tiled.engine

    @property
    def device(self) -> torch.device:
        return self.engine.device

    @property
    def way(self) -> tuple[object, ...]:
        """What the result depends on beside the frames, to compare: engine, precision, batches and tiles."""
        return self.engine, self.engine.name, self._max_frames, self._tiled.max_batch, self._tiled.tile

    @property
    def num_in_flight(self) -> int:
        """Batches to `begin` before the one before is waited for."""
        return self._transfers.num_in_flight

    def go_on_in(self, precision: Precision) -> None:
        """Go on as an earlier run of the same job has ended: in a precision that was checked on its frames."""
        if precision != self.precision:
            self.precision = precision
            self._tiled.engine = self._make_engine(precision)
        self._is_checked = True

    def check_again(self) -> None:
        """Check the precision anew on the next batch, which is of another job."""
        self._is_checked = self._is_trusted()

    # -- the network -------------------------------------------------------------------------------

    def network(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W), C = 3 or 1 as the card says, to (N, C, H·scale, W·scale), unclamped.

        The first batch is checked against fp32; NaN and Inf are caught in every batch. Either moves to
        the next safer precision, with a note. Raises EngineError where there is none left.
        """
        return self._until_finite(lambda: self._run(x))

    def _run(self, x: Tensor) -> Tensor:
        """`network`, but for NaN and Inf: `_is_finite` says whether there are any, without waiting for it."""
        out = self._tiled(x) if self.shortcut is None else self.shortcut(x, self._tiled)
        if not self._is_checked:
            out = self._check_precision(x, out)
        self._is_finite = torch.isfinite(out.sum())
        return out

    def _until_finite(self, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute`, which runs the network once, gives at the first precision without NaN or Inf."""
        while True:
            out = compute()
            if self._is_finite:
                return out
            self._fall_back(GAVE_NAN)

    def _check_precision(self, x: Tensor, out: Tensor) -> Tensor:
        """The network's output for the first batch `x`: `out`, or what a safer precision gives."""
        while not self._is_checked:
            gate = PrecisionGate(self._trusted(), x)  # anew, as int8 has a reference of its own
            difference = gate.difference(out)
            if difference <= GATE_TOLERANCE:  # false for NaN
                self._is_checked = True
            else:
                is_nan = math.isnan(difference)
                self._fall_back(GAVE_NAN if is_nan else f"differs from fp32 by {difference * 255:.1f} code values")
                out = self._tiled(x)
        return out

    def _trusted(self) -> TiledNetwork:
        return TiledNetwork(self._make_reference() if self._make_reference else self._make_engine("fp32"), self.card)

    def _fall_back(self, why: str) -> None:
        """Move on to what is safer: less speed on this backend, and at last the reference."""
        remaining = safer_precisions(self.precision)
        if remaining:
            self._note(f"{self.precision} {why}: going on in {remaining[0]}")
            self.precision = remaining[0]
            self._tiled.engine = self._make_engine(self.precision)
        elif self._make_reference is not None and not self._is_fixed and not self._is_trusted():
            reference = self._make_reference()
            self._note(f"{self.engine.name}, {why}: going on with {reference.name}")
            self._tiled.engine = reference
        else:
            raise EngineError(
                f"model '{self.card.name}' {why} at {self.precision} on {self.engine.name}; "
                + ("its weights are bad" if self._is_trusted() else "try another --backend")
            )
        self._is_checked = self._is_checked or self._is_trusted()

    def _is_trusted(self) -> bool:
        """Whether there is nothing to check the engine against."""
        has_safer = bool(safer_precisions(self.precision))
        return not has_safer and (self._make_reference is None or isinstance(self.engine, TorchEngine))

    # -- frames --------------------------------------------------------------------------------------

    def upscale(self, batch: FrameBatch, target: Target) -> FrameBatch:
        """A batch of native planes to a batch of the target's planes, on the CPU; PTS and durations as they are."""
        return self.begin(batch, target)()

    @torch.inference_mode()
    def begin(self, batch: FrameBatch, target: Target) -> Callable[[], FrameBatch]:
        """Queue the work on a batch; the call of the result waits for it and gives what `upscale` gives.

        Batches may be begun before others are waited for, by the same thread. The planes of the batch must
        not be changed until then: a batch in which NaN or Inf turn up is done again.
        """
        parts = batch.split(self._max_frames or batch.num_frames)
        fetches = [fetch for part in parts for fetch in self._begun(part, target)]

        def finish() -> FrameBatch:
            planes = _joined([fetch() for fetch in fetches])
            return FrameBatch(planes, batch.pts, batch.durations, batch.time_base, target.color)

        return finish

    def _begun(self, batch: FrameBatch, target: Target) -> list[Callable[[], Planes]]:
        """Ways to fetch the planes of a batch: one; or more, in order, where memory suffices for less only."""
        try:
            planes = self._computed(batch, target)
            fetch, engine = self._transfers.download((*planes, self._is_finite)), self.engine
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._take_fewer_frames(batch.num_frames, error)
        else:
            return [lambda: self._fetched(fetch, engine, batch, target)]
        # Past the handler, as the error holds on to what was computed.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        parts = batch.split(self._max_frames or 1)
        return [fetch for part in parts for fetch in self._begun(part, target)]

    def _take_fewer_frames(self, num_frames: int, error: BaseException) -> None:
        """Out of memory outside the network: for the planes and floats around it, where tiles do not help."""
        if num_frames == 1:
            raise EngineError(
                f"out of memory on {self.device} even for one frame; use a smaller --scale or --device cpu"
            ) from error
        self._max_frames = num_frames // 2
        self._note(f"out of memory: going on with batches of {self._max_frames}")

    def _fetched(self, fetch: Callable[[], Planes], engine: Engine, batch: FrameBatch, target: Target) -> Planes:
        """The planes that `engine` gave for a batch; those of a safer one where they come of NaN or Inf."""
        *planes, is_finite = fetch()
        if is_finite:
            return tuple(planes)
        if self.engine is engine:  # else a batch before this one has led away from it already
            self._fall_back(GAVE_NAN)
        return self.upscale(batch, target).planes

    def _computed(self, batch: FrameBatch, target: Target) -> Planes:
        """The target's planes, on the device."""
        planes = list(self._transfers.upload(batch.planes))
        if batch.chroma is None and not batch.color.is_rgb:
            main = self._gray(planes[0], batch.color, target)
        elif batch.color.is_rgb:
            main = self._from_rgb(self._rgb_to_rgb(convert.dequantize_luma(planes[0], batch.color), target), target)
        elif self.card.color == "y" and _same_ycbcr(batch.color, target.color):
            main = self._luma_planes(planes[0], planes[1], batch.color, target)
        else:
            luma, chroma = (convert.dequantize_luma(planes[0], batch.color), self._full_chroma(planes, batch.color))
            rgb = convert.ycbcr_to_rgb(luma, chroma, batch.color.matrix)
            main = self._from_rgb(self._rgb_to_rgb(rgb, target), target)
        if target.pixel_format.alpha:
            main = (*main, self._alpha(planes[-1] if batch.alpha is not None else None, batch, target))
        return main

    def _luma_planes(self, luma: Tensor, chroma: Tensor, color: Color, target: Target) -> tuple[Tensor, ...]:
        """The light way: luma through the network as it is coded, chroma up by the cubic kernel."""
        peak = _luma_peak(color)
        out = self._resized(self._run(luma.to(torch.float32).mul_(1 / peak)), target)
        out = convert.quantize(out, _luma_peak(target.color), 0, target.color)
        if target.pixel_format.kind == "gray":
            return (out,)
        shift = _chroma_shift(luma, chroma)
        scale = (target.height / luma.shape[-2], target.width / luma.shape[-1])
        # Of one range and matrix, so the code values themselves can be resampled: bit depth is a factor.
        moved = convert.resize_chroma(
            chroma.to(torch.float32),
            (color, shift),
            (target.color, target.pixel_format.chroma_shift),
            scale,
            (target.height, target.width),
        )
        return out, convert.quantize(moved, 2.0 ** (target.color.bit_depth - color.bit_depth), 0, target.color)

    def _gray(self, luma: Tensor, color: Color, target: Target) -> tuple[Tensor, ...]:
        if self.card.color == "y" and target.pixel_format.kind == "gray" and color.range is target.color.range:
            out = self._resized(self._run(luma.to(torch.float32).mul_(1 / _luma_peak(color))), target)
            return (convert.quantize(out, _luma_peak(target.color), 0, target.color),)
        gray = convert.dequantize_luma(luma, color)
        rgb = self._rgb_to_rgb(gray.expand(-1, 3, -1, -1), target)
        return self._from_rgb(rgb, target)

    def _full_chroma(self, planes: list[Tensor], color: Color) -> Tensor:
        size = (planes[0].shape[-2], planes[0].shape[-1])
        chroma = convert.dequantize_chroma(planes[1], color)
        return convert.upsample_chroma(chroma, color, _chroma_shift(planes[0], planes[1]), size)

    def _rgb_to_rgb(self, rgb: Tensor, target: Target) -> Tensor:
        """RGB floats through the network, at the target's size, clamped to [0, 1]."""
        if self.card.color == "rgb":
            return self._resized(self._run(rgb.clamp(0, 1)), target).clamp_(0, 1)
        # A luma network was trained on BT.601 luma as it is coded: 16 to 235, over 255.
        luma, chroma = convert.rgb_to_ycbcr(rgb.clamp(0, 1), Matrix.SMPTE170M)
        luma = self._resized(self._run(luma.mul_(219 / 255).add_(16 / 255)), target)
        chroma = resample(chroma, (target.height, target.width))
        return convert.ycbcr_to_rgb(luma.sub_(16 / 255).mul_(255 / 219), chroma, Matrix.SMPTE170M).clamp_(0, 1)

    def _from_rgb(self, rgb: Tensor, target: Target) -> tuple[Tensor, ...]:
        """RGB floats at the target's size to the target's planes."""
        return planes_of_rgb(rgb, target.pixel_format, target.color)

    def _alpha(self, alpha: Tensor | None, batch: FrameBatch, target: Target) -> Tensor:
        opaque = 2.0**target.color.bit_depth - 1
        if alpha is None:
            shape = (batch.num_frames, 1, target.height, target.width)
            return torch.full(shape, opaque, device=self.device).to(target.color.dtype)
        scaled = resample(alpha.to(torch.float32), (target.height, target.width))
        return convert.quantize(scaled, opaque / (2.0**batch.color.bit_depth - 1), 0, target.color)

    def _resized(self, x: Tensor, target: Target) -> Tensor:
        """The one resize, where the target is not the network's own size."""
        if x.shape[-2:] == (target.height, target.width):
            return x
        return F.interpolate(x, (target.height, target.width), mode="bicubic", antialias=True)

    # -- pictures --------------------------------------------------------------------------------------

    @torch.inference_mode()
    def upscale_image(self, image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """One picture: (H, W, 3) or (H, W, 4) RGB(A), or (H, W) gray; uint8 or uint16, and so the result.

        size: (width, height) of the result; the network's scale unless given. Alpha goes up bicubically.
        Raises ValueError for other shapes and dtypes.
        """
        peak = _image_peak(image)
        pixels = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image))).permute(2, 0, 1)[None]
        x = pixels.to(self.device).to(torch.float32) / peak
        height, width = image.shape[0] * self.card.scale, image.shape[1] * self.card.scale
        if size is not None:
            width, height = size
        target = Target(width, height, _RGB, _SRGB)
        rgb = self._until_finite(lambda: self._rgb_to_rgb(x[:, :3].expand(-1, 3, -1, -1), target))
        if image.ndim == 2:
            rgb = convert.rgb_to_ycbcr(rgb, Matrix.SMPTE170M)[0]
        if x.shape[1] == 4:
            rgb = torch.cat((rgb, resample(x[:, 3:], (height, width)).clamp(0, 1)), 1)
        out = rgb.mul(peak).add_(0.5)[0].permute(1, 2, 0).cpu().numpy().astype(image.dtype)
        return out[..., 0] if image.ndim == 2 else out


_RGB = FORMATS["gbrp"]
_SRGB = Color(Matrix.RGB, Primaries.BT709, Transfer.SRGB, Range.FULL, ChromaLocation.LEFT, 8)


def _joined(parts: list[Planes]) -> Planes:
    return parts[0] if len(parts) == 1 else tuple(torch.cat(planes) for planes in zip(*parts, strict=True))


def _same_ycbcr(source: Color, target: Color) -> bool:
    """Whether luma and chroma mean the same in both, bit depth aside, so that planes can go through alone."""
    return source.matrix is target.matrix and source.range is target.range


def _luma_peak(color: Color) -> float:
    """The code value that stands for 1 at a luma network's input: 255 at 8 bit."""
    return 255.0 * 2 ** (color.bit_depth - 8) if color.range is Range.LIMITED else 2.0**color.bit_depth - 1


def _chroma_shift(luma: Tensor, chroma: Tensor) -> tuple[int, int]:
    """log2 of the (horizontal, vertical) subsampling, from the planes' own sizes."""
    return int(chroma.shape[-1] < luma.shape[-1]), int(chroma.shape[-2] < luma.shape[-2])


def _image_peak(image: np.ndarray) -> int:
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"a picture must be uint8 or uint16, not {image.dtype}")
    if image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ValueError(f"a picture must be (H, W, 3), (H, W, 4) or (H, W), not {image.shape}")
    return 255 if image.dtype == np.uint8 else 65535
