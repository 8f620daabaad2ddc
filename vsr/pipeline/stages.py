"""The stages of a video job, side by side: decode, upscale, encode, measure."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from vsr.backends.engine import Engine
from vsr.errors import EngineError
from vsr.frames import FrameBatch
from vsr.media.read.reader import Chunk
from vsr.pipeline.processor import FrameProcessor, Result
from vsr.pipeline.threads import Consumer, Producer

__all__ = ["FrameMeter", "NetworkStage", "Sink", "failure_named", "run_stages"]


class Sink(Protocol):
    """Take upscaled frames, and packets of other streams: a file, a pipe, images.

    write, and at the end finish, are called by one thread; abort may follow at any time, and does nothing after commit.
    verify reads the output back where it can, compares it with the source, and raises VerificationError.
    num_frames: written so far.  num_damaged: packets of the source's video that could not be decoded.
    omissions: what else of the source is not in the output and the plan does not say, a line each; after finish.
    """

    @property
    def num_frames(self) -> int: ...
    @property
    def num_damaged(self) -> int: ...
    @property
    def omissions(self) -> Sequence[str]: ...
    def write(self, chunk: Chunk) -> None: ...
    def finish(self) -> None: ...
    def verify(self) -> None: ...
    def commit(self) -> None: ...
    def abort(self) -> None: ...


class FrameMeter(Protocol):
    """Measure upscaled frames while a job runs.

    measure, for each batch in order, and after the last finish are called by one thread.
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

    Returns busy seconds per stage. An error anywhere stops the other stages and surfaces as itself.

    Args:
        on_frames: called after each batch of upscaled frames.
        interrupt: ends reads and writes that wait for a pipe, so that the stages' threads can be joined.
    """
    with ExitStack() as stack:
        encoding = Consumer(sink.write, "vsr-encode")
        stack.callback(encoding.close)
        measuring = None if meter is None else Consumer(meter.measure, "vsr-measure")
        if measuring is not None:
            stack.callback(measuring.close)
        decoding = Producer(chunks, "vsr-decode")
        stack.callback(decoding.close)
        stack.callback(interrupt)
        for chunk in network.upscaled(decoding):
            encoding.put(chunk)
            if chunk.batch is None:
                continue
            if measuring is not None:
                measuring.put(chunk.batch)
            on_frames()
        if meter is not None and measuring is not None:
            measuring.finish()
            meter.finish()
        encoding.finish()
        started = time.perf_counter()
        sink.finish()
        encode_seconds = encoding.busy_seconds + time.perf_counter() - started
    seconds = {"decode": decoding.busy_seconds, "network": network.busy_seconds, "encode": encode_seconds}
    return seconds if measuring is None else seconds | {"measure": measuring.busy_seconds}


class NetworkStage:
    """The stage between producer and consumer, in the caller's thread: pushes frames through a processor.

    A device that computes by itself gets the next batch before the result of the one before is waited for, so that
    uploads, computing and downloads overlap. Packets of other streams wait for no frames. An engine that fails, and a
    device that is lost, end the job as an EngineError that names the first frame that is not done.
    num_frames: handed on so far.  out_seconds: PTS of the last of them, in seconds.
    busy_seconds: spent in the processor.
    """

    def __init__(
        self,
        processor: FrameProcessor,
        path: Path,
        num_lead_in: int = 0,
        after: Callable[[], FrameBatch | None] = lambda: None,
    ) -> None:
        """Begin at a processor's first frame.

        Args:
            num_lead_in: frames at the beginning whose results are dropped, beside those of chunks that say so; see
                `FrameProcessor.lead_in_frames`.
            after: gives frames of the source after the last chunk, to be seen and not upscaled, if there are any.
        """
        self._processor, self._path, self._num_lead_in, self._after = processor, path, num_lead_in, after
        self._cut = _Cut()
        self.busy_seconds, self.num_frames = 0.0, 0
        self.out_seconds: float | None = None

    def upscaled(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Yield packets as they come, and upscaled frames in order; no batch reaches over the end of a source batch."""
        waiting: deque[Result] = deque()
        for chunk in chunks:
            packets = chunk.packets
            if chunk.batch is not None:
                self._cut.add(chunk.batch.num_frames)
                self._num_lead_in += chunk.batch.num_frames if chunk.is_beside else 0
                with self._at_work():
                    waiting.extend(self._processor.push(chunk.batch))
            while len(waiting) > self._processor.num_in_flight:
                for batch in self._finished(waiting.popleft()):
                    yield Chunk(packets, batch)  # together, as each takes a place in the queue
                    packets = ()
            if packets:
                yield Chunk(packets, None)
        with self._at_work():
            waiting.extend(self._processor.flush(self._after()))
        while waiting:
            for batch in self._finished(waiting.popleft()):
                yield Chunk((), batch)
        with self._at_work():
            self._cut.check_complete()

    def _finished(self, result: Result) -> Iterator[FrameBatch]:
        with self._at_work():
            parts = self._cut.parts(result())
        for batch in parts:
            if self._num_lead_in >= batch.num_frames:
                self._num_lead_in -= batch.num_frames
                continue
            kept = batch.part(self._num_lead_in, batch.num_frames) if self._num_lead_in else batch
            self._num_lead_in = 0
            self.num_frames += kept.num_frames
            self.out_seconds = float(kept.pts[-1] * kept.time_base)
            yield kept

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            with failure_named(f"{self._path}: at frame {self.num_frames + 1}", self._processor):
                yield
        finally:
            self.busy_seconds += time.perf_counter() - started


class _Cut:
    """Cuts results where batches of the source end, so that a consumer can stop after any of these."""

    def __init__(self) -> None:
        self._num_in, self._num_out = 0, 0
        self._ends: deque[int] = deque()  # frames up to the end of each batch that is not complete yet

    def add(self, num_frames: int) -> None:
        self._num_in += num_frames
        self._ends.append(self._num_in)

    def parts(self, batch: FrameBatch) -> list[FrameBatch]:
        """Return views of a result. Raises EngineError where more frames come out than went in."""
        start, stop = self._num_out, self._num_out + batch.num_frames
        if stop > self._num_in:
            raise EngineError(f"{stop} frames came out of {self._num_in}")
        inner = [end for end in self._ends if start < end < stop]
        while self._ends and self._ends[0] <= stop:
            self._ends.popleft()
        self._num_out = stop
        if not inner:
            return [batch]
        return [batch.part(a - start, b - start) for a, b in pairwise([start, *inner, stop])]

    def check_complete(self) -> None:
        """Raise EngineError where fewer frames came out than went in."""
        if self._num_out != self._num_in:
            raise EngineError(f"{self._num_out} frames came out of {self._num_in}")


class _HasEngine(Protocol):
    @property
    def engine(self) -> Engine: ...


@contextmanager
def failure_named(where: str, runs: _HasEngine) -> Iterator[None]:
    """Turn the errors of torch and other libraries, as when a device fails, into an EngineError of one line.

    Args:
        where: put before the text, as in "input.mp4: at frame 12".
        runs: an upscaler or a processor, whose engine is at work.
    """
    try:
        yield
    except EngineError as error:
        raise EngineError(f"{where}: {error}") from error
    except (RuntimeError, TypeError) as error:  # MPS raises the latter for types that it lacks
        if isinstance(error, TypeError) and runs.engine.device.type == "cpu":
            raise
        text = str(error).strip() or type(error).__name__
        remedy = "" if runs.engine.device.type == "cpu" else "; start the job again, or use `device=cpu`"
        raise EngineError(f"{where}: {runs.engine.name} failed ({text.splitlines()[0]}){remedy}") from error
