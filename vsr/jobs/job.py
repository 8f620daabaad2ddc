"""The object that is a job: its two ends and all decisions, frozen, written as JSON and read back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Self

from vsr.errors import InputError
from vsr.events import Canceller
from vsr.jobs.model_cache import ModelChoice
from vsr.jobs.options import OutputPolicy
from vsr.jobs.plain import from_plain, to_plain
from vsr.jobs.plan import ImagePlan, VideoPlan
from vsr.media.endpoints import Source, Target
from vsr.media.read.options import InputOptions

__all__ = ["Job"]

FORMAT = 1  # of the JSON; another number for every change that an older reader would misunderstand


@dataclass(frozen=True)
class Job:
    """A job, decided: run_job carries it out, here or on another machine that has the same source.

    source, target: its ends.  input: how the source is read.  model: which network, and where it runs.
    batch: frames that go through the network together.  reuse: whether still parts of frames are taken over from the
    frame before.  plan: size, encoding and streams.  policy: what may be replaced, and what is checked.

    Jobs are equal where all decisions are. `cancel` is the one thing that changes: it is no part of the JSON.
    """

    source: Source
    target: Target
    input: InputOptions
    model: ModelChoice
    batch: int
    reuse: bool
    plan: VideoPlan | ImagePlan
    policy: OutputPolicy
    canceller: Canceller = field(default_factory=Canceller, init=False, compare=False, repr=False)

    def cancel(self) -> None:
        """End the job, from any thread, as Ctrl-C does: partial files go, finished segments stay.

        The call that runs the job raises JobCancelledError soon after. A job that was cancelled does not run again;
        make it anew, or read it back from its JSON.
        """
        self.canceller.cancel()

    def to_json(self) -> str:
        """Write the job as JSON, in one line."""
        return json.dumps({"vsr_job": FORMAT, **to_plain(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a job that `to_json` wrote. Raises InputError for anything else, and for another format of it."""
        try:
            values: dict[str, Any] = json.loads(text)
            number = values.pop("vsr_job")
            if number != FORMAT:
                raise InputError(f"the job was written in format {number}, and this vsr reads {FORMAT}; make it again")
            return from_plain(values, cls)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"not a job as vsr writes it ({error})") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return Job.from_json, (self.to_json(),)
