"""Average two models of one network, weight by weight (Wortsman et al. 2022, arXiv:2109.01903).

    python scripts/average_models.py runs/video-real/weights.safetensors video --share 0.7 --out video-real.safetensors

One of them must have been trained from the other: only then does the average work at all.
"""

from __future__ import annotations

from pathlib import Path

import click

from vsr.models.weights import load_net, resolve, save_model_file


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--share", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Weight of the first.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(first: str, second: str, share: float, out: Path) -> None:
    """Average the models FIRST and SECOND, named or files; the card is that of the first."""
    card, path = resolve(first)
    state = {name: value.float() for name, value in load_net(card, path).state_dict().items()}
    other = load_net(*resolve(second)).state_dict()
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in other.items()}:
        raise click.UsageError(f"{first} and {second} are not of one network")
    save_model_file(out, card, {name: other[name].float().lerp(value, share) for name, value in state.items()})


if __name__ == "__main__":
    main()
