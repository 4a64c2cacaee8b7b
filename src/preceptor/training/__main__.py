"""Train one run: `python -m preceptor.training CONFIG [STORE]`."""

from __future__ import annotations

import sys

from preceptor.config.run import RunConfig
from preceptor.config.yaml_file import load_config
from preceptor.errors import PreceptorError
from preceptor.training.launch import launch
from preceptor.training.run import train


def main() -> None:
    """Run the command."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m preceptor.training CONFIG [STORE]")
    try:
        config = load_config(sys.argv[1], RunConfig)
        store = sys.argv[2] if len(sys.argv) == 3 else "runs"
        if config.training.processes > 1:
            launch(config, store)
            return
        result = train(config, store, tell=lambda line: print(line, flush=True))
    except PreceptorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; repeat the command to resume", file=sys.stderr)
        sys.exit(130)
    print(f"run {result.folder}")


if __name__ == "__main__":
    main()
