"""Progress, notes, the log file, and what is printed as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from vsr.cli.main import cli
from vsr.cli.progress import ProgressPrinter, _bar
from vsr.errors import InputError, OutputError
from vsr.events import Note, NoteCode, Progress
from vsr.files import check_target
from vsr.jobs.batch import name_outputs
from vsr.models.cards import shipped_cards


@pytest.mark.parametrize("width", [30, 40, 59, 79, 200])
@pytest.mark.parametrize("expected", [None, 120, 123456])
def test_the_progress_line_fits_the_terminal(width: int, expected: int | None) -> None:
    line = _bar(Progress(4, expected, 0.6), width)
    assert len(line) <= width and line.count("\n") == 0
    assert ("4 of" in line) == (expected is not None)


def test_the_progress_line_reads_well() -> None:
    assert _bar(Progress(4, 120, 0.625), 79).endswith("   3%  4 of 120 frames  6.4 fps  0:18 left")
    assert _bar(Progress(1, None, 1.0), 79) == "1 frame  1.0 fps"
    assert _bar(Progress(1, 36001, 1.0), 79).endswith("10:00:00 left")


def test_of_several_files_a_model_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    printer = ProgressPrinter("bar", quiet=False)
    for model, size in (("fast", "640x360"), ("fast", "320x240"), ("nano", "1920x1080")):
        printer.note(Note(NoteCode.MODEL, f"model {model} (auto: video of {size})"))
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["fast", "nano"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "in.png"), np.full((8, 10, 3), 90, np.uint8))
    return tmp_path / "in.png"


def test_a_log_holds_command_versions_notes_and_errors(image: Path, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    arguments = ["enhance", str(image), str(tmp_path / "out.png"), "--model", "nano", "--quiet", "--log", str(log)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    text = log.read_text("utf-8")
    assert "begun: " in text and "vsr 0." in text and "torch 2" in text and "model nano" in text
    assert "out.png: 1 frame at 40x32" in text
    assert CliRunner().invoke(cli, arguments).exit_code != 0  # the output exists
    text = log.read_text("utf-8").removeprefix(text)
    assert "ended by OutputError" in text and "in check_target" in text


def test_a_log_that_cannot_be_written_is_said_first(image: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["enhance", str(image), str(tmp_path / "o.png"), "--log", str(tmp_path / "no" / "l")]
    )
    assert isinstance(done.exception, OutputError) and "the log cannot be written" in str(done.exception)


@pytest.mark.parametrize("level", [["--verbose"], ["-loglevel", "debug"], ["-v", "verbose"], ["-v"]])
def test_verbose_names_versions_and_the_input(image: Path, tmp_path: Path, level: list[str]) -> None:
    done = CliRunner().invoke(cli, ["enhance", *level, str(image), str(tmp_path / "o.png"), "--model", "nano"])
    assert done.exit_code == 0 and "torch 2" in done.stderr and "10x8, 3 channels" in done.stderr


def test_a_missing_file_and_a_wrong_number_are_said_without_loading_torch(image: Path) -> None:
    code = (
        "import sys\nfrom vsr.cli.main import cli\n"
        "try:\n    cli.main(sys.argv[1:], standalone_mode=False)\n"
        "except Exception as error:\n    print(error, 'torch' in sys.modules)\n"
    )
    gone = "gone.mp4: no such file"
    for command, text in (
        (["enhance", "gone.mp4", "out.mp4"], gone),
        (["info", "gone.mp4"], gone),
        (["enhance", str(image), "out.png", "--restore", "2"], "--restore 2: must lie between 0 and 1"),
    ):
        done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"{text} False"


def test_models_and_files_as_json(image: Path) -> None:
    cards = json.loads(CliRunner().invoke(cli, ["models", "--json"]).stdout)
    assert {card["name"] for card in cards} == set(shipped_cards())
    facts = json.loads(CliRunner().invoke(cli, ["info", str(image), "--json"]).stdout)
    assert (facts["kind"], facts["width"], facts["height"], facts["channels"]) == ("image", 10, 8, 3)
    facts = json.loads(CliRunner().invoke(cli, ["info", "fast", "--json"]).stdout)
    assert (facts["kind"], facts["scale"], facts["color"]) == ("model", 4, "y")


def test_info_describes_models(data_folder: Path) -> None:
    path = data_folder / "faults" / "models" / "srcnn_best.pth"
    text = CliRunner().invoke(cli, ["info", str(path)]).stdout
    assert "model srcnn_best, ×4, luma" in text and "×4 assumed" in text and "yjn870" in text


def test_folders_inside_folders(tmp_path: Path) -> None:
    for name in ("a/one.png", "a/b/two.png", "a/.hidden/three.png", "a/out/four.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    source, out = tmp_path / "a", tmp_path / "a" / "out"
    assert [path.name for path, _ in name_outputs([source], out)] == ["one.png"]
    named = name_outputs([source], out, recursive=True)
    assert [output.relative_to(out).as_posix() for _, output in named] == ["b/two.png", "one.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="`recursive=True`"):
        name_outputs([tmp_path / "empty"], out)


def test_a_name_without_room_for_a_partial_file_is_refused(tmp_path: Path) -> None:
    check_target(tmp_path / ("x" * 200 + ".mp4"), overwrite=False)
    for name in ("x" * 240 + ".mp4", "ä" * 120 + ".mp4", "x" * 300):
        with pytest.raises(OutputError, match="the name is too long"):
            check_target(tmp_path / name, overwrite=False)


@pytest.mark.parametrize(("shell", "mark"), [("bash", ","), ("zsh", "\n"), ("fish", ",")])
@pytest.mark.parametrize(("typed", "kind", "found"), [("video-f", "plain", "video-fast"), ("./mi", "file", "./mi")])
def test_shells_complete_names_of_models_and_files(
    shell: str, mark: str, typed: str, kind: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_WORDS", f"vsr enhance --model {typed}")
    monkeypatch.setenv("COMP_CWORD", typed if shell == "fish" else "3")
    done = CliRunner().invoke(cli, prog_name="vsr", env={"_VSR_COMPLETE": f"{shell}_complete"})
    assert f"{kind}{mark}{found}" in done.stdout and "nano" not in done.stdout


def test_a_folder_as_a_rate_names_the_option_for_folders_in_folders(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["enhance", "-r", str(tmp_path), "--output-dir", "out"])
    assert done.exit_code == 2 and "--recursive takes the folders inside a folder" in done.stderr
