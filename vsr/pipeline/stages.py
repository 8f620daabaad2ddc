"""The stages of a video job, side by side: decode, upscale, encode, measure."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from av.packet import Packet

from vsr.errors import EngineError
from vsr.frames import FrameBatch
from vsr.media.read.reader import Chunk
from vsr.pipeline.color_path import Target
from vsr.pipeline.reuse import FrameReuse
from vsr.pipeline.threads import Drain, Prefetch
from vsr.pipeline.upscaler import Upscaler

__all__ = ["FrameMeter", "NetworkStage", "Sink", "failure_named", "run_stages"]


class Sink(Protocol):
    """Where upscaled frames and the packets beside them go: a file, a pipe, pictures.

    write, and at the end finish, come from one thread; abort may follow at any time, and does nothing after commit.
    verify reads back what it can, against what the source has given, and raises VerificationError.
    num_frames: written so far.  num_damaged: packets of the source's video that could not be decoded.
    num_damaged_audio: packets that were to be transcoded and could not be decoded.
    num_lost_chapters: of the source's, which the container cannot hold.
    """

    @property
    def num_frames(self) -> int: ...
    @property
    def num_damaged(self) -> int: ...
    @property
    def num_damaged_audio(self) -> int: ...
    @property
    def num_lost_chapters(self) -> int: ...
    def write(self, chunk: Chunk) -> None: ...
    def finish(self) -> None: ...
    def verify(self) -> None: ...
    def commit(self) -> None: ...
    def abort(self) -> None: ...


class FrameMeter(Protocol):
    """What measures upscaled frames while a job runs.

    measure, for each batch in order, and after the last finish come from one thread.
    """

    def measure(self, batch: FrameBatch) -> None: ...
    def finish(self) -> None: ...


def run_stages(
    chunks: Iterator[Chunk],
    network: NetworkStage,
    sink: Sink,
    meter: FrameMeter | None,
    on_frames: Callable[[], None],
    interrupt: Callable[[], None],
) -> dict[str, float]:
    """Decode, upscale, encode and measure side by side, each one batch of frames at a time.

    on_frames: called after each batch that the network is done with.
    interrupt: ends what waits for a pipe, so that the stages' threads can be joined.
    Returns busy seconds per stage. An error anywhere stops the other stages and surfaces as itself.
    """
    with ExitStack() as stack:
        drain = Drain(sink.write, "vsr-encode")
        stack.callback(drain.close)
        measuring = None if meter is None else Drain(meter.measure, "vsr-measure")
        if measuring is not None:
            stack.callback(measuring.close)
        prefetch = Prefetch(chunks, "vsr-decode")
        stack.callback(prefetch.close)
        stack.callback(interrupt)
        for chunk in network.upscaled(prefetch):
            drain.put(chunk)
            if measuring is not None and chunk.batch is not None:
                measuring.put(chunk.batch)
            on_frames()
        if meter is not None and measuring is not None:
            measuring.finish()
            meter.finish()
        drain.finish()
        begun = time.perf_counter()
        sink.finish()
        encode_seconds = drain.busy_seconds + time.perf_counter() - begun
    seconds = {"decode": prefetch.busy_seconds, "network": network.busy_seconds, "encode": encode_seconds}
    return seconds if measuring is None else seconds | {"measure": measuring.busy_seconds}


@dataclass(frozen=True, slots=True)
class _Begun:
    """A chunk of which the network works on the frames; finish waits for them."""

    packets: tuple[Packet[Any], ...]
    finish: Callable[[], FrameBatch] | None


class NetworkStage:
    """The stage between decoder and encoder, in the caller's thread.

    A device that computes by itself gets the next batch before the one before is waited for, so that
    uploads, computing and downloads overlap. An engine that fails, and a device that is lost, end the job
    as an EngineError that names the first frame that is not done.
    """

    def __init__(self, upscaler: Upscaler, reuse: FrameReuse | None, target: Target, path: Path) -> None:
        self._begin = upscaler.begin if reuse is None else reuse.begin
        self._upscaler, self._target, self._path = upscaler, target, path
        self.busy_seconds, self.num_frames = 0.0, 0  # of frames handed on
        self.out_seconds: float | None = None  # of the last of them

    def upscaled(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The chunks in their order, with upscaled frames."""
        in_flight: deque[_Begun] = deque()
        for chunk in chunks:
            in_flight.append(self._begun(chunk))
            while len(in_flight) > self._upscaler.num_in_flight:
                yield self._finished(in_flight.popleft())
        while in_flight:
            yield self._finished(in_flight.popleft())

    def _begun(self, chunk: Chunk) -> _Begun:
        if chunk.batch is None:
            return _Begun(chunk.packets, None)
        with self._at_work():
            return _Begun(chunk.packets, self._begin(chunk.batch, self._target))

    def _finished(self, begun: _Begun) -> Chunk:
        if begun.finish is None:
            return Chunk(begun.packets, None)
        with self._at_work():
            batch = begun.finish()
        self.num_frames += batch.num_frames
        self.out_seconds = float(batch.pts[-1] * batch.time_base)
        return Chunk(begun.packets, batch)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            with failure_named(f"{self._path}: at frame {self.num_frames + 1}", self._upscaler):
                yield
        finally:
            self.busy_seconds += time.perf_counter() - started


@contextmanager
def failure_named(where: str, upscaler: Upscaler) -> Iterator[None]:
    """What torch and other libraries raise when a device fails becomes an EngineError of one line."""
    try:
        yield
    except EngineError as error:
        raise EngineError(f"{where}: {error}") from error
    except RuntimeError as error:
        text = str(error).strip() or type(error).__name__
        remedy = "" if upscaler.device.type == "cpu" else "; start the job again, or use --device cpu"
        raise EngineError(f"{where}: {upscaler.engine.name} failed ({text.splitlines()[0]}){remedy}") from error
