"""An option of encoders, a container, a network and a backend are added by the files that docs/contributing.md names.

All four are added to a copy of the package, and one job uses them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vsr.models.cards import ModelCard
from vsr.models.weights import save_model_file

ROOT = Path(__file__).resolve().parents[2]
CONTRIBUTING = (ROOT / "docs" / "contributing.md").read_text("utf-8")

# By section of the page and file: an anchor and the text that goes before it; a new file has no anchor.
ADDITIONS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "An option of encoders": {
        "vsr/cli/options.py": [('    _encoding("--preset"', '    _encoding("--keyint", type=int),\n')],
        "vsr/api.py": [("    preset: str | None = None,\n", "    keyint: int | None = None,\n")],
        "vsr/media/write/options.py": [("    preset: str | None = None\n", "    keyint: int | None = None\n")],
        "vsr/jobs/encoding.py": [
            (
                "    given = dict(options.encoder_options)\n",
                '    if options.keyint is not None:\n        result["g"] = str(options.keyint)\n',
            )
        ],
    },
    "A container or an encoder": {
        "vsr/media/formats.py": [
            ('        Container("vob"', '        Container("wtv", suffixes=(".wtv",), encoder="mpeg4"),\n')
        ],
    },
    "A network": {
        "vsr/models/nets/larger.py": [
            (
                "",
                "import torch\nfrom torch import nn\n\n\n"
                "class Larger(nn.Module):\n"
                "    def __init__(self, scale):\n"
                "        super().__init__()\n"
                "        self.scale, self.gain = scale, nn.Parameter(torch.ones(1))\n\n"
                "    def forward(self, x):\n"
                "        return self.gain * torch.repeat_interleave(\n"
                "            torch.repeat_interleave(x, self.scale, 2), self.scale, 3\n"
                "        )\n",
            )
        ],
        "vsr/models/nets/__init__.py": [
            ("from vsr.models.nets.edsr import", "from vsr.models.nets.larger import Larger\n"),
            ('    "luma": LumaNet,\n', '    "larger": Larger,\n'),
        ],
    },
    "A backend": {
        "vsr/backends/eager_engine.py": [
            (
                "",
                "from vsr.backends.torch_engine import TorchEngine\n\n\n"
                "class EagerEngine(TorchEngine):\n"
                "    def __init__(self, *arguments):\n"
                "        super().__init__(*arguments)\n"
                '        self.name = "an added engine"\n',
            )
        ],
        "vsr/backends/installed.py": [('"openvino", "pytorch"]', '"eager", ')],
        "vsr/backends/select.py": [
            (
                '        if self._backend == "tensorrt":\n',
                '        if self._backend == "eager":\n'
                "            from vsr.backends.eager_engine import EagerEngine\n\n"
                "            return EagerEngine(net, self.place.device, precision)\n",
            )
        ],
        "vsr/cli/options.py": [('"openvino", "pytorch"]', '"eager", ')],
    },
}


@pytest.mark.parametrize(
    ("section", "name"),
    [("An option of encoders", ""), ("A container or an encoder", ""), ("A network", "larger"), ("A backend", "eager")],
)
def test_page_names_the_files(section: str, name: str) -> None:
    text = CONTRIBUTING.split(f"### {section}\n")[1].split("\n### ")[0]
    named = {path.replace("NAME", name) for path in re.findall(r"`(vsr/[\w./]+\.py)`", text)}
    assert set(ADDITIONS[section]) <= named


@pytest.fixture
def changed_package(tmp_path: Path) -> Path:
    """A folder with a copy of the package, in which all additions are made."""
    shutil.copytree(ROOT / "vsr", tmp_path / "copy" / "vsr", ignore=shutil.ignore_patterns("__pycache__"))
    for files in ADDITIONS.values():
        for name, insertions in files.items():
            path = tmp_path / "copy" / name
            text = path.read_text("utf-8") if path.is_file() else ""
            for anchor, insertion in insertions:
                assert anchor in text, f"{name}: {anchor!r}"
                text = text.replace(anchor, insertion + anchor, 1)
            path.write_text(text, "utf-8")
    return tmp_path / "copy"


def test_a_job_uses_all_of_them(changed_package: Path, tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    still = np.tile(np.arange(0, 256, 4, np.uint8), (72, 1))  # planes of 64×48, one below the other
    source = make_clip(
        tmp_path / "in.mp4", pts=range(9), picture=lambda index: av.VideoFrame.from_ndarray(still, "yuv420p")
    )
    card = ModelCard("mine", "larger", {"scale": 2}, 2, "rgb", 0)
    save_model_file(tmp_path / "mine.safetensors", card, {"gain": torch.ones(1)})
    words = ["--model", "mine.safetensors", "--backend", "eager", "--keyint", "3", "--report", "r.json"]
    done = subprocess.run(
        [sys.executable, "-m", "vsr.cli", "enhance", source, "out.wtv", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(changed_package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "an added engine" in json.loads((tmp_path / "r.json").read_text("utf-8"))["engine"]
    with av.open(str(tmp_path / "out.wtv")) as container:
        frames = list(container.decode(video=0))
    assert container.format.name == "wtv"
    assert (frames[0].width, frames[0].height, len(frames)) == (128, 96, 9)
    assert [frame.key_frame for frame in frames] == [True, False, False] * 3
