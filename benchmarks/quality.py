"""Run `vsr benchmark` for all shipped networks on all sets: the results in benchmarks/quality, and the Vid4 table.

    python benchmarks/quality.py [--only vid4]... [--table]

Runs Set5, Set14 and BSD100 at x4 and x2, Vid4 at x4 (BI and BD) and at x2, beside OpenCV's networks where their weights
lie in $VSR_DATA/peers, each into a folder of its own with its plots, strips, CSV, JSON and page; then writes the table
between the marks in docs/benchmarks.md from Vid4's results. Networks with memory have runs of their own, vid4-video and
vid4-bd-video. About an hour and a half on two cores. --table: just the table.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from vsr.models.cards import shipped_cards
from vsr.quality.data_folder import data_folder

HERE = Path(__file__).parent
QUALITY = HERE / "quality"
PEERS = {4: ("ESPCN_x4.pb", "FSRCNN_x4.pb", "LapSRN_x4.pb"), 2: ("FSRCNN_x2.pb",)}
BESIDE = "fast"  # the still network that networks with memory are plotted beside
LPIPS = "squeezenet1_1_lpips.safetensors"
RUNS: dict[str, tuple[str, int, str]] = {  # folder: set, scale, degradation of clips
    "set5": ("set5", 4, "bi"),
    "set5-x2": ("set5", 2, "bi"),
    "set14": ("set14", 4, "bi"),
    "set14-x2": ("set14", 2, "bi"),
    "bsd100": ("bsd100", 4, "bi"),
    "bsd100-x2": ("bsd100", 2, "bi"),
    "vid4": ("vid4", 4, "bi"),
    "vid4-x2": ("vid4", 2, "bi"),
    "vid4-bd": ("vid4", 4, "bd"),
    "vid4-video": ("vid4", 4, "bi"),
    "vid4-bd-video": ("vid4", 4, "bd"),
}
PAGE = HERE.parent / "docs" / "benchmarks.md"
MARKS = ("<!-- Vid4 table: python benchmarks/quality.py -->", "<!-- end of Vid4 table -->")
HEADER = ("Vid4 ×4", "PSNR", "SSIM", "LPIPS ↓", "tOF ↓", "PSNR of change", "BD PSNR", "BD SSIM")
FIGURES = (("luma_psnr_db", 2), ("ssim", 4), ("lpips", 3), ("tof_pixels", 3), ("difference_psnr_db", 2))


def run(folder: str) -> None:
    """Run `vsr benchmark`, and name the data folder in its results by its variable."""
    dataset, scale, degradation = RUNS[folder]
    command = [sys.executable, "-m", "vsr.cli", "benchmark", dataset, "--degradation", degradation, "--overwrite"]
    is_of_video = folder.endswith("-video")
    for card in shipped_cards().values():
        command += ["--model", card.name] if card.scale == scale and card.recurrent == is_of_video else []
    command += ["--model", BESIDE] if is_of_video else []
    peers = data_folder() / "peers"
    for name in () if is_of_video else PEERS[scale]:
        command += ["--opencv", str(peers / name)] if (peers / name).is_file() else []
    lpips = peers / LPIPS
    command += ["--lpips", str(lpips)] if lpips.is_file() else []
    subprocess.run([*command, "--out", str(QUALITY / folder)], check=True)
    name_paths(QUALITY / folder)


def name_paths(folder: Path) -> None:
    """Replace this machine's paths in a result by $VSR_DATA and benchmarks/."""
    names = ((str(data_folder()), "$VSR_DATA"), (str(QUALITY), "benchmarks/quality"), ("cli.py ", "vsr "))
    for path in (folder / "results.json", folder / "index.html"):
        text = path.read_text("utf-8")
        for here, name in names:
            text = text.replace(here, name)
        path.write_text(text, "utf-8")


def table(bi: Mapping[str, Any], bd: Mapping[str, Any]) -> list[str]:
    """Format Markdown, a row for every model of `bi`, and for the papers' figures."""
    rows = [
        (f"`{name}`" if name in shipped_cards() else name.removesuffix("_x4"), overall, bd["overall"].get(name, {}))
        for name, overall in bi["overall"].items()
    ]
    papers = {paper["name"]: paper for results in (bi, bd) for paper in results["published"]}
    rows += [
        (f"*{name}* †", _of_paper(paper, "Vid4 BI"), _of_paper(paper, "Vid4 BD")) for name, paper in papers.items()
    ]
    return [
        f"| {' | '.join(HEADER)} |",
        "|" + "---|" * len(HEADER),
        *(
            f"| {name} | {' | '.join([*_cells(first, FIGURES), *_cells(second, FIGURES[:2])])} |"
            for name, first, second in rows
        ),
    ]


def _of_paper(paper: Mapping[str, Any], dataset: str) -> dict[str, float]:
    figures = {"luma_psnr_db": paper["psnr_db"].get(dataset), "ssim": paper["ssim"].get(dataset)}
    return {name: value for name, value in figures.items() if value is not None}


def _cells(overall: Mapping[str, float], figures: tuple[tuple[str, int], ...]) -> list[str]:
    values = [(overall.get(name), digits) for name, digits in figures]
    return ["–" if value is None else f"{value:.{digits}f}" for value, digits in values]


def write_page() -> None:
    """Put the table between its two marks; a missing figure is a dash in it."""
    bi, bd = (_results(name) for name in ("vid4", "vid4-bd"))
    before, _, rest = PAGE.read_text("utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    PAGE.write_text(before + "\n".join([MARKS[0], "", *table(bi, bd), "", MARKS[1]]) + after, "utf-8")


def _results(folder: str) -> dict[str, Any]:
    """Read the figures of a run and of that of the networks with memory."""
    together: dict[str, Any] = {"overall": {}, "published": []}
    for name in (f"{folder}-video", folder):  # of what both have measured the figures of the larger run stay
        path = QUALITY / name / "results.json"
        if path.is_file():
            results = json.loads(path.read_text("utf-8"))
            together["overall"] = {**results["overall"], **together["overall"]} | results["overall"]
            together["published"] = results["published"]
    return together


@click.command()
@click.option("--only", "wanted", multiple=True, type=click.Choice(list(RUNS)), help="Of the sets; may be repeated.")
@click.option("--table", "is_table_only", is_flag=True, help="Write the table from what was measured before.")
def main(wanted: tuple[str, ...], is_table_only: bool) -> None:
    QUALITY.mkdir(exist_ok=True)
    for folder in () if is_table_only else wanted or RUNS:
        run(folder)
    write_page()


if __name__ == "__main__":
    main()
