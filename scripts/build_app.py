"""Build the double-clickable application: a folder with vsr, Python, PyAV, OpenVINO and PyTorch in it.

In an environment with `vsr-enhance[app]` and `pyinstaller`:

    python scripts/build_app.py dist
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from PyInstaller.__main__ import run

HERE = Path(__file__).resolve().parent
# Packages that are imported by name, or read their own sources and files when they run.
COLLECTED = ("vsr", "openvino", "gradio", "gradio_client", "safehttpx", "groovy", "onnxscript", "onnx", "onnx_ir")
# Packages that others offer to work with, and the application does not need: they may be in the environment.
EXCLUDED = (
    "IPython hypothesis jax matplotlib mypy onnxruntime openvino_telemetry playwright pytest ray schemathesis scipy "
    "skimage tensorboard"
)
VERSIONS = ("vsr-enhance", "openvino", "onnx", "onnxscript", "torch", "gradio", "gradio_client")
SPARED = (
    "bin/*Test",
    "bin/protoc*",
    "bin/test_*",
    "test",
)  # programs and tests beside the library in PyTorch's package
DESKTOP_ENTRY = """[Desktop Entry]
Type=Application
Name=vsr
Comment=Enlarge images and videos
Exec="{program}"
Terminal=false
Categories=AudioVideo;Video;Graphics;
"""


def build(folder: Path) -> Path:
    """Build the application below a folder; return its program."""
    options = ["--noconfirm", "--windowed", "--name=vsr", f"--distpath={folder}", "--log-level=WARN"]
    options += [f"--paths={HERE.parent}"]  # PyInstaller does not see a package that is installed to be edited
    for option, packages in (
        ("collect-all", COLLECTED),
        ("exclude-module", EXCLUDED.split()),
        ("copy-metadata", VERSIONS),
    ):
        options += [f"--{option}={package}" for package in packages]
    with tempfile.TemporaryDirectory(prefix="vsr-build-") as work:
        run([*options, f"--workpath={work}", f"--specpath={work}", str(HERE / "app_entry.py")])
    for pattern in SPARED:
        for path in (folder / "vsr" / "_internal" / "torch").glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    program = folder.resolve() / "vsr" / ("vsr.exe" if sys.platform == "win32" else "vsr")
    if sys.platform == "linux":
        program.with_suffix(".desktop").write_text(DESKTOP_ENTRY.format(program=program))
    return program


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the application becomes FOLDER/vsr")
    print(build(parser.parse_args().folder))
