"""Choose and keep the networks that images go through."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from vsr.backends.select import Place, choose_place
from vsr.errors import ModelError
from vsr.files import file_state
from vsr.models.cards import ModelCard, shipped_cards
from vsr.pipeline.loading import ModelOptions, load_card_and_net, upscaler_of_net
from vsr.pipeline.upscaler import Upscaler
from vsr.serve.settings import Settings

__all__ = ["ALIASES", "ImageModels", "LoadedModels"]

# Names of an earlier service, and the models that stand in for its own: the generator trained on pixels (MSE), and the
# one by the Per-Pix schedule.
ALIASES: Mapping[str, str] = {"srgan_mse": "srresnet", "srgan_perpix": "srgan-perpix"}
_LONG_PIXELS = 1e9  # of all images of a service's life, by which "auto" weighs a backend's start
_MOST_LOADED = 4


class ImageModels:
    """Know the models by the names that clients may use: shipped ones, aliases, and the service's own.

    A client never names a file: only the one that the service was started with is loaded from a path.
    """

    def __init__(self, settings: Settings) -> None:
        """Raise ModelError where the service's own model is not there, or is for videos alone."""
        self._cards = {name: card for name, card in shipped_cards().items() if not card.recurrent}
        self.default = settings.model
        self._is_file = settings.model not in self._cards and bool(Path(settings.model).suffix)
        if self._is_file:
            self.default = Path(settings.model).stem
        self._file = settings.model
        self._state: tuple[int, ...] = ()
        self.find(self.default)

    @property
    def names(self) -> list[str]:
        """The names that clients may use."""
        return [*self._cards, *ALIASES]

    def find(self, name: str | None) -> tuple[str, ModelCard]:
        """Return a model's own name and its card; None is the service's own. Raises ModelError."""
        own = self.default if name is None else ALIASES.get(name, name)
        if own == self.default:
            self._read_anew()
        if own not in self._cards:
            raise ModelError(f"unknown model '{name}'; there are {', '.join(self.names)}")
        return own, self._cards[own]

    def state(self, name: str) -> tuple[int, ...]:
        """Return numbers that differ once the file of a model has another content; none for a shipped model.

        A file that is gone counts as the one that was there.
        """
        return file_state(Path(self._file)) or self._state if self._is_file and name == self.default else ()

    def _read_anew(self) -> None:
        """Read the card of the service's own file, unless it is the one that was read last."""
        state = self.state(self.default)
        if self._is_file and (state != self._state or self.default not in self._cards):
            self._cards[self.default] = load_card_and_net(self._file)[0]
            self._state = state

    def source(self, name: str) -> str:
        """Return the name or path by which a model is loaded."""
        return self._file if name == self.default else name


class LoadedModels:
    """Keep the models that one thread used last, ready on the device.

    tile: side of a tile in input pixels; None for whole images.
    """

    def __init__(self, models: ImageModels, settings: Settings, tile: int | None) -> None:
        self._models, self._tile = models, tile
        self._options = ModelOptions(device=settings.device, precision=settings.precision, tile=tile)
        self._place = _place(settings)
        self._loaded: OrderedDict[str, tuple[tuple[int, ...], Upscaler]] = OrderedDict()

    def get(self, name: str) -> Upscaler:
        """Load a model by its own name, unless it is kept, from a file that is still the same."""
        state = self._models.state(name)
        if name not in self._loaded or self._loaded[name][0] != state:
            self.forget(name)  # before the next one takes memory
            card, net = load_card_and_net(self._models.source(name))
            upscaler = upscaler_of_net(card, net, self._options, place=self._place, num_pixels=_LONG_PIXELS)
            self._loaded[name] = state, upscaler
            if len(self._loaded) > _MOST_LOADED:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(name)
        return self._loaded[name][1]

    def forget(self, name: str) -> None:
        """Load a model anew next time, as after an error that may be the engine's."""
        self._loaded.pop(name, None)


def _place(settings: Settings) -> Place:
    place = choose_place(settings.device, settings.backend)
    # TensorRT would build an engine, for a minute, for each size of image.
    return Place(place.device, "pytorch") if place.backend == "auto" and place.device.type == "cuda" else place
