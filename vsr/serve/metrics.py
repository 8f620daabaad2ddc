"""Count what a service does, in the form that Prometheus reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The counters of one service.

    requests: by method, route and status.  seconds: of requests, by route.
    images: upscaled.  batch_images: in each batch.  waiting_images: for the network.
    failures: of batches, by the class of the error.
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        labels = ["method", "route", "status"]
        self.requests = Counter("vsr_requests", "Requests that were answered", labels, registry=registry)
        self.seconds = Histogram(
            "vsr_request_seconds", "Time to answer a request", ["route"], buckets=_SECONDS, registry=registry
        )
        self.images = Counter("vsr_images", "Images that were upscaled", registry=registry)
        self.batch_images = Histogram(
            "vsr_batch_images", "Images in a batch", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self.waiting_images = Gauge("vsr_waiting_images", "Images that wait for the network", registry=registry)
        self.failures = Counter("vsr_failures", "Batches that failed", ["error"], registry=registry)

    def text(self) -> bytes:
        """Return all counters as text."""
        return generate_latest(self.registry)
