"""hypercorn's ASGI server over guarded streams."""

from ._extra import needs

with needs("hypercorn", "hypercorn"):
    from ._hypercorn import serve as serve
