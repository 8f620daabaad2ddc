"""List what containers, encoders and image files can hold: one table, a row each.

A new container or encoder is a row here: planning, dry run, warnings, writers and the check of the output ask the row.
A name without a row is that of a container or encoder with the default of every field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2

from vsr.color.pixel_formats import FORMATS

__all__ = [
    "CONTAINERS",
    "ENCODERS",
    "ATTACHED_COVERS",
    "IMAGE_MAGIC",
    "IMAGE_SUFFIXES",
    "MATROSKA",
    "RAW_VIDEO",
    "TEXT_SUBTITLES",
    "VIDEO_SUFFIXES",
    "Y4M",
    "AudioEncoder",
    "Container",
    "Encoder",
    "HdrParameters",
    "ImageFormat",
    "audio_encoder_for",
    "container_named",
    "find_audio_encoder",
    "find_container",
    "find_container_of_file",
    "find_containers_of_demuxer",
    "find_encoder",
    "find_image_format",
]

# FFmpeg's names of those that have code of their own.
MATROSKA = "matroska"
RAW_VIDEO = "rawvideo"
Y4M = "yuv4mpegpipe"


# -- containers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Container:
    """Describe a container: what it can hold, and how FFmpeg reads and writes it.

    Args:
        name: FFmpeg's name of the muxer, and of the demuxer where that has one name or several beside it.
        title: Its name in messages, if not `name`.
        aliases: Further names by which it can be asked for.
        suffixes: Endings of the files of video that are found in a folder, in lower case.

        encoder: The usual video encoder; None for FFmpeg's default.
        deep_encoder: The usual video encoder for more than 8 bits and for HDR; None for `encoder`.
        pipe_encoder: The usual video encoder on the way to another program; None for `encoder`.
        remedy: Why it is not written, and what to do instead; "" where it is.
        only_encoder: The one video encoder whose packets it holds; None for all that its muxer takes.
        pixel_formats: Those that it holds, of raw video; empty for what the encoder takes.

        needs_seeking: Whether its muxer goes back to the start of the file to complete it, which a pipe cannot.
        takes_timescale: Whether its muxer takes the clock of the source, as ISO files do.
        counts_frames: Whether it has a constant frame rate and counts frames instead of storing times.
        rate_of_encoder: Which frames get the times that the rate in the bitstream gives, none of their own: "all",
            "many" (all but the first of each packet of the file) or "none".
        starts_at_first_frame: Whether time begins with the first frame.
        holds_negative_times: Whether packets may lie before time zero.
        holds_reordered_frames: Whether frames may be stored in another order than they are shown, from time zero on.
        has_timestamps: Whether the times of its frames can be read back.
        loses_times_of: Codecs of video whose first frames come back without times.

        holds_streams: Whether it has a place for anything beside the video.
        holds_aspect: Whether PyAV can write the sample aspect ratio into it.
        holds_rotation: Whether it holds a display matrix.
        holds_metadata, holds_languages, holds_chapters, holds_attachments: Whether it has a place for them.
        file_tags, stream_tags: The tags that it has a place for, of the file and of its streams; None for any.
        takes_free_tags: Whether its muxer has another place, for any tags of the file, instead of that for `file_tags`.
        holds_covers: Whether its muxer takes a cover image as such.
        holds_packed_amr: Whether AMR audio may have several frames in a packet, as phones record it.
        states_range: Whether it says if raw video in it is of full range.
        unwritten_codecs: Codecs that it holds and PyAV, which asks FFmpeg's list of numbers, does not put into it.
        stream_codecs: The codecs it has numbers for, of streams that are copied; None for all that its muxer takes.
        audio_encoder: For audio that it cannot hold; None for its muxer's default.
        audio_rate: The only sample rate of audio that it takes, in Hz; None for any.
        text_encoder: For text subtitles that it cannot hold; None for none.
        rebuilds_timecode: Whether its muxer makes a timecode track of the tag that the video stream has.
        needs_channel_names: Whether PCM must have a name for each channel.
        has_quicktime_languages: Whether it knows languages by QuickTime's codes.

        is_joinable: Whether segments can be joined in it: it has timestamps and takes any encoder's packets.
        rewrites_packets: Whether its packets carry headers that others keep elsewhere, so that muxers change them.

        is_raw: Whether only whole frames follow one another in it.
        lacks_times: Whether its demuxer makes times up by a frame rate, which then can be given.
        guesses_times: Whether many frames have no time of their own, so that FFmpeg counts on from those before.
        lists_streams: Whether all streams are known from the start, rather than turning up on the way.
        states_duration: Whether a header states the duration.
    """

    name: str
    title: str = ""
    aliases: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()

    encoder: str | None = None
    deep_encoder: str | None = None
    pipe_encoder: str | None = None
    remedy: str = ""
    only_encoder: str | None = None
    pixel_formats: tuple[str, ...] = ()

    needs_seeking: bool = False
    takes_timescale: bool = False
    counts_frames: bool = False
    rate_of_encoder: Literal["all", "many", "none"] = "none"
    starts_at_first_frame: bool = False
    holds_negative_times: bool = True
    holds_reordered_frames: bool = True
    has_timestamps: bool = True
    loses_times_of: tuple[str, ...] = ()

    holds_streams: bool = True
    holds_aspect: bool = False
    holds_rotation: bool = False
    holds_metadata: bool = True
    holds_languages: bool = True
    holds_chapters: bool = False
    holds_attachments: bool = False
    file_tags: frozenset[str] | None = None
    stream_tags: frozenset[str] | None = None
    takes_free_tags: bool = False
    holds_covers: bool = False
    holds_packed_amr: bool = True
    states_range: bool = False
    unwritten_codecs: frozenset[str] = frozenset()
    stream_codecs: frozenset[str] | None = None
    audio_encoder: str | None = None
    audio_rate: int | None = None
    text_encoder: str | None = None
    rebuilds_timecode: bool = False
    needs_channel_names: bool = False
    has_quicktime_languages: bool = False

    is_joinable: bool = False
    rewrites_packets: bool = False

    is_raw: bool = False
    lacks_times: bool = False
    guesses_times: bool = False
    lists_streams: bool = True
    states_duration: bool = False

    @property
    def shown_name(self) -> str:
        return self.title or self.name


# Codecs that Matroska holds by their numbers in AVI and WAV.
_CODECS_OF_RIFF = frozenset({
    "utvideo", "huffyuv", "ffvhuff", "magicyuv", "wmv1", "wmv2", "wmv3", "flv", "h263", "h263p", "msmpeg4v2",
    "pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav", "adpcm_g726", "adpcm_yamaha", "g723_1", "gsm_ms",
    "wmav1", "wmav2", "wmapro", "wmalossless",
})  # fmt: skip

# The codecs MPEG-TS has numbers for. FFmpeg writes the rest as private data, in which no player finds anything.
_MPEGTS_CODECS = frozenset({
    "h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpegvideo", "mpeg4", "vc1", "cavs", "jpeg2000",
    "mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "aac", "aac_latm", "ac3", "eac3", "dca", "truehd",
    "opus", "libopus", "s302m", "dvbsub", "pgssub", "libzvbi_teletextdec",
})  # fmt: skip

# Tags of ISO files, of iTunes' kind and of QuickTime's.
_ITUNES_TAGS = frozenset({
    "title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright", "grouping",
    "lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords", "episode_sort", "season_number",
    "media_type", "hd_video", "gapless_playback", "compilation", "track", "disc", "tmpo", "location", "creation_time",
})  # fmt: skip
_QUICKTIME_TAGS = frozenset({
    "title", "artist", "author", "album", "date", "comment", "genre", "copyright", "make", "model", "location",
    "creation_time",
})  # fmt: skip
_PHONE_TAGS = frozenset({
    "title", "artist", "author", "album", "date", "comment", "genre", "copyright", "location", "creation_time",
})  # fmt: skip
_AVI_TAGS = frozenset({
    "title", "artist", "comment", "copyright", "date", "genre", "album", "product", "track", "language", "encoded_by",
    "software", "timecode",
})  # fmt: skip
_TRACK_TAGS = frozenset({"title", "name", "language", "creation_time", "timecode", "rotate", "filename", "mimetype"})
_NO_TAGS: frozenset[str] = frozenset()

_Y4M_DEPTHS = (9, 10, 12, 14, 16)
_Y4M_FORMATS = (
    "gray", *(f"gray{depth}le" for depth in _Y4M_DEPTHS if depth != 14),
    *(f"yuv{name}p" for name in ("420", "422", "444")),
    *(f"yuv{name}p{depth}le" for name in ("420", "422", "444") for depth in _Y4M_DEPTHS),
)  # fmt: skip

_SEGMENTED = "its pieces lie in several files, which `ffmpeg -i OUT.mp4 -c copy` makes of a finished one"
_OGG = "Ogg's muxer moves the timestamps of VP8, and this FFmpeg has no Theora"

CONTAINERS: dict[str, Container] = {
    row.name: row
    for row in (
        # ISO files
        Container(
            "mp4", suffixes=(".mp4",), encoder="libx264", deep_encoder="libx265", needs_seeking=True,
            takes_timescale=True, holds_aspect=True, holds_rotation=True, holds_chapters=True, holds_covers=True,
            holds_packed_amr=False, text_encoder="mov_text", rebuilds_timecode=True, needs_channel_names=True,
            is_joinable=True, states_duration=True, file_tags=_ITUNES_TAGS, stream_tags=_TRACK_TAGS,
            takes_free_tags=True,
        ),
        Container(
            "mov", suffixes=(".mov",), encoder="libx264", deep_encoder="libx265", needs_seeking=True,
            takes_timescale=True, holds_aspect=True, holds_rotation=True, holds_chapters=True, holds_packed_amr=False,
            text_encoder="mov_text", rebuilds_timecode=True, has_quicktime_languages=True, is_joinable=True,
            states_duration=True, file_tags=_QUICKTIME_TAGS, stream_tags=_TRACK_TAGS, takes_free_tags=True,
        ),
        Container(
            "ipod", suffixes=(".m4v",), encoder="libx264", needs_seeking=True, takes_timescale=True,
            holds_aspect=True, holds_rotation=True, holds_chapters=True, holds_covers=True,
            holds_packed_amr=False, text_encoder="mov_text", needs_channel_names=True, is_joinable=True,
            file_tags=_ITUNES_TAGS, stream_tags=_TRACK_TAGS - {"title", "name"}, takes_free_tags=True,
        ),
        Container(
            "3gp", suffixes=(".3gp",), encoder="libx264", needs_seeking=True, takes_timescale=True, holds_aspect=True,
            holds_rotation=True, holds_packed_amr=False, needs_channel_names=True,
            file_tags=_PHONE_TAGS, stream_tags=_TRACK_TAGS - {"title", "name"},
        ),
        Container(
            "3g2", suffixes=(".3g2",), encoder="libx264", needs_seeking=True, takes_timescale=True, holds_aspect=True,
            holds_rotation=True, holds_packed_amr=False, needs_channel_names=True,
            file_tags=_PHONE_TAGS, stream_tags=_TRACK_TAGS - {"title", "name"},
        ),
        Container(
            "psp", encoder="libx264", needs_seeking=True, holds_aspect=True, holds_rotation=True,
            needs_channel_names=True,
        ),
        Container(
            "f4v", suffixes=(".f4v",), encoder="libx264", needs_seeking=True, holds_aspect=True, holds_rotation=True,
        ),
        Container("ismv", needs_seeking=True, remedy=_SEGMENTED),
        Container("hls", suffixes=(), remedy=_SEGMENTED),
        Container("dash", suffixes=(), remedy=_SEGMENTED),
        Container("smoothstreaming", remedy=_SEGMENTED),
        # Matroska. Some covers are attachments in it, others a track.
        Container(
            MATROSKA, aliases=("mkv",), suffixes=(".mkv",), encoder="libx264", deep_encoder="libx265",
            holds_rotation=True, holds_chapters=True, holds_attachments=True, holds_covers=True,
            audio_encoder="libopus", text_encoder="ass", is_joinable=True, states_duration=True,
            unwritten_codecs=_CODECS_OF_RIFF,
        ),
        Container(
            "webm", suffixes=(".webm",), encoder="libvpx-vp9", holds_rotation=True, holds_chapters=True,
            audio_encoder="libopus", text_encoder="webvtt", is_joinable=True, states_duration=True,
        ),
        # MPEG's streams and discs
        Container(
            "mpegts", aliases=("ts",), suffixes=(".ts", ".m2ts", ".mts"), encoder="libx264", deep_encoder="libx265",
            holds_metadata=False, stream_codecs=_MPEGTS_CODECS, audio_encoder="aac", is_joinable=True,
            rewrites_packets=True, guesses_times=True, lists_streams=False,
        ),
        Container(
            "mpeg", suffixes=(".mpeg", ".mpg"), holds_metadata=False, rewrites_packets=True, guesses_times=True,
            lists_streams=False, rate_of_encoder="many",
        ),
        Container("svcd", suffixes=(".vob",), holds_metadata=False, rate_of_encoder="many"),
        Container("vob", holds_metadata=False, rate_of_encoder="many"),
        Container("dvd", holds_metadata=False, rate_of_encoder="many"),
        # others
        Container(
            "avi", suffixes=(".avi", ".divx"), encoder="libx264", needs_seeking=True, counts_frames=True,
            starts_at_first_frame=True, holds_reordered_frames=False, holds_languages=False, rewrites_packets=True,
            states_duration=True, file_tags=_AVI_TAGS, stream_tags=frozenset({"title", "language"}),
        ),
        Container(
            "flv", suffixes=(".flv",), encoder="libx264", holds_negative_times=False, holds_reordered_frames=False,
            holds_languages=False, rewrites_packets=True, lists_streams=False, states_duration=True,
            stream_tags=_NO_TAGS,
        ),
        Container(
            "nut", suffixes=(".nut",), encoder="libx264", deep_encoder="libx265", pipe_encoder=RAW_VIDEO,
            holds_negative_times=False, holds_reordered_frames=False, holds_chapters=True, holds_covers=True,
            loses_times_of=("mpeg1video", "mpeg2video"),
        ),
        Container(
            "asf", suffixes=(".asf", ".wmv"), holds_chapters=True, holds_covers=True,
            stream_tags=frozenset({"language"}),
        ),
        Container("ogg", suffixes=(".ogm",), holds_chapters=True, rewrites_packets=True, remedy=_OGG),
        Container("ogv", suffixes=(".ogv",), holds_chapters=True, remedy=_OGG),
        Container(
            "mxf", suffixes=(".mxf",), audio_encoder="pcm_s16le", audio_rate=48_000, rate_of_encoder="all",
            starts_at_first_frame=True,
        ),
        Container("dv", suffixes=(".dv",)),
        Container("rm", suffixes=(".rm", ".rmvb"), remedy="RealMedia cannot be written with its timestamps"),
        Container("ivf", suffixes=(".ivf",), holds_metadata=False, holds_languages=False),
        # bare streams
        Container("h264", holds_metadata=False, has_timestamps=False, rewrites_packets=True, lacks_times=True),
        Container("hevc", holds_metadata=False, has_timestamps=False, rewrites_packets=True, lacks_times=True),
        Container("vvc", lacks_times=True),
        Container("obu", holds_metadata=False, has_timestamps=False, lacks_times=True),
        Container("av1", has_timestamps=False),
        Container("m4v", has_timestamps=False, lacks_times=True),
        Container("mpegvideo", has_timestamps=False, lacks_times=True),
        Container("mpeg1video", suffixes=(".m1v",)),
        Container("mpeg2video", suffixes=(".m2v",)),
        Container("mjpeg", lacks_times=True),
        Container("vc1", lacks_times=True),
        Container("image2", lacks_times=True),
        Container("image2pipe", lacks_times=True),
        Container("aac", rewrites_packets=True),
        # raw video
        Container(
            RAW_VIDEO, has_timestamps=False, holds_metadata=False, is_raw=True, lacks_times=True,
        ),
        Container(
            Y4M, title="y4m", aliases=("y4m",), suffixes=(".y4m",), encoder=RAW_VIDEO, only_encoder=RAW_VIDEO,
            pixel_formats=_Y4M_FORMATS, counts_frames=True, holds_streams=False, holds_aspect=True, states_range=True,
            is_raw=True,
        ),
    )
}  # fmt: skip

VIDEO_SUFFIXES = frozenset(suffix for row in CONTAINERS.values() for suffix in row.suffixes)


def find_container(name: str) -> Container:
    """Return the row of a container by FFmpeg's name of its muxer."""
    return CONTAINERS.get(name) or Container(name)


def find_containers_of_demuxer(name: str) -> list[Container]:
    """Return the rows of the containers that a demuxer reads; its name in FFmpeg lists them, as in "matroska,webm"."""
    return [find_container(part) for part in name.split(",")]


def find_container_of_file(path: Path) -> Container:
    """Return the row of the container that a file's suffix stands for."""
    suffix = path.suffix.lower()
    return next((row for row in CONTAINERS.values() if suffix in row.suffixes), Container(suffix.removeprefix(".")))


def container_named(name: str) -> str:
    """Return FFmpeg's name of the container that a person asks for, which may be an alias."""
    return next((row.name for row in CONTAINERS.values() if name in row.aliases), name)


# -- video encoders ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HdrParameters:
    """Name the parameters by which an encoder takes HDR10 side data into its bitstream.

    Args:
        option: The encoder's option that takes parameters in its own words.
        mastering_display: The parameter for the mastering display (SMPTE ST 2086).
        content_light: The parameter for MaxCLL and MaxFALL, in cd/m².
        has_decimals: Whether the mastering display is given in decimals, rather than in units of 1/50000 for
            chromaticities and 1/10000 cd/m² for luminances.
    """

    option: str
    mastering_display: str
    content_light: str
    has_decimals: bool = False


@dataclass(frozen=True, slots=True)
class Encoder:
    """Describe a video encoder: its options, and what its bitstream holds.

    Args:
        name: FFmpeg's name.
        quality: Its options for the default quality, which is close to visually lossless: detail is the point, and
            FFmpeg's own defaults are coarser. Empty for the encoder's own default.
        large_quality: Its options for frames of more than 1920x1080 in place of those: as faithful, and faster.
        quality_options: The options of which any one, when given, replaces `quality`.
        presets: The words that its option `preset` takes; empty for those that FFmpeg lists.
        parameters: Options that are always given, in the encoder's own words; what is asked for is added to them.
        pixel_formats: Those that it takes; empty for those that FFmpeg lists.
        usual_pixel_formats: Those of which one is chosen unless one is asked for; empty for all that it takes.
        rates: The frame rates that its bitstream can name; empty for any.
        counts_frames: Whether its bitstream has a constant rate: frames carry the source's times beside it.
        tag: FFmpeg's codec tag by which all players of ISO files know the stream; "" for the muxer's own.
        smallest_side: Of a frame, in pixels; for smaller frames the container's other encoder is chosen.
        largest_side: Of a frame, in pixels; 0 for any that a job can have.
        threads_per_core: On a machine of few cores; 0 for the encoder's own choice.
        holds_aspect: Whether it writes the sample aspect ratio into the bitstream.
        hdr: How it is given HDR10 side data; None where it does not write any.
        is_raw: Whether it gives raw video, which says nothing of its colours.
        software: The encoder to name instead, where a GPU does not have this one; None for an encoder of the CPU.
        is_listed: Whether `vsr doctor` says if this FFmpeg has it.
    """

    name: str
    quality: Mapping[str, str] = field(default_factory=dict)
    large_quality: Mapping[str, str] = field(default_factory=dict)
    quality_options: frozenset[str] = frozenset()
    presets: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    pixel_formats: tuple[str, ...] = ()
    usual_pixel_formats: tuple[str, ...] = ()
    rates: tuple[Fraction, ...] = ()
    counts_frames: bool = False
    tag: str = ""
    smallest_side: int = 0
    largest_side: int = 0
    threads_per_core: int = 0
    holds_aspect: bool = False
    hdr: HdrParameters | None = None
    is_raw: bool = False
    software: str | None = None
    is_listed: bool = True


# The lists below are shared by encoders of a family.
_CRF_OPTIONS = frozenset({"crf", "qp", "b", "b:v"})
_CQ_OPTIONS = frozenset({"cq", "qp", "rc", "b", "tune"})

# x264 complains of other presets to stderr, beside the error.
_X26X_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip


def _constant_quality(cq: int) -> dict[str, str]:
    """Return NVENC's options for quality alone, without a limit on the bit rate."""
    return {"rc": "vbr", "cq": str(cq), "b": "0"}


def _hardware_encoders() -> Iterable[Encoder]:
    """Yield the rows of encoders of GPUs and phones, of which only this is known: they write the aspect ratio."""
    platforms = (
        "amf", "d3d12va", "mediacodec", "mf", "omx", "qsv", "rkmpp", "v4l2m2m", "vaapi", "videotoolbox", "vulkan",
    )  # fmt: skip
    for codec in ("h264", "hevc", "mpeg4", "mjpeg"):
        for platform in platforms:
            is_listed = platform == "videotoolbox" and codec in ("h264", "hevc")
            yield Encoder(f"{codec}_{platform}", holds_aspect=True, is_listed=is_listed)


_MPEG_RATES = tuple(
    Fraction(*rate)
    for rate in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1))
)
_QSCALE_OPTIONS = frozenset({"b", "b:v", "global_quality", "flags", "qscale", "q", "qmin", "qmax"})


def _encoders_of_old_standards() -> Iterable[Encoder]:
    """Yield the rows of encoders with a quantizer for quality; their default is 200 kbit/s, whatever the size."""
    rates = {"mpeg1video": _MPEG_RATES, "mpeg2video": _MPEG_RATES}
    quality = {"flags": "+qscale", "global_quality": str(3 * 118)}  # a quantizer of 3, in FFmpeg's units
    names = (
        "flv", "h263", "h263p", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4", "msmpeg4v2", "rv10", "rv20",
        "wmv1", "wmv2",
    )  # fmt: skip
    for name in names:
        holds_aspect = name in ("mpeg2video", "mpeg4")
        yield Encoder(
            name, quality=quality, quality_options=_QSCALE_OPTIONS, rates=rates.get(name, ()), counts_frames=True,
            holds_aspect=holds_aspect, is_listed=False,
        )  # fmt: skip
    yield Encoder("mjpeg", quality=quality, quality_options=_QSCALE_OPTIONS, holds_aspect=True, is_listed=False)


ENCODERS: dict[str, Encoder] = {
    row.name: row
    for row in (
        # x264's code for AVX-512 gives other files in other runs, and this its cure costs no time. Its own choice of
        # 1.5 threads a core leaves two cores idle for a tenth of the time, as frame threads wait for one another
        # (benchmarks/overlap.py). On large frames it would take as long as a light network: "veryfast" has the fidelity
        # of "medium" at CRF 18 for 11 % more bits, in 0.4 of its time (benchmarks/x264.py).
        Encoder(
            "libx264", quality={"crf": "18"}, large_quality={"crf": "17", "preset": "veryfast"},
            quality_options=_CRF_OPTIONS, presets=_X26X_PRESETS,
            parameters={"x264-params": "cpu-independent=1"}, threads_per_core=2, holds_aspect=True,
            hdr=HdrParameters("x264-params", "mastering-display", "cll"),
        ),
        # Below 64 pixels x265 refuses or gains nothing; it writes to stderr by itself.
        Encoder(
            "libx265", quality={"crf": "20"}, quality_options=_CRF_OPTIONS, presets=_X26X_PRESETS,
            parameters={"x265-params": "log-level=error"}, smallest_side=64, holds_aspect=True, tag="hvc1",
            hdr=HdrParameters("x265-params", "master-display", "max-cll"),
        ),
        Encoder(
            "libsvtav1", quality={"crf": "26"}, quality_options=_CRF_OPTIONS,
            hdr=HdrParameters("svtav1-params", "mastering-display", "content-light", has_decimals=True),
        ),
        Encoder("libaom-av1", quality={"crf": "24"}, quality_options=_CRF_OPTIONS),
        Encoder("libvpx-vp9", quality={"crf": "24"}, quality_options=_CRF_OPTIONS),
        Encoder("prores_ks"),
        Encoder("ffv1"),
        # The formats that all generations of NVENC take; FFmpeg lists those of the newest, and more, for all three.
        Encoder(
            "h264_nvenc", quality=_constant_quality(19), quality_options=_CQ_OPTIONS,
            usual_pixel_formats=("yuv420p", "yuv444p"), holds_aspect=True, software="libx264",
            largest_side=4096,
        ),
        Encoder(
            "hevc_nvenc", quality=_constant_quality(21), quality_options=_CQ_OPTIONS,
            usual_pixel_formats=("yuv420p", "p010le", "yuv444p"), holds_aspect=True, software="libx265", tag="hvc1",
            largest_side=8192,
        ),
        Encoder(
            "av1_nvenc", quality=_constant_quality(26), quality_options=_CQ_OPTIONS,
            usual_pixel_formats=("yuv420p", "p010le"), software="libsvtav1", largest_side=8192,
        ),
        *_hardware_encoders(),
        Encoder("libx264rgb", holds_aspect=True, is_listed=False),
        *_encoders_of_old_standards(),
        # The formats that all readers of raw video take: of two for the same samples the common one.
        Encoder(
            RAW_VIDEO, is_raw=True, is_listed=False, pixel_formats=tuple(
                name for name, format_ in FORMATS.items()
                if format_.layout != "semiplanar" and not name.startswith("yuvj")
            ),
        ),
    )
}  # fmt: skip


def find_encoder(name: str) -> Encoder:
    """Return the row of a video encoder by FFmpeg's name."""
    return ENCODERS.get(name) or Encoder(name)


# -- audio, subtitles, covers --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioEncoder:
    """Describe an audio encoder.

    Args:
        name: FFmpeg's name.
        option: The word of the option `audio` that asks for it; "" for none.
        sample_rate: The one it takes, in Hz; None for that of the source.
    """

    name: str
    option: str = ""
    sample_rate: int | None = None


_AUDIO_ENCODERS = (AudioEncoder("aac", "aac"), AudioEncoder("libopus", "opus", 48000))

# The subtitles that are text. Others are images, which nothing here can read.
TEXT_SUBTITLES = frozenset({"srt", "subrip", "ssa", "ass", "mov_text", "webvtt", "text"})


# Covers that Matroska holds as attachments, by their codec; a track of one image would be a second video to players.
ATTACHED_COVERS = {"png": ("cover.png", "image/png"), "mjpeg": ("cover.jpg", "image/jpeg")}


def audio_encoder_for(option: str) -> AudioEncoder | None:
    """Return the encoder that a word of the option `audio` asks for, or None where it asks for none."""
    return next((row for row in _AUDIO_ENCODERS if row.option == option), None)


def find_audio_encoder(name: str) -> AudioEncoder:
    """Return the row of an audio encoder by FFmpeg's name."""
    return next((row for row in _AUDIO_ENCODERS if row.name == name), AudioEncoder(name))


# -- image files ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """Describe a kind of image file: what it holds, and how OpenCV writes it.

    Args:
        name: In messages.
        suffixes: Endings of its files, in lower case.
        magic: The first bytes of its files, any of these.
        glob: The endings of its files as one glob pattern; "" where there is one suffix.
        holds_alpha: Whether it has a place for alpha.
        holds_16_bit: Whether it holds samples of 16 bits as they are.
        options: OpenCV's options to write it, in pairs of key and value.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...] = ()
    glob: str = ""
    holds_alpha: bool = True
    holds_16_bit: bool = True
    options: tuple[int, ...] = ()


_IMAGE_FORMATS = (
    ImageFormat("PNG", (".png",), (b"\x89PNG",)),
    ImageFormat(
        "JPEG", (".jpg", ".jpeg"), (b"\xff\xd8\xff",), ".[jJ][pP]*[gG]", holds_alpha=False, holds_16_bit=False,
        options=(cv2.IMWRITE_JPEG_QUALITY, 95),
    ),
    ImageFormat("WebP", (".webp",), (b"RIFF",), holds_16_bit=False, options=(cv2.IMWRITE_WEBP_QUALITY, 95)),
    ImageFormat("BMP", (".bmp",), (b"BM",), holds_alpha=False, holds_16_bit=False),
    ImageFormat("TIFF", (".tif", ".tiff"), (b"II*\0", b"MM\0*"), ".[tT][iI][fF]*"),
)  # fmt: skip

IMAGE_SUFFIXES = frozenset(suffix for row in _IMAGE_FORMATS for suffix in row.suffixes)
IMAGE_MAGIC = tuple(magic for row in _IMAGE_FORMATS for magic in row.magic)


def find_image_format(suffix: str) -> ImageFormat:
    """Return the row of image files by a suffix, in any case of letters."""
    return next((row for row in _IMAGE_FORMATS if suffix.lower() in row.suffixes), ImageFormat(suffix, (suffix,)))
