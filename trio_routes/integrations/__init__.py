"""Adapters that let other libraries live on guarded streams; each module needs its own extra, and imports it alone.

`import trio_routes` imports none of them. `docs/adapters.md` shows each.
"""
