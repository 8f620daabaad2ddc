"""ffmpeg's command line in vsr's words: with another verb, a person's ffmpeg line becomes a vsr line.

What means the same is translated, what has no meaning here and loses nothing is left out, and what vsr does not do
is refused with what to do instead. In ffmpeg an option before -i is of the input and one after it of the output;
without -i, which is how vsr's own lines go, the place means nothing.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from fractions import Fraction

from vsr.errors import OptionError

__all__ = ["parse_seconds", "translated"]

# Name in ffmpeg's line, and vsr's option before -i and after it; None where it is refused there.
_BY_PLACE: dict[str, tuple[str | None, str | None]] = {
    "f": ("--input-format", "--format"),
    "r": ("--framerate", None),
    "framerate": ("--framerate", None),
    "s": ("--video-size", "--size"),
    "video_size": ("--video-size", None),
    "pix_fmt": ("--pixel-format", "--pix-fmt"),
    "pixel_format": ("--pixel-format", None),
    "codec:v": (None, "--codec"),
    "vcodec": (None, "--codec"),
    "hwaccel": ("--hwaccel", None),
    "crf": (None, "--crf"),
    "preset": (None, "--preset"),
    "map": (None, "--map"),
    "b:a": (None, "--audio-bitrate"),
    "ab": (None, "--audio-bitrate"),
}

_TIMES = ("ss", "t", "to")

_AUDIO = {"copy": "copy", "aac": "aac", "libopus": "opus", "opus": "opus"}
_NO_STREAMS = {"sn": "-0:s", "dn": "-0:d"}

# Options of encoders; which encoder has which, FFmpeg knows, and says when the encoder is opened.
_OF_ENCODERS = {
    "aom-params", "aq-mode", "b", "b_strategy", "bf", "bufsize", "coder", "cpu-used", "cq", "deadline", "flags", "g",
    "keyint_min", "lag-in-frames", "level", "maxrate", "me_range", "minrate", "multipass", "profile", "qmax", "qmin",
    "qp", "rc", "rc-lookahead", "refs", "row-mt", "sc_threshold", "slices", "spatial-aq", "strict", "subq",
    "svtav1-params", "temporal-aq", "threads", "tile-columns", "tile-rows", "trellis", "tune", "x264-params",
    "x264opts", "x265-params",
}  # fmt: skip

# What changes nothing here: vsr prints no banner and reads no keys; how long a muxer waits is its own business.
_WITHOUT_EFFECT = {"hide_banner", "nostdin", "stdin", "stats", "accurate_seek"}
_WITHOUT_EFFECT_VALUED = {"max_muxing_queue_size", "stats_period"}

# What vsr does anyway, by name and value.
_DONE_ANYWAY = {
    ("map_metadata", "0"), ("map_chapters", "0"), ("codec:s", "copy"), ("scodec", "copy"), ("codec:d", "copy"),
    ("codec:t", "copy"), ("vsync", "0"), ("vsync", "passthrough"), ("fps_mode", "passthrough"),
    ("movflags", "faststart"), ("movflags", "+faststart"), ("tag:v", "hvc1"), ("tag", "hvc1"), ("vtag", "hvc1"),
    ("pattern_type", "glob"), ("pattern_type", "sequence"),
}  # fmt: skip

_VERBOSE_LEVELS = {"verbose", "debug", "trace", "40", "48", "56"}
_USUAL_LEVELS = {"warning", "info", "24", "32"}
_QUIET_LEVELS = {"quiet", "panic", "fatal", "error", "-8", "0", "8", "16"}

_FILTERS = (
    "vsr runs no filters: --size or --scale enlarges, --deinterlace deinterlaces, and anything else is done by "
    "ffmpeg before or after it, through a pipe"
)
_TIME_IS_KEPT = "vsr keeps every frame at its time; change the rate with ffmpeg afterwards"
_TAGS_ARE_KEPT = "vsr keeps metadata and chapters; change them afterwards with ffmpeg -i OUT -map 0 -c copy"
_SOUND = "of sound, vsr takes only -c:a copy, aac or libopus, and -an; do more with ffmpeg afterwards"
_ONE_INPUT = "vsr enhances one file with -i; several go without it: vsr enhance A B --output-dir DIR"
_COLOR = "vsr reads the colour of its input and says the same of its output; wrong tags are set right beforehand"
_MUXER = "vsr leaves this to ffmpeg, which does it in seconds afterwards: ffmpeg -i OUT -map 0 -c copy ..."
_UNKNOWN = "vsr has no such option; an encoder's goes as --encoder-option NAME=VALUE"
_REFUSED = {
    "vf": _FILTERS, "filter": _FILTERS, "filter:v": _FILTERS, "filter_complex": _FILTERS, "lavfi": _FILTERS,
    "filter_complex_script": _FILTERS, "filter_script:v": _FILTERS,
    "af": _SOUND, "filter:a": _SOUND, "ac": _SOUND, "ar": _SOUND, "q:a": _SOUND,
    "codec:s": "vsr copies subtitles, or leaves them out (-sn); convert them with ffmpeg afterwards",
    "scodec": "vsr copies subtitles, or leaves them out (-sn); convert them with ffmpeg afterwards",
    "vn": "vsr upscales video; to take the sound alone, stay with ffmpeg",
    "q:v": "vsr takes -crf, -b:v, or --encoder-option NAME=VALUE",
    "qscale:v": "vsr takes -crf, -b:v, or --encoder-option NAME=VALUE",
    "vframes": "vsr takes -t, a time", "frames:v": "vsr takes -t, a time",
    "vsync": _TIME_IS_KEPT, "fps_mode": _TIME_IS_KEPT, "itsoffset": _TIME_IS_KEPT, "itsscale": _TIME_IS_KEPT,
    "copyts": _TIME_IS_KEPT, "output_ts_offset": _TIME_IS_KEPT, "shortest": "vsr keeps all streams; use -t",
    "sseof": "vsr counts from the start: -ss", "stream_loop": "vsr reads its input once",
    "color_primaries": _COLOR, "color_trc": _COLOR, "colorspace": _COLOR, "color_range": _COLOR,
    "chroma_sample_location": _COLOR,
    "hwaccel_output_format": "leave it out; vsr keeps frames where it needs them",
    "movflags": _MUXER, "tag": _MUXER, "vtag": _MUXER, "brand": _MUXER, "timecode": _MUXER,
    "start_number": "vsr begins with the lowest number that there is",
    "aspect": "vsr keeps the shape of the picture; change it afterwards with ffmpeg -i OUT -map 0 -c copy -aspect",
    "metadata": _TAGS_ARE_KEPT, "map_metadata": _TAGS_ARE_KEPT, "map_chapters": _TAGS_ARE_KEPT,
    "disposition": _TAGS_ARE_KEPT,
    "pass": "vsr encodes in one pass; use -crf",
}  # fmt: skip

_OUT_OF_PLACE = {
    "r": f"after -i it would change the frame rate: {_TIME_IS_KEPT}; before -i it is that of pictures or raw video",
    "codec:v": "before -i it would name a decoder, which vsr chooses; the encoder goes after -i",
    "vcodec": "before -i it would name a decoder, which vsr chooses; the encoder goes after -i",
}


def translated(arguments: Sequence[str], own: Mapping[str, bool]) -> list[str]:
    """A command line with ffmpeg's words in it as vsr's options take it; one without them comes out as it is.

    arguments: what follows the verb.
    own: the spellings of vsr's own options, and whether each takes a value.
    Raises OptionError for words that vsr has no equal of.
    """
    return _Translation(arguments, own).run()


def parse_seconds(text: str) -> Fraction:
    """A time of ffmpeg's, in seconds: 12.5, 12.5s, 500ms, 20us, MM:SS or HH:MM:SS.mmm. Raises ValueError."""
    text = text.strip()
    for unit, scale in (("ms", 1000), ("us", 1_000_000), ("s", 1)):
        if text.endswith(unit):
            return Fraction(text.removesuffix(unit)) / scale
    parts = text.split(":")
    if len(parts) > 3:
        raise ValueError(f"{text!r} is not a time")
    try:
        numbers = [Fraction(part) for part in parts]
    except ZeroDivisionError as error:
        raise ValueError(f"{text!r} is not a time") from error
    seconds = Fraction(0)
    for number in numbers:
        seconds = seconds * 60 + number
    return seconds


class _Translation:
    """One command line on its way."""

    def __init__(self, arguments: Sequence[str], own: Mapping[str, bool]) -> None:
        self._words = deque(arguments)
        self._own = own
        before_dashes = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
        if before_dashes.count("-i") > 1:
            raise OptionError(f"-i: {_ONE_INPUT}")
        self._has_input = "-i" in before_dashes
        self._is_before_input = self._has_input
        self._result: list[str] = []
        self._last: list[str] = []  # what holds wherever it stands in ffmpeg's line
        self._files: list[str] = []
        self._source: list[str] = []
        self._times: dict[tuple[bool, str], Fraction] = {}  # by whether it stands before -i, and name
        self._copies_all = False
        self._names_codec = False

    def run(self) -> list[str]:
        while self._words and self._words[0] != "--":
            self._take(self._words.popleft())
        if self._copies_all and not self._names_codec:
            raise OptionError("-c copy: vsr makes every picture anew; name an encoder with -c:v, or leave -c out")
        options = [*self._result, *self._window(), *self._last]
        if not self._has_input:
            return [*options, *self._words]
        self._files += list(self._words)[1:]
        if len(self._files) > 1:
            raise OptionError(f"{' '.join(self._files)}: vsr writes one output; run it once for each")
        outputs = ["-" if name in ("pipe:", "pipe:1") else name.removeprefix("file:") for name in self._files]
        return [*options, "--", *self._source, *outputs]

    def _take(self, word: str) -> None:
        if word == "-" or not word.startswith("-"):
            (self._files if self._has_input else self._result).append(word)
        elif word.startswith("--"):
            self._pass_on(word)
        elif word == "-i":
            name = self._value(word)
            self._source = ["-" if name in ("pipe:", "pipe:0") else name.removeprefix("file:")]
            self._is_before_input = False
        else:
            self._translate(word, _plain_name(word))

    def _translate(self, word: str, name: str) -> None:
        if name in _WITHOUT_EFFECT:
            return
        if name in _TIMES and self._has_input:
            self._times[self._is_before_input, name] = self._time(word)
        elif name in _BY_PLACE:
            self._translate_by_place(word, name)
        elif name in ("codec", "codec:a", "acodec", "an", "sn", "dn", "loglevel", "v", "nostats"):
            self._translate_by_meaning(word, name)
        elif name in _OF_ENCODERS:
            if self._is_before_input:
                raise OptionError(f"{word}: before -i it would be the decoder's; put it after -i")
            self._result += ["--encoder-option", f"{name}={self._value(word)}"]
        elif word.partition("=")[0] in self._own or re.fullmatch(r"-\w\d.*|-\w", word):
            self._pass_on(word)
        else:
            self._leave_out_or_refuse(word, name)

    def _translate_by_place(self, word: str, name: str) -> None:
        before, after = _BY_PLACE[name]
        option = before if self._is_before_input else after
        if option is None and not self._has_input:
            option = before
        if option is None:
            place = "before" if self._is_before_input else "after"
            raise OptionError(f"{word}: {_OUT_OF_PLACE.get(name, f'has no meaning {place} -i')}")
        value = self._value(word)
        if option == "--codec":
            self._names_codec = True
            if value == "copy":
                raise OptionError(f"{word} copy: vsr makes every picture anew; name an encoder, or leave it out")
        self._result += [option, value]

    def _translate_by_meaning(self, word: str, name: str) -> None:
        if name == "an":
            self._last += ["--audio", "none"]
        elif name in _NO_STREAMS:
            self._last += ["--map", _NO_STREAMS[name]]
        elif name == "nostats":
            self._result += ["--progress", "none"]
        elif name in ("loglevel", "v"):
            level = self._value(word).rpartition("+")[2] if self._has_level(name) else "verbose"
            if level in _QUIET_LEVELS | _VERBOSE_LEVELS:
                self._result.append("--quiet" if level in _QUIET_LEVELS else "--verbose")
        elif name == "codec":
            value = self._value(word)
            if value != "copy":
                raise OptionError(f"{word} {value}: say of which streams: -c:v {value} or -c:a {value}")
            self._copies_all = True
        else:
            value = self._value(word)
            if value not in _AUDIO:
                raise OptionError(f"{word} {value}: {_SOUND}")
            self._result += ["--audio", _AUDIO[value]]

    def _has_level(self, name: str) -> bool:
        """Tell whether a level follows; vsr's own -v stands alone."""
        following = self._words[0].rpartition("+")[2] if self._words else ""
        return name != "v" or following in _QUIET_LEVELS | _VERBOSE_LEVELS | _USUAL_LEVELS

    def _leave_out_or_refuse(self, word: str, name: str) -> None:
        value = self._words[0] if self._words else ""
        if name in _WITHOUT_EFFECT_VALUED or (name, value) in _DONE_ANYWAY:
            self._value(word)
            return
        remedy = _REFUSED.get(name) or _REFUSED.get(name.partition(":")[0])
        raise OptionError(f"{word}: {remedy or _UNKNOWN}")

    def _pass_on(self, word: str) -> None:
        """One of vsr's own options, with its value."""
        self._result.append(word)
        if word in ("--codec", "-c:v"):
            self._names_codec = True
        if self._own.get(word) and self._words:
            self._result.append(self._words.popleft())

    def _value(self, word: str) -> str:
        if not self._words:
            raise OptionError(f"{word}: needs a value")
        return self._words.popleft()

    def _time(self, word: str) -> Fraction:
        value = self._value(word)
        try:
            return parse_seconds(value)
        except ValueError as error:
            raise OptionError(f"{word} {value}: is not a time; give seconds or HH:MM:SS") from error

    def _window(self) -> list[str]:
        """The part that ffmpeg would take: the output's times count from where the input's begin."""
        start_in, length_in = self._span(True)
        start_out, length_out = self._span(False)
        lengths = [] if length_out is None else [length_out]
        if length_in is not None:
            lengths.append(length_in - (start_out or 0))
        options = []
        if start_in is not None or start_out is not None:
            options += ["--start", str((start_in or 0) + (start_out or 0))]
        if lengths:
            if min(lengths) <= 0:
                raise OptionError("-ss, -t and -to: nothing lies between them")
            options += ["--duration", str(min(lengths))]
        return options

    def _span(self, is_before_input: bool) -> tuple[Fraction | None, Fraction | None]:
        """Start and length in seconds on one side of -i; -t goes before -to, as in ffmpeg."""
        start, length, end = (self._times.get((is_before_input, name)) for name in _TIMES)
        if length is None and end is not None:
            length = end - (start or 0)
            if length <= 0:
                raise OptionError(f"-to {float(end):g}: lies before -ss {float(start or 0):g}")
        return start, length


def _plain_name(word: str) -> str:
    """An option's name without what says the obvious: the first video stream, or c for codec."""
    name, _, streams = word[1:].partition(":")
    name = "codec" if name == "c" else name
    streams = streams.removesuffix(":0") if streams[:1] in "va" else streams
    if streams == "v" and name not in ("codec", "filter", "q", "qscale", "frames", "filter_script"):
        streams = ""
    return f"{name}:{streams}" if streams else name
