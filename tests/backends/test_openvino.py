"""The OpenVINO engine beyond what every engine must do: what it keeps, what stays in float32, how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("openvino")

from vsr.backends import openvino_engine
from vsr.backends.engine import Signature, image_signature
from vsr.backends.onnx_export import fingerprint
from vsr.backends.openvino_engine import OpenVINOEngine, is_prepared, make_openvino_engine, openvino_device
from vsr.errors import EngineError, MissingExtraError, OptionError
from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.media.images import read_image, write_image
from vsr.models.nets import NETS, LumaNet, RecurrentNet

has_bf16 = "BF16" in openvino_engine._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

WITH_RESIDUAL: dict[str, dict[str, Any]] = {
    "luma": {"features": 16, "depth": 1},
    "srresnet": {"features": 16, "num_blocks": 1},
    "msrresnet": {"features": 16, "num_blocks": 1, "scale": 2},
    "srvgg": {"features": 16, "depth": 1},
    "vdsr": {"features": 16, "depth": 3, "scale": 2},
    "srcnn": {"kernels": (9, 1, 5), "scale": 2},
}


def _net(seed: int = 1) -> LumaNet:
    torch.manual_seed(seed)
    return LumaNet(4, 1, 2).eval().requires_grad_(False)


def _frames(num: int, channels: int = 1, height: int = 21, width: int = 30) -> Tensor:
    return torch.rand(num, channels, height, width, generator=torch.Generator().manual_seed(num))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for what is kept."""
    monkeypatch.setenv("VSR_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


def _forbid_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> bytes:
        raise AssertionError("exported again")

    monkeypatch.setattr(openvino_engine, "export_onnx", fail)


# -- what is kept ------------------------------------------------------------------------------------------


def test_a_network_is_exported_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_prepared(_net(), image_signature(1))
    first = make_openvino_engine(_net(), image_signature(1), precision="fp32")(_frames(2))[0]
    assert is_prepared(_net(), image_signature(1)) and not is_prepared(_net(2), image_signature(1))
    assert [path.suffix for path in folder.iterdir()] == [".openvino"]
    _forbid_export(monkeypatch)
    assert torch.equal(make_openvino_engine(_net(), image_signature(1), precision="fp32")(_frames(2))[0], first)


def test_a_damaged_file_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_openvino_engine(_net(), image_signature(1), precision="fp32")(_frames(2))[0]
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"", whole[:2000] + b"\0" * 9 + whole[2009:]):
        path.write_bytes(damaged)
        assert torch.equal(make_openvino_engine(_net(), image_signature(1), precision="fp32")(_frames(2))[0], first)
        assert openvino_engine._read_checked(path) is not None


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VSR_ENGINES", str(tmp_path / "file" / "engines"))
    out = make_openvino_engine(_net(), image_signature(1), precision="fp32")(_frames(2))[0]
    torch.testing.assert_close(out, _net()(_frames(2)))


def test_the_fingerprint_is_of_all_that_makes_a_network() -> None:
    assert fingerprint(_net()) == fingerprint(_net()) == fingerprint(_net().train())
    others = [_net(2), LumaNet(4, 1, 3), LumaNet(4, 2, 2), nn.Sequential(_net()), _net().double()]
    assert len({fingerprint(net) for net in [_net(), *others]}) == 6


# -- numbers -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not has_bf16, reason="this CPU has no bfloat16")
@pytest.mark.parametrize("name", WITH_RESIDUAL)
def test_bf16_does_not_round_the_picture_itself(name: str) -> None:
    """With a last layer of zeros, what comes out is the picture, enlarged: in full precision."""
    torch.manual_seed(1)
    net = NETS[name](**WITH_RESIDUAL[name]).eval().requires_grad_(False)
    last = [module for module in net.modules() if isinstance(module, nn.Conv2d)][-1]
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    x = _frames(1, 1 if name in ("luma", "vdsr", "srcnn") else 3)
    engine = make_openvino_engine(net, image_signature(x.shape[1]), precision="bf16")
    torch.testing.assert_close(engine(x)[0], net(x), rtol=0, atol=1e-6)


@pytest.mark.skipif(not has_bf16, reason="this CPU has no bfloat16")
def test_bf16_sees_changes_that_are_finer_than_its_own_steps() -> None:
    """A network with memory sees the difference of two frames' luma, which is taken before anything is rounded."""
    torch.manual_seed(1)
    net = RecurrentNet(8, 1).eval().requires_grad_(False)
    signature = Signature(
        (("planes", 3), ("previous", 1), ("following", 1), ("state", net.state_channels)),
        ("next_state",),
        (("state", "next_state"),),
    )
    net.pixels.weight[:, 3:] *= 50
    planes = torch.cat((0.7 + 0.2 * _frames(1), _frames(1, 2) - 0.5), 1)
    previous, following = (planes[:, :1] + 0.002 * (_frames(1, height=side)[:, :, :21] - 0.5) for side in (22, 23))
    inputs = (planes, previous, following, net.initial_state(planes))
    (found,), wanted = make_openvino_engine(net, signature, precision="bf16")(*inputs), net(*inputs)
    assert (found - wanted).abs().max() < 0.02 * wanted.abs().max()  # of rounded frames it is a tenth


@pytest.mark.parametrize("num_threads", [1, 2, 16, 64])
def test_any_number_of_requests_keeps_the_order(num_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "_num_threads", lambda: num_threads)
    engine = make_openvino_engine(_net(), image_signature(1), precision="fp32")
    for num_frames in (1, 5, 3, 9):  # more requests, and then fewer frames than those
        torch.testing.assert_close(engine(_frames(num_frames))[0], _net()(_frames(num_frames)))
        (requests,) = engine._requests.values()
        assert len(requests) <= max(1, num_threads // 8) + 1


def test_kernels_of_few_sizes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of images has hundreds of sizes, and each takes memory; the plugin cannot be asked for its limit."""
    engine = make_openvino_engine(_net(), image_signature(1), precision="fp32")
    assert isinstance(engine, OpenVINOEngine)
    given: list[dict[str, Any]] = []
    core = engine._core

    class Recording:
        def compile_model(self, model: Any, accelerator: str, options: dict[str, Any]) -> Any:
            given.append(options)
            return core.compile_model(model, accelerator, options)

    monkeypatch.setattr(engine, "_core", Recording())
    for side in (16, 21, 34, 16):
        torch.testing.assert_close(engine(_frames(1, width=side))[0], _net()(_frames(1, width=side)))
    (options,) = given
    assert options["CPU_RUNTIME_CACHE_CAPACITY"] <= 200


def test_many_cores_leave_some_to_decoder_and_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = {}
    for number in (1, 2, 4, 8, 64):
        monkeypatch.setattr(torch, "get_num_threads", lambda number=number: number)
        threads[number] = openvino_engine._num_threads()
    assert threads == {1: 1, 2: 2, 4: 4, 8: 7, 64: 56}


def test_a_gpu_compiles_for_each_size_and_forgets_the_oldest() -> None:
    """Played on the CPU, which takes fixed sizes as well."""
    engine = make_openvino_engine(_net(), image_signature(1), precision="fp32")

    class Core:
        def compile_model(self, model: Any, device: str, options: dict[str, Any]) -> Any:
            assert device == "GPU" and options["INFERENCE_PRECISION_HINT"] == "f32" and options["CACHE_DIR"]
            return openvino_engine._core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    gpu = OpenVINOEngine(Core(), engine._model, image_signature(1), "fp32", "GPU")
    assert ", gpu, " in gpu.name and gpu.device.type == "cpu"
    for width in range(20, 32):
        torch.testing.assert_close(gpu(_frames(2, width=width))[0], _net()(_frames(2, width=width)))
    assert list(gpu._requests) == [(21, width) for width in range(24, 32)]


# -- failures ----------------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_named() -> None:
    assert openvino_device("cpu") == "CPU"
    with pytest.raises(OptionError, match="gpu:7`: not there"):
        openvino_device("gpu:7")


def test_a_precision_that_the_device_lacks_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    core = SimpleNamespace(get_property=lambda device, name: ["FP32", "INT8"])
    monkeypatch.setattr(openvino_engine, "_core", lambda: core)
    with pytest.raises(EngineError, match="bf16"):
        make_openvino_engine(_net(), image_signature(1), precision="bf16")


def test_the_wrong_number_of_channels_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="1 channels as x, not 3"):
        make_openvino_engine(_net(), image_signature(1), precision="fp32")(_frames(1, 3))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Exception from src/x.cpp:1:\nstd::bad_alloc\n", MemoryError),
        ("Exception from src/x.cpp:1:\n[GPU] CL_OUT_OF_RESOURCES\n", MemoryError),
        ("Exception from src/x.cpp:1:\n[CPU] no such primitive\n", EngineError),
    ],
)
def test_a_run_that_fails_is_told_by_its_kind(
    text: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_openvino_engine(_net(), image_signature(1), precision="fp32")

    def fail(*arguments: Any) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(openvino_engine, "_run", fail)
    with pytest.raises(kind) as caught:
        engine(_frames(2))
    assert "\n" not in str(caught.value) and text.splitlines()[1] in str(caught.value)


def test_one_failed_request_leaves_none_running() -> None:
    waited = []

    class Request:
        def __init__(self, name: str) -> None:
            self.name, self.is_bad = name, False

        def wait(self) -> None:
            waited.append(self.name)
            if self.is_bad:
                self.is_bad = False
                raise RuntimeError("it broke")

        def set_input_tensor(self, position: int, tensor: Any) -> None: ...
        def set_output_tensor(self, position: int, tensor: Any) -> None: ...

        def start_async(self) -> None:
            self.is_bad = self.name == "a"

    with pytest.raises(RuntimeError, match="it broke"):
        openvino_engine._run([Request("a"), Request("b")], {0: _frames(2)}, {0: torch.empty(2, 1, 42, 60)})
    assert waited[-2:] == ["a", "b"]


class _Stretching(nn.Module):
    """A network that ONNX cannot hold for any size: what it does depends on the picture's values."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : int(x.sum())] if float(x.sum()) > 1 else x


def test_a_network_that_cannot_be_exported_is_an_engine_error(folder: Path) -> None:
    with pytest.raises(EngineError, match="_Stretching"):
        make_openvino_engine(_Stretching(), image_signature(1), precision="fp32")
    assert not folder.exists() or not list(folder.iterdir())


def test_a_library_that_does_not_load_is_told_from_one_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> Any:
        def load(name: str) -> Any:
            raise error

        return load

    monkeypatch.setattr(openvino_engine.importlib, "import_module", fail(ModuleNotFoundError("no")))
    with pytest.raises(MissingExtraError, match=r"vsr-enhance\[cpu\]"):
        openvino_engine.load_openvino()
    monkeypatch.setattr(openvino_engine.importlib, "import_module", fail(ImportError("libtbb.so.12: not found")))
    with pytest.raises(EngineError, match="libtbb"):
        openvino_engine.load_openvino()


def test_the_use_of_the_library_is_told_nobody(tmp_path: Path) -> None:
    script = "import sys; from vsr.backends.openvino_library import import_openvino as load; print(load().Core)"
    script += "; print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("Core'>\n[]\n"), done.stderr
    assert not (tmp_path / "intel").exists()


# -- jobs --------------------------------------------------------------------------------------------------


def test_a_job_runs_on_the_backend_that_was_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    write_image(source, (_frames(1, 3)[0] * 255).permute(1, 2, 0).byte().numpy())
    pictures = {}
    for backend in ("openvino", "pytorch"):
        output = tmp_path / f"{backend}.png"
        report = enhance_file(source, output, JobOptions.of(model="fast", backend=backend, device="cpu"))
        assert report.engine.lower().startswith(backend)
        pictures[backend] = read_image(output).astype(int)
    assert abs(pictures["openvino"] - pictures["pytorch"]).max() <= 2
