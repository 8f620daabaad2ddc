"""Turn frozen dataclasses into the plain values that JSON has, and back, by their annotations."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vsr.color.pixel_formats import FORMATS, PixelFormat
from vsr.events import Note, NoteCode

__all__ = ["from_plain", "to_plain"]

T = TypeVar("T")

_KIND = "kind_of"  # names the class of a dataclass, as a field may take one of several


def to_plain(value: Any) -> Any:
    """Turn a value into dictionaries, lists, strings, numbers, booleans and None.

    Fractions become "1/3", enum members their names, pixel formats FFmpeg's names, notes [code, text].
    """
    if isinstance(value, Note):
        return [str(value.code), str(value)]
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (Fraction, Path)):
        return str(value)
    if isinstance(value, PixelFormat):
        return value.name
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if is_dataclass(value):
        return {
            _KIND: type(value).__name__,
            **{f.name: to_plain(getattr(value, f.name)) for f in fields(value) if f.init},
        }
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def from_plain(data: Any, kind: type[T]) -> T:
    """Turn what `to_plain` gave back into a value of an annotated type. Raises ValueError for anything else."""
    value: T = _from_plain(data, kind)
    return value


def _from_plain(data: Any, kind: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(data, arguments)
    if origin is Literal:
        return _checked(data, data in arguments, kind)
    if origin is tuple:
        items = _checked(data, isinstance(data, list), kind)
        each = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else list(arguments)
        return tuple(_from_plain(item, wanted) for item, wanted in zip(items, each, strict=True))
    if origin is dict:
        return {
            key: _from_plain(item, arguments[1]) for key, item in _checked(data, isinstance(data, dict), kind).items()
        }
    if kind is PixelFormat:
        return FORMATS[data]
    if kind is Note:
        return Note(NoteCode(data[0]), data[1])
    if kind in (Fraction, Path):
        return kind(_checked(data, isinstance(data, str), kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind[data]
    if is_dataclass(kind):
        return _dataclass(data, kind)
    if kind is float:
        return _checked(data, isinstance(data, (int, float)) and not isinstance(data, bool), kind)
    return _checked(data, type(data) is kind or (kind is type(None) and data is None), kind)


def _one_of(data: Any, kinds: tuple[Any, ...]) -> Any:
    """Read a value of the kind that it names, or else of the first that takes it."""
    if data is None and type(None) in kinds:
        return None
    if isinstance(data, dict) and _KIND in data:
        kinds = tuple(kind for kind in kinds if getattr(kind, "__name__", None) == data[_KIND])
    for kind in kinds:
        try:
            return _from_plain(data, kind)
        except (ValueError, LookupError, TypeError):
            if kind is kinds[-1]:
                raise
    raise ValueError(f"{data!r} is of none of the kinds there are")


def _dataclass(data: Any, kind: Any) -> Any:
    values = dict(_checked(data, isinstance(data, dict) and data.get(_KIND) == kind.__name__, kind))
    del values[_KIND]
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind) if f.init]
    if sorted(names) != sorted(values):
        raise ValueError(f"{kind.__name__} has {', '.join(names)}, not {', '.join(values)}")
    return kind(**{name: _from_plain(values[name], hints[name]) for name in names})


def _checked(data: Any, is_right: bool, kind: Any) -> Any:
    if not is_right:
        raise ValueError(f"{data!r} is no {getattr(kind, '__name__', kind)}")
    return data
