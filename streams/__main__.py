"""``python -m streams``: the worker process, configured on the command line alone."""

from __future__ import annotations

from streams.worker import main

if __name__ == "__main__":
    main()
