from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vsr.errors import ModelError
from vsr.models.perceptual import SqueezeNetFeatures, VGG19Features, load_squeezenet, load_vgg19
from vsr.quality.lpips import LPIPS, load_lpips


def _image(height: int = 67, width: int = 83, seed: int = 1) -> Tensor:
    """(1, 3, H, W) in [0, 1]: smooth shapes with edges."""
    coarse = torch.rand((1, 3, 9, 11), generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(coarse, (height, width), mode="bilinear") * 4).sin().abs()


@pytest.fixture(scope="module")
def squeezenet_file(data_file: Callable[[str], Path]) -> Path:
    return data_file("peers/squeezenet1_1_lpips.safetensors")


@pytest.fixture(scope="module")
def lpips(squeezenet_file: Path) -> LPIPS:
    return load_lpips(squeezenet_file)


def _vgg19_state() -> dict[str, Tensor]:
    """Random weights in torchvision's layout, features only, scaled so that the signal keeps its size."""
    generator = torch.Generator().manual_seed(5)
    state, channels = {}, 3
    widths = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    for number, width in zip((0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), widths, strict=True):
        std = (2 / (9 * channels)) ** 0.5
        state[f"features.{number}.weight"] = torch.randn((width, channels, 3, 3), generator=generator) * std
        state[f"features.{number}.bias"] = torch.randn(width, generator=generator) * 0.1
        channels = width
    return state


@pytest.fixture(scope="module")
def vgg19_state() -> dict[str, Tensor]:
    return _vgg19_state()


# -- SqueezeNet and LPIPS ----------------------------------------------------------------------------------


def test_the_trunk_has_squeezenet_1_1_s_size() -> None:
    # 1,235,496 parameters of torchvision's squeezenet1_1, less the 1×1 classifier of 512 to 1000.
    assert sum(p.numel() for p in SqueezeNetFeatures().parameters()) == 1235496 - 513000


@torch.inference_mode()
def test_taps_of_a_224_pixel_image() -> None:
    taps = SqueezeNetFeatures()(torch.rand(2, 3, 224, 224))
    sizes = [111, 55, 27, 13, 13, 13, 13]  # torchvision's, with ceil-mode pooling
    channels = [64, 128, 256, 384, 384, 512, 512]
    assert [tuple(t.shape) for t in taps] == [(2, c, s, s) for c, s in zip(channels, sizes, strict=True)]
    assert all(t.min() >= 0 for t in taps)


@torch.inference_mode()
def test_the_smallest_image_is_of_17_pixels() -> None:
    assert SqueezeNetFeatures()(torch.rand(1, 3, 17, 17))[-1].shape == (1, 512, 1, 1)
    with pytest.raises(RuntimeError):
        SqueezeNetFeatures()(torch.rand(1, 3, 16, 17))


@torch.inference_mode()
def test_the_first_tap_is_the_convolution_of_the_file(squeezenet_file: Path) -> None:
    state, x = load_file(squeezenet_file), _image()
    first = F.relu(F.conv2d(x, state["features.0.weight"], state["features.0.bias"], stride=2))
    torch.testing.assert_close(load_squeezenet(squeezenet_file)(x)[0], first)


def test_loaded_networks_are_frozen(squeezenet_file: Path) -> None:
    for net in (load_squeezenet(squeezenet_file), load_lpips(squeezenet_file)):
        assert not net.training
        assert not any(p.requires_grad for p in net.parameters())


@torch.inference_mode()
def test_lpips_is_a_symmetric_distance(lpips: LPIPS) -> None:
    a, b = _image(), _image(seed=2)
    assert lpips(a, a).tolist() == [0.0]
    assert lpips(a, b).item() > 0.1
    torch.testing.assert_close(lpips(a, b), lpips(b, a))


@torch.inference_mode()
def test_lpips_of_a_batch_is_that_of_each_pair(lpips: LPIPS) -> None:
    a, b = torch.cat([_image(), _image(seed=2)]), torch.cat([_image(seed=3), _image(seed=2)])
    out = lpips(a, b)
    assert out.shape == (2,)
    torch.testing.assert_close(out, torch.cat([lpips(a[:1], b[:1]), lpips(a[1:], b[1:])]))


@torch.inference_mode()
def test_lpips_equals_its_definition(lpips: LPIPS) -> None:
    a, b = _image(40, 40), _image(40, 40, seed=2)
    total = 0.0
    for head, x, y in zip(lpips.heads.values(), lpips.trunk(a), lpips.trunk(b), strict=True):
        unit_x, unit_y = (t / (t.square().sum(1, keepdim=True).sqrt() + 1e-10) for t in (x, y))
        weight = head.get_parameter("weight")[0, :, 0, 0]
        total += ((unit_x - unit_y).square() * weight[:, None, None]).sum(1).mean().item()
    assert lpips(a, b).item() == pytest.approx(total, rel=1e-4)


@torch.inference_mode()
def test_lpips_grows_with_blur_and_with_noise(lpips: LPIPS) -> None:
    x = _image(128, 128)
    blurred = [F.avg_pool2d(F.pad(x, (r, r, r, r), mode="reflect"), 2 * r + 1, 1) for r in (1, 2, 4)]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    noisy = [(x + noise * sigma).clamp(0, 1) for sigma in (0.01, 0.05, 0.2)]
    for series in (blurred, noisy):
        values = [lpips(x, worse).item() for worse in series]
        assert 0 < values[0] < values[1] < values[2]


def test_lpips_gives_its_input_a_finite_gradient(lpips: LPIPS) -> None:
    a = torch.zeros((1, 3, 32, 32), requires_grad=True)
    lpips(a, _image(32, 32)).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert a.grad.abs().sum() > 0


# -- VGG19 -------------------------------------------------------------------------------------------------


def _vgg19_reference(state: dict[str, Tensor]) -> nn.Sequential:
    """torchvision's `vgg19().features[:35]`, from its published configuration E."""
    layers: list[nn.Module] = []
    channels = 3
    configuration: list[int | str] = [64, 64, "M", 128, 128, "M"]
    configuration += [*[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"]
    for v in configuration:
        if isinstance(v, str):
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        else:
            layers += [nn.Conv2d(channels, v, kernel_size=3, padding=1), nn.ReLU()]
            channels = v
    net = nn.Sequential(*layers[:35])
    net.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    return net


def test_vgg19_s_convolutions_have_their_published_size() -> None:
    assert sum(p.numel() for p in VGG19Features().parameters()) == 20_024_384


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@torch.inference_mode()
def test_vgg19_equals_torchvision_s_layers(suffix: str, vgg19_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"vgg19{suffix}"
    whole = {**vgg19_state, "classifier.0.weight": torch.zeros(4, 4)}
    save_file(whole, path) if suffix == ".safetensors" else torch.save(whole, path)
    x = _image(35, 50)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = _vgg19_reference(vgg19_state)((x - mean[:, None, None]) / std[:, None, None])
    out = load_vgg19(path)(x)
    assert out.shape == (1, 512, 2, 3)
    assert out.min() < 0  # before the activation
    torch.testing.assert_close(out, expected)


def test_vgg19_passes_gradients_to_its_input_alone(vgg19_state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(vgg19_state, tmp_path / "vgg19.safetensors")
    net, x = load_vgg19(tmp_path / "vgg19.safetensors"), _image(32, 32).requires_grad_()
    net(x).square().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    assert not net.training
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())


# -- wrong files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_squeezenet, load_lpips, load_vgg19])
def test_files_that_hold_something_else_are_named(load: object, tmp_path: Path) -> None:
    missing, garbage, other = tmp_path / "none.pth", tmp_path / "garbage.pth", tmp_path / "other.safetensors"
    garbage.write_bytes(b"not weights at all")
    save_file({"head.weight": torch.zeros(1)}, other)
    for path, reason in ((missing, "no such file"), (garbage, "not a file of weights"), (other, "lacks")):
        with pytest.raises(ModelError, match=rf"{path.name}: .*{reason}") as caught:
            load(path)  # type: ignore[operator]
        assert "\n" not in str(caught.value)


def test_a_cut_safetensors_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"\x40")
    with pytest.raises(ModelError, match=r"cut\.safetensors: not a file of weights"):
        load_squeezenet(path)


def test_other_squeezenets_and_vggs_are_refused(vgg19_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    vgg16 = {k: v for k, v in vgg19_state.items() if int(k.split(".")[1]) < 30}
    save_file(vgg16, path)
    with pytest.raises(ModelError, match=r"not VGG19.*lacks features\.30"):
        load_vgg19(path)
    with pytest.raises(ModelError, match=r"not SqueezeNet 1\.1.*features\.10\.bias of shape \(256,\) does not belong"):
        load_squeezenet(path)
    save_file({**vgg19_state, "features.1.running_mean": torch.zeros(64)}, path)
    with pytest.raises(ModelError, match=r"running_mean of shape \(64,\) does not belong"):
        load_vgg19(path)


def test_squeezenet_without_heads_is_no_lpips(tmp_path: Path) -> None:
    path = tmp_path / "trunk.safetensors"
    save_file(SqueezeNetFeatures().state_dict(), path)
    load_squeezenet(path)
    with pytest.raises(ModelError, match=r"heads of LPIPS v0\.1.*lacks lin0\.weight"):
        load_lpips(path)


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ModelError, match=r"module\.pth: not a file of weights"):
        load_vgg19(tmp_path / "module.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="dictionary of tensors"):
        load_vgg19(tmp_path / "list.pth")
