"""The options of a job, in four parts: input, model, encoding, output policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from vsr.errors import OptionError
from vsr.jobs.ranges import check_ranges
from vsr.media.read.options import InputOptions
from vsr.media.write.options import EncodingOptions
from vsr.models.fidelity import FAITHFUL, SHARP
from vsr.models.restoration import REAL_FORMS, clean_form
from vsr.pipeline.loading import ModelOptions

__all__ = ["JobOptions", "OutputPolicy", "taken"]


@dataclass(frozen=True, slots=True)
class OutputPolicy:
    """The part of a job's options that says what may be replaced, what must be kept, and what is reported.

    overwrite: replace an existing output.  strict: make every omission an error.
    verify: read the finished output back, and compare frames, timestamps and streams with the source's.
    resume: True makes a job that is stopped go on with the next call; None does so where it is expected to take
        more than ten minutes, or was begun so; False starts anew.
    report: file for a JSON report.  reference: the sharp original; the report then holds every frame's luma PSNR
        against it, measured before encoding.
    """

    overwrite: bool = False
    strict: bool = False
    verify: bool = True
    resume: bool | None = None
    report: Path | None = None
    reference: Path | None = None


@dataclass(frozen=True, slots=True)
class JobOptions:
    """All options of a job; each room below gets only its own part. Raises OptionError where they do not fit."""

    input: InputOptions = field(default_factory=InputOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    encoding: EncodingOptions = field(default_factory=EncodingOptions)
    policy: OutputPolicy = field(default_factory=OutputPolicy)

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Sort options into their parts by name, as in JobOptions.of(model="fast", crf=16, overwrite=True).

        Raises TypeError for a name that no part has.
        """
        parts = {
            "input": InputOptions(**taken(options, InputOptions)),
            "model": ModelOptions(**taken(options, ModelOptions)),
            "encoding": EncodingOptions(**taken(options, EncodingOptions)),
            "policy": OutputPolicy(**taken(options, OutputPolicy)),
        }
        if options:
            raise TypeError(f"there is no option {', '.join(repr(name) for name in options)}")
        return cls(**parts)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        _ = self.input.format
        parts = (self.input, self.model, self.encoding)
        check_ranges({f.name: getattr(part, f.name) for part in parts for f in fields(part)})
        _check_model(self.model)
        if self.policy.reference is not None and self.policy.report is None:
            raise OptionError("`reference`: needs `report`, the file for its figures")


def taken(options: dict[str, Any], part: type[Any]) -> Mapping[str, Any]:
    """Remove the options of one part from all options, and return them."""
    return {f.name: options.pop(f.name) for f in fields(part) if f.name in options}


def _check_model(model: ModelOptions) -> None:
    if model.scale is not None and model.size is not None:
        raise OptionError("`scale` and `size` exclude each other; give one")
    if model.fidelity is not None and model.model not in ("auto", SHARP, FAITHFUL):
        raise OptionError(f"`fidelity`: lies between {SHARP} and {FAITHFUL}; it cannot change '{model.model}'")
    _ = model.stated
    _check_restore(model)


def _check_restore(model: ModelOptions) -> None:
    """Raise OptionError where `restore` does not go with the model."""
    if model.restore is None:
        return
    if model.fidelity is not None:
        raise OptionError("`restore` and `fidelity` exclude each other; give one")
    if model.model != "auto" and clean_form(model.model) is None:
        raise OptionError(f"`restore`: '{model.model}' has no real form; {', '.join(REAL_FORMS)} have")
