"""Run a producer or a consumer in a thread, with a bounded queue; errors cross it as themselves."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

__all__ = ["DEPTH", "Consumer", "Producer"]

T = TypeVar("T")
DEPTH = 2  # items in flight: enough to overlap two stages, and memory does not grow with the video


class _Closed(Exception):
    """The other side has gone."""


class _Channel(Generic[T]):
    """A bounded queue that either side can close, with an error for the other side or without."""

    def __init__(self, depth: int) -> None:
        self._items: deque[T] = deque()
        self._depth = depth
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            if self._closed:
                raise _Closed
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items))
            if not self._items:
                raise _Closed
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, discard: bool = False) -> None:
        with self._changed:
            self._closed = True
            if discard:
                self._items.clear()
            self._changed.notify_all()


def _started(run: Callable[[], None], name: str, channel: _Channel[T]) -> threading.Thread:
    """Start a thread; where a signal's handler raises meanwhile, close its channel, so that it ends.

    Nobody can then join it, and a process would wait at its end for a thread that is not a daemon.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except BaseException:
        channel.close(discard=True)
        raise
    return thread


class Producer(Generic[T]):
    """Run an iterable in a thread of its own, at most `depth` items ahead.

    Iterating raises what the iterable raised. `close` stops the thread and waits for it; the iterable
    is left by its own `close`, in its thread, where it is a generator.
    """

    def __init__(self, source: Iterable[T], name: str, depth: int = DEPTH) -> None:
        self._source = source
        self._channel: _Channel[T] = _Channel(depth)
        self._error: BaseException | None = None
        self.busy_seconds = 0.0
        self._thread = _started(self._run, name, self._channel)

    def _run(self) -> None:
        iterator: Iterator[T] | None = None
        try:
            iterator = iter(self._source)
            while True:
                started = time.perf_counter()
                item = next(iterator, self)
                self.busy_seconds += time.perf_counter() - started
                if item is self:
                    break
                self._channel.put(item)  # type: ignore[arg-type]
        except _Closed:
            pass
        except BaseException as error:  # handed over to the reading thread, whatever it is
            self._error = error
        finally:
            close = getattr(iterator, "close", None)  # generators have one; it runs their finally blocks
            if close is not None:
                close()
            self._channel.close()

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                item = self._channel.get()
            except _Closed:
                break
            yield item
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._channel.close(discard=True)
        self._thread.join()


class Consumer(Generic[T]):
    """Call a function, in a thread of its own, on items handed over by `put`.

    `put` and `finish` raise what the function raised. `close` discards what is still waiting.
    """

    def __init__(self, consume: Callable[[T], None], name: str, depth: int = DEPTH) -> None:
        self._consume = consume
        self._channel: _Channel[T] = _Channel(depth)
        self._error: BaseException | None = None
        self.busy_seconds = 0.0
        self._thread = _started(self._run, name, self._channel)

    def _run(self) -> None:
        try:
            while True:
                item = self._channel.get()
                started = time.perf_counter()
                self._consume(item)
                self.busy_seconds += time.perf_counter() - started
        except _Closed:
            pass
        except BaseException as error:  # handed over to the writing thread, whatever it is
            self._error = error
        finally:
            self._channel.close(discard=True)

    def put(self, item: T) -> None:
        try:
            self._channel.put(item)
        except _Closed:
            self._thread.join()
            if self._error is not None:
                raise self._error from None
            raise RuntimeError("put after the end") from None

    def finish(self) -> None:
        """Wait until all items have been consumed."""
        self._channel.close()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._channel.close(discard=True)
        self._thread.join()
