"""The command `byre`: its global options, its errors and exit codes, its commands by name.

A command's module is imported when it is called, so that `byre get` does not pay for what only
`byre run` needs. Machine output goes to stdout and nothing else does; people read stderr.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from reconciler.cli import say
from reconciler.root import Root
from statemachine.errors import ByreError
from statemachine.names import DEVICE_PREFIX

if TYPE_CHECKING:
    from reconciler.config import Settings

EXAMPLES: Final = """\b
Examples:
  byre create sb-1 --base ubuntu.ext4 --wait
  byre apply -f disks.toml --wait
  byre get -o json"""

_COMMANDS: Final[dict[str, str]] = {
    "run": "running",
    "apply": "declaring",
    "create": "declaring",
    "pause": "declaring",
    "restore": "declaring",
    "remove": "declaring",
    "extend": "declaring",
    "retry": "declaring",
    "link": "linking",
    "grow": "growing",
    "sparsify": "growing",
    "get": "getting",
    "history": "telling",
    "timeline": "timelining",
    "plan": "planning",
    "explain": "planning",
    "replay": "proving",
    "log": "proving",
    "fsck": "checking",
    "fork": "forking",
    "checkpoint": "keepingpoints",
    "points": "keepingpoints",
    "flatten": "copying",
    "diff": "comparing",
    "export": "carrying",
    "import": "carrying",
    "diff-log": "differing",
    "base": "basing",
    "orphans": "orphaned",
    "doctor": "doctoring",
    "udev-rules": "ruling",
    "demo": "demonstrating",
    "bench": "benching",
    "chaos": "chaotic",
    "completion": "completing",
}
"""Each command and the module of this package that has it."""


@attrs.frozen(kw_only=True)
class Context:
    """What every command gets: which root, and what was said of its settings."""

    root: Root
    device_prefix: str | None = None

    @property
    def settings(self) -> Settings:
        """The settings of the root, with what was given on the command line."""
        return self.settings_with()

    def settings_with(self, **given: object) -> Settings:
        """Return the same with more that was given; see `Settings.read`."""
        from reconciler.config import Settings  # noqa: PLC0415 - not for those who only ask the log

        return Settings.read(self.root.config, device_prefix=self.device_prefix, **given)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the reference."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module and return the command."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"reconciler.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        _take_root(command)
        return command


def _take_root(command: click.Command) -> None:
    """Let a command take `--root` as well, for those who write it behind the command."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _take_root(each)
    elif not any(option.name == "root" for option in command.params):
        option = click.Option(
            ["--root"],
            type=click.Path(path_type=Path, file_okay=False),
            callback=_set_root,
            expose_value=False,
            hidden=True,
            help="State root; the same as before the command.",
        )
        command.params.append(option)


def _set_root(ctx: click.Context, option: click.Parameter, root: Path | None) -> None:
    del option
    if root is not None:
        ctx.obj = attrs.evolve(context(ctx), root=Root(root))


@click.group(
    cls=LazyGroup,
    name="byre",
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="BYRE_ROOT",
    help="State root. Default: /var/lib/byre as root, else the XDG state folder.",
)
@click.option(
    "--device-prefix",
    envvar="BYRE_DEVICE_PREFIX",
    help=f"What the names of new dm devices begin with.  [default: {DEVICE_PREFIX}]",
)
@click.version_option(package_name="byre", prog_name="byre")
@click.pass_context
def cli(ctx: click.Context, root: Path | None, device_prefix: str | None) -> None:
    """Keep the copy-on-write disks of sandboxes as they should be, and tell what happened."""
    where = Root(root) if root else Root.from_environment(os.environ, uid=os.getuid())
    if device_prefix is not None:
        from reconciler.config import Settings  # noqa: PLC0415 - as above

        Settings(device_prefix=device_prefix)  # refused here, whatever the command makes of it
    ctx.obj = Context(root=where, device_prefix=device_prefix)


def run(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code: 0, or what the error's class says."""
    try:
        code = cli.main(args=arguments, prog_name="byre", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        say.error("interrupted; what was begun is finished by the next reconciler")
        sys.exit(130)
    except ByreError as error:
        say.failure(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has enough; do not fail again while flushing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def context(ctx: click.Context) -> Context:
    """Return our own part of click's context."""
    found: Any = ctx.obj
    assert isinstance(found, Context)
    return found
