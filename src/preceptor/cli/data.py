"""Commands of `preceptor data`."""

from __future__ import annotations

import typer

from preceptor.cli.annotations import data_agreement, data_export, imports
from preceptor.cli.data_check import data_check
from preceptor.cli.data_forged import data_forged
from preceptor.cli.data_plant import data_plant
from preceptor.cli.data_split import data_split

data = typer.Typer(
    help="Check, split, copy, import and export manifests; compare annotators.",
    no_args_is_help=True,
)
data.add_typer(imports, name="import")
data.command("agreement")(data_agreement)
data.command("export")(data_export)
data.command("check")(data_check)
data.command("split")(data_split)
data.command("forged")(data_forged)
data.command("plant")(data_plant)
