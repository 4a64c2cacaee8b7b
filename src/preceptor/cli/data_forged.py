"""Command `preceptor data forged`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import Preset, StampPlace


def data_forged(
    to: Annotated[Path, typer.Option(help="Output folder.")],
    preset: Annotated[Preset, typer.Option(help="Number of crops and strength of the forgeries.")],
    stamp_place: Annotated[
        StampPlace | None,
        typer.Option(
            help="Place of the stamp: corner, or moving (default: as in the preset).",
            show_default=False,
        ),
    ] = None,
    stamp_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of the forged training crops with the stamp, 0.5 to 1 (default: as in the "
            "preset).",
            show_default=False,
        ),
    ] = None,
    stamp_strength: Annotated[
        float | None,
        typer.Option(
            help="Contrast of the stamp in gray levels, 0 = no stamp (default: as in the preset).",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 1,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first draw.")] = 0,
) -> None:
    """Generate the built-in benchmark.

    The images are forged crops of photographs, with one manifest per seed.
    """
    from preceptor.benchmark.forged import write_draws
    from preceptor.benchmark.forged_settings import PRESETS, ForgedSettings

    given = {"stamp_place": stamp_place, "stamp_rate": stamp_rate, "stamp_strength": stamp_strength}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = PRESETS[preset]
    if changes:
        from preceptor.config.files import parse_config

        values = settings.model_dump() | changes
        settings = parse_config(values, ForgedSettings, source=f"--preset {preset}")
    pattern = write_draws(to, settings, range(first, first + seeds))
    print(f"wrote {seeds} draw{'s' if seeds > 1 else ''}: {pattern}")
