"""Show the video jobs of a service to Prometheus, as they stand when it asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from vsr.serve.job_files import stored_bytes
from vsr.serve.job_service import JobService
from vsr.serve.job_store import JobState

__all__ = ["JobCollector"]


class JobCollector(Collector):
    """See `prometheus_client.registry.Collector`; to be registered once, asked while the service runs."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name what will be told, without asking a service that has not started."""
        yield GaugeMetricFamily("vsr_jobs", "Video jobs", labels=["state"])
        yield GaugeMetricFamily("vsr_job_frames_per_second", "Frames a second of the video job that runs")
        yield GaugeMetricFamily("vsr_stored_bytes", "Bytes of uploads, sources and results")

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Tell how many jobs are in each state, how fast one runs, and how much is stored."""
        records = self._jobs.jobs()
        counts = Counter(record.state for record in records)
        states, speed, stored = self.describe()
        for state in JobState:
            states.add_metric([state], counts[state])
        running = (r.frames_per_second or 0.0 for r in records if r.state in (JobState.RUNNING, JobState.PAUSING))
        speed.add_metric([], sum(running))
        stored.add_metric([], stored_bytes(self._jobs.settings.state))
        yield from (states, speed, stored)
