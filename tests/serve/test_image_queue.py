"""Many callers and one engine: batches, bits, bounds, and what happens when something breaks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest
from waiting import PATIENCE_SECONDS, until

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from vsr.models.cards import SHIPPED
from vsr.pipeline.loading import load_model
from vsr.serve.errors import BusyError, RefusedError
from vsr.serve.image_files import encode_png
from vsr.serve.images import ImageService
from vsr.serve.metrics import Metrics
from vsr.serve.settings import Limits, Settings
from vsr.serve.turns import DeviceTurns

Start = Callable[..., tuple[ImageService, DeviceTurns, Metrics]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    services = []

    def started(backend: str = "pytorch", **limits: int) -> tuple[ImageService, DeviceTurns, Metrics]:
        settings = Settings(
            model="nano",
            device="cpu",
            backend=backend,
            state=tmp_path,
            limits=Limits(**limits),  # type: ignore[arg-type]
        )
        turns, metrics = DeviceTurns(), Metrics()
        service = ImageService(settings, turns, metrics)
        service.start()
        services.append(service)
        return service, turns, metrics

    yield started
    for service in services:
        service.close()


def _image(seed: int, height: int = 14, width: int = 18) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def _until_waiting(metrics: Metrics, count: int) -> None:
    until(lambda: (metrics.registry.get_sample_value("vsr_waiting_images") or 0) >= count)


@pytest.mark.parametrize("backend", ["pytorch", "openvino"])
def test_images_of_one_size_are_batched_with_the_bits_they_have_alone(start: Start, backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    service, turns, metrics = start(backend, batch_images=4)
    images = [_image(seed) for seed in range(6)] + [_image(7, 9, 30)]
    service.upscale(images[0])  # loads the model
    with ThreadPoolExecutor(len(images)) as pool:
        with turns.turn("video"):  # they arrive while the device is busy with the first of them
            results = [pool.submit(service.upscale, image) for image in images]
            _until_waiting(metrics, 3)
        upscaled = [result.result(PATIENCE_SECONDS) for result in results]
    alone = load_model("nano", device="cpu", backend=backend)
    for image, result in zip(images, upscaled, strict=True):
        assert np.array_equal(result, alone.upscale_image(image))
    assert metrics.registry.get_sample_value("vsr_images_total") == 8
    assert (metrics.registry.get_sample_value("vsr_batch_images_count") or 8) < 8


def test_a_large_image_goes_in_tiles_beside_small_ones(start: Start) -> None:
    service, _, _ = start(batch_pixels=2000)
    large, small = _image(1, 40, 420), _image(2)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(service.upscale, (large, small)))
    tiled = load_model("nano", device="cpu", backend="pytorch", tile=384)
    assert np.array_equal(results[0], tiled.upscale_image(large))
    assert np.array_equal(results[1], tiled.upscale_image(small))


def test_beyond_the_bound_callers_are_told_to_come_again(start: Start) -> None:
    service, turns, _ = start(queued_images=2, batch_images=1)
    with ThreadPoolExecutor(2) as pool, turns.turn("video"):
        results = [pool.submit(service.upscale, _image(seed)) for seed in range(2)]
        until(lambda: service.num_under_way == 2)
        with pytest.raises(BusyError) as caught:
            service.upscale(_image(3))
    assert int(caught.value.headers["Retry-After"]) >= 1
    assert caught.value.status == 503
    assert all(result.result(PATIENCE_SECONDS).shape == (56, 72, 3) for result in results)
    assert service.upscale(_image(4)).shape == (56, 72, 3)  # there is room again


def test_pixels_are_bounded_together(start: Start) -> None:
    service, turns, _ = start(queued_pixels=400, batch_images=1)
    with ThreadPoolExecutor(1) as pool, turns.turn("video"):
        first = pool.submit(service.upscale, _image(1))
        until(lambda: service.num_under_way)
        with pytest.raises(BusyError):
            service.upscale(_image(2))
    assert first.result(PATIENCE_SECONDS).shape == (56, 72, 3)


def test_an_image_that_takes_too_long_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    service, _, _ = start(batch_pixels=100)
    service.upscale(_image(1))
    ticks = iter(range(0, 10**6, 100))  # each look at the clock is 100 seconds later
    monkeypatch.setattr("vsr.serve.image_queue.time.monotonic", lambda: float(next(ticks)))
    with pytest.raises((RefusedError, BusyError), match=r"longer than 120 s|waited for too long"):
        service.upscale(_image(2))


def test_an_error_reaches_everyone_in_the_batch_and_the_next_go_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, _, metrics = start()
    service.upscale(_image(1))

    def broken(*args: Any) -> None:
        raise RuntimeError("the engine broke")

    with monkeypatch.context() as patch:
        patch.setattr("vsr.pipeline.upscaler.Upscaler.upscale_images", broken)
        with pytest.raises(RuntimeError, match="broke"):
            service.upscale(_image(2))
    assert service.upscale(_image(3)).shape == (56, 72, 3)
    assert metrics.registry.get_sample_value("vsr_failures_total", {"error": "RuntimeError"}) == 1


def test_closing_answers_those_who_wait(start: Start) -> None:
    service, turns, metrics = start(batch_images=1)
    service.upscale(_image(0))
    with ThreadPoolExecutor(3) as pool:
        with turns.turn("video"):
            results = [pool.submit(service.upscale, _image(seed)) for seed in range(3)]
            until(lambda: service.num_under_way == 3)
            until(lambda: metrics.registry.get_sample_value("vsr_waiting_images") == 2)
            closing = threading.Thread(target=service.close)
            closing.start()
            until(lambda: service._queue._together._is_closed)  # before the device is free
        closing.join(PATIENCE_SECONDS)
        outcomes = [result.exception(PATIENCE_SECONDS) for result in results]
    assert sum(outcome is None for outcome in outcomes) == 1  # the one that was computed
    assert sum(isinstance(outcome, BusyError) for outcome in outcomes) == 2


def test_many_requests_of_mixed_sizes_are_all_answered_right(make_client: Callable[..., Any]) -> None:
    client = make_client()
    images = [_image(seed, 8 + seed % 3, 8 + seed % 2) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda image: client.post("/model/predict", files={"image": encode_png(image)}), images)
        )
    upscaler = load_model("nano", device="cpu", backend="pytorch")
    for image, answer in zip(images, answers, strict=True):
        assert answer.content == encode_png(upscaler.upscale_image(image))


def test_metrics_count_what_was_done(client: Any) -> None:
    client.post("/model/predict", files={"image": encode_png(_image(1))})
    client.get("/nothing/at/all")
    text = client.get("/metrics").text
    assert 'vsr_requests_total{method="POST",route="/model/predict",status="200"} 1.0' in text
    assert 'route="/nothing' not in text  # paths of strangers make no series
    assert "vsr_images_total 1.0" in text
    assert "vsr_batch_images_count 1.0" in text


def test_the_service_is_ready_when_its_model_is_loaded(client: Any) -> None:
    client.post("/model/predict", files={"image": encode_png(_image(1))})
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_the_service_s_own_file_is_read_again_when_it_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    copyfile(SHIPPED / "nano.safetensors", path)
    service = ImageService(
        Settings(model=str(path), device="cpu", backend="pytorch", state=tmp_path), DeviceTurns(), Metrics()
    )
    service.start()
    try:
        image = _image(1)
        first = service.upscale(image)
        copyfile(SHIPPED / "fast-x2.safetensors", path)
        second = service.upscale(image)
        path.unlink()
        assert np.array_equal(service.upscale(image), second)  # what is loaded stays
    finally:
        service.close()
    assert np.array_equal(first, load_model("nano", device="cpu", backend="pytorch").upscale_image(image))
    assert np.array_equal(second, load_model("fast-x2", device="cpu", backend="pytorch").upscale_image(image))
