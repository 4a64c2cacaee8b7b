"""Commands of `preceptor data`."""

from __future__ import annotations

import typer

from preceptor.cli.data_agreement import data_agreement
from preceptor.cli.data_check import data_check
from preceptor.cli.data_export import data_export
from preceptor.cli.data_forged import data_forged
from preceptor.cli.data_import import imports
from preceptor.cli.data_import_und import import_und
from preceptor.cli.data_plant import data_plant
from preceptor.cli.data_split import data_split

data = typer.Typer(
    help="Check, split, copy, import and export manifests; compare annotators.",
    no_args_is_help=True,
)
data.add_typer(imports, name="import")
imports.command("und")(import_und)
data.command("agreement")(data_agreement)
data.command("export")(data_export)
data.command("check")(data_check)
data.command("split")(data_split)
data.command("forged")(data_forged)
data.command("plant")(data_plant)
