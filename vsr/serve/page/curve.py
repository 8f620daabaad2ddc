"""Draw a curve as SVG in the colours of the page, which a screen reader can name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

__all__ = ["curve"]

_WIDTH, _HEIGHT = 640, 240  # of the drawing, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 40  # around the plane
_MOST_POINTS = 2000
_LARGEST_DB = 100.0  # stands for equal frames, whose PSNR is infinite


def curve(points: Sequence[tuple[float, float]], title: str, axes: tuple[str, str]) -> str:
    """Draw a curve, with its mean, least and greatest value in words.

    Args:
        points: (x, y) in the order of x; infinite y are drawn as 100.
        title: Above the drawing.
        axes: Names of the x and the y axis.
    """
    if not points:
        return ""
    finite = [(x, min(y, _LARGEST_DB)) for x, y in points]
    values = [y for _, y in finite]
    mean = math.fsum(values) / len(values)
    words = f"mean {mean:.2f}, least {min(values):.2f}, greatest {max(values):.2f} {axes[1]} over {len(values)} frames"
    body = _plane(finite[:: max(1, len(finite) // _MOST_POINTS)], axes)
    caption = f"<figcaption><b>{escape(title)}</b>: {escape(words)}</figcaption>"
    drawing = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{title}: {words}")}">{body}</svg>'
    )
    return f'<figure class="vsr-curve">{caption}{drawing}</figure>'


def _plane(points: Sequence[tuple[float, float]], axes: tuple[str, str]) -> str:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))
    x_range, y_range = (min(xs), max(max(xs), min(xs) + 1e-9)), (y_ticks[0], y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / (x_range[1] - x_range[0])
        up = (y - y_range[0]) / (y_range[1] - y_range[0])
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in y_ticks:
        height = place(x_range[0], tick)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        if x_range[0] <= tick <= x_range[1]:
            across = place(tick, y_range[0])[0]
            parts.append(f'<text x="{across:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    parts.append(f'<polyline points="{line}"/>')
    if len(points) == 1:
        x, y = place(*points[0])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">{escape(axes[0])}</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="{_HEIGHT - 6}" text-anchor="end">{escape(axes[1])}</text>')
    return "".join(parts)


def _ticks(least: float, greatest: float) -> list[float]:
    """Choose round numbers, some five, from at most the least to at least the greatest value."""
    span = max(greatest - least, 1e-3)
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    first = math.floor(least / step)
    last = max(math.ceil(greatest / step), first + 1)
    return [round(number * step, 6) for number in range(first, last + 1)]
