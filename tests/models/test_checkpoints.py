from __future__ import annotations

import argparse
import importlib.util
import io
import math
import pickle
import sys
import tarfile
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from vsr.backends.onnx_export import export_onnx
from vsr.color.resample import imresize
from vsr.errors import MissingExtraError, ModelError
from vsr.models import spandrel_net
from vsr.models.cards import ModelCard, card_from_json
from vsr.models.conventions import Stated
from vsr.models.nets import EDSR, SRCNN, SRVGG, VDSR, LumaNet, MSRResNet, RRDBNet, SRResNet
from vsr.models.nets.bicubic import BicubicUp
from vsr.models.weights import load_net, load_with_card, resolve
from vsr.pipeline.loading import load_model, signature_of
from vsr.pipeline.tiles import TiledNetwork
from vsr.quality.metrics import luma_bt601, psnr_db

State = dict[str, Tensor]


# -- the networks as their authors define them -------------------------------------------------------------


def _conv(channels: int, out_channels: int, kernel: int = 3, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=bias)


class _SrganBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = _conv(64, 64), nn.BatchNorm2d(64), nn.PReLU()
        self.conv2, self.bn2 = _conv(64, 64), nn.BatchNorm2d(64)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(x)))))
        return out


class _SrganStep(nn.Module):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.conv, self.shuffle, self.prelu = _conv(64, 64 * factor**2), nn.PixelShuffle(factor), nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.prelu(self.shuffle(self.conv(x)))
        return out


class _Srgan(nn.Module):
    """leftthomas/SRGAN: a PReLU after the seventh block in early versions, batch norm later."""

    def __init__(self, scale: int, early: bool) -> None:
        super().__init__()
        self.block1 = nn.Sequential(_conv(3, 64, 9), nn.PReLU())
        self.block2, self.block3, self.block4 = _SrganBlock(), _SrganBlock(), _SrganBlock()
        self.block5, self.block6 = _SrganBlock(), _SrganBlock()
        self.block7 = nn.Sequential(_conv(64, 64), nn.PReLU() if early else nn.BatchNorm2d(64))
        self.block8 = nn.Sequential(*(_SrganStep(2) for _ in range(int(math.log2(scale)))), _conv(64, 3, 9))

    def forward(self, x: Tensor) -> Tensor:
        first = self.block1(x)
        body = self.block6(self.block5(self.block4(self.block3(self.block2(first)))))
        return (torch.tanh(self.block8(first + self.block7(body))) + 1) / 2


class _ResidualConvolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        one, two = _conv(16, 16, bias=False), _conv(16, 16, bias=False)
        self.rcb = nn.Sequential(one, nn.BatchNorm2d(16), nn.PReLU(), two, nn.BatchNorm2d(16))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.rcb(x)
        return out


class _UpsampleBlock(nn.Module):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.upsample_block = nn.Sequential(_conv(16, 16 * factor**2), nn.PixelShuffle(factor), nn.PReLU())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.upsample_block(x)
        return out


class _LornatangSrresnet(nn.Module):
    def __init__(self, factors: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(_conv(3, 16, 9), nn.PReLU())
        self.trunk = nn.Sequential(*(_ResidualConvolutions() for _ in range(2)))
        self.conv2 = nn.Sequential(_conv(16, 16, bias=False), nn.BatchNorm2d(16))
        self.upsampling = nn.Sequential(*(_UpsampleBlock(factor) for factor in factors))
        self.conv3 = _conv(16, 3, 9)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        out: Tensor = self.conv3(self.upsampling(first + self.conv2(self.trunk(first))))
        return out


class _BlockWithoutNorm(nn.Module):
    def __init__(self, features: int, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.conv1, self.conv2, self.residual_scale = (
            _conv(features, features),
            _conv(features, features),
            residual_scale,
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.relu(self.conv1(x))) * self.residual_scale
        return out


class _BasicsrMsrresnet(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale, factor = scale, 2 if scale == 4 else scale
        self.conv_first = _conv(3, 16)
        self.body = nn.Sequential(*(_BlockWithoutNorm(16) for _ in range(3)))
        self.upconv1 = _conv(16, 16 * factor**2)
        if scale == 4:
            self.upconv2 = _conv(16, 64)
        self.shuffle = nn.PixelShuffle(factor)
        self.conv_hr, self.conv_last = _conv(16, 16), _conv(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(F.leaky_relu(self.conv_first(x), 0.1))
        out = F.leaky_relu(self.shuffle(self.upconv1(out)), 0.1)
        if self.scale == 4:
            out = F.leaky_relu(self.shuffle(self.upconv2(out)), 0.1)
        detail: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(out), 0.1))
        return detail + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)


def _upsampler(features: int, scale: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for factor in [3] if scale == 3 else [2] * int(math.log2(scale)):
        layers += [_conv(features, features * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


class _MeanShift(nn.Conv2d):
    def __init__(self, peak: float, sign: int) -> None:
        super().__init__(3, 3, 1)
        self.weight.data = torch.eye(3).view(3, 3, 1, 1)
        self.bias = nn.Parameter(sign * peak * torch.tensor((0.4488, 0.4371, 0.4040)))


class _NumberedBlock(nn.Module):
    def __init__(self, features: int, residual_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(features, features), nn.ReLU(), _conv(features, features))
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x) * self.residual_scale
        return out


class _SanghyunEdsr(nn.Module):
    """sanghyun-son/EDSR-PyTorch, which works on [0, peak]."""

    def __init__(self, scale: int, features: int = 16, residual_scale: float = 1.0, peak: float = 255.0) -> None:
        super().__init__()
        self.peak = peak
        self.sub_mean, self.add_mean = _MeanShift(peak, -1), _MeanShift(peak, 1)
        self.head = nn.Sequential(_conv(3, features))
        blocks = (_NumberedBlock(features, residual_scale) for _ in range(2))
        self.body = nn.Sequential(*blocks, _conv(features, features))
        self.tail = nn.Sequential(_upsampler(features, scale), _conv(features, 3))

    def forward(self, x: Tensor) -> Tensor:
        head = self.head(self.sub_mean(x * self.peak))
        out: Tensor = self.add_mean(self.tail(head + self.body(head)))
        return out / self.peak


class _BasicsrEdsr(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.conv_first = _conv(3, 16)
        self.body = nn.Sequential(*(_BlockWithoutNorm(16) for _ in range(2)))
        self.conv_after_body, self.upsample, self.conv_last = _conv(16, 16), _upsampler(16, scale), _conv(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        mean = torch.tensor((0.4488, 0.4371, 0.4040)).view(1, 3, 1, 1)
        head = self.conv_first((x - mean) * 255)
        out: Tensor = self.conv_last(self.upsample(head + self.conv_after_body(self.body(head))))
        return out / 255 + mean


class _DenseBlock(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for index in range(1, 5):
            self.add_module(f"conv{index}", _conv(features + (index - 1) * growth, growth))
        self.conv5 = _conv(features + 4 * growth, features)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for index in range(1, 5):
            seen.append(F.leaky_relu(self.get_submodule(f"conv{index}")(torch.cat(seen, 1)), 0.2))
        out: Tensor = self.conv5(torch.cat(seen, 1)) * 0.2 + x
        return out


class _Rrdb(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2 = _DenseBlock(features, growth), _DenseBlock(features, growth)
        self.rdb3 = _DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x
        return out


class _Rrdbnet(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.unshuffle = 4 // scale
        self.conv_first = _conv(3 * self.unshuffle**2, 12)
        self.body = nn.Sequential(*(_Rrdb(12, 6) for _ in range(2)))
        self.conv_body, self.conv_up1, self.conv_up2 = _conv(12, 12), _conv(12, 12), _conv(12, 12)
        self.conv_hr, self.conv_last = _conv(12, 12), _conv(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_first(F.pixel_unshuffle(x, self.unshuffle))
        out = first + self.conv_body(self.body(first))
        for conv in (self.conv_up1, self.conv_up2):
            out = F.leaky_relu(conv(F.interpolate(out, scale_factor=2, mode="nearest")), 0.2)
        image: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(out), 0.2))
        return image


class _SrvggCompact(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [_conv(3, 16), nn.PReLU(16)]
        for _ in range(3):
            layers += [_conv(16, 16), nn.PReLU(16)]
        self.body = nn.ModuleList([*layers, _conv(16, 3 * scale**2)])

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for layer in self.body:
            out = layer(out)
        return F.pixel_shuffle(out, self.scale) + F.interpolate(x, scale_factor=float(self.scale), mode="nearest")


class _ConvRelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = _conv(16, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class _TwtygqyyVdsr(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enlarge = BicubicUp(4)
        self.residual_layer = nn.Sequential(*(_ConvRelu() for _ in range(4)))
        self.input, self.output = _conv(1, 16, bias=False), _conv(16, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enlarge(x)
        out: Tensor = x + self.output(self.residual_layer(F.relu(self.input(x))))
        return out


class _EarlyTwtygqyyVdsr(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enlarge = BicubicUp(4)
        middle = [m for _ in range(10) for m in (_conv(16, 16, bias=False), nn.ReLU())]
        self.features = nn.Sequential(_conv(1, 16, bias=False), nn.ReLU(), *middle, _conv(16, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enlarge(x)
        out: Tensor = x + self.features(x)
        return out


class _LornatangVdsr(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enlarge = BicubicUp(4)
        self.conv1 = nn.Sequential(_conv(1, 16, bias=False), nn.ReLU())
        self.trunk = nn.Sequential(*(_ConvRelu() for _ in range(4)))
        self.conv2 = _conv(16, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enlarge(x)
        out: Tensor = x + self.conv2(self.trunk(self.conv1(x)))
        return out


class _Yjn870Srcnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enlarge = BicubicUp(4)
        self.conv1, self.conv2, self.conv3 = _conv(1, 64, 9), _conv(64, 32, 5), _conv(32, 1, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(F.relu(self.conv2(F.relu(self.conv1(self.enlarge(x))))))
        return out


class _LornatangSrcnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enlarge = BicubicUp(4)
        self.features = nn.Sequential(_conv(1, 64, 9), nn.ReLU())
        self.map = nn.Sequential(_conv(64, 32, 1), nn.ReLU())
        self.reconstruction = _conv(32, 1, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.reconstruction(self.map(self.features(self.enlarge(x))))
        return out


# -- the same networks under other names -------------------------------------------------------------------


def _renamed(*pairs: tuple[str, str]) -> Callable[[State], State]:
    def rename(state: State) -> State:
        for old, new in pairs:
            state = {key.replace(old, new): value for key, value in state.items()}
        return state

    return rename


_ESRGAN_NAMES = _renamed(
    ("conv_body", "trunk_conv"), ("body.", "RRDB_trunk."), ("rdb", "RDB"), ("conv_up", "upconv"), ("conv_hr", "HRconv")
)


def _oldest_esrgan_names(state: State) -> State:
    names = {"conv_first": "model.0", "conv_body": "model.1.sub.2", "conv_up1": "model.3", "conv_up2": "model.6"}
    names |= {"conv_hr": "model.8", "conv_last": "model.10"}
    for module in {key.rpartition(".")[0] for key in state} - names.keys():
        names[module] = f"model.1.sub.{module.removeprefix('body.').replace('rdb', 'RDB')}.0"
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}


_OLD_MSRRESNET_NAMES = _renamed(("body.", "recon_trunk."), ("conv_hr", "HRconv"))
_MMEDITING_MSRRESNET_NAMES = _renamed(
    ("body.", "trunk_net."), ("upconv1", "upsample1.upsample_conv"), ("upconv2", "upsample2.upsample_conv")
)
_MMEDITING_EDSR_NAMES = _renamed(("upsample.0", "upsample.0.upsample_conv"), ("upsample.2", "upsample.1.upsample_conv"))
_EARLY_LORNATANG_NAMES = _renamed(*((f"conv{n}.", f"conv_block{n}.") for n in (1, 2, 3)))


def _as_is(state: State) -> State:
    return state


class _Yjn870Espcn(nn.Module):
    def __init__(self, scale: int = 3, channels: int = 1) -> None:
        super().__init__()
        self.first_part = nn.Sequential(_conv(channels, 64, 5), nn.Tanh(), _conv(64, 32), nn.Tanh())
        self.last_part = nn.Sequential(_conv(32, channels * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last_part(self.first_part(x))
        return out


class _LornatangEspcn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.feature_maps = nn.Sequential(_conv(1, 64, 5), nn.Tanh(), _conv(64, 32), nn.Tanh())
        self.sub_pixel = nn.Sequential(_conv(32, 16), nn.PixelShuffle(4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sub_pixel(self.feature_maps(x))
        return out


class _EgvsrEspcn(nn.Module):
    """With the weights of two other ways to enlarge, which go unused."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = _conv(1, 64, 5), _conv(64, 32), _conv(32, 32)
        self.pwconv, self.reconv = _conv(32, 16, 1), _conv(32, 1, 1)
        self.deconv = nn.ConvTranspose2d(32, 1, 5, 4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = conv(x).tanh()
        return F.pixel_shuffle(self.pwconv(x), 4).sigmoid()


class _FourConvolutions(nn.Module):
    """ESPCN of leftthomas, with tanh and a sigmoid, and of PyTorch's examples, with ReLU."""

    def __init__(self, act: Callable[[Tensor], Tensor], last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = _conv(1, 64, 5), _conv(64, 64), _conv(64, 32), _conv(32, 9)
        self.act, self.last = act, last

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv3(self.act(self.conv2(self.act(self.conv1(x))))))
        return self.last(F.pixel_shuffle(self.conv4(x), 3))


class _Yjn870Fsrcnn(nn.Module):
    def __init__(self, scale: int, channels: int = 1) -> None:
        super().__init__()
        self.first_part = nn.Sequential(_conv(channels, 56, 5), nn.PReLU(56))
        layers: list[nn.Module] = [_conv(56, 12, 1), nn.PReLU(12)]
        for _ in range(4):
            layers += [_conv(12, 12), nn.PReLU(12)]
        self.mid_part = nn.Sequential(*layers, _conv(12, 56, 1), nn.PReLU(56))
        self.last_part = nn.ConvTranspose2d(56, channels, 9, scale, 4, scale - 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last_part(self.mid_part(self.first_part(x)))
        return out


class _LornatangFsrcnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.feature_extraction = nn.Sequential(_conv(1, 56, 5), nn.PReLU())
        self.shrink = nn.Sequential(_conv(56, 12, 1), nn.PReLU())
        self.map = nn.Sequential(*(layer for _ in range(4) for layer in (_conv(12, 12), nn.PReLU())))
        self.expand = nn.Sequential(_conv(12, 56, 1), nn.PReLU())
        self.deconv = nn.ConvTranspose2d(56, 1, 9, 4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.deconv(self.expand(self.map(self.shrink(self.feature_extraction(x)))))
        return out


class _ContrastAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(_conv(64, 4, 1), nn.ReLU(), _conv(4, 64, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        out: Tensor = x * self.conv_du(((x - mean) ** 2).mean((2, 3), keepdim=True).sqrt() + mean)
        return out


class _ImdnBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3, self.c4 = _conv(64, 64), _conv(48, 64), _conv(48, 64), _conv(48, 16)
        self.c5, self.cca, self.act = _conv(64, 64, 1), _ContrastAttention(), nn.LeakyReLU(0.05)

    def forward(self, x: Tensor) -> Tensor:
        kept1, rest = torch.split(self.act(self.c1(x)), (16, 48), 1)
        kept2, rest = torch.split(self.act(self.c2(rest)), (16, 48), 1)
        kept3, rest = torch.split(self.act(self.c3(rest)), (16, 48), 1)
        out: Tensor = self.c5(self.cca(torch.cat([kept1, kept2, kept3, self.c4(rest)], 1))) + x
        return out


class _Zheng222Imdn(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.fea_conv = _conv(3, 64)
        for number in range(1, 7):
            setattr(self, f"IMDB{number}", _ImdnBlock())
        self.c = nn.Sequential(_conv(384, 64, 1), nn.LeakyReLU(0.05))
        self.LR_conv = _conv(64, 64)
        self.upsampler = nn.Sequential(_conv(64, 3 * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        out, outs = (first := self.fea_conv(x)), []
        for number in range(1, 7):
            outs.append(out := getattr(self, f"IMDB{number}")(out))
        enlarged: Tensor = self.upsampler(self.LR_conv(self.c(torch.cat(outs, 1))) + first)
        return enlarged


class _Esa(nn.Module):
    """RFDN's with three convolutions of the coarse view, RLFN's with one."""

    def __init__(self, features: int, reduced: int, deep: bool) -> None:
        super().__init__()
        self.conv1, self.conv_f, self.conv4 = (
            _conv(features, reduced, 1),
            _conv(reduced, reduced, 1),
            _conv(reduced, features, 1),
        )
        self.conv2 = nn.Conv2d(reduced, reduced, 3, 2)
        self.conv3 = _conv(reduced, reduced)
        if deep:
            self.conv_max, self.conv3_ = _conv(reduced, reduced), _conv(reduced, reduced)
        self.deep = deep

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        coarse = F.max_pool2d(self.conv2(reduced), 7, 3)
        coarse = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(coarse))))) if self.deep else self.conv3(coarse)
        coarse = F.interpolate(coarse, (x.size(2), x.size(3)), mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(coarse + self.conv_f(reduced)))


class _RfdnBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for number in (1, 2, 3):
            setattr(self, f"c{number}_d", _conv(50, 25, 1))
            setattr(self, f"c{number}_r", _conv(50, 50))
        self.c4, self.c5, self.esa, self.act = _conv(50, 25), _conv(100, 50, 1), _Esa(50, 12, True), nn.LeakyReLU(0.05)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for number in (1, 2, 3):
            kept.append(self.act(getattr(self, f"c{number}_d")(x)))
            x = self.act(getattr(self, f"c{number}_r")(x) + x)
        out: Tensor = self.esa(self.c5(torch.cat([*kept, self.act(self.c4(x))], 1)))
        return out


class _NjuljRfdn(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.fea_conv = _conv(3, 50)
        self.B1, self.B2, self.B3, self.B4 = _RfdnBlock(), _RfdnBlock(), _RfdnBlock(), _RfdnBlock()
        self.c = nn.Sequential(_conv(200, 50, 1), nn.LeakyReLU(0.05))
        self.LR_conv = _conv(50, 50)
        self.upsampler = nn.Sequential(_conv(50, 3 * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        first = self.fea_conv(x)
        one = self.B1(first)
        two = self.B2(one)
        three = self.B3(two)
        four = self.B4(three)
        out: Tensor = self.upsampler(self.LR_conv(self.c(torch.cat([one, two, three, four], 1))) + first)
        return out


class _RlfnBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1_r, self.c2_r, self.c3_r, self.c5 = _conv(46, 48), _conv(48, 48), _conv(48, 46), _conv(46, 46, 1)
        self.esa, self.act = _Esa(46, 16, False), nn.LeakyReLU(0.05)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.c3_r(self.act(self.c2_r(self.act(self.c1_r(x))))))
        weighted: Tensor = self.esa(self.c5(out + x))
        return weighted


class _BytedanceRlfn(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = _conv(3, 46), _conv(46, 46)
        self.block_1, self.block_2, self.block_3, self.block_4 = (_RlfnBlock() for _ in range(4))
        self.upsampler = nn.Sequential(_conv(46, 3 * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_1(x)
        out: Tensor = self.upsampler(self.conv_2(self.block_4(self.block_3(self.block_2(self.block_1(first))))) + first)
        return out


def _without_mean_shift(state: State) -> State:
    return {key: value for key, value in state.items() if "_mean." not in key}


# Reference, what is done to its weights' names, our network, and the scale.
LAYOUTS: dict[str, tuple[Callable[[], nn.Module], Callable[[State], State], str, int]] = {
    "srgan-x4": (lambda: _Srgan(4, early=False), _as_is, "srresnet", 4),
    "srgan-x2": (lambda: _Srgan(2, early=False), _as_is, "srresnet", 2),
    "early-srgan-x4": (lambda: _Srgan(4, early=True), _as_is, "srresnet", 4),
    "srresnet-x4": (lambda: _LornatangSrresnet((2, 2)), _as_is, "srresnet", 4),
    "srresnet-x3": (lambda: _LornatangSrresnet((3,)), _as_is, "srresnet", 3),
    "early-srresnet-x4": (lambda: _LornatangSrresnet((2, 2)), _EARLY_LORNATANG_NAMES, "srresnet", 4),
    "msrresnet-x2": (lambda: _BasicsrMsrresnet(2), _as_is, "msrresnet", 2),
    "msrresnet-x3": (lambda: _BasicsrMsrresnet(3), _as_is, "msrresnet", 3),
    "msrresnet-x4": (lambda: _BasicsrMsrresnet(4), _as_is, "msrresnet", 4),
    "old-msrresnet-x4": (lambda: _BasicsrMsrresnet(4), _OLD_MSRRESNET_NAMES, "msrresnet", 4),
    "mmediting-msrresnet-x4": (lambda: _BasicsrMsrresnet(4), _MMEDITING_MSRRESNET_NAMES, "msrresnet", 4),
    "edsr-x2": (lambda: _SanghyunEdsr(2), _as_is, "edsr", 2),
    "edsr-x3": (lambda: _SanghyunEdsr(3), _as_is, "edsr", 3),
    "edsr-x4": (lambda: _SanghyunEdsr(4), _as_is, "edsr", 4),
    "edsr-256-x2": (lambda: _SanghyunEdsr(2, 256, 0.1), _as_is, "edsr", 2),
    "edsr-range-1-x4": (lambda: _SanghyunEdsr(4, peak=1.0), _as_is, "edsr", 4),
    "edsr-without-mean-x4": (lambda: _SanghyunEdsr(4), _without_mean_shift, "edsr", 4),
    "basicsr-edsr-x2": (lambda: _BasicsrEdsr(2), _as_is, "edsr", 2),
    "basicsr-edsr-x3": (lambda: _BasicsrEdsr(3), _as_is, "edsr", 3),
    "basicsr-edsr-x4": (lambda: _BasicsrEdsr(4), _as_is, "edsr", 4),
    "mmediting-edsr-x4": (lambda: _BasicsrEdsr(4), _MMEDITING_EDSR_NAMES, "edsr", 4),
    "rrdb-x4": (lambda: _Rrdbnet(4), _as_is, "rrdb", 4),
    "rrdb-x2": (lambda: _Rrdbnet(2), _as_is, "rrdb", 2),
    "rrdb-x1": (lambda: _Rrdbnet(1), _as_is, "rrdb", 1),
    "old-rrdb-x4": (lambda: _Rrdbnet(4), _ESRGAN_NAMES, "rrdb", 4),
    "oldest-rrdb-x4": (lambda: _Rrdbnet(4), _oldest_esrgan_names, "rrdb", 4),
    "srvgg-x2": (lambda: _SrvggCompact(2), _as_is, "srvgg", 2),
    "srvgg-x3": (lambda: _SrvggCompact(3), _as_is, "srvgg", 3),
    "srvgg-x4": (lambda: _SrvggCompact(4), _as_is, "srvgg", 4),
    "vdsr": (_TwtygqyyVdsr, _as_is, "vdsr", 4),
    "early-vdsr": (_EarlyTwtygqyyVdsr, _as_is, "vdsr", 4),
    "lornatang-vdsr": (_LornatangVdsr, _as_is, "vdsr", 4),
    "srcnn-955": (_Yjn870Srcnn, _as_is, "srcnn", 4),
    "srcnn-915": (_LornatangSrcnn, _as_is, "srcnn", 4),
    "espcn-x3": (_Yjn870Espcn, _as_is, "espcn", 3),
    "lornatang-espcn-x4": (_LornatangEspcn, _as_is, "espcn", 4),
    "egvsr-espcn-x4": (_EgvsrEspcn, _as_is, "espcn", 4),
    "imdn-x2": (lambda: _Zheng222Imdn(2), _as_is, "imdn", 2),
    "imdn-x4": (lambda: _Zheng222Imdn(4), _as_is, "imdn", 4),
    "rfdn-x3": (lambda: _NjuljRfdn(3), _as_is, "rfdn", 3),
    "rlfn-x4": (lambda: _BytedanceRlfn(4), _as_is, "rlfn", 4),
    "vsr-luma": (lambda: LumaNet(8, 2, 3), _as_is, "luma", 3),
    "vsr-srresnet": (lambda: SRResNet(8, 2, 4), _as_is, "srresnet", 4),
    "vsr-srresnet-bn": (lambda: SRResNet(8, 2, 4, batch_norm=True), _as_is, "srresnet", 4),
    "vsr-classic": (lambda: SRResNet(8, 2, 3, "classic", 9, residual=False), _as_is, "srresnet", 3),
    "vsr-msrresnet": (lambda: MSRResNet(8, 2, 4), _as_is, "msrresnet", 4),
    "vsr-edsr": (lambda: EDSR(8, 2, 4), _as_is, "edsr", 4),
    "vsr-rrdb": (lambda: RRDBNet(8, 1, 4, 2, 2), _as_is, "rrdb", 2),
    "vsr-srvgg": (lambda: SRVGG(8, 2, 2), _as_is, "srvgg", 2),
    "vsr-vdsr": (lambda: VDSR(8, 5, 4), _as_is, "vdsr", 4),
    "vsr-srcnn": (lambda: SRCNN((9, 1, 5), 4, residual=False), _as_is, "srcnn", 4),
}


def _with_statistics(net: nn.Module) -> nn.Module:
    """Batch norms as after a training, so that folding them has something to get wrong."""
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.3, 2.0)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
    return net.eval()


def _reference(name: str) -> nn.Module:
    torch.manual_seed(1)
    return _with_statistics(LAYOUTS[name][0]())


def _save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def _load(path: Path) -> tuple[ModelCard, Any]:
    card, weights = resolve(str(path))
    return card, load_net(card, weights)


def _input(card: ModelCard) -> Tensor:
    return torch.rand((1, 1 if card.color == "y" else 3, 16, 20), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", LAYOUTS)
@torch.inference_mode()
def test_every_layout_gives_the_image_of_its_own_definition(tmp_path: Path, name: str) -> None:
    reference, rename, net_name, scale = _reference(name), *LAYOUTS[name][1:]
    card, net = _load(_save(tmp_path / "theirs.pth", rename(dict(reference.state_dict()))))
    assert (card.name, card.net, card.scale) == ("theirs", net_name, scale)
    assert (card.halo, card.scale) == (net.halo, net.scale)
    assert card.color == ("y" if net_name in ("luma", "vdsr", "srcnn", "espcn") else "rgb")
    assert card.num_parameters == sum(p.numel() for p in net.parameters())
    torch.testing.assert_close(net(x := _input(card)), reference(x), rtol=0, atol=1e-5)


def _interpolating_fsrcnn(reference: nn.Module, last: nn.ConvTranspose2d, scale: int) -> nn.Module:
    """Give an FSRCNN weights by which it enlarges bilinearly, as one that was trained does nearly."""
    for module in reference.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            module.weight.data[0, 0, module.kernel_size[0] // 2, module.kernel_size[1] // 2] = 1
    side = (1 - (torch.arange(9) - 4 - (scale - 1) / 2).abs() / scale).clamp(min=0)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    last.weight.data[:, 0] = 0
    last.weight.data[0, 0] = side[:, None] * side
    return reference.eval()


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.inference_mode()
def test_the_scale_of_an_fsrcnn_is_found_by_a_test(tmp_path: Path, scale: int) -> None:
    net = _Yjn870Fsrcnn(scale)
    reference = _interpolating_fsrcnn(net, net.last_part, scale)
    card, ours = load_with_card(str(_save(tmp_path / "fsrcnn.pth", reference.state_dict())))
    assert (card.net, card.color, card.scale) == ("fsrcnn", "y", scale)
    assert f"scale {scale} by a test" in card.assumptions
    torch.testing.assert_close(ours(x := _input(card)), reference(x), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_an_fsrcnn_of_other_names_and_single_slopes(tmp_path: Path) -> None:
    reference = _LornatangFsrcnn().eval()
    card, net = _load(_save(tmp_path / "fsrcnn_x4.pth", {"state_dict": reference.state_dict()}))
    assert (card.net, card.scale) == ("fsrcnn", 4)
    torch.testing.assert_close(net(x := _input(card)), reference(x), rtol=0, atol=1e-5)
    card, _ = load_with_card(str(_save(tmp_path / "another.pth", reference.state_dict())), Stated("0..1", scale=8))
    assert card.scale == 8


@pytest.mark.parametrize(
    ("act", "last", "said"),
    [
        (torch.tanh, torch.sigmoid, "activation tanh, sigmoid True"),
        (torch.relu, lambda x: x, "activation relu, sigmoid False"),
    ],
)
def test_the_activations_of_an_espcn_are_found_by_a_test(tmp_path: Path, act: Any, last: Any, said: str) -> None:
    """Trained for a moment on smooth images: both forms have weights of the same names and shapes."""
    torch.manual_seed(3)
    reference = _FourConvolutions(act, last)
    optimizer = torch.optim.Adam(reference.parameters(), 2e-3)
    for _ in range(60):
        low = F.interpolate(torch.rand(4, 1, 3, 3), (16, 16), mode="bicubic").clamp(0, 1)
        loss = (reference(low) - F.interpolate(low, scale_factor=3, mode="bicubic")).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    card, net = _load(_save(tmp_path / "espcn.pth", reference.state_dict()))
    assert (card.net, card.scale) == ("espcn", 3)
    assert said in card.assumptions
    torch.testing.assert_close(net(x := _input(card)), reference(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["imdn-x2", "rfdn-x3", "rlfn-x4", "espcn-x3"])
def test_foreign_networks_give_the_same_from_an_onnx_file_at_any_size(tmp_path: Path, name: str) -> None:
    path = _save(tmp_path / "theirs.pth", _reference(name).state_dict())
    card, net = _load(path)
    (tmp_path / "ours.onnx").write_bytes(export_onnx(net, signature_of(card)))
    image = np.random.default_rng(1).integers(0, 256, (33, 40, 3), np.uint8)
    plain = load_model(str(path), backend="pytorch", precision="fp32", model_range="0..1").upscale_image(image)
    other = load_model(str(tmp_path / "ours.onnx"), precision="fp32", model_range="0..1").upscale_image(image)
    assert plain.std() > 1
    assert np.abs(plain.astype(int) - other.astype(int)).max() <= 1


@torch.inference_mode()
def test_half_precision_weights_and_safetensors_are_taken_too(tmp_path: Path) -> None:
    reference = _reference("srvgg-x4")
    save_file({key: value.half() for key, value in reference.state_dict().items()}, tmp_path / "theirs.safetensors")
    card, net = _load(tmp_path / "theirs.safetensors")
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    torch.testing.assert_close(net(x := _input(card)), reference(x), rtol=0, atol=1e-3)


def test_a_safetensors_header_that_starts_like_a_pickle_is_none(tmp_path: Path) -> None:
    state, path = dict(_reference("srvgg-x2").state_dict()), tmp_path / "theirs.safetensors"
    starts = set()
    for length in range(0, 512, 8):
        save_file(state, path, {"note": "x" * length})
        starts.add(path.read_bytes()[:2])
        assert resolve(str(path))[0].net == "srvgg"
    assert any(start[0] == 0x80 and start[1] <= 5 for start in starts)


def test_the_card_says_where_the_weights_are_from(tmp_path: Path) -> None:
    card, _ = _load(_save(tmp_path / "sharp.v2.pth", _reference("rrdb-x4").state_dict()))
    assert card.name == "sharp.v2"
    assert "imported from sharp.v2.pth" in card.description and "RRDBNet" in card.description
    assert card.license == "unknown: see its authors"
    assert card_from_json(card.to_json(), "theirs") == card


@pytest.mark.parametrize(
    ("file", "scale", "word"),
    [
        ("srcnn.pth", 4, "assumed"),
        ("srcnn_x2.pth", 2, "name"),
        ("3x-SRCNN.pth", 3, "name"),
        ("srcnn_x2-T91-7460167f.pth.tar", 2, "name"),
        ("max20x45.pth", 4, "assumed"),
    ],
)
def test_a_scale_that_the_weights_do_not_tell_is_the_name_s_or_4_and_said(
    tmp_path: Path, file: str, scale: int, word: str
) -> None:
    card, net = _load(_save(tmp_path / file, {"epoch": 3, "state_dict": _reference("srcnn-955").state_dict()}))
    assert card.scale == net.scale == scale
    assert f"×{scale}" in card.assumptions and word in card.assumptions
    assert ".pth" not in card.name


def test_the_residual_scale_that_the_weights_do_not_tell_is_said(tmp_path: Path) -> None:
    card, _ = _load(_save(tmp_path / "edsr.pth", _reference("edsr-x4").state_dict()))
    assert "residual scale 1.0 assumed" in card.assumptions


@pytest.mark.parametrize("name", ["rrdb-x2", "rrdb-x1"])
@torch.inference_mode()
def test_tiles_of_a_network_that_folds_pixels_into_channels_are_exact(tmp_path: Path, name: str) -> None:
    card, net = _load(_save(tmp_path / "rrdb.pth", _reference(name).state_dict()))
    assert card.multiple_of == net.multiple_of == 4 // card.scale

    def engine(x: Tensor) -> tuple[Tensor, ...]:
        return (net(x),)

    x = torch.rand((1, 3, 37, 75), generator=torch.Generator().manual_seed(3))
    whole, tiled = (TiledNetwork(engine, card, tile)(x)[0] for tile in (None, 33))  # type: ignore[arg-type]
    assert whole.shape[-2:] == (37 * card.scale, 75 * card.scale)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


# -- containers --------------------------------------------------------------------------------------------


def _prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


_OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
CONTAINERS: dict[str, Callable[[State, State], Any]] = {
    "ordered": lambda state, other: OrderedDict(state),
    "params": lambda state, other: {"params": state},
    "averaged-first": lambda state, other: {"params": other, "params_ema": state},
    "lightning": lambda state, other: {"epoch": 3, "state_dict": _prefixed("model.net.", state), "lr_schedulers": []},
    "parallel": lambda state, other: {"model_state_dict": _prefixed("module.", state), "optimizer": _OPTIMIZER},
    "gan": lambda state, other: {"generator": state, "discriminator": {"x.weight": torch.zeros(1)}, "epoch": 7},
    "gan-in-one": lambda state, other: {
        "state_dict": _prefixed("generator.", state) | {"discriminator.x.weight": torch.zeros(1, 1)}
    },
    "averaged-model": lambda state, other: _prefixed("module.", state) | {"n_averaged": torch.tensor(9)},
    "vsr-train": lambda state, other: {"net": other, "ema": state, "optimizer": _OPTIMIZER, "num_steps": 5},
    "nested": lambda state, other: {"net_g": {"params": _prefixed("net.", state)}, "iter": 10},
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@torch.inference_mode()
def test_weights_are_found_in_what_training_code_wraps_them_in(tmp_path: Path, container: str, legacy: bool) -> None:
    reference = _reference("srvgg-x2")
    other = {key: torch.zeros_like(value) for key, value in reference.state_dict().items()}
    content = CONTAINERS[container](dict(reference.state_dict()), other)
    torch.save(content, tmp_path / "wrapped.ckpt", _use_new_zipfile_serialization=not legacy)
    card, net = _load(tmp_path / "wrapped.ckpt")
    torch.testing.assert_close(net(x := _input(card)), reference(x), rtol=0, atol=1e-6)


# -- files that are refused --------------------------------------------------------------------------------


def _refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(str(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


class _Bomb:
    """A pickle of it would write the file `target` when loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (f"import pathlib; pathlib.Path({str(self.target)!r}).touch()",)


def _tar_of(content: bytes) -> bytes:
    """As PyTorch 0.1 wrote: a tar of pickles."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive.addfile(member := tarfile.TarInfo(name), io.BytesIO(content))
            member.size = len(content)
    return file.getvalue()


def _torch_bytes(content: Any, legacy: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def _with_weights(bomb: Any) -> dict[str, Any]:
    state = dict(_reference("srvgg-x2").state_dict())
    return {"params": state, "notes": [{"seed": bomb}]}


HOSTILE: dict[str, Callable[[Any], bytes]] = {
    "pickle-2": lambda bomb: pickle.dumps(bomb, 2),
    "pickle-5": lambda bomb: pickle.dumps(bomb, 5),
    "pickle-0": lambda bomb: pickle.dumps(bomb, 0),
    "zip": lambda bomb: _torch_bytes(bomb, legacy=False),
    "legacy": lambda bomb: _torch_bytes(bomb, legacy=True),
    "nested-zip": lambda bomb: _torch_bytes(_with_weights(bomb), legacy=False),
    "nested-legacy": lambda bomb: _torch_bytes(_with_weights(bomb), legacy=True),
    "nested-pickle": lambda bomb: pickle.dumps(_with_weights(bomb), 2),
    "tar": lambda bomb: _tar_of(pickle.dumps(bomb, 2)),
}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".onnx", ""])
@pytest.mark.parametrize("form", HOSTILE)
def test_a_hostile_pickle_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, suffix: str) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target = tmp_path / "touched"
    path = tmp_path / f"hostile{suffix}"
    path.write_bytes(HOSTILE[form](_Bomb(target)))
    message = _refusal(path)
    with pytest.raises(ModelError):
        load_net(ModelCard("hostile", "luma", {}, 4, "y", 7), path)
    assert not target.exists()
    if form not in ("pickle-0", "tar"):
        assert "exec" in message and "not executed" in message and "state_dict" in message


def test_the_bomb_of_these_tests_does_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "touched")))
    assert (tmp_path / "touched").exists()


def test_a_whole_pickled_network_is_refused_by_its_class(tmp_path: Path) -> None:
    message = _refusal(_save(tmp_path / "whole.pth", _reference("srvgg-x2")))
    assert "_SrvggCompact" in message and "not executed" in message and "model.state_dict()" in message


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/constants.pkl", b"")
        archive.writestr("script/code/__torch__.py", b"")
    assert "TorchScript" in _refusal(tmp_path / "script.pt")


@pytest.mark.parametrize(
    "content",
    [b"", b"no model\n", b"\x80", b"\x80\x02", b"PK\x03\x04", b"PK\x03\x04" + bytes(600), b"\x10" + bytes(7) + b"{}"],
    ids=["empty", "text", "one-byte", "cut-pickle", "cut-zip", "broken-zip", "cut-header"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"other{suffix}").write_bytes(content)
    _refusal(tmp_path / f"other{suffix}")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, legacy: bool) -> None:
    content = _torch_bytes(_reference("srvgg-x2").state_dict(), legacy)
    for length in range(1, len(content), len(content) // 12):
        (tmp_path / "cut.pth").write_bytes(content[:length])
        _refusal(tmp_path / "cut.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin", ".safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, suffix: str) -> None:
    assert "no such model file" in _refusal(tmp_path / f"none{suffix}")


def _itself() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    return loop


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({}, "dict"),
        ([torch.zeros(1)], "list"),
        (torch.zeros(3), "Tensor"),
        ({"epoch": 3, "loss": 0.5}, "epoch, loss"),
        ({"params": {"x": 3}}, "params"),
        (_itself(), "model"),
    ],
    ids=["empty", "list", "tensor", "numbers", "no-tensors", "loop"],
)
def test_a_checkpoint_without_weights_says_what_it_holds(tmp_path: Path, content: Any, what: str) -> None:
    message = _refusal(_save(tmp_path / "other.pth", content))
    assert "holds no weights" in message and what in message


@pytest.fixture
def no_spandrel(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "spandrel" else find_spec(name))


def _almost(name: str, change: Callable[[State], Any]) -> State:
    state = dict(_reference(name).state_dict())
    change(state)
    return state


STRANGE: dict[str, State] = {
    "one-missing": _almost("srvgg-x2", lambda s: s.pop("body.2.weight")),
    "one-more": _almost("srvgg-x2", lambda s: s.update({"body.9.weight": torch.zeros(16)})),
    "gap": _almost("srvgg-x2", lambda s: s.update({"body.90.weight": s.pop("body.4.weight")})),
    "odd-shape": _almost("srvgg-x2", lambda s: s.update({"body.1.weight": torch.zeros(15)})),
    "integers": _almost("srvgg-x2", lambda s: s.update({"body.1.weight": torch.zeros(16, dtype=torch.int8)})),
    "other-kernel": _almost("vdsr", lambda s: s.update({"output.weight": torch.zeros(1, 16, 5, 5)})),
    "gray-srcnn-of-other-width": _almost("srcnn-955", lambda s: s.update({"conv1.bias": torch.zeros(63)})),
    "other-mean": _almost("edsr-x4", lambda s: s["add_mean.bias"].mul_(0.9)),
    "norm-without-convolution": _almost("srresnet-x4", lambda s: s.pop("conv2.0.weight")),
    "scalars": {"a": torch.tensor(1.0), "b.weight": torch.tensor(2.0)},
    "no-elements": {"body.0.weight": torch.zeros(0, 0, 3, 3), "body.2.weight": torch.zeros(0, 0, 3, 3)},
    "no-such-blocks": {"conv_first.weight": torch.zeros(8, 3, 3, 3), "conv_last.weight": torch.zeros(3, 8, 3, 3)},
}


@pytest.mark.usefixtures("no_spandrel")
@pytest.mark.parametrize("name", STRANGE)
def test_an_unknown_layout_is_refused_with_a_list_of_what_is_in_it(tmp_path: Path, name: str) -> None:
    state = STRANGE[name]
    message = _refusal(_save(tmp_path / "strange.pth", state))
    assert f"PyTorch checkpoint with {len(state)} tensors" in message
    key, value = next(iter(state.items()))
    assert f"{key} {'×'.join(map(str, value.shape)) or 'scalar'}" in message
    assert "pip install 'vsr-enhance[spandrel]'" in message


@pytest.mark.usefixtures("no_spandrel")
def test_names_in_a_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    state = {"\x1b[2Jevil\nname" + "x" * 1000: torch.zeros(2, 3)}
    save_file(state, tmp_path / "odd.safetensors")
    message = _refusal(tmp_path / "odd.safetensors")
    assert "\x1b" not in message and "evil" in message and len(message) < 500
    assert "safetensors file with 1 tensors" in message


# -- spandrel ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_spandrel")
def test_a_network_of_spandrel_s_without_spandrel_names_the_extra(tmp_path: Path) -> None:
    path = _save(tmp_path / "theirs.pth", {"x.weight": torch.zeros(1)})
    with pytest.raises(MissingExtraError, match="spandrel"):
        load_net(ModelCard("theirs", spandrel_net.NET, {}, 2, "rgb", 64), path)


class _Padding:
    multiple_of = 4

    def get_padding(self, width: int, height: int) -> tuple[int, int]:
        return max(16, width + -width % 4) - width, max(16, height + -height % 4) - height


class _Descriptor:
    """What spandrel gives for weights that it knows, as far as we look at it."""

    class architecture:
        name = "Doubler"

    purpose, scale, input_channels, output_channels = "SR", 2, 3, 3
    supports_half, supports_bfloat16 = True, False
    size_requirements = _Padding()

    def __init__(self) -> None:
        self.model = nn.Conv2d(3, 12, 3, padding=1)

    def _call_fn(self, net: nn.Module, x: Tensor) -> Tensor:
        assert x.shape[-1] % 4 == x.shape[-2] % 4 == 0 and min(x.shape[-2:]) >= 16
        return F.pixel_shuffle(net(x), 2)


class _Spandrel:
    """A stand-in for the library: one layout, of a single tensor called x."""

    descriptor: Any = None

    class ModelLoader:
        def __init__(self, device: str) -> None:
            assert device == "cpu"

        def load_from_state_dict(self, state: State) -> Any:
            if list(state) != ["x"]:
                raise RuntimeError("unknown\narchitecture")
            return _Spandrel.descriptor


@pytest.fixture
def fake_spandrel(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "spandrel", _Spandrel)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(_Spandrel, "descriptor", _Descriptor())
    return _Spandrel.descriptor


@torch.inference_mode()
def test_what_spandrel_knows_runs_like_a_network_of_ours(tmp_path: Path, fake_spandrel: Any) -> None:
    card, net = _load(path := _save(tmp_path / "theirs.pth", {"x": torch.zeros(1)}))
    assert (card.net, card.scale, card.multiple_of, card.color) == (spandrel_net.NET, 2, 4, "rgb")
    assert card.halo == spandrel_net.HALO and "Doubler" in card.description and "tiles" in card.description
    x = torch.rand((1, 3, 10, 21), generator=torch.Generator().manual_seed(1))
    padded = F.pad(x, (0, 3, 0, 6), mode="replicate")
    expected = F.pixel_shuffle(fake_spandrel.model(padded), 2)[..., :20, :42]
    torch.testing.assert_close(net(x), expected, rtol=0, atol=0)
    upscaler = load_model(str(path), device="cpu", precision="bf16", model_range="0..1")
    torch.testing.assert_close(upscaler.network(x)[0], expected, rtol=0, atol=1e-6)  # kept in float32


@pytest.mark.parametrize("change", [{"purpose": "Inpainting"}, {"input_channels": 4}, {"output_channels": 1}])
def test_what_does_not_enlarge_images_is_refused(
    tmp_path: Path, fake_spandrel: Any, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    for name, value in change.items():
        monkeypatch.setattr(fake_spandrel, name, value, raising=False)
    assert "Doubler" in _refusal(_save(tmp_path / "theirs.pth", {"x": torch.zeros(1)}))


@pytest.mark.usefixtures("fake_spandrel")
def test_what_spandrel_does_not_know_is_listed(tmp_path: Path) -> None:
    message = _refusal(_save(tmp_path / "theirs.pth", {"y.weight": torch.zeros(4, 5)}))
    assert "y.weight 4×5" in message and "unknown architecture" in message


def test_a_spandrel_that_does_not_load_is_named_rather_than_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in {
        "spandrel": "import torchvision",
        "torchvision": "raise RuntimeError('no operator nms')",
    }.items():
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    message = _refusal(_save(tmp_path / "theirs.pth", {"y.weight": torch.zeros(4, 5)}))
    assert "needs spandrel, torchvision: installed, but not to be loaded (RuntimeError no operator nms)" in message
    assert "does not know" not in message and "pip install" not in message


@torch.inference_mode()
def test_the_real_spandrel_s_networks_are_taken(tmp_path: Path) -> None:
    spandrel = pytest.importorskip("spandrel")
    from spandrel.architectures.SPAN import SPAN

    torch.manual_seed(1)
    state = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2).state_dict()
    card, net = _load(path := _save(tmp_path / "span.pth", {"params": state}))
    assert (card.scale, card.color) == (2, "rgb") and "SPAN" in card.description
    x = torch.rand((1, 3, 24, 17), generator=torch.Generator().manual_seed(1))
    descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    torch.testing.assert_close(net(x).clamp(0, 1), descriptor(x), rtol=0, atol=1e-5)
    assert load_model(str(path), device="cpu").network(x)[0].shape == (1, 3, 48, 34)


# -- other people's files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("srgan_leftthomas_x4.pth", lambda: _Srgan(4, early=True)),
        ("srgan_lizhuoq_x4.pth", lambda: _Srgan(4, early=False)),
    ],
)
@torch.inference_mode()
def test_the_srgans_give_the_images_of_their_own_definition(
    data_file: Callable[[str], Path], name: str, make: Any
) -> None:
    path = data_file(f"peers/{name}")
    reference = make().eval()
    reference.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    card, net = _load(path)
    torch.testing.assert_close(net(x := _input(card)), reference(x), rtol=0, atol=1e-5)


def _set5_psnr_db(data_folder: Path, model: str) -> float:
    upscaler, scores = load_model(model, device="cpu", precision="fp32"), []
    for path in sorted((data_folder / "test" / "Set5").glob("*.webp")):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert image is not None
        height, width = image.shape[0] // 4 * 4, image.shape[1] // 4 * 4
        high = torch.from_numpy(np.ascontiguousarray(image[:height, :width, ::-1])).permute(2, 0, 1)[None]
        low = imresize(high, (height // 4, width // 4))[0].permute(1, 2, 0).numpy()
        out = torch.from_numpy(upscaler.upscale_image(low)).permute(2, 0, 1)[None]
        scores.append(psnr_db(luma_bt601(out), luma_bt601(high), crop=4))
    return float(np.mean(scores))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "psnr"), [("srgan_leftthomas_x4.pth", 30.70), ("srgan_lizhuoq_x4.pth", 30.55), ("IMDN_x4.pth", 32.20)]
)
def test_peers_score_on_set5_what_they_were_measured_to(
    data_folder: Path, data_file: Callable[[str], Path], name: str, psnr: float
) -> None:
    assert _set5_psnr_db(data_folder, str(data_file(f"peers/{name}"))) == pytest.approx(psnr, abs=0.05)


@torch.inference_mode()
def test_the_compact_network_of_real_esrgan_is_taken(data_file: Callable[[str], Path]) -> None:
    path = data_file("peers/realesr-animevideov3.pth")
    card, net = _load(path)
    assert (card.net, card.scale, card.options) == ("srvgg", 4, {"features": 64, "depth": 16, "scale": 4})
    state, x = torch.load(path, map_location="cpu", weights_only=True)["params"], _input(card)
    out = x
    for index in range(0, 34, 2):
        out = F.conv2d(out, state[f"body.{index}.weight"], state[f"body.{index}.bias"], padding=1)
        out = F.prelu(out, state[f"body.{index + 1}.weight"])
    out = F.pixel_shuffle(F.conv2d(out, state["body.34.weight"], state["body.34.bias"], padding=1), 4)
    expected = out + F.interpolate(x, scale_factor=4, mode="nearest")
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-5)


def test_the_pickled_vdsr_is_refused_and_not_executed(data_file: Callable[[str], Path]) -> None:
    before = set(sys.modules)
    message = _refusal(data_file("peers/vdsr_twtygqyy.pth"))
    assert "vdsr.Net" in message and "not executed" in message
    assert "vdsr" not in set(sys.modules) - before


@pytest.mark.usefixtures("no_spandrel")
def test_a_peer_of_an_unknown_layout_is_listed(data_file: Callable[[str], Path]) -> None:
    assert "with 57 tensors: " in _refusal(data_file("peers/squeezenet1_1_lpips.safetensors"))


@pytest.mark.parametrize("name", ["FSRCNN_x4.pb", "LapSRN_x4.pb"])
def test_networks_of_other_frameworks_are_refused(data_file: Callable[[str], Path], name: str) -> None:
    assert "neither" in _refusal(data_file(f"peers/{name}"))


# -- what lies beside weights ---------------------------------------------------------------------------


def test_options_and_numbers_of_numpy_beside_weights_are_passed_over(tmp_path: Path) -> None:
    state = SRCNN((9, 1, 5), 4, residual=False).state_dict()
    content = {
        "state_dict": {key: value for key, value in state.items() if not key.startswith("up.")},
        "args": argparse.Namespace(lr=1e-4, name="srcnn"),
        "best_psnr": np.float64(32.5),
        "epoch": np.int64(7),
        "losses": np.arange(5.0),
        "history": defaultdict(list, loss=[np.float32(0.5)]),
        "folder": tmp_path,
    }
    torch.save(content, tmp_path / "net.pth")
    card, _ = load_with_card(str(tmp_path / "net.pth"), Stated("0..1"))
    assert (card.net, card.color) == ("srcnn", "y")


def test_weights_as_arrays_of_numpy_are_taken(tmp_path: Path) -> None:
    state = SRCNN((9, 1, 5), 4, residual=False).state_dict()
    arrays = {key: value.numpy() for key, value in state.items() if not key.startswith("up.")}
    torch.save(arrays, tmp_path / "net_x4.pth")
    card, net = load_with_card(str(tmp_path / "net_x4.pth"), Stated("0..1"))
    assert (card.net, card.scale) == ("srcnn", 4)
    x = torch.rand(1, 1, 6, 7)
    expected = SRCNN((9, 1, 5), 4, residual=False)
    expected.load_state_dict(state)
    torch.testing.assert_close(net(x), expected(x))


def test_an_array_of_objects_executes_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("executed").write_text, ("yes",))

    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": np.array([Evil()], dtype=object)}, tmp_path / "net.pth")
    assert "was not executed" in _refusal(tmp_path / "net.pth")
    assert not (tmp_path / "executed").exists()


def test_srcnn_for_rgb(data_folder: Path) -> None:
    card, net = load_with_card(str(data_folder / "faults" / "models" / "mmediting_srcnn_rgb.pth"), Stated(scale=4))
    assert (card.net, card.color, card.scale) == ("srcnn", "rgb", 4)
    x = F.interpolate(torch.rand(1, 3, 4, 5), (24, 30), mode="bicubic").clamp(0, 1)
    assert psnr_db(net(x) * 255, F.interpolate(x, scale_factor=4, mode="bicubic") * 255) > 30
