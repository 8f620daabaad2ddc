"""Clips that are hard to keep whole, each made by Debian's ffmpeg in an empty folder: what the conformance table reads.

Every frame of the usual pattern has a brightness of its own, so that a frame in another's place is seen.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ffprobe_reading import run_ffmpeg

FONT = b"\0\1\0\0" + bytes(range(256)) * 3
MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
# Without the last, x264's code for AVX-512 gives other packets every time.
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "8", "-threads", "1", "-x264-params", "cpu-independent=1")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "10")
_X265_PARAMS = "log-level=error"
_BRIGHTNESS = "30+6*mod(N\\,28)+X/8"  # 8 bit code values


def pattern(
    *filters: str, size: str = "64x48", frames: int = 20, rate: str = "25", pixel_format: str = "yuv420p"
) -> list[str]:
    """The input of an ffmpeg line: frames of one more brightness each, in a pixel format that is Y'CbCr or gray."""
    bits = int(match[1]) if (match := re.search(r"(?:p|gray)(\d+)le$", pixel_format)) else 8
    scale = 2 ** (bits - 8)
    chroma = "" if pixel_format.startswith("gray") else f":cb={120 * scale}:cr={140 * scale}"
    alpha = ":a=255-4*X" if pixel_format.startswith("yuva") else ""
    source = f"nullsrc=s={size}:r={rate},trim=end_frame={frames},format={pixel_format}"
    return ["-f", "lavfi", "-i", ",".join([source, f"geq=lum='{scale}*({_BRIGHTNESS})'{chroma}{alpha}", *filters])]


def tone(seconds: float = 0.8, frequency: int = 440) -> list[str]:
    return ["-f", "lavfi", "-i", f"sine=frequency={frequency}:duration={seconds}:sample_rate=48000"]


def make(path: Path, *arguments: object) -> Path:
    """Run an ffmpeg line that ends in `path`."""
    run_ffmpeg([*arguments, path])
    return path


def _subtitles(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"1\n00:00:00,100 --> 00:00:00,400\n{text}\n\n2\n00:00:00,500 --> 00:00:00,700\n<i>{text}</i>\n")
    return path


def _metadata(folder: Path) -> Path:
    path = folder / "chapters.txt"
    chapters = [(0, 250, "One"), (250, 600, "Two: ü"), (600, 800, "Three")]
    text = ";FFMETADATA1\ntitle=A film\ncomment=kept\n"
    for start, end, title in chapters:
        text += f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={end}\ntitle={title}\n"
    path.write_text(text, "utf-8")
    return path


# -- time ----------------------------------------------------------------------------------------------


_UNEVEN = "settb=1/90000,setpts='N*3600+mod(N*N*701\\,3000)'"


def variable_rate(path: Path) -> Path:
    times = ["-fps_mode", "passthrough", "-enc_time_base", "1:90000"]
    track = ["-video_track_timescale", "90000"] if path.suffix == ".mp4" else []
    return make(path, *pattern(_UNEVEN), *times, *X264, "-bf", "3", *track)


def late_start(path: Path) -> Path:
    options = ["-fps_mode", "passthrough", "-bf", "2", "-c:a", "aac"]
    return make(path, "-itsoffset", "1.28", *pattern(), *tone(2.08), *X264, *options)


def edit_list(path: Path) -> Path:
    whole = path.with_name("whole.mp4")
    make(whole, *pattern(frames=40), *tone(1.6), *X264, "-g", "15", "-bf", "2", "-c:a", "aac")
    return make(path, "-ss", "0.8", "-i", whole, "-map", "0", "-c", "copy")


def negative_dts(path: Path) -> Path:
    return make(path, *pattern(), *X264, "-bf", "3", "-movflags", "negative_cts_offsets")


def b_pyramid(path: Path) -> Path:
    return make(path, *pattern(), *X264, "-bf", "7", "-x264-params", "b-pyramid=normal:b-adapt=0:ref=4")


def b_pyramid_hevc(path: Path) -> Path:
    params = f"{_X265_PARAMS}:bframes=7:b-pyramid=1:b-adapt=0"
    return make(path, *pattern(size="96x64"), "-c:v", "libx265", "-preset", "medium", "-x265-params", params)


def hidden_frames(path: Path) -> Path:
    """VP9 with alternate reference frames, which are decoded and never shown."""
    options = ["-auto-alt-ref", "1", "-lag-in-frames", "16", "-b:v", "300k", "-passlogfile", path.with_name("log")]
    line = [*pattern("noise=alls=20:allf=t", frames=40), "-c:v", "libvpx-vp9", *options]
    make(path, *line, "-pass", "1")
    return make(path, *line, "-pass", "2")


def wrapping_clock(path: Path) -> Path:
    """MPEG-TS whose 33 bit clock starts anew after some frames."""
    seconds = 2**33 / 90000 - 1.7  # and 1.4 s more, by which the muxer lets it start later
    return make(path, *pattern(), *tone(), *X264, "-bf", "2", "-c:a", "mp2", "-output_ts_offset", f"{seconds:.3f}")


def clock_that_restarts(path: Path) -> Path:
    """Two recordings of MPEG-TS, one behind the other."""
    parts = []
    for name in ("a", "b"):
        part = path.with_name(f"{name}.ts")
        make(part, *pattern(), *tone(), *X264, "-bf", "2", "-c:a", "mp2")
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def very_long_gop(path: Path) -> Path:
    return make(path, *pattern(size="32x32", frames=1000), *X264, "-g", "2000", "-x264-params", "scenecut=0")


def one_frame(path: Path) -> Path:
    return make(path, *pattern(frames=1), *X264)


# -- streams -------------------------------------------------------------------------------------------


def many_tracks(path: Path) -> Path:
    """Three languages of sound and two of text, with titles and dispositions."""
    text = "mov_text" if path.suffix == ".mp4" else "srt"
    inputs = [*pattern(), *tone(0.8, 300), *tone(0.8, 500), *tone(0.8, 700)]
    for name in ("eng", "deu"):
        inputs += ["-i", _subtitles(path.parent, f"{name}.srt", f"Words: {name}")]
    maps = [part for index in range(6) for part in ("-map", index)]
    tags = []
    for stream, language, title in (("a:0", "eng", "Main"), ("a:1", "deu", "Ton"), ("a:2", "jpn", "Comments")):
        tags += [f"-metadata:s:{stream}", f"language={language}", f"-metadata:s:{stream}", f"title={title}"]
    tags += ["-metadata:s:s:0", "language=eng", "-metadata:s:s:1", "language=deu", "-metadata:s:v:0", "language=fra"]
    kinds = ["-disposition:a:0", "default", "-disposition:a:1", "0", "-disposition:a:2", "comment"]
    kinds += ["-disposition:s:0", "0", "-disposition:s:1", "default+forced"]
    codecs = [*X264, "-c:a:0", "aac", "-c:a:1", "ac3", "-c:a:2", "aac", "-c:s", text]
    return make(path, *inputs, *maps, *codecs, *tags, *kinds)


def two_pictures(path: Path) -> Path:
    """A second camera: of two videos, the second is the default one."""
    kinds = ["-disposition:v:0", "0", "-disposition:v:1", "default"]
    return make(path, *pattern(size="32x32"), *pattern(), "-map", "0", "-map", "1", *X264, *kinds)


def chapters(path: Path) -> Path:
    return make(path, *pattern(), "-i", _metadata(path.parent), "-map", "0", "-map_metadata", "1", *X264)


def font(path: Path) -> Path:
    file = path.with_name("letters.ttf")
    file.write_bytes(FONT)
    return make(path, *pattern(), *X264, "-attach", file, "-metadata:s:t", "mimetype=application/x-truetype-font")


def cover(path: Path) -> Path:
    picture = make(path.with_name("cover.png"), *pattern(size="48x48", frames=1), "-frames:v", "1")
    if path.suffix == ".mkv":
        return make(path, *pattern(), *X264, "-attach", picture, "-metadata:s:t", "mimetype=image/png")
    maps = ["-map", "0", "-map", "1", "-map", "2"]
    codecs = [*X264, "-c:a", "aac", "-c:v:1", "copy", "-disposition:v:1", "attached_pic"]
    return make(path, *pattern(), *tone(), "-i", picture, *maps, *codecs)


def song_with_cover(path: Path) -> Path:
    picture = make(path.with_name("cover.png"), *pattern(size="48x48", frames=1), "-frames:v", "1")
    maps = ["-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v:0", "attached_pic"]
    return make(path, *tone(), "-i", picture, *maps)


def timecode(path: Path) -> Path:
    return make(path, *pattern(), *X264, "-timecode", "01:00:00:00")


# -- geometry ------------------------------------------------------------------------------------------

_UNIT = 1 << 16
DISPLAY_MATRICES = {  # a, b, c, d of ISO/IEC 14496-12 in ones, and what translation brings the picture back
    "90": (0, 1, -1, 0, "height", None),
    "180": (-1, 0, 0, -1, "width", "height"),
    "270": (0, -1, 1, 0, None, "width"),
    "flipped left to right": (-1, 0, 0, 1, "width", None),
    "flipped upside down": (1, 0, 0, -1, None, "height"),
    "90 and flipped": (0, 1, 1, 0, None, None),
}


def turned(path: Path, kind: str) -> Path:
    """An MP4 as a phone writes it: stored as the sensor lies, with a matrix that turns it."""
    make(path, *pattern(), *X264)
    a, b, c, d, x, y = DISPLAY_MATRICES[kind]
    sides = {"width": 64 * _UNIT, "height": 48 * _UNIT, None: 0}
    matrix = (a * _UNIT, b * _UNIT, 0, c * _UNIT, d * _UNIT, 0, sides[x], sides[y], 1 << 30)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44  # after version, times, ID, duration, layer and volume (version 0)
    assert data[place : place + 4] == struct.pack(">i", _UNIT)
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


def anamorphic(path: Path) -> Path:
    return make(path, *pattern("setsar=64/45"), *X264)


def of_size(path: Path, size: str) -> Path:
    return make(path, *pattern(size=size, frames=3, pixel_format="yuv444p"), "-c:v", "ffv1")


def of_8k(path: Path) -> Path:
    source = ["-f", "lavfi", "-i", "color=0x406080:s=7680x4320:r=25:d=0.04"]
    return make(path, *source, "-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p")


def _part_of_ts(number: int) -> list[object]:
    """Options for the first or second part, of ten frames, of what is put together from two."""
    times = ["-muxdelay", "0", "-muxpreload", "0", "-output_ts_offset", number * 0.4]
    return [*times, "-mpegts_flags", "+initial_discontinuity"]


def size_changes(path: Path) -> Path:
    """Half of the frames are larger than the others."""
    parts = []
    for number, size in enumerate(("64x48", "96x64")):
        part = path.with_name(f"{number}.ts")
        make(part, *pattern(size=size, frames=10), *X264, "-bf", "0", *_part_of_ts(number))
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


# -- samples -------------------------------------------------------------------------------------------


def of_format(path: Path, pixel_format: str) -> Path:
    """Lossless, so that the samples can be compared."""
    return make(path, *pattern(pixel_format=pixel_format), "-c:v", "ffv1", "-pix_fmt", pixel_format)


def deep_h264(path: Path, pixel_format: str) -> Path:
    return make(path, *pattern(pixel_format=pixel_format, size="96x64"), *X264, "-pix_fmt", pixel_format)


def deep_hevc(path: Path) -> Path:
    source = pattern(pixel_format="yuv420p12le", size="96x64")
    return make(path, *source, *X265, "-pix_fmt", "yuv420p12le", "-x265-params", _X265_PARAMS)


def hdr10(path: Path) -> Path:
    params = f"{_X265_PARAMS}:hdr10=1:repeat-headers=1:master-display={MASTERING}:max-cll=1000,400"
    return _wide_gamut(path, params, "smpte2084")


def hlg(path: Path) -> Path:
    return _wide_gamut(path, _X265_PARAMS, "arib-std-b67")


def _wide_gamut(path: Path, params: str, transfer: str) -> Path:
    source = pattern(pixel_format="yuv420p10le", size="128x72", frames=8)
    tags = ["-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc", "-color_range", "tv"]
    return make(path, *source, *X265, "-pix_fmt", "yuv420p10le", *tags, "-x265-params", params)


def chroma_at_top_left(path: Path, encoder: Sequence[str]) -> Path:
    """As on UHD discs; everything else lies at the left, between two lines."""
    name = "x264-params" if "libx264" in encoder else "x265-params"
    params = "chromaloc=2" + ("" if "libx264" in encoder else f":{_X265_PARAMS}")
    return make(path, *pattern(size="128x72", frames=4), *encoder, f"-{name}", params)


def full_range(path: Path) -> Path:
    tags = ["-color_range", "pc", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    return make(path, *pattern(), *X264, *tags)


def motion_jpeg(path: Path) -> Path:
    """Full range and centred chroma, by the codec alone."""
    return make(path, *pattern(), "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p")


def prores_4444(path: Path) -> Path:
    source = pattern(pixel_format="yuva444p10le")
    return make(path, *source, "-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le")


def png_in_mov(path: Path) -> Path:
    source = pattern(pixel_format="yuva444p")
    return make(path, *source, "-c:v", "png", "-pix_fmt", "rgba")


def vp9_alpha(path: Path) -> Path:
    source = pattern(pixel_format="yuva420p")
    return make(path, *source, "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-crf", "4")


# -- fields --------------------------------------------------------------------------------------------


def interlaced(path: Path, codec: str, top_first: bool) -> Path:
    """Two moments in every frame, as MPEG-2 or as H.264 with MBAFF."""
    weave = (
        "tinterlace=mode=interleave_top,setfield=tff" if top_first else "tinterlace=mode=interleave_bottom,setfield=bff"
    )
    if codec == "mpeg2video":
        options = ["-c:v", "mpeg2video", "-q:v", "2", "-flags", "+ildct+ilme", "-top", int(top_first)]
    else:
        options = [*X264, "-flags", "+ildct+ilme", "-top", int(top_first)]
    return make(path, *pattern(weave, size="64x64", frames=40, rate="50"), *options)


def interlaced_later(path: Path) -> Path:
    """Progressive at first, as the logo before a film."""
    parts = []
    for number, flags in enumerate(([], ["-flags", "+ildct+ilme", "-top", "1"])):
        part = path.with_name(f"{number}.ts")
        field = ["setfield=tff"] if flags else ["setfield=prog"]
        options = ["-c:v", "mpeg2video", "-q:v", "2", *flags]
        make(part, *pattern(*field, frames=10), *options, *_part_of_ts(number))
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def digital_tape(path: Path) -> Path:
    """DV of NTSC: interlaced, bottom field first, with a quarter of the colour in each line."""
    source = pattern("setfield=bff,format=yuv411p", size="720x480", frames=3, rate="30000/1001")
    return make(path, *source, "-c:v", "dvvideo", "-flags", "+ildct")


def pulled_down(path: Path) -> Path:
    """Film as on a DVD: the stream asks for every other frame's first field to be shown again."""
    raw = path.with_name("film.m2v")
    source = pattern(rate="24000/1001", frames=24)
    make(raw, *source, "-c:v", "mpeg2video", "-q:v", "2", "-bf", "0", "-flags", "+ildct", "-f", "mpeg2video")
    data, number = bytearray(raw.read_bytes()), 0
    for match in re.finditer(rb"\x00\x00\x01\xb5[\x80-\x8f]", bytes(data)):  # picture coding extensions
        place = match.end()
        data[place + 2] = (data[place + 2] & 0x7D) | (0x02 * (number % 2 == 0)) | (0x80 * (number // 2 % 2 == 0))
        data[place + 3] |= 0x80  # progressive_frame
        number += 1
    assert number == 24
    raw.write_bytes(data)
    times = "setts=ts=N*1001/24000/TB"  # which a raw stream has none of
    return make(path, "-f", "mpegvideo", "-framerate", "24000/1001", "-i", raw, "-c", "copy", "-bsf:v", times)


def telecined(path: Path) -> Path:
    """Film as in broadcasts: fields woven 3:2 into 30 frames a second."""
    source = pattern("telecine=first_field=top:pattern=23", rate="24000/1001", frames=24)
    options = ["-c:v", "mpeg2video", "-q:v", "2", "-flags", "+ildct+ilme", "-top", "1"]
    return make(path, *source, *options)


# -- damage --------------------------------------------------------------------------------------------


def open_gop(path: Path) -> Path:
    """A recording that begins at a key frame whose next frames refer to what came before it."""
    whole = path.with_name("whole.ts")
    params = "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-adapt=0:scenecut=0"
    flags = ["-mpegts_flags", "+pat_pmt_at_frames", "-muxdelay", "0", "-muxpreload", "0"]
    make(whole, *pattern(frames=40), *X264, "-x264-params", params, *flags)
    places = _places_of_key_packets(whole)
    path.write_bytes(whole.read_bytes()[places[1] - 2 * 188 :])  # with the two tables before it
    return path


def starts_without_key(path: Path) -> Path:
    """A recording that begins in the middle of a group of pictures."""
    whole = path.with_name("whole.ts")
    flags = ["-mpegts_flags", "+pat_pmt_at_frames", "-muxdelay", "0", "-muxpreload", "0"]
    make(whole, *pattern(frames=40), *X264, "-g", "10", "-bf", "0", *flags)
    places = _places_of_packets(whole)
    path.write_bytes(whole.read_bytes()[places[4][0] - 2 * 188 :])
    return path


def _places_of_packets(path: Path) -> list[tuple[int, bool]]:
    """(byte position, whether a key frame) of every video packet."""
    asked = ["-select_streams", "v:0", "-show_entries", "packet=pos,flags", "-of", "csv=p=0"]
    text = subprocess.run(["ffprobe", "-v", "error", *asked, path], capture_output=True, check=True, text=True).stdout
    rows = [line.split(",") for line in text.splitlines() if line]
    return [(int(row[0]), row[1].startswith("K")) for row in rows]


def _places_of_key_packets(path: Path) -> list[int]:
    return [place for place, is_key in _places_of_packets(path) if is_key]


def damaged(path: Path, numbers: Sequence[int], *, length: int = 40) -> Path:
    """An H.264 or H.265 recording, some packets of which are overwritten behind their first bytes."""
    whole = path.with_name(f"whole{path.suffix}")
    noise = "noise=alls=40:allf=t"
    make(whole, *pattern(noise, size="96x64"), *tone(), *X264, "-g", "10", "-bf", "0", "-c:a", "aac")
    data = bytearray(whole.read_bytes())
    places = _places_of_packets(whole)
    for number in numbers:
        start = places[number][0] + 188 + 40  # behind all headers, also in MPEG-TS
        data[start : start + length] = bytes(255 - value for value in data[start : start + length])
    path.write_bytes(data)
    return path


def damaged_end(path: Path) -> Path:
    """PNG in MOV whose last packets but one cannot be decoded."""
    whole = path.with_name("whole.mov")
    make(whole, *pattern("noise=alls=40:allf=t,format=rgb24", size="96x64"), "-c:v", "png")
    data = bytearray(whole.read_bytes())
    for place, _ in _places_of_packets(whole)[17:19]:
        data[place + 10 : place + 310] = b"\xff" * 300
    path.write_bytes(data)
    return path


def lost_packets(path: Path) -> Path:
    """MPEG-TS as it was received: two of its packets of 188 bytes are missing."""
    whole = path.with_name("whole.ts")
    make(whole, *pattern("noise=alls=40:allf=t", size="96x64"), *X264, "-g", "10", "-bf", "0")
    data, places = whole.read_bytes(), _places_of_packets(whole)
    for number in (14, 5):
        start = places[number][0] + 2 * 188
        data = data[:start] + data[start + 188 :]
    path.write_bytes(data)
    return path


def cut_off(path: Path) -> Path:
    """A recording that ends in the middle of its 19th packet of video."""
    whole = path.with_name(f"whole{path.suffix}")
    make(whole, *pattern("noise=alls=40:allf=t", size="96x64", frames=30), *tone(1.2), *X264, "-bf", "2", "-c:a", "aac")
    places = [place for place, _ in _places_of_packets(whole)]
    path.write_bytes(
        whole.read_bytes()[: places[18] + min(1000, (min(p for p in places if p > places[18]) - places[18]) // 2)]
    )
    return path


def half_of_it(path: Path) -> Path:
    """A download that broke off, whose header is whole."""
    whole = path.with_name(f"whole{path.suffix}")
    header = ["-movflags", "+faststart"] if path.suffix == ".mp4" else []
    make(whole, *pattern("noise=alls=40:allf=t", size="96x64", frames=80), *X264, "-bf", "0", *header)
    path.write_bytes(whole.read_bytes()[: _places_of_packets(whole)[40][0]])
    return path


def no_frames(path: Path) -> Path:
    """A header that promises video, and no packet of it."""
    return make(path, *pattern("select=0"), *tone(0.2), *X264, "-c:a", "aac")


def wrong_header(path: Path) -> Path:
    """Headers that say 10 hours (MP4), 10 ms (Matroska) or a million frames (AVI)."""
    make(path, *pattern(), *X264, "-bf", "0")
    data = bytearray(path.read_bytes())
    if path.suffix == ".mp4":
        for name, place in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
            start = data.index(name) + place
            data[start : start + 4] = struct.pack(">I", 36000 * 1000)
    elif path.suffix == ".mkv":
        start = data.index(b"\x44\x89\x88") + 3
        data[start : start + 8] = struct.pack(">d", 10.0)
    else:
        start = data.index(b"avih") + 8 + 16
        data[start : start + 4] = struct.pack("<I", 10**6)
        start = data.index(b"strh") + 8 + 32
        data[start : start + 4] = struct.pack("<I", 10**6)
    path.write_bytes(data)
    return path


def num_coded_frames(path: Path) -> int:
    """Frames of a VP9 stream, those in the same packet as another counted too."""
    split = ["-i", path, "-c", "copy", "-an", "-bsf:v", "vp9_superframe_split", "-f", "framecrc", "-"]
    return sum(not line.startswith(b"#") for line in run_ffmpeg(split).splitlines())
