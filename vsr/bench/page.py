"""Write a report as one HTML page with tables, plots and strips inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

from vsr.bench.meter import METRICS, Metric
from vsr.bench.results import Means, Report, clip_means, overall_means

__all__ = ["Images", "page"]

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --card: #f5f6f8; --ink: #1d2025; --soft: #656b76; --line: #dfe2e7;
  --best: #0b6b3a; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181d; --card: #1f2229; --ink: #e4e6ea; --soft: #9aa1ad;
  --line: #343944; --best: #6fd3a0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 66rem; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; margin: 0 0 .25rem; letter-spacing: -.02em; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; }
p.lead, .note, footer { color: var(--soft); }
.note, footer { font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .925rem; }
th, td { padding: .4rem .75rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; color: var(--soft); font-size: .825rem; }
td.best { font-weight: 650; color: var(--best); }
tr.published td { font-style: italic; color: var(--soft); }
figure { margin: 1.25rem 0; }
figure img { max-width: 100%; height: auto; border-radius: 6px; display: block; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { background: var(--card); border-radius: 4px; padding: .1em .35em; font-size: .9em; }
"""


@dataclass(frozen=True, slots=True)
class Images:
    """Hold the PNG files of a clip: its plot on a light and on a dark ground, and its strips."""

    plot: bytes
    dark_plot: bytes
    strips: tuple[bytes, ...]


def page(report: Report, images: Mapping[str, Images]) -> str:
    """Write the HTML of a report, its images inside."""
    by_clip = clip_means(report.rows)
    title = escape(report.title)
    parts = [
        f"<h1>{title}</h1><p class=lead>{escape(_lead(report))}</p>",
        _table(report, overall_means(report.rows), with_published=True),
        _pooled(report),
        _published_note(report),
    ]
    for clip in report.clips:
        if len(report.clips) > 1:
            parts += [f"<h2>{escape(clip)}</h2>", _table(report, by_clip[clip], with_published=False)]
        parts.append(_figures(report, clip, images[clip]))
    parts += [_measures(report), _models(report), _provenance(report)]
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{title} · vsr benchmark</title><style>{_STYLE}</style><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _lead(report: Report) -> str:
    num_frames = len({(row.clip, row.index) for row in report.rows})
    frames = "frames" if report.is_moving else "images"
    of = f" of {len(report.clips)} clips, the mean of the clips' means" if len(report.clips) > 1 else ""
    return f"{num_frames} {frames}{of}. " + " · ".join(
        f"{key.replace('_', ' ')}: {value}" for key, value in report.protocol.items()
    )


# -- tables ----------------------------------------------------------------------------------------------------


def _table(report: Report, means: Means, *, with_published: bool) -> str:
    shown = [metric for metric in METRICS if any(metric.key in found for found in means.values())]
    rows = [_row(escape(model), found, shown, _best(means, shown)) for model, found in means.items()]
    if with_published:
        for paper in report.published:
            known = {"luma_psnr_db": paper.psnr_db, "ssim": paper.ssim}
            values = {key: each[report.published_set] for key, each in known.items() if report.published_set in each}
            rows.append(_row(f"{escape(paper.name)} †", values, shown, {}, " class=published"))
    arrows = {"higher": "↑", "lower": "↓"}
    head = "".join(f'<th title="{escape(m.meaning)}">{escape(m.label)} {arrows[m.better]}</th>' for m in shown)
    return f"<div class=wide><table><tr><th>model</th>{head}</tr>{''.join(rows)}</table></div>"


def _row(
    label: str, values: Mapping[str, float], shown: list[Metric], best: Mapping[str, float], mark: str = ""
) -> str:
    cells = []
    for metric in shown:
        if metric.key not in values:
            cells.append("<td>–</td>")
            continue
        value = values[metric.key]
        kind = " class=best" if metric.key in best and value == best[metric.key] else ""
        cells.append(f"<td{kind}>{value:.{metric.digits}f}</td>")
    return f"<tr{mark}><td>{label}</td>{''.join(cells)}</tr>"


def _best(means: Means, shown: list[Metric]) -> dict[str, float]:
    """Find the best value of each measure, where there is something to compare."""
    choose: dict[str, Callable[[list[float]], float]] = {"higher": max, "lower": min}
    if len(means) < 2:
        return {}
    values = {m: [found[m.key] for found in means.values() if m.key in found] for m in shown}
    return {metric.key: choose[metric.better](each) for metric, each in values.items()}


def _pooled(report: Report) -> str:
    note = "<p class=note>PSNR of the mean squared error over all frames, as ffmpeg's filter gives it: {:.2f} dB.</p>"
    return "".join(note.format(value) for value in report.pooled_psnr_db.values())


def _published_note(report: Report) -> str:
    if not report.published:
        return ""
    sources: dict[str, list[str]] = {}
    for paper in report.published:
        sources.setdefault(paper.source, []).append(paper.name)
    listed = "; ".join(f"{', '.join(names)}: {source}" for source, names in sources.items())
    return f"<p class=note>† Published, not measured here: the paper's own network and training. {escape(listed)}.</p>"


# -- images --------------------------------------------------------------------------------------------------


def _figures(report: Report, clip: str, images: Images) -> str:
    parts = [
        "<figure><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data_uri(images.dark_plot)}">'
        f'<img alt="Luma PSNR of every frame of {escape(clip)}" src="{_data_uri(images.plot)}"></picture></figure>'
    ]
    shown = [strip for strip in report.strips if strip.clip == clip]
    for strip, data in zip(shown, images.strips, strict=True):
        labels = ", ".join(label for label, _ in strip.columns)
        parts.append(
            f'<figure><img alt="{escape(labels)}" src="{_data_uri(data)}">'
            f"<figcaption>A crop of {escape(strip.frame)}, enlarged threefold; the figures are of the whole."
            "</figcaption></figure>"
        )
    return "".join(parts)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


# -- what it was measured with -----------------------------------------------------------------------------------


def _measures(report: Report) -> str:
    used = {key for row in report.rows for key in row.values}
    terms = "".join(f"<dt>{escape(m.label)}</dt><dd>{escape(m.meaning)}</dd>" for m in METRICS if m.key in used)
    return f"<h2>Measures</h2><dl class=note>{terms}</dl>"


def _models(report: Report) -> str:
    terms = []
    for name, facts in report.models.items():
        known = [f"{key}: {value}" for key, value in facts.items() if value not in (None, "") and key != "kind"]
        terms.append(f"<dt>{escape(name)}</dt><dd>{escape(' · '.join(known))}</dd>")
    return f"<h2>Models</h2><dl class=note>{''.join(terms)}</dl>"


def _provenance(report: Report) -> str:
    facts = dict(report.provenance)
    gates = ", ".join(f"{name} {gate:.2f}" for name, gate in report.gates_db.items())
    facts["bicubic agrees with"] = f"{gates} dB" if gates else "nothing on record"
    terms = []
    for key, value in facts.items():
        text = ", ".join(f"{name} {each}" for name, each in value.items() if each) if isinstance(value, dict) else value
        shown = f"<code>{escape(str(text))}</code>" if key == "command" else escape(str(text))
        terms.append(f"<dt>{escape(key)}</dt><dd>{shown}</dd>")
    return f"<footer><h2>Run</h2><dl>{''.join(terms)}</dl></footer>"
