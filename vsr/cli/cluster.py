"""`vsr cluster`: look at a Ray cluster."""

from __future__ import annotations

import click

from vsr.cli.spelling import Command, Group

__all__ = ["cluster"]


@click.group(cls=Group)
def cluster() -> None:
    """Look at a Ray cluster, on which 'vsr enhance --cluster' makes segments."""


@cluster.command(cls=Command)
@click.option("--cluster", default="auto", show_default=True, metavar="ADDRESS", help="As 'vsr enhance'.")
def status(cluster: str) -> None:
    """List the nodes of a cluster: CPUs and GPUs, those in use, and which vsr is installed."""
    from vsr.cluster.status import describe_cluster

    for line in describe_cluster(cluster):
        click.echo(line)
