"""Draw the sample clip: a desk with two tumbling dice, a watch and a sliding card, 320x180 and 4 s.

The scene is rendered at 1280x720 (the ground truth) and reduced by 4 with the antialiased bicubic of
`vsr.color.resample`, so that upscaling the clip by 4 can be compared with the truth. Nothing is read
from disk: images and sound are computed here, and come out the same every time.

World units are centimetres: x to the right, y away from the viewer, z up, the desk at z = 0. Colours
are BGR in 0..255, OpenCV's order. Textures are uint8, and lie in the world by a 3x3 `placement`.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from vsr.color.resample import imresize, resample
from vsr.frames import ChromaLocation, Matrix, Primaries, Range, Transfer

Array = NDArray[Any]
Image = NDArray[Any]  # of uint8
Bgr = tuple[float, float, float]

FPS = 30
NUM_FRAMES = 120
DURATION = NUM_FRAMES / FPS  # seconds
TRUTH_SIZE = (1280, 720)  # width, height
SCALE = 4
SUPERSAMPLE = 2
SAMPLE_RATE = 48000

DESK_SIZE = (40.0, 32.0)  # cm, x and y
DESK_CENTER = (0.0, 4.0)
DESK_DENSITY = 90  # texture pixels per cm: about one per pixel of the supersampled image
ITEM_DENSITY = 120
SHADOW_DENSITY = 24
LIGHT = np.array([-0.55, 0.40, 0.73]) / np.linalg.norm([-0.55, 0.40, 0.73])
SHADOW_TINT = (0.66, 0.74, 0.78)  # BGR share of the light that a full shadow takes: its fill is cool

THREAD = 0.22  # cm per thread of the cloth: 11 pixels of the truth, not quite 3 of the clip
WATCH_CENTER, WATCH_RADIUS, WATCH_HEIGHT = (-6.3, 6.0), 3.1, 0.7
DIE_EDGE, DIE_ROUNDING = 2.7, 0.36
CHAIN_STROKES = ((0.07, 0.13, (30, 46, 64)), (0.0, 0.13, (60, 120, 168)), (-0.015, 0.05, (170, 224, 246)))
FONT = "sans"  # the one inside OpenCV 5 (Rubik): no file of the system is read


# ---------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True)
class Camera:
    """Project by a pinhole camera.

    Args:
        position: of the camera, in cm.
        rotation: from the world to the camera's axes (right, down, forward).
        focal: in pixels.
    """

    position: Array
    rotation: Array
    focal: float
    size: tuple[int, int]

    @classmethod
    def at(cls, time: float) -> Camera:
        """Place the camera `time` seconds into the clip: a slow drift, so that frames differ by subpixels."""
        phase = 0.5 - 0.5 * math.cos(math.pi * time / DURATION)
        target = np.array([-0.5 + 0.9 * phase, 1.0, 0.0])
        position = target + np.array([0.9 - 1.8 * phase, -18.5 + 0.5 * phase, 25.0 - 0.9 * phase])
        forward = (target - position) / np.linalg.norm(target - position)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        width, height = (side * SUPERSAMPLE for side in TRUTH_SIZE)
        return cls(position, rotation, 1.22 * width, (width, height))

    @property
    def center(self) -> Array:
        return (np.array(self.size) - 1) / 2

    def project(self, points: Array) -> Array:
        """Project world points (N, 3) to pixel coordinates (N, 2); pixel centres are integers."""
        local = (points - self.position) @ self.rotation.T
        pixels: Array = local[:, :2] / local[:, 2:] * self.focal + self.center
        return pixels

    def view(self, place: Array, height: float = 0.0) -> Array:
        """Make the homography to the image from a texture placed `height` cm above the desk."""
        k = np.array([[self.focal, 0, self.center[0]], [0, self.focal, self.center[1]], [0, 0, 1]])
        offset = self.rotation @ (np.array([0.0, 0.0, height]) - self.position)
        plane: Array = np.column_stack([self.rotation[:, 0], self.rotation[:, 1], offset])
        homography: Array = k @ plane @ place
        return homography


def placement(center: tuple[float, float], degrees: float, shape: tuple[int, ...], density: float) -> Array:
    """Make the 3x3 matrix from a texture's pixels to the desk: its middle at `center`, turned leftwards.

    Args:
        center: (x, y) in cm.
        degrees: the turn.
        shape: of the texture, (height, width, ...).
        density: its pixels per cm.
    """
    c, s = math.cos(math.radians(degrees)) / density, math.sin(math.radians(degrees)) / density
    middle = np.array([[1, 0, (1 - shape[1]) / 2], [0, 1, (1 - shape[0]) / 2], [0, 0, 1]])
    place: Array = np.array([[c, s, center[0]], [s, -c, center[1]], [0, 0, 1]]) @ middle
    return place


def paste(image: Image, color: Image, alpha: Image, homography: Array) -> None:
    """Blend a texture into the image, in place."""
    h, w = alpha.shape
    corners = np.array([[[0, 0], [w, 0], [w, h], [0, h]]], np.float64)
    corners = cv2.perspectiveTransform(corners, homography)[0]
    low = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(corners.max(0)).astype(int) + 2, (image.shape[1], image.shape[0]))
    if (high <= low).any():
        return
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    shifted = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]]) @ homography
    color = cv2.warpPerspective(color, shifted, size, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpPerspective(alpha, shifted, size)[..., None].astype(np.float32) / 255
    region = image[low[1] : high[1], low[0] : high[0]]
    region[:] = np.rint(region + (color - region.astype(np.float32)) * weight)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """Rise smoothly from 0 below `low` to 1 above `high` (or the reverse)."""
    x = np.clip((x - low) / (high - low), 0, 1)
    smooth: Array = x * x * (3 - 2 * x)
    return smooth


def write(
    image: Image,
    text: str,
    at: tuple[float, float],
    size: float,
    weight: int,
    color: Bgr,
    center: bool = True,
) -> None:
    """Draw text of `size` pixels. at: middle of the text where `center`, else left end of its baseline."""
    font = cv2.FontFace(FONT)
    x, y = at
    if center:
        left, top, width, height = cv2.getTextSize((0, 0), text, (0, 0), font, round(size), weight)
        x, y = x - left - width / 2, y - top - height / 2
    cv2.putText(image, text, (round(x), round(y)), color, font, round(size), weight)


# --------------------------------------------------------------------------- desk: wood and cloth


def noise(rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float]) -> Array:
    """Draw smooth noise of about unit deviation. cell: (height, width) of its features in pixels."""
    grid = rng.standard_normal([max(2, math.ceil(n / c) + 3) for n, c in zip(shape, cell, strict=True)])
    size = (round(grid.shape[1] * cell[1]), round(grid.shape[0] * cell[0]))
    big = cv2.resize(grid.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    return big[: shape[0], : shape[1]]


def wood(rng: np.random.Generator, shape: tuple[int, int]) -> Image:
    """Draw oak planks along x: growth rings, pores and joints."""
    d = DESK_DENSITY
    out = np.zeros((*shape, 3), np.float32)
    plank = round(5.6 * d)
    for top in range(0, shape[0], plank):
        rows = min(plank, shape[0] - top)
        part = (rows, shape[1])
        y = np.arange(rows, dtype=np.float32)[:, None] / d
        rings = 1.5 * y + 0.9 * noise(rng, part, (3.0 * d, 9.0 * d)) + 0.10 * noise(rng, part, (0.4 * d, 3.0 * d))
        ring = (rings % 1.0) ** 2 * smoothstep(1.0, 0.88, rings % 1.0)
        pores = smoothstep(1.1, 2.0, noise(rng, part, (0.055 * d, 1.3 * d)))
        tone = 1.0 + 0.06 * rng.standard_normal() + 0.05 * noise(rng, part, (0.15 * d, 5.0 * d))
        tone = tone - 0.30 * ring - 0.20 * pores
        edge = np.minimum(y, rows / d - y)
        tone *= 1 - 0.75 * smoothstep(0.07, 0.02, edge) + 0.12 * np.exp(-(((y - 0.11) / 0.03) ** 2))
        out[top : top + rows] = tone[..., None] * np.array([74, 118, 168], np.float32)
    return np.clip(out, 0, 255).astype(np.uint8)


def tartan(count: int) -> list[Bgr]:
    """List the colours of `count` threads of a blue tartan."""
    navy, blue, sea, cream, rust = (86, 52, 34), (140, 94, 52), (142, 128, 70), (196, 220, 232), (58, 84, 190)
    half = [(navy, 5), (blue, 6), (sea, 3), (cream, 1), (sea, 3), (blue, 2), (rust, 1), (blue, 2), (navy, 4)]
    half.append((cream, 2))
    sett = [color for color, n in half + half[-2::-1] for _ in range(n)]
    return [sett[i % len(sett)] for i in range(count)]


def cloth(rng: np.random.Generator, threads: tuple[int, int]) -> tuple[Image, Image]:
    """Weave a 2/2 twill of (across, down) threads, fringed at its left and right ends: colour, alpha."""
    across, down = threads
    step = THREAD * DESK_DENSITY
    fringe = round(1.1 * DESK_DENSITY)
    u = (np.arange(round(across * step)) / step)[None]
    v = (np.arange(round(down * step)) / step)[:, None]
    i, j = u.astype(int), v.astype(int)
    warp = np.array(tartan(across), np.float32)[i] * (1 + 0.05 * rng.standard_normal(across))[i][..., None]
    weft = np.array(tartan(down), np.float32)[j] * (1 + 0.05 * rng.standard_normal(down))[j][..., None]
    over = ((i + j) % 4 < 2)[..., None]
    # Threads are round: each is darker towards its sides, and where it dives under the next.
    side = np.where(over, (2 * (u % 1) - 1)[..., None] ** 2, (2 * (v % 1) - 1)[..., None] ** 2)
    along = np.where(over[..., 0], (v + i) % 4, (u + j + 2) % 4) / 2 % 1
    dive = ((2 * along - 1) ** 4)[..., None]
    body = np.where(over, warp, weft) * (1.18 - 0.42 * side - 0.22 * dive)
    color = np.zeros((body.shape[0], body.shape[1] + 2 * fringe, 3), np.float32)
    alpha = np.zeros(color.shape[:2], np.uint8)
    color[:, fringe:-fringe] = body
    color[:, :fringe], color[:, -fringe:] = weft[:, :1], weft[:, -1:]
    alpha[:, fringe:-fringe] = 255
    for row in range(down):
        for start, sign in ((fringe, -1), (color.shape[1] - fringe - 1, 1)):
            draw_fringe(rng, alpha, start, sign, (row + 0.5) * step, fringe)
    return np.clip(color, 0, 255).astype(np.uint8), alpha


def draw_fringe(rng: np.random.Generator, alpha: Image, start: int, sign: int, y: float, length: int) -> None:
    """Draw one loose thread from column `start` outwards, `length` pixels at most, bent a little."""
    t = np.linspace(0, 1, 8)
    bend = rng.normal(0, 0.10) * DESK_DENSITY * t**2
    x = start + sign * t * length * rng.uniform(0.72, 0.95)
    points = np.stack([x, y + bend], -1)
    cv2.polylines(alpha, [np.rint(points * 16).astype(np.int32)], False, 255, 10, cv2.LINE_AA, 4)


@functools.cache
def desk() -> tuple[Image, Array]:
    """Draw the desk with all that never moves and is flat: texture and placement."""
    rng = np.random.default_rng(7)
    shape = (round(DESK_SIZE[1] * DESK_DENSITY), round(DESK_SIZE[0] * DESK_DENSITY))
    color = wood(rng, shape)
    place = placement(DESK_CENTER, 0, shape, DESK_DENSITY)
    fabric, alpha = cloth(rng, (94, 70))
    fabric_place = placement((0.3, -5.0), -4, alpha.shape, DESK_DENSITY)
    to_desk = np.linalg.inv(place) @ fabric_place
    blurred = cv2.GaussianBlur(alpha, (0, 0), 0.09 * DESK_DENSITY)
    drop = np.array([[1, 0, 0.07 * DESK_DENSITY], [0, 1, 0.06 * DESK_DENSITY], [0, 0, 1]])
    paste(color, np.full_like(fabric, 20), (blurred * 0.6).astype(np.uint8), drop @ to_desk)
    paste(color, fabric, alpha, to_desk)
    draw_chain(color, np.linalg.inv(place))
    return color, place


def draw_chain(color: Image, to_texture: Array) -> None:
    """Draw the chain of the watch, from its bow to beyond the image, in the texture of the desk."""
    t = np.linspace(0, 1, 40)
    x = WATCH_CENTER[0] + 1.2 + 5.2 * t - 2.0 * np.sin(2.4 * math.pi * t) * t
    y = WATCH_CENTER[1] + WATCH_RADIUS + 1.25 + 2.6 * t**1.5 + 0.9 * np.sin(2.2 * math.pi * t)
    points = cv2.perspectiveTransform(np.stack([x, y], -1)[None], to_texture)[0]
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    step = 0.40 * DESK_DENSITY
    for k in range(int(length[-1] / step)):
        here = np.array([np.interp(k * step + s, length, points[:, 0]) for s in (-2, 0, 2)])
        there = np.array([np.interp(k * step + s, length, points[:, 1]) for s in (-2, 0, 2)])
        angle = math.degrees(math.atan2(there[2] - there[0], here[2] - here[0]))
        axes = (0.30 * DESK_DENSITY, (0.17 if k % 2 else 0.07) * DESK_DENSITY)
        for shift, width, tone in CHAIN_STROKES:
            middle = (here[1] + shift * DESK_DENSITY, there[1] + shift * DESK_DENSITY)
            cv2.ellipse(
                color, [round(16 * c) for c in middle], [round(16 * a) for a in axes], angle, 0, 360,
                tone, round(width * DESK_DENSITY), cv2.LINE_AA, 4,
            )  # fmt: skip


# ------------------------------------------------------------------- flat items: card, watch, pencil


@dataclass
class Item:
    """Hold a flat thing on the desk.

    Args:
        height: cm of its face above the desk.
        blur: softness of its shadow in cm.
    """

    color: Image
    alpha: Image
    place: Array
    height: float
    blur: float


def rounded_mask(width: float, height: float, radius: float) -> Image:
    """Draw the alpha of a rectangle with round corners, in cm, with a margin of 2 pixels."""
    w, h, r = (round(side * ITEM_DENSITY) for side in (width, height, radius))
    y, x = np.mgrid[-2 : h + 2, -2 : w + 2].astype(np.float32)
    qx, qy = np.abs(x - (w - 1) / 2) - w / 2 + r, np.abs(y - (h - 1) / 2) - h / 2 + r
    distance = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0)) + np.minimum(np.maximum(qx, qy), 0) - r
    mask: Image = (np.clip(0.5 - distance, 0, 1) * 255).astype(np.uint8)
    return mask


CARD_INK, CARD_BLUE, CARD_RUST = (52, 40, 34), (128, 74, 24), (40, 78, 196)
CARD_LINES = (  # text, then cm: left, baseline, size; weight, colour
    ("vsr", 0.75, 2.35, 2.5, 800, CARD_BLUE),
    ("Video super-resolution", 0.82, 3.45, 0.65, 600, CARD_INK),
    (
        "320 \N{MULTIPLICATION SIGN} 180 in, 1280 \N{MULTIPLICATION SIGN} 720 out",
        0.82,
        4.55,
        0.56,
        400,
        CARD_INK,
    ),
    ("Every frame borrows detail from its", 0.82, 5.12, 0.40, 400, CARD_INK),
    ("neighbours, before and after.", 0.82, 5.58, 0.40, 400, CARD_INK),
)


@functools.cache
def card_texture() -> tuple[Image, Image]:
    """Draw a printed card, 9.6 by 6.2 cm: colour and alpha."""
    alpha = rounded_mask(9.6, 6.2, 0.35)
    rng = np.random.default_rng(11)
    paper = 238 + 2.0 * noise(rng, alpha.shape, (4, 4)) + 2.0 * noise(rng, alpha.shape, (60, 60))
    color = np.clip(paper[..., None] + np.array([-10, 1, 8]), 0, 255).astype(np.uint8)
    d = ITEM_DENSITY
    h, w = alpha.shape
    for inset, width in ((0.28, 5), (0.40, 2)):
        i = round(inset * d)
        cv2.rectangle(color, (i, i), (w - i, h - i), CARD_BLUE, width, cv2.LINE_AA)
    for text, x, y, size, weight, tone in CARD_LINES:
        write(color, text, (x * d, y * d), size * d, weight, tone, center=False)
    rule = 3.78 * d
    stroke(color, [(0.82 * d, rule), (8.75 * d, rule)], CARD_RUST, 0.04)
    draw_rings(color, (round(7.35 * d), round(1.70 * d)), CARD_RUST, CARD_BLUE)
    return color, alpha


def draw_rings(color: Image, center: tuple[int, int], line: Bgr, fill: Bgr) -> None:
    """Draw the emblem of the card: a sun of thin rings and rays."""
    d = ITEM_DENSITY
    for radius in (0.40, 0.57, 0.74):
        cv2.circle(color, center, round(radius * d), line, round(0.05 * d), cv2.LINE_AA)
    cv2.circle(color, center, round(0.24 * d), fill, -1, cv2.LINE_AA)
    for k in range(24):
        angle = 2 * math.pi * k / 24
        outer = 1.00 if k % 2 else 1.10
        way = np.array([math.cos(angle), math.sin(angle)]) * d
        stroke(color, [tuple(center + 0.88 * way), tuple(center + outer * way)], fill, 0.05)


def card(time: float) -> Item:
    """Slide the card in from the right; it comes to rest 2.6 s into the clip."""
    color, alpha = card_texture()
    left = (1 - min(time / 2.6, 1.0)) ** 2.2
    place = placement((4.9 + 5.2 * left, 5.6 + 0.9 * left), 5 - 13 * left, alpha.shape, ITEM_DENSITY)
    return Item(color, alpha, place, 0.05, blur=0.06)


def polar(size: int) -> tuple[Array, Array]:
    """Compute radius in cm and angle in radians, clockwise from the top, of a square texture's pixels."""
    y, x = (np.mgrid[0:size, 0:size] - (size - 1) / 2) / ITEM_DENSITY
    return np.hypot(x, y), np.arctan2(x, -y)


@functools.cache
def dial() -> tuple[Image, Image]:
    """Draw the watch from above, without hands: bezel, dial with numerals and minute track, crown and bow."""
    size = round((2 * WATCH_RADIUS + 3.0) * ITEM_DENSITY)
    radius, angle = polar(size)
    brass = np.array([84, 158, 208], np.float32)
    sheen = 0.86 + 0.30 * np.cos(2 * (angle + 0.85)) + 0.10 * np.cos(5 * angle + 1.0)
    bevel = 1.0 + 0.35 * np.cos((radius - 2.86) * 2 * math.pi / 0.5)
    face = np.array([226, 240, 246], np.float32) * (1 - 0.012 * radius**2)[..., None]
    inside = smoothstep(2.62, 2.61, radius)[..., None]
    rim = smoothstep(2.66, 2.56, radius) - smoothstep(2.56, 2.42, radius)  # the bezel shades the dial
    face = face * (1 - 0.35 * rim * (0.6 + 0.4 * np.cos(angle + 0.9)))[..., None]
    color = np.clip(face * inside + brass * (sheen * bevel)[..., None] * (1 - inside), 0, 255)
    color = np.ascontiguousarray(color.astype(np.uint8))
    alpha = (np.clip((WATCH_RADIUS - radius) * ITEM_DENSITY + 0.5, 0, 1) * 255).astype(np.uint8)
    draw_track(color, (size - 1) / 2)
    draw_crown(color, alpha, (size - 1) / 2)
    return color, alpha


def ray(center: float, angle: float, radius: float) -> tuple[float, float]:
    """Find the texture pixel at `radius` cm from the centre of the watch; angle: radians clockwise from 12."""
    length = radius * ITEM_DENSITY
    return center + length * math.sin(angle), center - length * math.cos(angle)


def stroke(image: Image, points: list[tuple[float, float]], color: Bgr, width: float) -> None:
    """Draw an antialiased line through pixels; width in cm."""
    path = np.rint(np.array(points) * 16).astype(np.int32)
    cv2.polylines(image, [path], False, color, max(1, round(width * ITEM_DENSITY)), cv2.LINE_AA, 4)


def draw_track(color: Image, center: float) -> None:
    """Draw the minute track, the numerals and the lettering of the dial. center: pixel of its middle."""
    ink = (56, 44, 36)
    for k in range(60):
        angle = 2 * math.pi * k / 60
        inner, width = (2.16, 0.075) if k % 5 == 0 else (2.30, 0.03)
        stroke(color, [ray(center, angle, inner), ray(center, angle, 2.44)], ink, width)
    for radius in (2.30, 2.44):
        cv2.circle(color, (round(center), round(center)), round(radius * ITEM_DENSITY), ink, 3, cv2.LINE_AA)
    for hour in range(1, 13):
        at = ray(center, 2 * math.pi * hour / 12, 1.80)
        write(color, str(hour), at, 0.66 * ITEM_DENSITY, 600, ink)
    write(color, "VSR", ray(center, 0, 0.95), 0.36 * ITEM_DENSITY, 600, (40, 78, 196))
    write(color, "30 fps", ray(center, math.pi, 1.0), 0.30 * ITEM_DENSITY, 400, ink)


def draw_crown(color: Image, alpha: Image, center: float) -> None:
    """Draw the crown and the bow above the watch. center: pixel of the middle of the watch."""
    top = center - WATCH_RADIUS * ITEM_DENSITY
    d = ITEM_DENSITY
    middle = (round(center), round(top - 0.72 * d))
    for image, tone, thin in (
        (alpha, 255, 0.22),
        (color, (52, 112, 156), 0.22),
        (color, (150, 214, 244), 0.07),
    ):
        cv2.circle(image, middle, round(0.48 * d), tone, round(thin * d), cv2.LINE_AA)
    left, right = round(center - 0.42 * d), round(center + 0.42 * d)
    for image, tone in ((alpha, 255), (color, (70, 138, 186))):
        cv2.rectangle(image, (left, round(top - 0.42 * d)), (right, round(top + 0.02 * d)), tone, -1)
    for k in range(5):
        x = left + (k + 0.5) * (right - left) / 5
        stroke(color, [(x, top - 0.40 * d), (x, top)], (156, 218, 246), 0.06)


def hand(image: Image, center: float, angle: float, length: float, width: float, color: Bgr) -> None:
    """Draw a tapered hand, in cm; angle: radians clockwise from 12."""
    side = angle + math.pi / 2
    across = np.array(ray(0, side, width / 2))
    tail, belly, tip = (np.array(ray(center, angle, r)) for r in (-0.45, 0.55 * length, length))
    points = [tail + 0.6 * across, tail - 0.6 * across, belly - across, tip, belly + across]
    cv2.fillPoly(image, [np.rint(np.array(points) * 16).astype(np.int32)], color, cv2.LINE_AA, 4)


def watch(time: float) -> Item:
    """Draw the watch at ten past ten; time is sped up, so that its hands are seen to move."""
    color, alpha = dial()
    color = color.copy()
    center = (color.shape[0] - 1) / 2
    minutes = 8.6 + 0.75 * time
    angles = [2 * math.pi * a for a in ((10 + minutes / 60) / 12, minutes / 60, 0.52 + time / 10)]
    shade = color.copy()
    for angle, length, width in zip(angles, (1.35, 2.1, 2.25), (0.24, 0.18, 0.05), strict=True):
        hand(shade, center + 9, angle, length, width, (0, 0, 0))
    color = cv2.addWeighted(color, 0.72, cv2.GaussianBlur(shade, (0, 0), 3), 0.28, 0)
    hand(color, center, angles[0], 1.35, 0.24, (70, 46, 30))
    hand(color, center, angles[1], 2.1, 0.18, (70, 46, 30))
    hand(color, center, angles[2], 2.25, 0.06, (36, 48, 204))
    cv2.circle(color, (round(center), round(center)), round(0.13 * ITEM_DENSITY), (36, 48, 204), -1, cv2.LINE_AA)
    place = placement(WATCH_CENTER, -14, alpha.shape, ITEM_DENSITY)
    return Item(color, alpha, place, WATCH_HEIGHT, blur=0.16)


def draw_watch_body(image: Image, camera: Camera) -> None:
    """Draw the side of the watch: discs of brass from the desk up to its face."""
    angle = np.linspace(0, 2 * math.pi, 180, endpoint=False)
    for z in np.linspace(0.02, WATCH_HEIGHT, 16):
        bulge = 1 - (2 * z / WATCH_HEIGHT - 1) ** 2
        radius = WATCH_RADIUS - 0.10 + 0.10 * bulge
        x, y = WATCH_CENTER[0] + radius * np.cos(angle), WATCH_CENTER[1] + radius * np.sin(angle)
        ring = camera.project(np.stack([x, y, np.full_like(x, z)], -1))
        tone = 0.35 + 0.75 * z / WATCH_HEIGHT - 0.25 * (z / WATCH_HEIGHT > 0.85)
        brass = tuple(tone * c for c in (70, 132, 178))
        cv2.fillPoly(image, [np.rint(ring * 16).astype(np.int32)], brass, cv2.LINE_AA, 4)


@functools.cache
def pencil() -> Item:
    """Draw a hexagonal pencil, 15 cm, seen from above: three of its faces."""
    d = ITEM_DENSITY
    w, h = round(15 * d), round(0.74 * d)
    x, y = np.meshgrid(np.arange(w) / d, (np.arange(h) + 0.5) / h)
    facet = np.select([y < 0.27, y < 0.73], [1.12, 1.0], 0.70)
    body = facet[..., None] * np.array([44, 158, 226])
    # Sharpening meets the three faces in scallops.
    across = np.select([y < 0.27, y < 0.73], [y / 0.27, (y - 0.27) / 0.46], (y - 0.73) / 0.27)
    edge = 12.9 + 0.22 * np.sin(math.pi * across)
    bare = (1.12 - 0.5 * y)[..., None] * np.array([148, 196, 232])
    lead = (1.3 - y)[..., None] * np.array([70, 66, 64])
    metal = (0.7 + 0.5 * np.sin(math.pi * y)) * (1 - 0.25 * (np.sin(x * 30) > 0.4))
    metal = metal[..., None] * np.array([190, 196, 198])
    rubber = (1.1 - 0.4 * y)[..., None] * np.array([130, 122, 226])
    parts = [(x < end)[..., None] for end in (0.8, 1.7, edge, 14.35)]
    color = np.select(parts, [rubber, metal, body, bare], lead)
    half = np.where(x < 12.9, 0.5, 0.5 * np.clip((15 - x) / 2.1, 0.04, 1))
    alpha = np.clip((half - np.abs(y - 0.5)) * h + 0.5, 0, 1) * 255
    color = np.clip(color, 0, 255).astype(np.uint8)
    write(color, "VSR  No 4  HB", (9.6 * d, 0.5 * h), 0.38 * d, 600, (60, 92, 120))
    pad = ((4, 4), (4, 4))
    alpha = np.pad(alpha.astype(np.uint8), pad)
    color = np.pad(color, (*pad, (0, 0)), mode="edge")
    return Item(color, alpha, placement((-12.0, -3.0), 66, alpha.shape, d), 0.4, blur=0.12)


# ------------------------------------------------------------------------------------------ shadows


def shadow_grid() -> tuple[tuple[int, int], Array]:
    """Return shape (height, width) and placement of the coarse maps of light that reaches the desk."""
    shape = (round(DESK_SIZE[1] * SHADOW_DENSITY), round(DESK_SIZE[0] * SHADOW_DENSITY))
    return shape, placement(DESK_CENTER, 0, shape, SHADOW_DENSITY)


def item_light(items: list[Item]) -> Array:
    """Compute the share of the light, 0..1, that the items let through to the desk."""
    shape, place = shadow_grid()
    light = np.ones(shape, np.float32)
    for item in items:
        cover = np.zeros(shape, np.uint8)
        for height in np.linspace(0, item.height, max(2, round(item.height / 0.06))):
            shift = np.eye(3)
            shift[:2, 2] = -LIGHT[:2] / LIGHT[2] * height
            to_grid = np.linalg.inv(place) @ shift @ item.place
            part = cv2.warpPerspective(item.alpha, to_grid, shape[::-1], flags=cv2.INTER_AREA)
            np.maximum(cover, part, out=cover)
        blurred = cv2.GaussianBlur(cover.astype(np.float32), (0, 0), item.blur * SHADOW_DENSITY)
        light = np.minimum(light, 1 - blurred / 255)
    return light


def apply_light(image: Image, light: Array, camera: Camera) -> Image:
    """Darken the image where the desk is in shadow."""
    _, place = shadow_grid()
    tint = 1 - (1 - light)[..., None] * np.array(SHADOW_TINT, np.float32)
    warped = cv2.warpPerspective(
        np.rint(tint * 255).astype(np.uint8), camera.view(place), camera.size, borderValue=(255, 255, 255)
    )
    return cv2.multiply(image, warped, scale=1 / 255)


# --------------------------------------------------------------------------------------------- dice


@dataclass(frozen=True)
class Die:
    """Roll a die edge over edge until it comes to rest.

    Args:
        end: (x, y) of its middle at rest, in cm.
        heading: direction of its roll in degrees, 0 along x.
        turns: seconds of each quarter turn.
        hops: height in cm that it leaves the desk by in each.
        yaw: degrees by which it also swerves.
        base: degrees by which it is turned at rest.
        first: quarter turns it has made before the clip.
        body, pips: colours.
    """

    end: tuple[float, float]
    heading: float
    turns: tuple[float, ...]
    hops: tuple[float, ...]
    yaw: float
    base: float
    first: int
    body: Bgr
    pips: Bgr

    def turn(self, time: float) -> tuple[float, float]:
        """Count the quarter turns made at `time` seconds; also return the height of the hop in cm."""
        for k, (length, hop) in enumerate(zip(self.turns, self.hops, strict=True)):
            if time < length:
                s = time / length
                # Over its edge a slowing die hesitates, then falls.
                pause = 0.75 * k / (len(self.turns) - 1)
                return k + s + pause * math.sin(2 * math.pi * s) / (2 * math.pi), hop * 4 * s * (1 - s)
            time -= length
        rock = 0.045 * abs(math.sin(math.pi * time / 0.17)) * math.exp(-time / 0.12)
        return len(self.turns) - rock, 0.0

    def pose(self, time: float) -> tuple[Array, Array]:
        """Return the middle (3,) in cm, and the rotation (3, 3) from the die to the world."""
        turns, hop = self.turn(time)
        whole = math.floor(turns)
        phi = (turns - whole) * math.pi / 2
        rolled = whole + 0.5 - math.sqrt(0.5) * math.cos(phi + math.pi / 4)
        left = (len(self.turns) - rolled) * DIE_EDGE
        heading = math.radians(self.heading)
        yaw = self.base + self.yaw * left / (len(self.turns) * DIE_EDGE)
        roll = rotation_z(heading) @ rotation_y((turns + self.first) * math.pi / 2)
        rotation = rotation_z(math.radians(yaw)) @ roll
        half = DIE_EDGE / 2 - DIE_ROUNDING
        lowest = np.abs(rotation[2]).sum() * half + DIE_ROUNDING
        x, y = self.end[0] - left * math.cos(heading), self.end[1] - left * math.sin(heading)
        return np.array([x, y, lowest + hop]), rotation


DICE = (
    Die((-4.6, -1.0), 171, (0.42, 0.48, 0.54, 0.62, 0.80), (1.3, 0.8, 0.4, 0.1, 0), 38, 14, 2,
        (206, 232, 240), (50, 34, 30)),
    Die((1.8, -3.1), 186, (0.52, 0.58, 0.64, 0.72, 0.90), (1.6, 1.0, 0.5, 0.1, 0), -46, -24, 0,
        (30, 34, 190), (226, 238, 244)),
)  # fmt: skip


def rotation_z(angle: float) -> Array:
    """Make the rotation about the upward axis by `angle` radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def rotation_y(angle: float) -> Array:
    """Make the rotation by `angle` radians that tips up towards x: a roll along x."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1.0, 0], [-s, 0, c]])


def die_distance(points: Array) -> Array:
    """Compute the signed distance (...) in cm from points (..., 3) of the die's own axes to its surface."""
    q = np.abs(points) - np.float32(DIE_EDGE / 2 - DIE_ROUNDING)
    outside = np.maximum(q, 0)
    distance: Array = np.sqrt((outside * outside).sum(-1)) + np.minimum(q.max(-1), 0) - np.float32(DIE_ROUNDING)
    return distance


def die_light(die: Die, time: float, light: Array) -> None:
    """Darken the map of light by the die's soft shadow and its nearness, in place."""
    center, rotation = die.pose(time)
    shape, place = shadow_grid()
    around = center[:2] - LIGHT[:2] / LIGHT[2] * center[2] * 0.7
    middle = cv2.perspectiveTransform(around[None, None], np.linalg.inv(place))[0, 0].astype(int)
    reach = 7 * SHADOW_DENSITY
    x0, y0 = (max(0, int(m) - reach) for m in middle)
    x1, y1 = min(shape[1], int(middle[0]) + reach), min(shape[0], int(middle[1]) + reach)
    if x1 <= x0 or y1 <= y0:
        return
    pixels = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), -1).astype(np.float64)
    ground = cv2.perspectiveTransform(pixels, place)
    points = np.concatenate([ground, np.zeros_like(ground[..., :1])], -1) - center
    start, way = (points @ rotation).astype(np.float32), (LIGHT @ rotation).astype(np.float32)
    nearness = die_distance(start)
    through = np.ones(start.shape[:2], np.float32)
    t = np.full(start.shape[:2], 0.05, np.float32)
    for _ in range(18):
        distance = die_distance(start + way * t[..., None])
        through = np.minimum(through, 0.5 + 3.5 * distance / t)
        t += np.clip(distance, 0.06, 0.8)
    through = smoothstep(0, 1, through)
    contact = 1 - 0.45 * np.exp(-np.maximum(nearness, 0) / 0.45)
    light[y0:y1, x0:x1] = np.minimum(light[y0:y1, x0:x1], through) * contact


def pip_offset(face_x: Array, face_y: Array, count: Array) -> tuple[Array, Array]:
    """Compute (x, y) in cm from the nearest pip of a face with `count` pips, at each point of that face."""
    pitch = np.float32(0.27 * DIE_EDGE)
    best_x, best_y = np.full_like(face_x, 9), np.full_like(face_y, 9)
    spots = [((0, 0), (1, 3, 5)), ((1, 1), (2, 3, 4, 5, 6)), ((-1, -1), (2, 3, 4, 5, 6))]
    spots += [((1, -1), (4, 5, 6)), ((-1, 1), (4, 5, 6)), ((1, 0), (6,)), ((-1, 0), (6,))]
    for (sx, sy), counts in spots:
        dx, dy = face_x - sx * pitch, face_y - sy * pitch
        nearer = np.isin(count, counts) & (dx * dx + dy * dy < best_x**2 + best_y**2)
        best_x, best_y = np.where(nearer, dx, best_x), np.where(nearer, dy, best_y)
    return best_x, best_y


def die_surface(die: Die, points: Array, pixel: Array) -> tuple[Array, Array]:
    """Compute linear colour (N, 3) and normal (N, 3), in the die's own axes, at surface points (N, 3).

    Args:
        pixel: (N,) cm that one pixel covers there.
    """
    inner = np.maximum(np.abs(points) - np.float32(DIE_EDGE / 2 - DIE_ROUNDING), 0)
    normal = np.sign(points) * inner
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    axis = np.abs(points).argmax(-1)
    side = np.take_along_axis(points, axis[:, None], 1)[:, 0] > 0
    count = np.where(side, np.array([3, 2, 1])[axis], np.array([4, 5, 6])[axis])
    u_axis, v_axis = (axis + 1) % 3, (axis + 2) % 3
    u, v = (np.take_along_axis(points, a[:, None], 1)[:, 0] for a in (u_axis, v_axis))
    dx, dy = pip_offset(u, v, count)
    radius = np.where(count == 1, 0.42, 0.29).astype(np.float32)
    distance = np.hypot(dx, dy)
    pip = np.clip(0.5 + (radius - distance) / (pixel * 1.4), 0, 1)[:, None]
    # A pip is a shallow bowl: its slope leans to its middle.
    tilt = np.zeros_like(points)
    np.put_along_axis(tilt, u_axis[:, None], (dx / radius)[:, None], 1)
    np.put_along_axis(tilt, v_axis[:, None], (dy / radius)[:, None], 1)
    normal = normal - 0.75 * tilt * pip
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    body, pips = ((np.array(c, np.float32) / 255) ** 2.2 for c in (die.body, die.pips))
    return body + (pips - body) * pip, normal


def shade_die(albedo: Array, normal: Array, view: Array, height: Array) -> Array:
    """Shade glossy points: colour (N, 3), 0..255. view: (N, 3) unit vectors to the viewer; height: cm."""
    lit = np.clip(normal @ LIGHT, 0, 1)[:, None]
    up = normal[:, 2:]
    sky = 0.5 + 0.5 * up
    bounce = np.clip(-0.3 - up + 1.0, 0, 1) * np.exp(-height / 2.0)[:, None]
    ambient = sky * np.array([0.36, 0.35, 0.36]) + 0.10 * bounce * np.array([0.9, 0.6, 0.4])
    occlusion = (1 - 0.45 * np.exp(-height / 0.5))[:, None]
    color = albedo * (ambient * occlusion + lit * np.array([0.80, 0.88, 0.95]))
    mirror = 2 * (normal * view).sum(-1, keepdims=True) * normal - view
    toward = mirror @ LIGHT
    window = smoothstep(0.955, 0.985, toward)[:, None] * 0.42  # the broad light, seen in the gloss
    fresnel = 0.04 + 0.5 * (1 - np.clip((normal * view).sum(-1), 0, 1)[:, None]) ** 5
    color = color + window * np.array([0.92, 0.97, 1.0]) + fresnel * np.clip(mirror[:, 2:], 0, 1) * 0.5
    encoded: Array = 255 * np.clip(color, 0, 1) ** (1 / 2.2)
    return encoded


def draw_die(image: Image, camera: Camera, die: Die, time: float) -> None:
    """Trace rays to the die by its distance function, and blend it into the image, in place."""
    center, rotation = die.pose(time)
    bound = math.sqrt(3) * (DIE_EDGE / 2 - DIE_ROUNDING) + DIE_ROUNDING + 0.05
    depth = float((camera.rotation @ (center - camera.position))[2])
    reach = bound / depth * camera.focal * 1.08
    middle = camera.project(center[None])[0]
    x0, y0 = (max(0, int(m - reach)) for m in middle)
    x1, y1 = (min(side, int(m + reach) + 1) for side, m in zip(camera.size, middle, strict=True))
    if x1 <= x0 or y1 <= y0:
        return
    x, y = np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))
    rays = np.stack([x - camera.center[0], y - camera.center[1], np.full(x.shape, camera.focal)], -1)
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True) @ camera.rotation
    way = (rays @ rotation).astype(np.float32)
    # Start at the bounding sphere: float32 is then exact to a hundredth of a pixel.
    start = ((camera.position - center) @ rotation).astype(np.float32) + way * np.float32(depth - 2 * bound)
    t = np.zeros(x.shape, np.float32)
    nearest = np.full(x.shape, 9, np.float32)
    for _ in range(28):
        distance = die_distance(start + way * t[..., None])
        nearest = np.minimum(nearest, distance)
        t += np.maximum(distance, 0)
    pixel = np.float32(depth / camera.focal)
    cover = np.clip(1 - nearest / pixel, 0, 1)
    hit = cover > 0
    # A ray that grazes the edge is shaded as the nearest point of the surface would be.
    local = (start + way * np.minimum(t, 4 * bound)[..., None])[hit]
    albedo, normal = die_surface(die, local, np.full(len(local), pixel))
    world = local @ rotation.T.astype(np.float32) + center
    color = shade_die(albedo, normal @ rotation.T, -rays[hit], np.maximum(world[:, 2], 0))
    region = image[y0:y1, x0:x1]
    under = region[hit].astype(np.float32)
    region[hit] = np.rint(under + (color - under) * cover[hit][:, None])


# ------------------------------------------------------------------------------------------- frames


@functools.cache
def vignette() -> Array:
    """Compute the gain (H, W, 3) of the truth: the lamp stands at the upper left."""
    width, height = TRUTH_SIZE
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    far = np.hypot((x - 0.40 * width) / width, (y - 0.40 * height) / width)
    gain = 1.10 - 0.56 * smoothstep(0.05, 0.85, far)
    return gain[..., None] ** np.array([1.15, 1.0, 0.9], np.float32)


def render(index: int) -> Image:
    """Render frame `index` of the ground truth: BGR (720, 1280, 3)."""
    time = index / FPS
    camera = Camera.at(time)
    texture, place = desk()
    image = cv2.warpPerspective(texture, camera.view(place), camera.size)
    items = [pencil(), watch(time), card(time)]
    image = apply_light(image, item_light(items), camera)
    draw_watch_body(image, camera)
    for item in items:
        paste(image, item.color, item.alpha, camera.view(item.place, item.height))
    light = np.ones(shadow_grid()[0], np.float32)
    for die in DICE:
        die_light(die, time, light)
    image = apply_light(image, light, camera)
    for die in DICE:
        draw_die(image, camera, die, time)
    small = cv2.resize(image, TRUTH_SIZE, interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(small * vignette()), 0, 255).astype(np.uint8)


def reduce(truth: Image) -> Image:
    """Reduce the truth by SCALE with MATLAB's bicubic, still BGR."""
    planes = torch.from_numpy(truth).permute(2, 0, 1)[None]
    size = (truth.shape[0] // SCALE, truth.shape[1] // SCALE)
    return imresize(planes, size)[0].permute(1, 2, 0).contiguous().numpy()


def to_yuv420(image: Image) -> list[Image]:
    """Convert a BGR image to limited-range BT.709 planes Y, Cb, Cr; chroma sited left, as H.264 assumes."""
    b, g, r = torch.from_numpy(image).to(torch.float64).div(255).unbind(-1)
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    chroma = torch.stack([(b - luma) / 1.8556, (r - luma) / 1.5748])[:, None]
    size = (image.shape[0] // 2, image.shape[1] // 2)
    chroma = resample(chroma, size, target_offset=ChromaLocation.LEFT.offset)[:, 0]
    planes = [16 + 219 * luma, *(128 + 224 * chroma)]
    return [plane.round().clamp(16, 240 if k else 235).byte().numpy() for k, plane in enumerate(planes)]


# -------------------------------------------------------------------------------------------- sound


def pluck(frequency: float, seconds: float) -> Array:
    """Play a soft bell of `frequency` Hz: a few harmonics that fade, the higher the faster."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    partials = ((1, 1.0, 1.1), (2, 0.35, 0.6), (3, 0.16, 0.35), (4.01, 0.06, 0.2))
    tone = sum(a * np.sin(2 * math.pi * frequency * n * t) * np.exp(-t / fade) for n, a, fade in partials)
    return tone * np.minimum(t / 0.006, 1)


def sound() -> Array:
    """Play an arpeggio over a quiet chord: float32 (2, samples), left and right, for the whole clip."""
    total = round(DURATION * SAMPLE_RATE)
    out = np.zeros((2, total))
    notes = (0, 7, 12, 16, 19, 16, 12, 7, -3, 4, 12, 16, 24, 19, 16)  # semitones above C4
    for k, note in enumerate(notes):
        start = round(k * 0.24 * SAMPLE_RATE)
        tone = pluck(261.63 * 2 ** (note / 12), (total - start) / SAMPLE_RATE)
        pan = 0.5 + 0.35 * math.sin(1.9 * k)
        out[:, start:] += 0.16 * np.outer([math.sqrt(1 - pan), math.sqrt(pan)], tone)
    t = np.arange(total) / SAMPLE_RATE
    for note, phase in ((-12, 0.0), (0, 0.4), (7, 0.9)):
        swell = 0.03 * np.sin(math.pi * t / DURATION) ** 0.7
        out += swell * np.sin(2 * math.pi * 261.63 * 2 ** (note / 12) * t + np.array([[0.0], [phase]]))
    out *= np.clip((DURATION - t) / 0.5, 0, 1)
    samples: Array = (0.7 * out / np.abs(out).max()).astype(np.float32)
    return samples


# --------------------------------------------------------------------------------------------- file


def add_video(container: av.container.OutputContainer) -> av.VideoStream:
    """Add an H.264 stream with every colour property written."""
    # One thread, and no macroblock tree: with it the x264 of PyAV's wheels differs from run to run.
    options = {"crf": "16", "preset": "slow", "threads": "1", "mbtree": "0"}
    stream = container.add_stream("libx264", rate=FPS, options=options)
    stream.width, stream.height = (side // SCALE for side in TRUTH_SIZE)
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.colorspace, context.color_primaries = Matrix.BT709, Primaries.BT709
    context.color_trc, context.color_range = Transfer.BT709, Range.LIMITED
    return stream


def video_frame(image: Image, index: int) -> av.VideoFrame:
    """Make frame `index` for the encoder from a BGR image."""
    width = image.shape[1]
    planes = to_yuv420(image)
    frame = av.VideoFrame.from_ndarray(np.concatenate([p.reshape(-1, width) for p in planes]), "yuv420p")
    frame.pts, frame.time_base = index, Fraction(1, FPS)
    frame.colorspace, frame.color_primaries = Matrix.BT709, Primaries.BT709
    frame.color_trc, frame.color_range = Transfer.BT709, Range.LIMITED
    return frame


def audio_frames(samples: Array, length: int) -> Iterator[av.AudioFrame]:
    """Yield stereo frames of `length` samples, the last one shorter."""
    for start in range(0, samples.shape[1], length):
        part = np.ascontiguousarray(samples[:, start : start + length])
        frame = av.AudioFrame.from_ndarray(part, "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        yield frame


def make(out: Path, ground_truth: Path | None) -> None:
    """Write the clip, and the truth as PNG files where a folder is given."""
    with av.open(str(out), "w", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = "vsr sample: a desk"
        video = add_video(container)
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        audio.bit_rate = 96_000
        tones = audio_frames(sound(), 1024)
        for index in range(NUM_FRAMES):
            truth = render(index)
            if ground_truth is not None:
                cv2.imwrite(str(ground_truth / f"{index:04d}.png"), truth)
            container.mux(video.encode(video_frame(reduce(truth), index)))
            for _, tone in zip(range(math.ceil(SAMPLE_RATE / FPS / 1024)), tones, strict=False):
                container.mux(audio.encode(tone))
        for stream in (video, audio):
            container.mux(stream.encode(None))


def main() -> None:
    """Read the command line and make the clip."""
    parser = argparse.ArgumentParser(description="Draw the sample clip.")
    parser.add_argument("--out", type=Path, default=Path("samples/sample.mp4"), help="the clip")
    parser.add_argument("--ground-truth", type=Path, metavar="DIR", help="also write its 720p truth as PNG here")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.ground_truth:
        args.ground_truth.mkdir(parents=True, exist_ok=True)
    make(args.out, args.ground_truth)


if __name__ == "__main__":
    main()
