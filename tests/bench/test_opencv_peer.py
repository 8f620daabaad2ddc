"""Networks of OpenCV's dnn_superres: those there are, and a made one of each kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vsr.bench.opencv_peer import load_opencv_peer
from vsr.errors import ModelError
from vsr.quality.metrics import luma_bt601, psnr_db
from vsr.quality.protocols import StillsBenchmark, luma_psnr_db

_SCALE = 2


def _write_graph(path: Path, channels: int) -> Path:
    """A network that repeats each sample _SCALE × _SCALE times: a 1×1 convolution and a DepthToSpace."""
    graph_pb2 = pytest.importorskip("tensorboard.compat.proto.graph_pb2")
    graph = graph_pb2.GraphDef()
    graph.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    kernel = graph.node.add(name="w", op="Const")
    kernel.attr["dtype"].type = 1
    # In TensorFlow's order a pixel's samples lie together: output channel = place · channels + channel.
    values = np.tile(np.eye(channels, dtype=np.float32), _SCALE**2)
    tensor = kernel.attr["value"].tensor
    tensor.dtype = 1
    for size in (1, 1, *values.shape):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = values.tobytes()
    conv = graph.node.add(name="conv", op="Conv2D", input=["x", "w"])
    conv.attr["data_format"].s = b"NHWC"
    conv.attr["padding"].s = b"SAME"
    conv.attr["strides"].list.i.extend([1, 1, 1, 1])
    shuffle = graph.node.add(name="y", op="DepthToSpace", input=["conv"])
    shuffle.attr["data_format"].s = b"NHWC"
    shuffle.attr["block_size"].i = _SCALE
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_gets_its_channels_and_gives_rgb(channels: int, tmp_path: Path) -> None:
    upscale, scale = load_opencv_peer(_write_graph(tmp_path / "repeat.pb", channels))
    low = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 9, 13)).astype(np.uint8))
    low = torch.nn.functional.avg_pool2d(low[None].float(), 3, 1, 1)[0].to(torch.uint8)
    image = upscale(low)
    assert scale == _SCALE and image.shape == (3, 18, 26) and image.dtype is torch.uint8
    repeated = low.repeat_interleave(2, 1).repeat_interleave(2, 2)
    if channels == 3:  # what is subtracted before the network is added after it
        assert torch.equal(image, repeated)
    else:  # the luma is the network's; the colour differences, bilinear, do not change it beyond rounding
        assert psnr_db(luma_bt601(image[None]), luma_bt601(repeated[None])) > 35


def test_files_that_are_no_networks_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.pb: no such file"):
        load_opencv_peer(tmp_path / "nowhere.pb")
    for content in (b"", b"no graph at all, but text", b"\x0a\xff"):
        (tmp_path / "bad.pb").write_bytes(content)
        with pytest.raises(ModelError, match=r"bad\.pb: not a"):
            load_opencv_peer(tmp_path / "bad.pb")


def test_a_graph_that_does_not_enlarge_is_refused(tmp_path: Path) -> None:
    graph_pb2 = pytest.importorskip("tensorboard.compat.proto.graph_pb2")
    graph = graph_pb2.GraphDef()
    graph.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    graph.node.add(name="y", op="Relu", input=["x"])
    (tmp_path / "relu.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(ModelError, match=r"relu\.pb: not a network of dnn_superres"):
        load_opencv_peer(tmp_path / "relu.pb")


@pytest.mark.parametrize(("name", "figure_db"), [("FSRCNN", 28.40), ("ESPCN", 28.38), ("LapSRN", 28.74)])
def test_peers_score_what_was_measured_of_them(name: str, figure_db: float, data_folder: Path) -> None:
    upscale, scale = load_opencv_peer(data_folder / "peers" / f"{name}_x4.pb")
    stills = StillsBenchmark(data_folder / "test", scale, ("Set5",))
    assert scale == 4
    assert stills.measure("Set5", upscale, {"psnr": luma_psnr_db})["psnr"] == pytest.approx(figure_db, abs=0.05)
