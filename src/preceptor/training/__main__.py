"""Train one run: `python -m preceptor.training CONFIG [STORE]`."""

from __future__ import annotations

import os
import sys

from preceptor.config.run import RunConfig
from preceptor.config.yaml_file import load_config
from preceptor.errors import PreceptorError
from preceptor.runtime.bulk_import import bulk_import
from preceptor.training.launch import launch, may_be_member


def main() -> None:
    """Run the command."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m preceptor.training CONFIG [STORE]")
    try:
        config = load_config(sys.argv[1], RunConfig)
        store = sys.argv[2] if len(sys.argv) == 3 else "runs"
        if config.training.processes > 1:
            _train_on_several(config, store)
        else:
            _train_on_one(config, store)
    except PreceptorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; repeat the command to resume", file=sys.stderr)
        sys.exit(130)


def _train_on_one(config: RunConfig, store: str) -> None:
    with bulk_import():
        from preceptor.training.run import train

    result = train(config, store, tell=lambda line: print(line, flush=True))
    print(f"run {result.folder}")


def _train_on_several(config: RunConfig, store: str) -> None:
    if may_be_member():
        with bulk_import():
            from preceptor.training.member import is_member, take_part

        if is_member(config.training):
            take_part(config, store)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)  # as `member.serve`: network threads may abort the process at its end
    launch(config, store)


if __name__ == "__main__":
    main()
