"""Make the table of all shipped networks: PSNR, perceptual distance and sharpness.

    python benchmarks/models.py [--models NAME]... [--lpips FILE] [--fresh] [--table]

Measures bicubic upscaling first, which must give its published figures, then every shipped model, and writes
benchmarks/models.json and the table in docs/models.md. A model whose weights were measured before is not measured
again. All figures are of finished 8 bit images, on the protocols of vsr/quality/protocols.py. --table: the table alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: several times faster on a machine that is shared

import click
import torch
from machine import describe_run

from vsr.bench.published import PUBLISHED, Published
from vsr.models.cards import ModelCard, shipped_cards
from vsr.pipeline.loading import load_model
from vsr.quality.data_folder import data_folder
from vsr.quality.lpips import LPIPS, load_lpips
from vsr.quality.protocols import (
    Measure,
    StillsBenchmark,
    Upscale,
    UpscaleFrames,
    check_vid4_gate,
    luma_detail,
    luma_psnr_db,
    upscale_bicubic,
    upscale_each,
    upscale_frames_with,
    upscale_with,
    vid4_psnr,
)

HERE = Path(__file__).parent
SETS = ("Set5", "Set14", "BSD100")
LOOKED_AT = ("Set14", "BSD100")  # the sets of LPIPS and detail; the five images of Set5 are too few
PROTOCOL = 1  # to be raised when the measuring changes, so that nothing old is reused
CARD_TOLERANCE_DB = 0.01  # what the precision of one CPU may differ from that of another

Result = dict[str, Any]


HEADER = (
    "model", "scale", "parameters", "Set5", "Set14", "BSD100", "Vid4 BI",
    "LPIPS Set14", "LPIPS BSD100", "detail Set14", "detail BSD100",
)  # fmt: skip
PAGE = HERE.parent / "docs" / "models.md"
MARKS = ("<!-- models table: python benchmarks/models.py -->", "<!-- end of models table -->")
FOOTNOTES = """\
Set5 to Vid4 BI: luma PSNR in dB, higher is better, by the protocols below.

LPIPS: v0.1 on SqueezeNet, lower is better, mean over the set. Its trunk is not the reference implementation's, so
that values compare these models with one another and with nothing else. A model that was trained on features of
this very trunk (its card says so) must not be judged by it alone.

Detail: energy of the luma at spatial frequencies above half of Nyquist over that of the truth, mean over the set. 1 is
the sharpness of the truth, less is blur, more is noise or ringing; it does not say that the detail is the right one.

† Published figures of the paper's own network and training data, not measured here, for comparison."""


class Measuring:
    """Hold the images, the measures and earlier results."""

    def __init__(self, data: Path, lpips: Path | None, before: Mapping[str, Result], fresh: bool) -> None:
        self.data, self.before, self.fresh = data, before, fresh
        self.lpips_sha256 = _sha256(lpips) if lpips else ""
        self.measures: dict[str, Measure] = {"psnr_db": luma_psnr_db, "detail": luma_detail}
        if lpips:
            self.measures["lpips"] = _lpips_measure(load_lpips(lpips))

    def bicubic(self, scale: int) -> Result:
        """Measure bicubic upscaling. Raises OptionError where it does not give the published figures."""
        click.echo(f"bicubic ×{scale}: {StillsBenchmark(self.data, scale, SETS).bicubic_gate()}")
        result = self.known(f"bicubic-x{scale}", "")
        if result is None or self.fresh:
            upscale = upscale_bicubic(scale)
            result = self._measured((scale, 0, ""), upscale, upscale_each(upscale))
        check_vid4_gate(result["vid4_bi_psnr_db"], scale)
        return result

    def model(self, card: ModelCard) -> Result:
        """Measure a shipped model on the CPU, in the precision that "auto" takes there, as users get it."""
        result = self.known(card.name, card.sha256)
        if result is None or self.fresh:
            upscaler = load_model(card.name, device="cpu")
            stills = None if card.recurrent else upscale_with(upscaler)
            result = self._measured(
                (card.scale, card.num_parameters, card.sha256), stills, upscale_frames_with(upscaler)
            )
            click.echo(f"{card.name}: {result['psnr_db']} in {result['seconds']} s")
        return result

    def known(self, key: str, sha256: str) -> Result | None:
        """Return an earlier result, if it is of the same weights and measures."""
        result = self.before.get(key)
        if result is None or result["protocol"] != PROTOCOL or result["weights_sha256"] != sha256:
            return None
        return result if self.lpips_sha256 in ("", result["lpips_sha256"]) else None

    def _measured(self, facts: tuple[int, int, str], upscale: Upscale | None, upscale_frames: UpscaleFrames) -> Result:
        """Measure on stills, unless the model sees several frames, and on Vid4. facts: scale, parameters, checksum."""
        start = time.monotonic()
        scale, parameters, sha256 = facts
        figures: dict[str, dict[str, float]] = {name: {} for name in self.measures}
        stills = StillsBenchmark(self.data, scale, SETS)
        for name in SETS if upscale else ():
            assert upscale is not None
            measures = self.measures if name in LOOKED_AT else {"psnr_db": luma_psnr_db}
            for measure, mean in stills.measure(name, upscale, measures).items():
                figures[measure][name] = round(mean, 4)
        clips = vid4_psnr(self.data / "Vid4", scale, upscale_frames)
        figures["psnr_db"]["Vid4 BI"] = round(fmean(clips.values()), 4)
        return {
            "scale": scale,
            "parameters": parameters,
            "weights_sha256": sha256,
            **figures,
            "vid4_bi_psnr_db": {clip: round(mean, 4) for clip, mean in clips.items()},
            "lpips_sha256": self.lpips_sha256,
            "protocol": PROTOCOL,
            "seconds": round(time.monotonic() - start),
        }


def check_card(card: ModelCard, result: Result) -> None:
    """Raise ClickException where a card's figures are not those measured."""
    for name, figure in card.figures.items():
        measured = result["psnr_db"].get(name, figure)
        if abs(measured - figure) > CARD_TOLERANCE_DB:
            raise click.ClickException(f"{card.name}: {name} is {measured} dB, its card says {figure}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lpips_measure(lpips: LPIPS) -> Measure:
    @torch.inference_mode()
    def measure(image: torch.Tensor, truth: torch.Tensor) -> float:
        return float(lpips(image / 255, truth / 255))

    return measure


# -- the table -------------------------------------------------------------------------------------------------


def table(results: Mapping[str, Result]) -> str:
    """Format Markdown: by scale, bicubic, this project's models from light to heavy, the published ones."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    for scale in sorted({result["scale"] for result in results.values()}, reverse=True):
        rows = [item for item in results.items() if item[1]["scale"] == scale]
        lines += [_row(name, result) for name, result in sorted(rows, key=lambda item: item[1]["parameters"])]
        lines += [_published_row(published) for published in _of_stills() if published.scale == scale]
    sources = dict.fromkeys(f"{p.name}: {p.source}" for p in _of_stills())
    return "\n".join([*lines, "", f"{FOOTNOTES} {'; '.join(sources)}.", ""])


def _row(name: str, result: Result) -> str:
    label = f"`{name}`" if result["weights_sha256"] else "bicubic"
    psnr = [_figure(result, "psnr_db", name, 2) for name in (*SETS, "Vid4 BI")]
    lpips = [_figure(result, "lpips", name, 3) for name in LOOKED_AT]
    detail = [_figure(result, "detail", name, 2) for name in LOOKED_AT]
    return _line(label, result["scale"], result["parameters"], [*psnr, *lpips, *detail])


def _figure(result: Result, measure: str, dataset: str, digits: int) -> str:
    value = result.get(measure, {}).get(dataset)
    return "–" if value is None else f"{value:.{digits}f}"


def _of_stills() -> list[Published]:
    return [published for published in PUBLISHED if published.psnr_db.keys() >= set(SETS)]


def _published_row(published: Published) -> str:
    psnr = [f"*{published.psnr_db[name]:.2f}*" for name in SETS]
    return _line(f"*{published.name}* †", published.scale, published.parameters, psnr)


def _line(label: str, scale: int, parameters: int, figures: list[str]) -> str:
    cells = [label, f"×{scale}", _count(parameters), *figures]
    return f"| {' | '.join(cells + ['–'] * (len(HEADER) - len(cells)))} |"


def _count(parameters: int) -> str:
    if parameters == 0:
        return "–"
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e6 else f"{round(parameters / 1e3)} k"


def _save(results: Mapping[str, Result]) -> None:
    ordered = dict(sorted(results.items(), key=lambda item: (-item[1]["scale"], item[1]["parameters"])))
    content = {"benchmark": "models", **describe_run(), "results": ordered}
    (HERE / "models.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    write_page(results)


def write_page(results: Mapping[str, Result]) -> None:
    """Put the table between its two marks in docs/models.md."""
    before, _, rest = PAGE.read_text("utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{table(results)}\n{MARKS[1]}{after}", "utf-8")


@click.command()
@click.option("--models", multiple=True, type=click.Choice(list(shipped_cards())), help="Measure these alone.")
@click.option("--lpips", type=click.Path(path_type=Path, exists=True), help="Weights of LPIPS, if not $VSR_DATA's.")
@click.option("--fresh", is_flag=True, help="Measure again what was measured before.")
@click.option("--table", "is_table_only", is_flag=True, help="Write the table from what was measured before.")
def main(models: tuple[str, ...], lpips: Path | None, fresh: bool, is_table_only: bool) -> None:
    """Measure the shipped models, and write benchmarks/models.json and the table in docs/models.md."""
    if is_table_only:
        write_page(json.loads((HERE / "models.json").read_text("utf-8"))["results"])
        return
    lpips_file = data_folder() / "peers" / "squeezenet1_1_lpips.safetensors"
    if lpips is None and lpips_file.is_file():
        lpips = lpips_file
    path = HERE / "models.json"
    before: dict[str, Result] = json.loads(path.read_text("utf-8"))["results"] if path.is_file() else {}
    cards = shipped_cards()
    measuring = Measuring(data_folder() / "test", lpips, before, fresh)
    # What is not asked for stays in the table as long as it still holds.
    keys = {f"bicubic-x{card.scale}": "" for card in cards.values()} | {c.name: c.sha256 for c in cards.values()}
    results = {key: result for key, sha256 in keys.items() if (result := measuring.known(key, sha256))}
    for scale in sorted({cards[name].scale for name in models or cards}, reverse=True):
        results[f"bicubic-x{scale}"] = measuring.bicubic(scale)
        _save(results)  # what is measured is kept, whatever comes after it
    for name in models or cards:
        results[name] = measuring.model(cards[name])
        _save(results)
    for name in sorted(cards.keys() - results.keys()):
        click.echo(f"{name} is not in the table: it was not asked for")
    click.echo(table(results))
    for name in models or cards:
        check_card(cards[name], results[name])


if __name__ == "__main__":
    main()
