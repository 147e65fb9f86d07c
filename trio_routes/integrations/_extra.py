"""What to say when an adapter's library is not installed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def needs(package: str, extra: str) -> Generator[None]:
    """Import a library, or say which extra installs it.

    Args:
      package: The import package that may be missing, or too old to have a module that is needed.
      extra: The extra of trio-routes that brings it.

    Raises:
      ImportError: It is missing; what else is missing raises as ever.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f"no module named {error.name!r}: pip install 'trio-routes[{extra}]'", name=error.name
        ) from error
