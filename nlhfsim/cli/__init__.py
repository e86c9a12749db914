"""The command line: ``nlhfsim demo | solve | run | compare | experiment | sweep | verify | report | list | llm``.

Exit codes: 0 done, 1 a claim was violated, 2 the input was bad (one sentence on standard error; of a configuration a line a
mistake). Everything heavy is imported
by the command that needs it.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import click

from nlhfsim.cli.commands import group
from nlhfsim.cli.output import speaks
from nlhfsim.errors import ConfigurationError, NlhfsimError, NlhfsimWarning


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; bad input is one sentence on standard error and exit code 2."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", NlhfsimWarning)
            warnings.showwarning = _show_warning
            code = group.main(args=arguments, prog_name="nlhfsim", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        _fail(_sentence(error))
    except ConfigurationError as error:
        click.echo(f"nlhfsim: {error}", err=True)
        sys.exit(2)
    except NlhfsimError as error:
        _fail(str(error))
    except MemoryError:
        _fail("the game or the run does not fit into memory: take fewer actions, runs or records")
    except (click.Abort, KeyboardInterrupt):
        if speaks():
            click.echo("nlhfsim: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        _drop_output()
        sys.exit(0)
    except OSError as error:
        _drop_output()
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}")
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _drop_output() -> None:
    """Send what is still buffered nowhere: it must not be flushed into a closed pipe or a full disk on the way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> None:
    click.echo(f"nlhfsim: {' '.join(message.split())}", err=True)
    sys.exit(2)


def _sentence(error: click.ClickException) -> str:
    """Return click's message with where to read on."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see '{context.command_path} --help'" if context is not None else message


def _show_warning(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
    click.echo(f"nlhfsim: warning: {message}", err=True)
