"""What the exit status of ``trio-routes`` means to the script that called it."""

import enum


class ExitStatus(enum.IntEnum):
    """The exit statuses of every command; ``--help`` prints this table.

    "No route" has a status of its own so that ``if trio-routes get ...`` can tell it from a failure to ask. It takes 2,
    as in ``grep`` and ``diff`` the statuses next to 0 belong to answers; wrong arguments, which argparse would report
    as 2, therefore are 64 (``EX_USAGE`` of ``<sysexits.h>``).
    """

    OK = 0
    FAILED = 1
    NO_ROUTE = 2
    PORTAL = 3
    PARTIAL = 4
    OFFLINE = 5
    NOT_KNOWN = 6
    USAGE = 64
    INTERRUPTED = 130
    BROKEN_PIPE = 141

    @property
    def meaning(self) -> str:
        """One line for the table in ``--help``."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitStatus.OK: "done, and all that was expected is so",
    ExitStatus.FAILED: "failed, or an expectation was not met",
    ExitStatus.NO_ROUTE: "get: the kernel has no route there, or a route that rejects",
    ExitStatus.PORTAL: "portal: a captive portal",
    ExitStatus.PARTIAL: "portal: HTTP passes and HTTPS does not",
    ExitStatus.OFFLINE: "portal: no Internet, no names, or no link",
    ExitStatus.NOT_KNOWN: "portal: it could not be found out",
    ExitStatus.USAGE: "wrong arguments",
    # As the shell reports a program that a signal ended: 128 + SIGINT, 128 + SIGPIPE.
    ExitStatus.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitStatus.BROKEN_PIPE: "the reader of the output went away",
}
