from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import pytest

from vsr.pipeline.threads import DEPTH, Consumer, Producer


class Broken(Exception):
    pass


@pytest.fixture(autouse=True)
def no_threads_left_over() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def _wait_until(condition: Callable[[], bool]) -> None:
    """Return once it holds, or after a while in which a thread would have made it hold."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)


class Counting:
    """A generator of 0, 1, 2, ... that tells how far it is, and whether and where it was closed."""

    def __init__(self, length: int = 10**9, error: BaseException | None = None) -> None:
        self.num_made, self.closed_in, self.length, self.error = 0, "", length, error

    def __iter__(self) -> Generator[int, None, None]:
        try:
            while self.num_made < self.length:
                self.num_made += 1
                yield self.num_made - 1
            if self.error is not None:
                raise self.error
        finally:
            self.closed_in = threading.current_thread().name


# -- Producer --------------------------------------------------------------------------------------------


def test_items_come_in_order_and_all_of_them() -> None:
    producer = Producer(range(500), "test")
    assert list(producer) == list(range(500))
    producer.close()


def test_nothing_comes_out_of_nothing() -> None:
    producer: Producer[int] = Producer([], "test")
    assert list(producer) == []
    producer.close()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_producer_works_ahead_but_never_far(depth: int) -> None:
    source = Counting()
    with closing(Producer(source, "test", depth)) as producer:
        for num_taken, _ in zip(range(1, 6), producer, strict=False):
            furthest = num_taken + depth + 1  # the queue, and one in hand
            _wait_until(lambda furthest=furthest: source.num_made >= furthest)  # type: ignore[misc]
            time.sleep(0.01)
            assert source.num_made == furthest


def test_the_usual_depth_bounds_the_items_in_flight() -> None:
    source = Counting()
    with closing(Producer(source, "test")):
        _wait_until(lambda: source.num_made > DEPTH)
        time.sleep(0.01)
        assert source.num_made == DEPTH + 1


@pytest.mark.parametrize("error", [Broken("disk"), KeyboardInterrupt(), MemoryError()])
def test_an_error_of_the_producer_comes_as_itself_after_the_items_before_it(error: BaseException) -> None:
    producer, taken = Producer(Counting(3, error), "test"), []
    with pytest.raises(type(error)) as caught:
        for item in producer:
            taken.append(item)
    assert caught.value is error
    assert taken == [0, 1, 2]
    producer.close()


def test_closing_stops_the_producer_and_closes_it_in_its_own_thread() -> None:
    source = Counting()
    generator = iter(source)  # kept, so that it is not the garbage collector who closes it
    producer = Producer(generator, "the-reader")
    assert next(iter(producer)) == 0
    producer.close()
    num_made = source.num_made
    assert source.closed_in == "the-reader"
    time.sleep(0.01)
    assert source.num_made == num_made


def test_closing_before_the_first_item_and_twice_is_fine() -> None:
    source = Counting()
    producer = Producer(source, "test")
    producer.close()
    producer.close()
    assert source.num_made == 0 or source.closed_in == "test"


def test_a_source_that_cannot_be_started_does_not_hang_the_reader() -> None:
    class Unwilling:
        def __iter__(self) -> Iterator[int]:
            raise Broken

    caught: list[BaseException] = []

    def read() -> None:
        try:
            list(producer)
        except Broken as error:
            caught.append(error)

    producer: Producer[int] = Producer(Unwilling(), "test")
    reader = threading.Thread(target=read)
    reader.start()
    reader.join(1)
    producer.close()  # frees the reader where it hangs
    reader.join()
    assert len(caught) == 1


def test_busy_seconds_are_those_of_the_producer_alone() -> None:
    def slow() -> Iterator[int]:
        for item in range(3):
            time.sleep(0.02)
            yield item

    producer = Producer(slow(), "test")
    for _ in producer:
        time.sleep(0.15)
    producer.close()
    assert 0.06 <= producer.busy_seconds < 0.4


# -- Consumer -----------------------------------------------------------------------------------------------


def test_everything_put_is_consumed_in_order_in_the_consumer_s_own_thread() -> None:
    consumed: list[tuple[int, str]] = []

    def consume(item: int) -> None:
        consumed.append((item, threading.current_thread().name))

    consumer: Consumer[int] = Consumer(consume, "the-writer")
    for item in range(300):
        consumer.put(item)
    consumer.finish()
    assert consumed == [(item, "the-writer") for item in range(300)]
    consumer.close()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_slow_consumer_holds_the_producer_back(depth: int) -> None:
    gate, num_put = threading.Semaphore(0), [0]

    def consume(item: int) -> None:
        gate.acquire()

    consumer: Consumer[int] = Consumer(consume, "test", depth)

    def produce() -> None:
        for item in range(20):
            consumer.put(item)
            num_put[0] += 1

    producer = threading.Thread(target=produce)
    producer.start()
    _wait_until(lambda: num_put[0] > depth)
    time.sleep(0.01)
    num_put_at_first = num_put[0]
    gate.release(20)
    producer.join()
    consumer.finish()
    assert num_put_at_first == depth + 1  # the queue, and one in hand


def test_an_error_of_the_consumer_surfaces_as_itself_in_put() -> None:
    error, consumed = Broken("disk full"), []

    def consume(item: int) -> None:
        if item == 3:
            raise error
        consumed.append(item)

    consumer: Consumer[int] = Consumer(consume, "test")
    with pytest.raises(Broken) as caught:
        for item in range(100):
            consumer.put(item)
    assert caught.value is error
    assert consumed == [0, 1, 2]
    consumer.close()


@pytest.mark.parametrize("error", [Broken("disk full"), KeyboardInterrupt()])
def test_an_error_on_the_last_item_surfaces_as_itself_in_finish(error: BaseException) -> None:
    def consume(item: int) -> None:
        raise error

    consumer: Consumer[int] = Consumer(consume, "test")
    consumer.put(0)
    with pytest.raises(type(error)) as caught:
        consumer.finish()
    assert caught.value is error
    consumer.close()


def test_an_error_frees_a_put_that_was_waiting() -> None:
    gate = threading.Event()

    def consume(item: int) -> None:
        gate.wait()
        raise Broken

    consumer: Consumer[int] = Consumer(consume, "test", depth=1)
    timer = threading.Timer(0.05, gate.set)
    timer.start()
    with pytest.raises(Broken):
        for item in range(5):
            consumer.put(item)
    timer.join()


def test_closing_discards_what_waits_and_ends_the_thread() -> None:
    started, gate, consumed = threading.Event(), threading.Event(), []

    def consume(item: int) -> None:
        started.set()
        gate.wait()
        consumed.append(item)

    consumer: Consumer[int] = Consumer(consume, "test")
    for item in range(3):
        consumer.put(item)
    started.wait()
    closer = threading.Thread(target=consumer.close)
    closer.start()
    time.sleep(0.02)
    gate.set()
    closer.join()
    assert consumed == [0]


def test_put_after_the_end_is_an_error() -> None:
    consumer: Consumer[int] = Consumer(lambda item: None, "test")
    consumer.finish()
    with pytest.raises(RuntimeError):
        consumer.put(1)


@pytest.mark.parametrize("make", [lambda: Producer(Counting(), "test"), lambda: Consumer(print, "test")])
def test_ctrl_c_while_a_thread_starts_leaves_none_behind(
    make: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, before = threading.Thread.start, threading.active_count()

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make()
    _wait_until(lambda: threading.active_count() == before)
    assert threading.active_count() == before
