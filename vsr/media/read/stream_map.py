"""Choose streams of a file by ffmpeg's -map."""

from __future__ import annotations

import json
from collections.abc import Sequence

from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from vsr.errors import InputError, OptionError

__all__ = ["main_stream", "mapped_streams"]

_TYPES = {"v": "video", "a": "audio", "s": "subtitle", "d": "data", "t": "attachment"}


def mapped_streams(streams: Sequence[Stream], maps: Sequence[str], name: object) -> frozenset[int]:
    """Return the indices of the streams that `maps` choose; all of them where there are none.

    maps: each as ffmpeg takes it: "0" (all), "0:v", "0:V" (no cover pictures), "0:a:1", "0:3", "0:m:language:eng",
        "0:s:m:language:eng"; with "-" before it these are left out again, with "?" behind it there need be none.
        Where the first leaves out, it leaves out of all.
    name: of the file, for messages.

    Raises OptionError for text that is no map, or matches nothing.
    """
    everything = frozenset(stream.index for stream in streams)
    chosen = everything if not maps or maps[0].startswith("-") else frozenset()
    for text in maps:
        matched = _matched(streams, text)
        if text.startswith("-"):
            chosen -= matched
        elif matched or text.endswith("?"):
            chosen |= matched
        else:
            optional = _option([f"{text}?"])
            raise OptionError(f"{_option([text])}: {name} has no such stream; {optional} takes it where there is one")
    return chosen


def main_stream(container: InputContainer, maps: Sequence[str], name: object) -> VideoStream:
    """Choose the video stream to decode: the default one of those that are wanted, else the first.

    maps, name: as `mapped_streams` takes them.

    Raises InputError where there is none, and OptionError where none is wanted.
    """
    moving = [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]
    if not moving:
        kinds = ", ".join(s.type for s in container.streams) or "none"
        raise InputError(f"{name}: has no video stream (streams: {kinds})")
    chosen = mapped_streams(tuple(container.streams), maps, name)
    wanted = [s for s in moving if s.index in chosen]
    if not wanted:
        raise OptionError(f'{_option(maps)}: takes no video; add "0:v"')
    main = next((s for s in wanted if Disposition.default in s.disposition), wanted[0])
    if main.codec_context is None:
        raise InputError(f"{name}: this FFmpeg has no decoder for its video stream")
    return main


def _matched(streams: Sequence[Stream], text: str) -> frozenset[int]:
    number, _, specifier = text.removeprefix("-").removesuffix("?").partition(":")
    if number.startswith("["):
        raise OptionError(f"{_option([text])}: vsr runs no filters and has no labels; give 0:v, 0:a:1 and the like")
    if not number.isdecimal():
        raise OptionError(f"{_option([text])}: give 0, 0:v, 0:a:1, 0:3, or one of these with - before it")
    if int(number):
        raise OptionError(f"{_option([text])}: there is one input, 0; mux files together with ffmpeg")
    found = list(streams)
    words = specifier.split(":") if specifier else []
    while words:
        found, words = _narrowed(found, words, text)
    return frozenset(stream.index for stream in found)


def _narrowed(found: list[Stream], words: list[str], text: str) -> tuple[list[Stream], list[str]]:
    """Apply the first of a specifier's words; return the streams that it leaves, and the words after it."""
    word, rest = words[0], words[1:]
    if word in _TYPES:
        return [stream for stream in found if stream.type == _TYPES[word]], rest
    if word == "V":
        moving = [s for s in found if s.type == "video" and Disposition.attached_pic not in s.disposition]
        return moving, rest
    if word == "m" and rest:
        key, value = rest[0].lower(), rest[1] if len(rest) > 1 else None
        tags = [{k.lower(): v for k, v in stream.metadata.items()} for stream in found]
        return [s for s, t in zip(found, tags, strict=True) if key in t and value in (None, t[key])], rest[2:]
    if word.isdecimal() and not rest:
        return found[int(word) : int(word) + 1], []
    raise OptionError(f"{_option([text])}: '{word}' is not understood; give 0, 0:v, 0:a:1, 0:3 or 0:m:language:eng")


def _option(maps: Sequence[str]) -> str:
    """Name the option, with some of its words, in a message."""
    return f"`maps={json.dumps(list(maps))}`"
