"""Results of a run: read-out, record, and files of the run folder."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from preceptor.config.yaml_file import dump_config
from preceptor.data.loader import Rows
from preceptor.data.workspace import Workspace
from preceptor.evaluation.scores import fixed_thresholds
from preceptor.inference.score import score_frame
from preceptor.models.guided_model import GuidedModel
from preceptor.models.model_folder import save_model
from preceptor.runtime.memory import device_memory, peak_memory
from preceptor.runtime.result_folder import write_atomically
from preceptor.training.checkpoint import Progress
from preceptor.training.context import RunContext
from preceptor.training.epoch_metrics import epoch_line, metrics_table
from preceptor.training.readout import best_readout
from preceptor.training.record import RunRecord
from preceptor.version import __version__


@dataclass(frozen=True)
class RunTables:
    """Texts of metrics.csv and log.txt.

    Args:
        metrics: Metrics of every epoch, as CSV.
        log: Summary line of every epoch.
    """

    metrics: str
    log: str

    @classmethod
    def of(cls, progress: Progress) -> RunTables:
        """Texts of a finished training."""
        lines = [epoch_line(row, len(progress.history)) for row in progress.history]
        return cls(metrics_table(progress.history), "\n".join(lines) + "\n")

    @classmethod
    def read(cls, folder: Path) -> RunTables:
        """Texts in the folder of a finished run."""
        names = ("metrics.csv", "log.txt")
        metrics, log = ((folder / name).read_text(encoding="utf-8") for name in names)
        return cls(metrics, log)


def read_out(run: RunContext, model: GuidedModel, validation: dict[str, Rows]) -> GuidedModel:
    """The trained model with the read-out of the config."""
    if run.config.training.readout == "none":
        return model
    return best_readout(model, validation, run.config.validation_negatives)


def record_of(
    run: RunContext,
    model: GuidedModel,
    rows: Rows,
    progress: Progress,
    device: torch.device,
) -> RunRecord:
    """Record of a run after its last epoch."""
    guided = run.config.guided
    return RunRecord(
        id=run.id,
        config=run.config.model_dump(mode="json"),
        classes=tuple(model.spec.classes),
        input_size=model.spec.input_size,
        grid=rows.grid,
        saliency=model.spec.cam,
        training_images=len(rows),
        guided_images=int((rows.targets.weight > 0).sum()) if guided and rows.targets else 0,
        soft_labelled_images=(0 if rows.soft is None else int((~np.isnan(rows.soft)).all(1).sum())),
        uninformative_maps=(
            int(max(row["uninformative"] for row in progress.history)) if guided else 0
        ),
        images_seen=int(sum(row["images"] for row in progress.history)),
        best_epoch=progress.best_epoch + 1,
        metrics=progress.history[progress.best_epoch],
        seconds=round(progress.seconds, 3),
        parts=progress.parts,
        peak_memory=peak_memory(device),
        device_memory=device_memory(device) or None,
        device=str(device),
        versions=_versions(),
    )


def write_run(
    run: RunContext,
    workspace: Workspace,
    model: GuidedModel,
    tables: RunTables,
    record: RunRecord,
) -> None:
    """Write the run folder: tables, scores of the validation sets, model; run.json last."""
    write_atomically(run.folder / "metrics.csv", tables.metrics)
    # In 32-true, as test sets are scored: a threshold must not depend on the precision.
    cache = run.config.training.cache
    scores = score_frame(model, workspace, workspace.split_rows("val"), cache)
    run.check()
    scores.to_parquet(run.folder / "scores.parquet", index=False)
    save_model(model, run.folder / "model", fixed_thresholds(scores, model.spec.positive))
    write_atomically(run.folder / "config.yaml", dump_config(run.config))
    write_atomically(run.folder / "log.txt", tables.log)
    run.check()
    record.write(run.folder, without=run.state.name)
    run.state.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    import timm
    import torchvision

    return {
        "preceptor": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }
