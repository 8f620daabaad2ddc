"""Upscale a video as scripts in READMEs do, for peers.py: PyTorch in fp32, RGB frames one by one through pipes.

    python benchmarks/peers_pytorch_script.py CLIP OUTPUT WEIGHTS NUM_THREADS [OPTION OF X264]...

One ffmpeg decodes, another one encodes. The network is `fast`, with its own weights, so that the handling of frames is
the only difference to `vsr enhance --model fast`. Unlike most such scripts it keeps the matrix of the clip, BT.709, in
the conversion to RGB and back.
"""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from vsr.models.nets.luma import LumaNet

WIDTH, HEIGHT, SCALE, FPS = 320, 180, 4, 30


def upscaled(net: LumaNet, frame: np.ndarray) -> np.ndarray:
    """Upscale (H, W, 3) RGB uint8 to (H·4, W·4, 3): luma by the network, the colour differences bicubically."""
    ycrcb = cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)
    luma = torch.from_numpy(ycrcb[:, :, 0]).float().div(255)[None, None]
    with torch.no_grad():
        luma = net(luma).clamp(0, 1).mul(255).round().byte()[0, 0]
    size = (WIDTH * SCALE, HEIGHT * SCALE)
    colors = cv2.resize(ycrcb[:, :, 1:], size, interpolation=cv2.INTER_CUBIC)
    return cv2.cvtColor(np.dstack((luma.numpy(), colors)), cv2.COLOR_YCrCb2RGB)


def main() -> None:
    clip, output, weights, num_threads, *x264 = sys.argv[1:]
    torch.set_num_threads(int(num_threads))
    cv2.setNumThreads(int(num_threads))
    net = LumaNet(features=32, depth=5, scale=SCALE)
    net.load_state_dict(load_file(weights))
    net.eval()
    ffmpeg, raw = ["ffmpeg", "-v", "error", "-y"], ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    size = f"{WIDTH * SCALE}x{HEIGHT * SCALE}"
    colors = ["-vf", "scale=out_color_matrix=bt709", "-pix_fmt", "yuv420p", "-colorspace", "bt709"]
    with (
        subprocess.Popen([*ffmpeg, "-threads", num_threads, "-i", clip, *raw, "-"], stdout=subprocess.PIPE) as decoder,
        subprocess.Popen(
            [*ffmpeg, *raw, "-s", size, "-r", str(FPS), "-i", "-", *colors, *x264, output], stdin=subprocess.PIPE
        ) as encoder,
    ):
        while data := decoder.stdout.read(WIDTH * HEIGHT * 3):
            frame = np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH, 3)
            encoder.stdin.write(upscaled(net, frame).tobytes())
    sys.exit(decoder.returncode or encoder.returncode)


if __name__ == "__main__":
    main()
