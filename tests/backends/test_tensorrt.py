"""TensorRT on a double that runs the exported ONNX through the same calls; see `tensorrt_double`."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
import test_conformance
import torch
from tensorrt_double import API, MAGIC_CACHE, VERSIONS, Device, build_in_a_process, make_tensorrt, read_api
from torch import Tensor, nn

from vsr.backends import tensorrt_builder, tensorrt_engine
from vsr.backends.cuda_runner import Gpu
from vsr.backends.engine import Engine, Signature, TooLargeError, image_signature
from vsr.backends.engine_store import EngineStore
from vsr.backends.select import EngineMaker, Place
from vsr.backends.tensorrt_builder import EngineBuilder, Source
from vsr.backends.tensorrt_engine import TensorRTEngine, make_tensorrt_engine
from vsr.backends.torch_engine import TorchEngine
from vsr.errors import EngineError
from vsr.export.engines import prepare
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.models.cards import ModelCard
from vsr.models.nets import LumaNet, SRResNet
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.tiles import TiledNetwork
from vsr.pipeline.upscaler import Upscaler

CPU = torch.device("cpu")


@pytest.fixture
def quick_export(export_once: Callable[..., bytes]) -> Callable[..., bytes]:
    """An export takes seconds: one with open sizes for each network, which are then filled in."""

    def export(
        net: nn.Module,
        signature: Signature,
        *,
        shape: tuple[int, int, int],
        precision: Any,
        beside_integers: Any = "fp32",
    ) -> bytes:
        model = onnx.load_from_string(export_once(net, signature, precision=precision, beside_integers=beside_integers))
        scales = list(getattr(net, "scales", ())) or [int(net.scale)]
        tensors = (*model.graph.input, *model.graph.output)
        for tensor, scale in zip(tensors, [1] * len(signature.inputs) + scales, strict=True):
            for axis, length in ((0, shape[0]), (2, shape[1] * scale), (3, shape[2] * scale)):
                tensor.type.tensor_type.shape.dim[axis].dim_value = length
        return model.SerializeToString()

    return export


@pytest.fixture(autouse=True)
def _exported_with_open_sizes(monkeypatch: pytest.MonkeyPatch, quick_export: Callable[..., bytes]) -> None:
    monkeypatch.setattr(tensorrt_builder, "export_onnx", quick_export)


class Bench:
    """A pretended GPU with a TensorRT on it, a folder of engines, and what was noted."""

    def __init__(self, version: str, device: Device, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.version, self.device, self.notes = version, device, list[str]()
        monkeypatch.setenv("VSR_ENGINES", str(folder / "engines"))
        self.store = EngineStore()
        self._monkeypatch = monkeypatch

    def install(self, trt: Any) -> None:
        self._monkeypatch.setitem(sys.modules, "tensorrt", trt)

    def engine(
        self, net: nn.Module | None = None, precision: Any = "fp32", channels: int | Signature = 1
    ) -> TensorRTEngine:
        return make_tensorrt_engine(
            net or luma_net(),
            channels if isinstance(channels, Signature) else image_signature(channels),
            precision=precision,
            device=CPU,
            note=self.notes.append,
            label="tiny",
            make_runner=self.device.make_runner,
        )

    def num_builds(self) -> int:
        return sum(line.startswith("build") for line in self.device.log)

    def files(self, suffix: str) -> list[Path]:
        return sorted(self.store.folder.glob(f"*{suffix}"))


@pytest.fixture(params=VERSIONS)
def bench(
    request: pytest.FixtureRequest,
    install_tensorrt: Callable[[str], Device],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    return Bench(request.param, install_tensorrt(request.param), tmp_path, monkeypatch)


def luma_net() -> nn.Module:
    torch.manual_seed(5)
    net = LumaNet(8, 1, 2)
    nn.init.normal_(net.tail.weight, std=0.1)  # a fresh tail adds next to nothing
    return net.eval().requires_grad_(False)


def frames(num: int, channels: int = 1, height: int = 19, width: int = 26) -> Tensor:
    return torch.rand(num, channels, height, width, generator=torch.Generator().manual_seed(num))


# -- names -----------------------------------------------------------------------------------------------

# What the variables of the source are, beside `trt` itself.
BOUND = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "timing_cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
}


def _used_names() -> set[tuple[str, str]]:
    """(class, member) of every name of the API in the source of the engine; ("", class) for the module's own."""
    sources = [Path(module.__file__).read_text("utf-8") for module in (tensorrt_engine, tensorrt_builder)]
    used = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        if owner in ("trt", "_trt"):
            used.add(("", node.attr))
        elif owner in BOUND:
            used.add((BOUND[owner], node.attr))
        elif isinstance(node.value, ast.Attribute):
            parent = node.value.value
            if getattr(parent, "id", getattr(parent, "attr", "")) in ("trt", "_trt"):
                used.add((owner, node.attr))
    return used


@pytest.mark.parametrize("version", VERSIONS)
def test_the_source_uses_only_names_that_the_version_has(version: str) -> None:
    used, classes = _used_names(), read_api(version)["classes"]
    assert ("Builder", "build_serialized_network") in used and ("BuilderFlag", "TF32") in used
    assert ("IExecutionContext", "execute_async_v3") in used and ("", "OnnxParser") in used
    for owner, name in used - {("", "__version__")}:
        assert name in (classes[owner] if owner else classes), f"TensorRT {version} has no {owner}.{name}"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_copied_part_of_the_api_is_that_of_the_whole(version: str, data_file: Callable[[str], Path]) -> None:
    whole = data_file(f"../tensorrt-api/{version}.json")
    api, copied = json.loads(whole.read_text("utf-8")), json.loads((API / f"{version}.json").read_text("utf-8"))
    assert copied["__version__"] == api["__version__"]
    for name, members in copied["classes"].items():
        assert members == api["classes"][name]


def test_the_double_lacks_what_its_version_lacks() -> None:
    trt10, trt11 = (make_tensorrt(version, Device()) for version in VERSIONS)
    assert int(trt10.BuilderFlag.FP16) == 0 and int(trt10.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 1
    assert int(trt11.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 0
    for missing in (lambda: trt11.BuilderFlag.FP16, lambda: trt11.IInt8Calibrator, lambda: trt10.nonsense):
        with pytest.raises(AttributeError):
            missing()


# -- the suite of all engines ----------------------------------------------------------------------------


@pytest.fixture(params=[(p, n) for p in ("fp32", "fp16") for n in ("luma", "srresnet")], ids="-".join)
def case(request: pytest.FixtureRequest, bench: Bench) -> tuple[TensorRTEngine, nn.Module, int]:
    precision, name = request.param
    net, channels = test_conformance.small_net(name)
    return bench.engine(net, precision, channels), net, channels


@pytest.fixture(params=["fp32", "fp16"])
def stepping(request: pytest.FixtureRequest, bench: Bench) -> tuple[Engine, nn.Module]:
    net = test_conformance.stepping_net()
    return bench.engine(net, request.param, test_conformance.STEPPING), net


for _name, _test in vars(test_conformance).items():
    if _name.startswith("test_") and {"case", "stepping"} & inspect.signature(_test).parameters.keys():
        globals()[_name] = _test  # collected here too, with the fixture above


# -- what the pipeline relies on -------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["luma", "srresnet"])
def test_output_is_that_of_the_network(
    bench: Bench, export_once: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, precision: str, name: str
) -> None:
    monkeypatch.setattr(tensorrt_builder, "export_onnx", export_once)  # with fixed sizes, as users have it
    torch.manual_seed(2)
    net = luma_net() if name == "luma" else SRResNet(8, 1, 2).eval().requires_grad_(False)
    channels = 1 if name == "luma" else 3
    engine = bench.engine(net, precision, channels)
    x = frames(2, channels)
    before = x.clone()
    for _ in range(3):  # plain, captured, replayed
        (out,) = engine(x)
        assert out.dtype == torch.float32 and out.shape == (2, channels, 38, 52)
        assert (out - net(x)).abs().max() < (1e-5 if precision == "fp32" else 1e-2)
    assert torch.equal(x, before)
    assert bench.version in engine.name and "Double GPU" in engine.name and precision in engine.name


def test_frames_keep_their_order_and_an_output_its_content(bench: Bench) -> None:
    engine, net = bench.engine(), luma_net()
    batches = [torch.rand(3, 1, 16, 18, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    outs = [engine(batch)[0] for batch in batches]  # read only after all have run
    for batch, out in zip(batches, outs, strict=True):
        assert torch.allclose(out, net(batch), atol=1e-5)


def test_a_view_of_a_larger_picture_goes_in_as_it_is(bench: Bench) -> None:
    x = frames(1, height=40, width=50)[..., 5:25, 7:37]
    assert torch.allclose(bench.engine()(x)[0], luma_net()(x), atol=1e-5)


def test_the_first_run_is_plain_the_second_a_graph_and_no_more_is_launched(bench: Bench) -> None:
    engine = bench.engine()
    for _ in range(4):
        engine(frames(2))
    assert bench.device.log[1:] == ["build from nothing", "execute", "execute", "capture", "replay", "replay", "replay"]


def test_each_shape_has_an_engine_and_a_graph(bench: Bench) -> None:
    engine, net = bench.engine(), luma_net()
    for _ in range(3):
        for size in ((19, 26), (26, 19)):
            x = frames(1, height=size[0], width=size[1])
            assert torch.allclose(engine(x)[0], net(x), atol=1e-5)
    assert bench.num_builds() == 2 and bench.device.log.count("capture") == 2


def test_a_short_last_batch_runs_in_the_engine_that_is_there(bench: Bench) -> None:
    engine, net = bench.engine(), luma_net()
    for num in (4, 4, 3, 1):
        (out,) = engine(frames(num))
        assert out.shape[0] == num and torch.allclose(out, net(frames(num)), atol=1e-5)
    assert bench.num_builds() == 1
    engine(frames(5))
    assert bench.num_builds() == 2


@pytest.mark.parametrize("fault", ["capture", "execute_in_capture"])
def test_without_a_graph_it_runs_all_the_same_and_says_so_once(bench: Bench, fault: str) -> None:
    setattr(bench.device.faults, fault, "a layer cannot be captured")
    engine, net = bench.engine(), luma_net()
    for _ in range(4):
        assert torch.allclose(engine(frames(2))[0], net(frames(2)), atol=1e-5)
    (note,) = [note for note in bench.notes if "without a CUDA graph" in note]
    assert "a layer cannot be captured" in note and "capture" not in bench.device.log
    assert bench.num_builds() == 1  # the engine whose capture failed is dropped, and loaded anew


def test_engines_are_built_without_tf32(bench: Bench) -> None:
    """What is float32 in a graph is so for its exactness: all of it, or the layers beside half precision."""
    bench.engine(precision="fp32").prepare((1, 1, 8, 8))
    bench.engine(precision="fp16").prepare((1, 1, 8, 8))
    by_precision = {path.name.split("-")[2]: b'"tf32": true' in path.read_bytes() for path in bench.files(".engine")}
    assert by_precision == {"fp32": False, "fp16": False}


# -- files -----------------------------------------------------------------------------------------------


def test_what_is_built_is_said_and_what_is_loaded_is_not(bench: Bench) -> None:
    bench.engine().prepare((4, 1, 19, 26))
    assert bench.notes[0] == "building the TensorRT engine for 26x19, batch 4, fp32; this is done once"
    assert bench.notes[1].startswith("built the TensorRT engine in")
    bench.notes.clear()
    bench.engine()(frames(4))
    assert bench.notes == [] and bench.num_builds() == 1


def test_an_engine_is_found_without_an_export(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.engine().prepare((4, 1, 19, 26))

    def export(net: nn.Module, signature: Signature, **arguments: Any) -> bytes:
        raise EngineError("exported")

    monkeypatch.setattr(tensorrt_builder, "export_onnx", export)
    bench.engine().prepare((4, 1, 19, 26))
    other = luma_net()
    next(other.parameters()).data.mul_(1.01)
    with pytest.raises(EngineError, match="exported"):
        bench.engine(other).prepare((4, 1, 19, 26))


def test_other_weights_precision_shape_gpu_or_version_build_anew(
    bench: Bench, install_tensorrt: Callable[[str], Device], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.engine().prepare((1, 1, 8, 8))
    other = luma_net()
    next(other.parameters()).data.mul_(1.01)
    bench.engine(other).prepare((1, 1, 8, 8))
    bench.engine(precision="fp16").prepare((1, 1, 8, 8))
    bench.engine().prepare((1, 1, 8, 9))
    bench.device.gpu = Gpu("Another GPU", "9.0")
    bench.engine().prepare((1, 1, 8, 8))
    assert bench.num_builds() == 5 and len(bench.files(".engine")) == 5
    version = VERSIONS[1 - VERSIONS.index(bench.version)]
    newer = Bench(version, install_tensorrt(version), tmp_path, monkeypatch)
    newer.engine().prepare((1, 1, 8, 8))
    assert newer.num_builds() == 1 and len(bench.files(".engine")) == 6
    assert not any("again" in note for note in bench.notes + newer.notes)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_flip, "fails its checksum"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "fails its checksum"),
        (lambda path: path.with_name(path.name + ".json").unlink(), "has no readable record"),
    ],
)
def test_a_damaged_engine_is_built_again_with_the_reason(
    bench: Bench, damage: Callable[[Path], None], reason: str
) -> None:
    bench.engine().prepare((2, 1, 19, 26))
    (path,) = bench.files(".engine")
    damage(path)
    bench.notes.clear()
    assert torch.allclose(bench.engine()(frames(2))[0], luma_net()(frames(2)), atol=1e-5)
    assert bench.notes[0] == f"{path.name} {reason}: building it again" and bench.num_builds() == 2
    bench.engine().prepare((2, 1, 19, 26))
    assert bench.num_builds() == 2


def test_a_whole_engine_that_does_not_load_is_built_again_with_the_reason(bench: Bench) -> None:
    bench.engine().prepare((2, 1, 19, 26))
    (path,) = bench.files(".engine")
    record = path.with_name(path.name + ".json")
    key = json.loads(record.read_text())["key"]
    from vsr.backends.engine_store import _key_of  # the file's own key, with contents of another version

    stored = _key_of({"key": key})
    assert stored is not None
    bench.store.write(stored, b"written by another TensorRT")
    bench.notes.clear()
    bench.engine().prepare((2, 1, 19, 26))
    assert bench.notes[0] == (
        f"{path.name} does not load (the engine is damaged, or of another version): building it again"
    )


def test_the_timing_cache_is_used_and_a_damaged_one_left_with_the_reason(bench: Bench) -> None:
    for size in (8, 9):
        bench.engine().prepare((1, 1, size, size))
    (cache,) = bench.files(".cache")
    cache.write_bytes(b"damaged")
    bench.engine().prepare((1, 1, 10, 10))
    builds = [line for line in bench.device.log if line.startswith("build")]
    assert builds == ["build from nothing", "build with timings", "build from nothing"]
    assert f"{cache.name} fails its checksum: measuring anew" in bench.notes
    bench.engine().prepare((1, 1, 11, 11))
    assert bench.device.log[-1] == "build with timings"


@pytest.mark.parametrize("content", [b"no cache", MAGIC_CACHE + b'[["9.0", "Old GPU"], 3]'])
def test_a_timing_cache_that_tensorrt_refuses_is_left_with_the_reason(bench: Bench, content: bytes) -> None:
    engine = bench.engine()
    bench.store.write_timing_cache(engine._builder._target, content)
    engine.prepare((1, 1, 8, 8))
    assert any(note.endswith("is refused by TensorRT: measuring anew") for note in bench.notes)
    assert bench.files(".cache")[0].read_bytes().startswith(MAGIC_CACHE)


def test_where_nothing_can_be_kept_it_runs_all_the_same_and_says_so_once(bench: Bench) -> None:
    bench.store.folder.write_bytes(b"a file where the folder should be")
    assert torch.allclose(bench.engine()(frames(2))[0], luma_net()(frames(2)), atol=1e-5)
    assert sum("cannot be kept there" in note for note in bench.notes) == 1 and bench.num_builds() == 1


# -- what fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("parse", "the network is refused (unsupported operator)"),
        ("build", "cannot be built (unsupported operator)"),
        ("load", "just built does not load (unsupported operator)"),
        ("context", "no execution context (unsupported operator)"),
        ("execute", "does not run the engine (unsupported operator)"),
    ],
)
def test_a_failing_step_is_an_engine_error_with_tensorrt_s_first_reason(bench: Bench, fault: str, reason: str) -> None:
    setattr(bench.device.faults, fault, "unsupported\noperator")
    with pytest.raises(EngineError) as caught:
        bench.engine()(frames(1))
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert bool(bench.files(".engine")) == (fault in ("context", "execute"))


@pytest.mark.parametrize(
    "reason", ["OutOfMemory (Requested size was 2147483648 bytes.)", "tensor of 8 GiB could not be allocated"]
)
def test_memory_that_runs_out_while_building_is_out_of_memory(bench: Bench, reason: str) -> None:
    bench.device.faults.build = reason
    with pytest.raises(torch.OutOfMemoryError):
        bench.engine()(frames(1))


def test_where_building_runs_out_of_memory_a_smaller_batch_is_built(bench: Bench) -> None:
    def on_build() -> None:
        is_first = bench.num_builds() == 1
        bench.device.faults.build = "tensor of 8 GiB could not be allocated" if is_first else ""

    bench.device.faults.on_build = on_build
    card, notes, x = ModelCard("tiny", "luma", {}, 2, "y", 3), list[str](), frames(4)
    out = TiledNetwork(bench.engine(), card, note=notes.append)(x)[0]
    assert torch.allclose(out, luma_net()(x), atol=1e-5)
    assert notes == ["out of memory: going on with batches of 2"] and bench.num_builds() == 2


@pytest.mark.parametrize("name", ["Builder", "OnnxParser", "Runtime"])
def test_a_constructor_that_gives_nothing_is_named_with_tensorrt_s_reason(bench: Bench, name: str) -> None:
    bench.device.faults.null = f"{name}: CUDA initialization failure with error: 35"
    with pytest.raises(EngineError, match=r"TensorRT makes no \w+ \(CUDA initialization failure with error: 35\)"):
        bench.engine()(frames(1))
    bench.device.faults.null = f"{name}: CUDA error 2: out of memory"
    with pytest.raises(torch.OutOfMemoryError):
        bench.engine()(frames(1))


# The hidden layers of `luma_net` have 8 channels.
@pytest.mark.parametrize(("most", "limit"), [(3, "batches of 3"), (1, "batches of 1"), (0.5, "tiles of 52 pixels")])
def test_a_tensor_that_tensorrt_cannot_count_caps_the_batch_and_then_tiles(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, most: float, limit: str
) -> None:
    x = frames(4, height=96, width=104)
    bench.device.faults.most_elements = int(most * 8 * 96 * 104)
    monkeypatch.setattr(tensorrt_builder, "MOST_ELEMENTS", bench.device.faults.most_elements)
    card, notes = ModelCard("tiny", "luma", {}, 2, "y", 3), list[str]()
    out = TiledNetwork(bench.engine(), card, note=notes.append)(x)[0]
    assert torch.allclose(out, luma_net()(x), atol=1e-5)
    assert "2³¹ elements" in notes[0] and notes[-1].endswith(f"going on with {limit}")
    assert not any("cannot be built" in note for note in bench.notes)


def test_building_ahead_takes_the_batch_that_a_job_will_take(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_builder, "MOST_ELEMENTS", 3 * 8 * 19 * 26)
    with pytest.raises(TooLargeError) as caught:
        bench.engine().prepare((4, 1, 19, 26))
    assert caught.value.num_frames == 3 and bench.num_builds() == 0
    assert prepare(bench.engine(), (4, 1, 19, 26), is_asked=False) == 3
    with pytest.raises(EngineError, match="smaller `batch`"):
        prepare(bench.engine(), (4, 1, 19, 26), is_asked=True)


def test_a_name_that_an_early_version_lacks_is_an_engine_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules["tensorrt"], "ExecutionContextAllocationStrategy")
    with pytest.raises(EngineError, match=rf"TensorRT {bench.version}.*ExecutionContextAllocationStrategy"):
        bench.engine()(frames(1))


def test_no_library_is_an_engine_error_that_names_the_extra(bench: Bench) -> None:
    bench.install(None)  # what makes an import fail
    with pytest.raises(EngineError, match=r"pip install 'vsr-enhance\[tensorrt\]'"):
        bench.engine()


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0", "12.0.0", "unknown"])
def test_another_major_version_is_an_engine_error_that_names_it(bench: Bench, version: str) -> None:
    old = types.ModuleType("tensorrt")
    old.__version__ = version  # type: ignore[attr-defined]
    bench.install(old)
    with pytest.raises(EngineError, match=f"TensorRT {version} is not supported"):
        bench.engine()


def test_a_library_that_does_not_load_is_an_engine_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(tensorrt_builder.importlib, "import_module", fail)
    with pytest.raises(EngineError, match=r"does not load \(libnvinfer"):
        bench.engine()


def test_without_a_gpu_it_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="NVIDIA GPU"):
        make_tensorrt_engine(luma_net(), image_signature(1), precision="fp32", device=CPU)


def test_out_of_memory_surfaces_as_itself_and_lets_go_of_everything(bench: Bench) -> None:
    bench.device.faults.memory_bytes = 30_000
    engine = bench.engine()
    for num in (1, 8):  # 10 kB for a frame of 19x26, its output and the scratch memory; 44 kB for eight
        if num == 8:
            with pytest.raises(torch.OutOfMemoryError):
                engine(frames(num))
        else:
            engine(frames(num))
    assert not any(ref() is not None for ref in bench.device.blocks)
    assert torch.allclose(engine(frames(2))[0], luma_net()(frames(2)), atol=1e-5)


@pytest.mark.parametrize("fault", ["load", "context"])
def test_a_gpu_that_is_full_is_out_of_memory_and_no_damaged_engine(bench: Bench, fault: str) -> None:
    bench.engine().prepare((1, 1, 19, 26))
    setattr(bench.device.faults, fault, "CUDA error: out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        bench.engine()(frames(1))
    assert bench.num_builds() == 1


def test_the_tiler_gets_by_with_little_memory(bench: Bench) -> None:
    bench.device.faults.memory_bytes = 60_000
    card = ModelCard("tiny", "luma", {}, 2, "y", 3)
    notes: list[str] = []
    x = frames(4, height=48, width=50)
    out = TiledNetwork(bench.engine(), card, note=notes.append)(x)[0]
    assert torch.allclose(out, luma_net()(x), atol=1e-5)
    assert "out of memory: going on with batches of 1" in notes


@pytest.fixture
def interrupt() -> Iterator[Callable[[Any], None]]:
    """Sets what SIGINT does, which a shell's background jobs ignore; as it was afterwards."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


def test_an_ignored_interrupt_does_not_end_the_build(bench: Bench, interrupt: Callable[[Any], None]) -> None:
    interrupt(signal.SIG_IGN)
    bench.device.faults.on_build = lambda: os.kill(os.getpid(), signal.SIGINT)
    bench.engine()(frames(1))
    assert bench.files(".engine")


def test_an_interrupt_ends_the_build_and_leaves_nothing_behind(bench: Bench, interrupt: Callable[[Any], None]) -> None:
    interrupt(signal.default_int_handler)
    bench.device.faults.on_build = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        bench.engine()(frames(1))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not bench.files(".engine") and not bench.files(".part*")
    bench.device.faults.on_build = lambda: None
    bench.engine()(frames(1))


# -- several at once ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_spawn")
def test_two_processes_at_once_build_once(tmp_path: Path, quick_export: Callable[..., bytes]) -> None:
    log, model = tmp_path / "builds", tmp_path / "model.onnx"
    model.write_bytes(quick_export(luma_net(), image_signature(1), shape=(1, 12, 14), precision="fp32"))
    context = multiprocessing.get_context("spawn")
    arguments = (VERSIONS[0], tmp_path / "engines", log, model, context.Barrier(2))
    processes = [context.Process(target=build_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(log.read_text().splitlines()) == 1


def test_two_threads_at_once_build_once_and_the_second_is_told(bench: Bench) -> None:
    first_builds, second_waits = threading.Event(), threading.Event()

    def on_build() -> None:
        first_builds.set()
        assert second_waits.wait(30)

    bench.device.faults.on_build = on_build
    other = Device()  # a pretended GPU has one user at a time
    told: list[str] = []

    def second() -> None:
        assert first_builds.wait(30)

        def note(line: str) -> None:
            told.append(line)
            second_waits.set()

        trt, runner = make_tensorrt(bench.version, other), other.make_runner(CPU)
        source = Source(luma_net(), image_signature(1), "fp32")
        TensorRTEngine(EngineBuilder(trt, source, runner, bench.store, note), runner, note).prepare((1, 1, 8, 8))

    thread = threading.Thread(target=second)
    thread.start()
    bench.engine().prepare((1, 1, 8, 8))
    thread.join(60)
    assert told == ["another process builds this engine: waiting for it"]
    assert bench.num_builds() == 1 and not any(line.startswith("build") for line in other.log)


# -- whole jobs ----------------------------------------------------------------------------------------

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "sample.mp4"
CARD = ModelCard("tiny", "luma", {"features": 8, "depth": 1, "scale": 2}, 2, "y", 3)
FIVE_FRAMES = JobOptions.of(
    duration_seconds=Fraction(5, 30), batch=2, precision="fp32", preset="ultrafast", codec="libx264", crf=0
)


def _luma(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_job_gives_the_video_that_pytorch_gives(bench: Bench, tmp_path: Path, precision: str) -> None:
    net = luma_net()
    on_torch = Upscaler(CheckedNetwork(CARD, lambda precision: TorchEngine(net, CPU, precision), "fp32"))
    enhance_file(SAMPLE, tmp_path / "torch.mp4", FIVE_FRAMES, upscaler=on_torch)
    upscaler = Upscaler(
        CheckedNetwork(CARD, lambda precision: bench.engine(net, precision), precision, note=bench.notes.append)
    )  # type: ignore[arg-type]
    report = enhance_file(SAMPLE, tmp_path / "tensorrt.mp4", FIVE_FRAMES, upscaler=upscaler, note=bench.notes.append)
    assert report.num_frames == 5 and report.engine.startswith(f"TensorRT {bench.version}")
    pairs = list(zip(_luma(tmp_path / "tensorrt.mp4"), _luma(tmp_path / "torch.mp4"), strict=True))
    differences = np.stack([np.abs(ours.astype(int) - theirs) for ours, theirs in pairs])
    # A sum in another order may round to the next code value; in fp16 random weights amplify.
    assert len(pairs) == 5 and differences.max() <= (1 if precision == "fp32" else 4)
    assert differences.mean() < (1e-4 if precision == "fp32" else 0.05)
    assert bench.device.log.count("capture") >= 1


@pytest.mark.parametrize("tile", [None, 60], ids=["whole", "tiles"])
def test_a_job_builds_one_engine_for_its_check_its_batches_and_its_tiles(
    bench: Bench, tmp_path: Path, tile: int | None
) -> None:
    net = luma_net()
    reference = functools.partial(TorchEngine, net, CPU, "fp32")
    upscaler = Upscaler(
        CheckedNetwork(
            CARD,
            lambda precision: bench.engine(net, precision),
            "fp32",
            tile,
            bench.notes.append,
            make_reference=reference,
        )
    )
    report = enhance_file(SAMPLE, tmp_path / "out.mp4", FIVE_FRAMES, upscaler=upscaler)
    assert report.num_frames == 5 and report.engine.startswith("TensorRT")
    assert bench.num_builds() == 1


@pytest.mark.parametrize("damaged", [".engine", ".engine.json", ".cache", ".cache.json"])
def test_a_job_goes_on_when_a_file_of_the_last_one_is_damaged(bench: Bench, tmp_path: Path, damaged: str) -> None:
    def job(name: str) -> int:
        upscaler = Upscaler(CheckedNetwork(CARD, lambda precision: bench.engine(precision=precision), "fp32"))
        return enhance_file(SAMPLE, tmp_path / name, FIVE_FRAMES, upscaler=upscaler).num_frames

    assert job("first.mp4") == 5 and bench.num_builds() == 1
    for path in bench.files(damaged):
        path.write_bytes(b"damaged")
    if ".cache" in damaged:
        for path in bench.files(".engine"):
            path.unlink()
    assert job("second.mp4") == 5 and bench.num_builds() == 2
    assert any(note.endswith(("building it again", "measuring anew")) for note in bench.notes)
    assert job("third.mp4") == 5 and bench.num_builds() == 2


def _maker(bench: Bench, monkeypatch: pytest.MonkeyPatch, backend: Any, work: float | None = 1e18) -> EngineMaker:
    """What a job has, on a machine where TensorRT is the fastest and PyTorch runs on the CPU."""
    make = functools.partial(make_tensorrt_engine, make_runner=bench.device.make_runner)
    monkeypatch.setattr(tensorrt_engine, "make_tensorrt_engine", make)
    monkeypatch.setattr(EngineMaker, "_fastest", lambda self, precision: "tensorrt")
    place, note = Place(CPU, backend), bench.notes.append
    return EngineMaker(luma_net(), image_signature(1), place, label="tiny", note=note, work=work)


def _break(bench: Bench, fault: str) -> None:
    if fault == "no library":
        bench.install(None)
    elif fault == "wrong version":
        old = types.ModuleType("tensorrt")
        old.__version__ = "9.3.0"  # type: ignore[attr-defined]
        bench.install(old)
    else:
        setattr(bench.device.faults, fault, "no such kernel")


@pytest.mark.parametrize("work", [None, 1e12])
def test_a_short_job_uses_an_engine_that_is_kept_and_builds_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, work: float | None
) -> None:
    x, notes = frames(2), bench.notes
    assert _maker(bench, monkeypatch, "auto", work).make("fp32")(x)[0].shape[0] == 2
    assert bench.num_builds() == 0
    (note,) = [note for note in notes if "PyTorch" in note]
    assert "no TensorRT engine is kept for 26x19, batch 2, fp32, and the job is too short to build one" in note
    _maker(bench, monkeypatch, "tensorrt", work).make("fp32")(x)  # asked for, and so it is built
    assert bench.num_builds() == 1
    notes.clear()
    engine = _maker(bench, monkeypatch, "auto", work).make("fp32")
    assert torch.allclose(engine(x)[0], luma_net()(x), atol=1e-5) and engine.name.startswith("TensorRT")
    assert notes == [] and bench.num_builds() == 1


def test_memory_that_runs_out_beside_the_network_lets_go_of_the_plan_of_the_larger_batch(bench: Bench) -> None:
    """Half of the batch would else run padded in buffers for the whole."""
    engine = bench.engine()
    upscaler = Upscaler(CheckedNetwork(CARD, lambda precision: engine, "fp32"))
    fails = iter([True])

    def work(batch: Any) -> tuple[Tensor, ...]:
        out = engine(batch.planes[0].float())
        if next(fails, False):
            raise torch.OutOfMemoryError("out of memory in colour")
        return out

    color = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, 8)
    batch = FrameBatch((frames(4).mul(255).to(torch.uint8),), (0, 1, 2, 3), (1,) * 4, Fraction(1, 25), color)
    parts = upscaler._limit.run(batch, work)
    assert [part[0].shape[0] for part in parts] == [2, 2]
    assert [shape[0] for shape in engine._plans] == [2]


FAULTS = {
    "no library": "pip install",
    "wrong version": "TensorRT 9.3.0 is not supported",
    "parse": "no such kernel",
    "build": "no such kernel",
    "load": "no such kernel",
    "context": "no such kernel",
    "execute": "no such kernel",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_falls_back_to_pytorch_and_says_why_once(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    _break(bench, fault)
    upscaler = Upscaler(CheckedNetwork(CARD, _maker(bench, monkeypatch, "auto").make, "fp32"))
    report = enhance_file(SAMPLE, tmp_path / "out.mp4", FIVE_FRAMES, upscaler=upscaler)
    assert report.num_frames == 5 and report.engine.startswith("PyTorch")
    (note,) = [note for note in bench.notes if "PyTorch" in note]
    assert FAULTS[fault] in note and note.endswith("going on with PyTorch")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_that_asks_for_tensorrt_fails_with_the_reason_and_leaves_no_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    _break(bench, fault)
    with pytest.raises(EngineError, match=FAULTS[fault]):
        upscaler = Upscaler(CheckedNetwork(CARD, _maker(bench, monkeypatch, "tensorrt").make, "fp32"))
        enhance_file(SAMPLE, tmp_path / "out.mp4", FIVE_FRAMES, upscaler=upscaler)
    assert not list(tmp_path.glob("*.mp4*"))
