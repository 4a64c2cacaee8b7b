"""The command line: `python -m preceptor`."""

from __future__ import annotations

from preceptor.cli.main import main

if __name__ == "__main__":
    main()
