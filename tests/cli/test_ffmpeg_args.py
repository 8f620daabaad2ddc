"""A person's ffmpeg line, with its verb changed: what it means to vsr, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from vsr.cli.ffmpeg_args import parse_seconds, translated
from vsr.errors import OptionError

OWN = {
    "--model": True, "--codec": True, "-c:v": True, "--crf": True, "-crf": True, "--encoder-option": True,
    "--start": True, "-ss": True, "-t": True, "-to": True, "-progress": True, "--strict": False, "-y": False,
    "-n": False,
}  # fmt: skip


def _translated(line: str) -> list[str]:
    return translated(line.split(), OWN)


@pytest.mark.parametrize(
    "line",
    [
        "in.mp4 out.mp4",
        "in.mp4 out.mp4 --model fast --strict -y",
        "in.mkv out.mp4 -ss 1:00 -t 5 --codec libx265",
        "in.mkv out.mp4 -t5 -ss=3",
        "--model -an in.mp4 out.mp4",
        "- -",
        "--strict -- -i -an",
        "file:a.mp4 pipe:1",
        "a.mp4 b.mp4 c.mp4 --output-dir=out",
    ],
)
def test_a_line_of_vsr_stays_as_it_is(line: str) -> None:
    assert _translated(line) == line.split()


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        (
            "-ss 1:00 -i in.mp4 -t 5 -c:v libx264 -crf 20 -c:a copy -y out.mp4",
            "--codec libx264 --crf 20 --audio copy -y --start 60 --duration 5 -- in.mp4 out.mp4",
        ),
        ("-i in.mp4 out.mp4", "-- in.mp4 out.mp4"),
        ("-i -x.mp4 --model fast out.mp4", "--model fast -- -x.mp4 out.mp4"),
        ("-i file:a.mp4 file:b.mp4", "-- a.mp4 b.mp4"),
        ("-i pipe:0 -f nut pipe:1", "--format nut -- - -"),
        ("-i in.mp4 -- -out.mp4", "-- in.mp4 -out.mp4"),
        (
            "-f rawvideo -s 64x48 -pix_fmt yuv420p -r 25 -i - -pix_fmt yuv444p -s 256x192 out.mkv",
            "--input-format rawvideo --video-size 64x48 --pixel-format yuv420p --framerate 25 --pix-fmt yuv444p "
            "--size 256x192 -- - out.mkv",
        ),
        ("frames/%06d.png out.mp4 -r 24", "frames/%06d.png out.mp4 --framerate 24"),
        ("-i a -vcodec libx265 -acodec libopus b", "--codec libx265 --audio opus -- a b"),
        ("-i a -c:a aac -b:a 192k -tag:v hvc1 -movflags +faststart b", "--audio aac --audio-bitrate 192k -- a b"),
        ("-i a -c copy -c:v libx264 -crf:v 20 b", "--codec libx264 --crf 20 -- a b"),
        ("-i a -an -c:a aac b", "--audio aac --audio none -- a b"),
        ("-i a -sn -map 0 -dn b", "--map 0 --map -0:s --map -0:d -- a b"),
        ("-i a -map 0:v -map -0:s -map 0:a:1? b", "--map 0:v --map -0:s --map 0:a:1? -- a b"),
        (
            "-i a -tune film -b:v 2M -g 50 -profile:v:0 high -x264-params ref=4 b",
            "--encoder-option tune=film --encoder-option b=2M --encoder-option g=50 --encoder-option profile=high "
            "--encoder-option x264-params=ref=4 -- a b",
        ),
        ("-hide_banner -nostdin -loglevel error -stats -i a b", "--quiet -- a b"),
        ("-v repeat+level+fatal -nostats -i a b", "--quiet --progress none -- a b"),
        ("-loglevel warning -i a b", "-- a b"),
        ("-y -i a -progress - -c:s copy -map_metadata 0 -fps_mode passthrough b", "-y -progress - -- a b"),
        ("-hwaccel cuda -i a b", "--hwaccel cuda -- a b"),
    ],
)
def test_a_line_of_ffmpeg_means_the_same(line: str, meaning: str) -> None:
    assert _translated(line) == meaning.split()


@pytest.mark.parametrize(
    ("line", "start", "duration"),
    [
        ("-ss 10 -to 15 -i a b", "10", "5"),  # both on the input's clock
        ("-i a -ss 10 -to 15 b", "10", "5"),
        ("-ss 10 -i a -to 15 b", "10", "15"),  # the output's clock begins at the cut
        ("-ss 10 -i a -t 5 b", "10", "5"),
        ("-ss 10 -i a -ss 2 -to 5 b", "12", "3"),
        ("-ss 10 -t 4 -i a -ss 1 -t 9 b", "11", "3"),  # the shorter of both
        ("-ss 10 -t 9 -i a -ss 1 -t 3 b", "11", "3"),
        ("-ss 10 -t 2 -to 99 -i a b", "10", "2"),  # -t goes before -to
        ("-i a -to 1.5 b", None, "3/2"),
        ("-ss 0:01:00.25 -i a b", "241/4", None),
        ("-ss 500ms -i a b", "1/2", None),
    ],
)
def test_times_count_from_where_ffmpeg_counts(line: str, start: str | None, duration: str | None) -> None:
    expected = ["--start", start] if start else []
    expected += ["--duration", duration] if duration else []
    assert _translated(line) == [*expected, "--", "a", "b"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-i a -vf scale=1280:720 b", "--size"),
        ("-i a -filter_complex [0]split b", "ffmpeg before or after"),
        ("-i a -c copy b", "-c:v"),
        ("-i a -c:v copy b", "anew"),
        ("-i a -c libx264 b", "-c:v libx264"),
        ("-c:v h264 -i a b", "after -i"),
        ("-crf 20 -i a b", "before -i"),
        ("-i a -r 25 b", "keeps every frame"),
        ("-i a -c:a mp3 b", "aac"),
        ("-i a -c:s mov_text b", "subtitles"),
        ("-i a -i b c", "--output-dir"),
        ("-i a b c", "one output"),
        ("-i a -shortest b", "-t"),
        ("-i a -metadata:s:a:0 language=eng b", "-c copy"),
        ("-i a -map_metadata -1 b", "afterwards"),
        ("-i a -nonsense b", "--encoder-option"),
        ("-i a -movflags frag_keyframe b", "-c copy"),
        ("-threads 4 -i a b", "after -i"),
        ("-hwaccel cuda -hwaccel_output_format cuda -i a b", "leave it out"),
        ("-i a -color_primaries bt709 b", "colour"),
        ("-i a -tag:v avc3 b", "-c copy"),
        ("-i a -ss 3 -to 2 b", "before -ss 3"),
        ("-ss 3 -t 1 -i a -ss 2 b", "nothing lies between"),
        ("-ss soon -i a b", "soon"),
        ("a b -crf", "needs a value"),
        ("-i", "needs a value"),
        ("in out -vn", "video"),
    ],
)
def test_what_is_not_the_same_is_refused_with_a_way_out(line: str, words: str) -> None:
    with pytest.raises(OptionError, match=r"^-|^b c") as refused:
        _translated(line)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", Fraction(25, 2)),
        ("1:02", 62),
        ("01:00:00.5", Fraction(7201, 2)),
        ("200ms", Fraction(1, 5)),
        ("20us", Fraction(1, 50_000)),
        ("3s", 3),
        ("1/3", Fraction(1, 3)),
        ("-1", -1),
    ],
)
def test_times_are_those_of_ffmpeg(text: str, seconds: Fraction) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "1:", "1/0", "5m"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        parse_seconds(text)
