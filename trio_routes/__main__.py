"""``python -m trio_routes``: the same as the command ``trio-routes``."""

from .cli import main

raise SystemExit(main())
