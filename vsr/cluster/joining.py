"""Join the segments of a job while later ones are still made."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator

from vsr.jobs.job import Job
from vsr.jobs.journal import Journal
from vsr.jobs.plan import VideoPlan
from vsr.jobs.segmented_sink import joined_writer
from vsr.jobs.source import open_source
from vsr.media.read.reader import VideoReader
from vsr.media.write.segments import JoinedWriter, Segment, reordering_depth

__all__ = ["Joining"]


class _StoppedError(Exception):
    """The segments that are missing will not come."""


class _DeeperReorderingError(Exception):
    """A segment needs later decoding times than those before it were given."""


class Joining:
    """Writes the joined file in a thread, segment by segment in the order of time, beside the other streams.

    seconds: that it worked, without those that it waited for segments.
    """

    def __init__(self, journal: Journal, job: Job, plan: VideoPlan, num_segments: int) -> None:
        """Start the thread, which waits for `journal.done` to grow to `num_segments`; see `look_again`."""
        self._journal, self._job, self._plan, self._num_segments = journal, job, plan, num_segments
        self._changed = threading.Condition()
        self._is_stopped = False
        self._error: BaseException | None = None
        self._writer: JoinedWriter | None = None
        self._reader: VideoReader | None = None
        self._depth, self.seconds = 0, 0.0
        self._thread = threading.Thread(target=self._run, name="vsr-join", daemon=True)
        self._thread.start()

    def look_again(self) -> None:
        """Look for new segments in the journal."""
        with self._changed:
            self._changed.notify()

    def raise_error(self) -> None:
        """Raise the error that has ended the joining, if there is one."""
        if self._error is not None:
            raise self._error

    @property
    def is_finished(self) -> bool:
        """Tell whether all segments are joined and checked."""
        return not self._thread.is_alive() and self._error is None

    def finish(self) -> JoinedWriter:
        """Wait until all segments are joined and checked; return the complete file, which is to be put in place."""
        self._thread.join()
        self.raise_error()
        assert self._writer is not None
        return self._writer

    def stop(self) -> None:
        """End the thread, and remove the file unless it is in its place."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join()
        self._discard()

    def _discard(self) -> None:
        if self._writer is not None:
            self._writer.abort()
        if self._reader is not None:
            self._reader.close()
        self._writer = self._reader = None

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_joined():
                self._discard()
            if self._job.policy.verify:
                self._verify()
        except _StoppedError:
            return
        except BaseException as error:
            self._error = error

    def _is_joined(self) -> bool:
        """Join all segments; False where that has to begin anew, as one needs other decoding times."""
        first = self._wait_for(0)
        self._depth = max(self._depth, reordering_depth(first.pts))
        started = time.perf_counter()
        self._reader = open_source(self._job.source, self._job.input, self._job.model.place)
        try:
            self._writer = joined_writer(
                self._journal, self._job, self._plan, self._reader, self._segments(), self._depth
            )
            self._writer.write_all(self._reader)
        except _DeeperReorderingError:
            return False
        finally:
            self.seconds += time.perf_counter() - started
        return True

    def _verify(self) -> None:
        """Read the file back, against the frames of all segments and the source's packets."""
        assert self._writer is not None and self._reader is not None
        pts = array("q", (pts for done in self._journal.done for pts in sorted(done.segment.pts)))
        self._writer.check(pts, self._reader.info.time_base, self._reader)

    def _segments(self) -> Iterator[Segment]:
        for number in range(self._num_segments):
            segment = self._wait_for(number)
            depth = reordering_depth(segment.pts)
            if depth > self._depth:
                self._depth = depth
                raise _DeeperReorderingError
            yield segment

    def _wait_for(self, number: int) -> Segment:
        begun = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or len(self._journal.done) > number)
            if self._is_stopped:
                raise _StoppedError
        if number:
            self.seconds -= time.perf_counter() - begun
        return self._journal.done[number].segment
