"""The front of ``trio-routes``: finds the command, reads its arguments and turns its end into an exit status.

A command is a module with two functions, which :class:`Command` describes; ``COMMANDS`` is the whole registry. Nothing of a
command is imported until its name stands on the command line, so ``trio-routes --help`` and ``trio-routes get`` do not pay for
(or fail on) what only ``demo`` needs.
"""

import argparse
import importlib
import logging
import os
import select
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, Protocol, cast

from .._version import __version__
from ._arguments import CommandFailedError, UsageError
from ._status import ExitStatus

PROGRAM = "trio-routes"


class Command(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments; ``parser.description`` may be set too."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Do the command, outside any Trio run, and return its exit status."""
        ...


class Entry(NamedTuple):
    """One line of the registry."""

    name: str
    module: str
    help: str


COMMANDS = (
    Entry("demo", "trio_routes.cli._demo", "see connections lose and keep their routes, in namespaces of its own"),
    Entry("watch", "trio_routes.cli._watch", "print the events of this machine's routing as they happen"),
    Entry("record", "trio_routes.cli._record", "record what the kernel says of routing, for tests to replay"),
    Entry("routes", "trio_routes.cli._routes", "print the routing cache"),
    Entry("portal", "trio_routes.cli._portal", "ask what is behind each link: the Internet, a captive portal, nothing"),
    Entry("get", "trio_routes.cli._get", "say which route a packet would take, and why"),
)

# Packages that belong to an extra, by the name they are imported by.
_EXTRAS = {"rich": "cli", "prometheus_client": "metrics"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``trio-routes`` and return its exit status.

    Args:
      argv: The arguments without the program's name; those of the process if None.

    Raises:
      SystemExit: After ``--help``, ``--version`` (status 0) and wrong arguments (status 64).
    """
    words = sys.argv[1:] if argv is None else list(argv)
    label = PROGRAM
    try:
        arguments, command = _parse(words)
        label = f"{PROGRAM} {arguments.command}"
        _log_to_stderr(arguments.verbose)
        status = command.run(arguments)
        # Here, where a reader that went away can still be dealt with; at exit it would be a traceback.
        if sys.stdout is not None:  # `>&-`
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        ending = _ending(error)
        if ending is None:
            raise
        status, text = ending
        if text:
            print(f"{label}: {text}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Argparse's, but wrong arguments end with 64: see :class:`ExitStatus`."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitStatus.USAGE, f"{self.prog}: {message}\n")


def _parse(words: Sequence[str]) -> tuple[argparse.Namespace, Command]:
    parser = _Parser(
        prog=PROGRAM,
        description="Watch and explain the Linux routing table as trio_routes sees it.",
        epilog=_exit_statuses(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log to stderr; twice: with all detail")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    modules: dict[str, Command] = {}
    for name, module, help_line in COMMANDS:
        command_parser = commands.add_parser(name, help=help_line, description=help_line, allow_abbrev=False)
        # Every command whose name is among the words, for its place among the options is argparse's to find; one too
        # many (`trio-routes get demo`) is imported in vain and no more.
        if name in words:
            # There is no static type for "a module with these functions": the tests check each of them.
            modules[name] = cast(Command, importlib.import_module(module))
            modules[name].add_arguments(command_parser)
    arguments = parser.parse_args(words)
    return arguments, modules[arguments.command]


def _exit_statuses() -> str:
    return "exit status:\n" + "\n".join(f"  {status.value:<4}{status.meaning}" for status in ExitStatus)


def _log_to_stderr(verbosity: int) -> None:
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _ending(error: BaseException) -> tuple[ExitStatus, str] | None:
    """Say how ``error`` ends the program: status and text for stderr, or None if it is a bug and wants its traceback.

    Trio wraps what leaves a nursery in a group, so a group of one kind counts as that kind.
    """
    leaves = _leaves(error)
    if all(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return ExitStatus.INTERRUPTED, ""
    if all(isinstance(leaf, BrokenPipeError) for leaf in leaves) and _stdout_has_no_reader():
        # Python would flush what is left at exit and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
        return ExitStatus.BROKEN_PIPE, ""
    if isinstance(error, UsageError):
        return ExitStatus.USAGE, str(error)
    if all(isinstance(leaf, (CommandFailedError, OSError)) for leaf in leaves):
        return ExitStatus.FAILED, "; ".join(dict.fromkeys(str(leaf) for leaf in leaves))
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        return ExitStatus.FAILED, f"needs {error.name}: pip install 'trio-routes[{_EXTRAS[error.name]}]'"
    return None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in cast(BaseExceptionGroup[BaseException], error).exceptions for leaf in _leaves(inner)]
    return [error]


def _stdout_has_no_reader() -> bool:
    """Tell EPIPE on our output from EPIPE on some connection of the command's, which is a failure like any other."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(flags & (select.POLLERR | select.POLLHUP) for _, flags in poll.poll(0))
