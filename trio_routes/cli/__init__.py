"""The command ``trio-routes``: one module per command, imported only when that command is run."""

from ._arguments import CommandFailedError as CommandFailedError
from ._main import main as main
from ._status import ExitStatus as ExitStatus
