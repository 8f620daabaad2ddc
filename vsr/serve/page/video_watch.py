"""Follow a job of the page: its bar while it runs, and which buttons fit its state."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from vsr.serve.job_service import JobService
from vsr.serve.job_store import EventKind, JobRecord, JobState
from vsr.serve.page.words import progress_bar

__all__ = ["buttons_of", "watched"]

_SHORTEST_SECONDS = 0.25  # between two drawings of the bar
_SHOWN_NOTES = 20


async def watched(jobs: JobService, job_id: str) -> AsyncIterator[tuple[JobRecord, str]]:
    """Yield a job as it stands, and its bar, whenever something has changed, until it has ended."""
    notes: list[str] = []
    drawn = 0.0
    async for event in jobs.events_async(job_id):
        if event is None:
            continue
        if event.kind is EventKind.NOTE:
            notes = [*notes, str(event.data["text"])][-_SHOWN_NOTES:]
            continue
        record = jobs.get(job_id)
        is_soon = time.monotonic() - drawn < _SHORTEST_SECONDS
        if is_soon and event.kind is EventKind.PROGRESS and record.state is JobState.RUNNING:
            continue
        drawn = time.monotonic()
        yield record, progress_bar(record, notes)
    record = jobs.get(job_id)
    yield record, progress_bar(record, notes)


def buttons_of(state: JobState | None) -> tuple[Any, Any, Any]:
    """Show the buttons pause, resume and cancel that fit a state. state: None where there is no job."""
    can_pause = state in (JobState.QUEUED, JobState.RUNNING)
    can_resume = state in (JobState.PAUSED, JobState.PAUSING, JobState.FAILED)
    can_cancel = can_pause or state in (JobState.PAUSED, JobState.PAUSING)
    return gr.update(visible=can_pause), gr.update(visible=can_resume), gr.update(visible=can_cancel)
