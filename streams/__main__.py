"""``python -m streams``: the worker process, configured by the environment alone."""

from __future__ import annotations

from streams.worker import main

if __name__ == "__main__":
    main()
