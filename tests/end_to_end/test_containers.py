"""One rich recording into every container: what each cannot hold is transcoded or named, and refused under --strict.

What lands is read by ffprobe.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import hard_clips as clips
import pytest
from ffprobe_reading import Probe, needs_ffprobe, probe

import vsr
from vsr.errors import StrictError

pytestmark = needs_ffprobe

SOUNDS = (("aac", "eng"), ("ac3", "deu"), ("pcm_s16le", "fra"), ("flac", "jpn"))
TEXTS = (("subrip", "eng"), ("ass", "deu"))


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264 with B-frames, four kinds of sound, two of subtitles, chapters, a font, a cover and metadata."""
    folder = tmp_path_factory.mktemp("rich")
    srt, ass, chapters, font = (folder / name for name in ("text.srt", "text.ass", "chapters.txt", "letters.ttf"))
    srt.write_text("1\n00:00:00,100 --> 00:00:00,400\nOne\n\n2\n00:00:00,500 --> 00:00:00,700\n<i>Two</i>\n")
    clips.make(ass, "-i", srt)
    chapters.write_text(
        ";FFMETADATA1\ntitle=A film\ncomment=kept\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=300\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=300\nEND=800\ntitle=Two\n"
    )
    font.write_bytes(clips.FONT)
    cover = clips.make(folder / "cover.png", *clips.pattern(size="48x48", frames=1), "-frames:v", "1")
    arguments = [*clips.pattern(), *clips.tone()]
    arguments += ["-i", srt, "-i", ass, "-i", chapters]
    arguments += ["-map", "0"] + ["-map", "1"] * len(SOUNDS) + ["-map", "2", "-map", "3", "-map_metadata", "4"]
    arguments += [*clips.X264, "-bf", "2"]
    for place, (codec, language) in enumerate(SOUNDS):
        arguments += [f"-c:a:{place}", codec, f"-metadata:s:a:{place}", f"language={language}"]
    for place, (codec, language) in enumerate(TEXTS):
        arguments += [f"-c:s:{place}", codec, f"-metadata:s:s:{place}", f"language={language}"]
    for number, (file, kind) in enumerate(((font, "application/x-truetype-font"), (cover, "image/png"))):
        arguments += ["-attach", file, f"-metadata:s:t:{number}", f"mimetype={kind}"]
    return clips.make(folder / "rich.mkv", *arguments)
