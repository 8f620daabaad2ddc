from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vsr.errors import ModelError
from vsr.models.cards import CARD_KEY, SHIPPED, ModelCard, card_from_json, shipped_cards
from vsr.models.nets import LumaNet, SRResNet
from vsr.models.nets.recurrent import WithImages
from vsr.models.weights import (
    build_net,
    fold_batch_norm,
    load_model_file,
    load_net,
    read_card,
    resolve,
    save_model_file,
)

SMALL = {"features": 4, "depth": 1, "scale": 2}


def _card(**changes: Any) -> ModelCard:
    fields: dict[str, Any] = {"name": "small", "net": "luma", "options": SMALL, "scale": 2}
    return ModelCard(**(fields | {"color": "y", "halo": 3} | changes))


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    save_model_file(tmp_path / "small.safetensors", _card(), LumaNet(**SMALL).state_dict())
    return tmp_path / "small.safetensors"


def _refusal(function: Any, *arguments: Any) -> str:
    with pytest.raises(ModelError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- batch norm ------------------------------------------------------------------------------------------


def _with_random_statistics(net: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.normal_(0, 0.3, generator=generator)
        norm.running_var.uniform_(0.3, 2.0, generator=generator)
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.uniform_(norm.bias, -0.3, 0.3, generator=generator)
    return net.eval()


@pytest.mark.parametrize("tail", ["shuffle", "classic"])
@torch.no_grad()
def test_folded_batch_norm_gives_the_same_image(tail: str) -> None:
    torch.manual_seed(1)
    options: dict[str, Any] = {"features": 8, "num_blocks": 2, "scale": 2, "tail": tail}
    trained = _with_random_statistics(SRResNet(batch_norm=True, **options))
    light = SRResNet(batch_norm=False, **options).eval()
    light.load_state_dict(fold_batch_norm(trained.state_dict(), light))
    x = torch.rand(1, 3, 9, 8)
    torch.testing.assert_close(light(x), trained(x), rtol=0, atol=1e-5)


def test_a_network_with_batch_norm_keeps_its_own() -> None:
    net = _with_random_statistics(SRResNet(features=4, num_blocks=1, batch_norm=True))
    state = net.state_dict()
    folded = fold_batch_norm(state, net)
    assert folded.keys() == state.keys()
    assert all(torch.equal(folded[key], state[key]) for key in state)


@torch.no_grad()
def test_a_checkpoint_with_batch_norm_loads_into_the_light_network(tmp_path: Path) -> None:
    options = {"features": 4, "num_blocks": 1, "scale": 2}
    trained = _with_random_statistics(SRResNet(batch_norm=True, **options))  # type: ignore[arg-type]
    card = _card(net="srresnet", options=options, color="rgb")
    save_model_file(tmp_path / "bn.safetensors", card, trained.state_dict())
    x = torch.rand(1, 3, 6, 6)
    loaded = load_model_file(card, tmp_path / "bn.safetensors")
    torch.testing.assert_close(loaded(x), trained(x), rtol=0, atol=1e-5)


# -- files -----------------------------------------------------------------------------------------------


def test_a_saved_model_comes_back_whole(model_file: Path) -> None:
    card = read_card(model_file)
    assert card == _card()
    torch.manual_seed(1)
    expected = LumaNet(**SMALL).state_dict()
    loaded = load_net(card, model_file)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, expected[key])


def test_saving_leaves_no_other_file_behind(model_file: Path) -> None:
    assert [p.name for p in model_file.parent.iterdir()] == [model_file.name]


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    state = {k: v.to(torch.bfloat16) for k, v in LumaNet(**SMALL).state_dict().items()}
    save_model_file(tmp_path / "half.safetensors", _card(), state)
    net = load_model_file(_card(), tmp_path / "half.safetensors")
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_the_right_checksum_is_accepted_and_a_wrong_one_refused(model_file: Path) -> None:
    right = hashlib.sha256(model_file.read_bytes()).hexdigest()
    load_net(replace(_card(), sha256=right), model_file)
    model_file.write_bytes(model_file.read_bytes()[:-1] + b"\x01")
    message = _refusal(load_net, replace(_card(), sha256=right), model_file)
    assert str(model_file) in message and "checksum" in message


@pytest.mark.parametrize("reader", [read_card, lambda path: load_net(_card(), path)])
def test_a_missing_file_is_named(tmp_path: Path, reader: Any) -> None:
    assert str(tmp_path / "none.safetensors") in _refusal(reader, tmp_path / "none.safetensors")


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was executed')",)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model\n", pickle.dumps(_Bomb()), b"\x10" + bytes(7) + b"{}"],
    ids=["empty", "text", "pickle", "cut-header"],
)
@pytest.mark.parametrize("reader", [read_card, lambda path: load_net(_card(), path)])
def test_what_is_not_safetensors_is_refused(tmp_path: Path, content: bytes, reader: Any) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    assert str(path) in _refusal(reader, path)


def test_a_truncated_file_is_refused(model_file: Path) -> None:
    model_file.write_bytes(model_file.read_bytes()[:-8])
    assert str(model_file) in _refusal(load_net, _card(), model_file)


def test_safetensors_without_a_card_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(LumaNet(**SMALL).state_dict(), path)
    assert str(path) in _refusal(read_card, path)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", '{"name": "x"}'])
def test_what_is_not_a_card_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"x": torch.zeros(1)}, path, {CARD_KEY: text})
    assert str(path) in _refusal(read_card, path)


def test_cards_of_later_versions_with_more_fields_are_read() -> None:
    later = json.loads(_card().to_json()) | {"colour_of_the_bikeshed": "green"}
    assert card_from_json(json.dumps(later), "later") == _card()


def test_an_unknown_network_is_named_with_those_there_are() -> None:
    message = _refusal(build_net, _card(net="transformer9000"))
    assert "transformer9000" in message and "luma" in message and "srresnet" in message


@pytest.mark.parametrize("options", [{"colour": "red"}, {"features": "many"}, {"depth": None}])
def test_options_that_do_not_fit_the_network_are_refused(options: dict[str, Any]) -> None:
    assert "'luma'" in _refusal(build_net, _card(options=options))


@pytest.mark.parametrize("options", [{}, SMALL | {"features": 8}, SMALL | {"depth": 2}, SMALL | {"depth": 0}])
def test_weights_of_another_network_are_refused(model_file: Path, options: dict[str, Any]) -> None:
    message = _refusal(load_net, _card(options=options), model_file)
    assert str(model_file) in message and "does not fit" in message


def test_models_are_found_by_path_and_unknown_names_say_so(model_file: Path) -> None:
    assert resolve(str(model_file)) == (_card(), model_file)
    assert "'nonesuch'" in _refusal(resolve, "nonesuch")
    assert "gone.safetensors" in _refusal(resolve, str(model_file.with_name("gone.safetensors")))


# -- what is shipped -------------------------------------------------------------------------------------

every_shipped_model = pytest.mark.parametrize("name", sorted(shipped_cards()))  # an empty list is a skip


@every_shipped_model
def test_shipped_weights_are_there_and_fit(name: str) -> None:
    card = shipped_cards()[name]
    assert (SHIPPED / card.weights).is_file()
    assert hashlib.sha256((SHIPPED / card.weights).read_bytes()).hexdigest() == card.sha256
    net: Any = load_net(*resolve(name))
    assert sum(p.numel() for p in net.parameters()) == card.num_parameters
    assert (net.halo, net.scale) == (card.halo, card.scale)


@every_shipped_model
@torch.inference_mode()
def test_shipped_models_keep_the_brightness_of_a_flat_image(name: str) -> None:
    card = shipped_cards()[name]
    x = torch.full((1, 1 if card.color == "y" else 3, 24, 24), 0.4)
    net: Any = load_net(*resolve(name))
    if card.recurrent:
        luma, x = x[:, :1], x[:, :1]
        gray = torch.cat((luma, torch.zeros(1, 2, 24, 24)), 1)
        out = WithImages(net)(gray, luma, luma, net.initial_state(gray))[0]
    else:
        out = net(x)
    assert out.shape == (1, x.shape[1], 24 * card.scale, 24 * card.scale)
    assert abs(out.mean() - 0.4) < 0.05  # other weights, or other inputs, would not
