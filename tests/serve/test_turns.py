"""Turns on one device: images first, in their order, and no video starves."""

from __future__ import annotations

import itertools
import threading

import pytest
from waiting import PATIENCE_SECONDS, until

from vsr.serve.turns import DeviceTurns, TurnKind


def _in_order(turns: DeviceTurns, kinds: list[TurnKind]) -> list[TurnKind]:
    """Have one after the other ask while the device is taken, then see in which order they get it."""
    order: list[TurnKind] = []

    def take(kind: TurnKind) -> None:
        with turns.turn(kind):
            order.append(kind)

    threads = [threading.Thread(target=take, args=(kind,)) for kind in kinds]
    with turns.turn("image"):
        for asked, thread in enumerate(threads, 1):
            thread.start()
            until(lambda asked=asked: turns.num_waiting("image") + turns.num_waiting("video") == asked)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    return order


def test_images_go_before_videos() -> None:
    turns = DeviceTurns(image_seconds=60)
    assert _in_order(turns, ["video", "image", "image"]) == ["image", "image", "video"]


def test_a_video_gets_its_turn_after_a_while_of_images() -> None:
    ticks = itertools.count()
    turns = DeviceTurns(image_seconds=2.5, clock=lambda: next(ticks))  # each turn takes a second
    order = _in_order(turns, ["video", "image", "image", "image", "image"])
    assert order == ["image", "image", "video", "image", "image"]  # the first image holds the device before


def test_one_computes_at_a_time() -> None:
    turns, inside, most = DeviceTurns(), 0, 0

    def work(kind: TurnKind) -> None:
        nonlocal inside, most
        for _ in range(50):
            with turns.turn(kind):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work, args=(kind,)) for kind in ("image", "video", "image")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert most == 1


def test_an_error_gives_the_turn_back() -> None:
    turns = DeviceTurns()
    with pytest.raises(ValueError), turns.turn("video"):
        raise ValueError
    with turns.turn("image"):
        pass
