"""The command line. Commands are thin: they read options, call the package and print."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from vsr.cli.app import app
from vsr.cli.benchmark import benchmark
from vsr.cli.cluster import cluster
from vsr.cli.compare import compare, preview
from vsr.cli.enhance import enhance
from vsr.cli.models import engine, export, foreign_options, models
from vsr.cli.options import check_exist
from vsr.cli.remote import remote
from vsr.cli.serve import serve
from vsr.cli.signals import Terminated, handle_signals
from vsr.cli.spelling import Group
from vsr.cli.train import train
from vsr.cli.verify import verify
from vsr.errors import OutputError, VsrError, is_disk_full, reason
from vsr.version import __version__

__all__ = ["main"]

EXIT_INTERRUPTED = 130
EXIT_BY_SIGNAL = 128  # and its number: 143 for SIGTERM, 129 for SIGHUP
EXIT_READER_GONE = 141  # 128 + SIGPIPE: whoever reads stdout has gone, which is no error of ours


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vsr", message="%(prog)s %(version)s")  # as help2man expects it
def cli() -> None:
    """Video super-resolution that loses nothing on the way.

    Exit codes: 0 done, 2 bad input or usage, 3 output cannot be written, 4 wrong option, 5 model,
    6 engine, 7 the output differs from its source, 8 an omission under --strict, 9 missing extra, 129 the terminal was
    closed, 130 interrupted, 141 nobody reads stdout any more, 143 terminated.
    Of several inputs, the code of the first that failed.
    """


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@foreign_options
def info(file: Path, as_json: bool, **stated: Any) -> None:
    """Show what vsr sees in FILE: a video, an image or a model, which may be a name of 'vsr models'."""
    from vsr.models.cards import shipped_cards

    if str(file) not in shipped_cards():
        check_exist([file])
    from vsr.cli.info import describe_anything, facts_of
    from vsr.models.conventions import Stated

    facts = Stated(stated["model_range"], stated["model_order"], stated["model_scale"])
    if as_json:
        click.echo(json.dumps(facts_of(file, facts), indent=2, ensure_ascii=False))
    else:
        click.echo(describe_anything(file, facts))


@cli.command()
def doctor() -> None:
    """Show versions, devices, encoders, missing parts, and what 'auto' would pick."""
    from vsr.cli.info import describe_machine

    click.echo(describe_machine())


_COMMANDS = (enhance, preview, compare, verify, models, train, engine, export, benchmark, serve, remote, cluster, app)
for _command in _COMMANDS:
    cli.add_command(_command)


def main() -> NoReturn:
    """Run the command line: one line on stderr and a documented exit code for every error."""
    # OpenMP threads that spin while they wait take the cores from the encoder; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes to stderr by itself: errors only
    try:
        handle_signals()
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        _fail("interrupted", EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "vsr"
        _fail(f"{error.format_message()} See '{command} --help'.", error.exit_code)
    except Terminated as ended:
        _fail("terminated", EXIT_BY_SIGNAL + ended.number)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except VsrError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        sys.exit(EXIT_READER_GONE)
    except OSError as error:  # of what commands print: files are named by errors of their own
        if not is_disk_full(error):
            raise
        _fail(f"{error.filename or 'stdout'}: writing failed ({reason(error)})", OutputError.exit_code)


def _fail(line: str, code: int) -> NoReturn:
    click.echo(f"vsr: {line}", err=True)
    sys.exit(code)
