"""One run: one model trained with one seed; also `python -m preceptor.training CONFIG`.

Reads top to bottom: prepare data and model, for each epoch train and validate, keep the best,
score the validation sets, write the run folder. Everything random is a function of (seed, epoch),
so a run that was interrupted goes on from its last epoch and ends with the same bits.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from torch import Tensor

from preceptor import __version__
from preceptor.checkpoint import load_progress, save_progress, snapshot
from preceptor.config import RunConfig, Training
from preceptor.configfile import dump_config
from preceptor.data.loader import Batch, Guides, Rows, TrainingStream
from preceptor.errors import RunFailedError
from preceptor.evaluation.metrics import accuracy, macro_auc
from preceptor.evaluation.predict import predict, to_device
from preceptor.evaluation.scores import fixed_thresholds, score_frame
from preceptor.leases import Lease, lease
from preceptor.losses import GuidedLoss, SoftTargets, gradient_norms, guided_loss_terms
from preceptor.models import GuidableModel, save_model
from preceptor.progress import progress as progress_display
from preceptor.runs import finish, is_finished, read_record, write_atomically
from preceptor.saliency.agreement import correlation
from preceptor.schedules import alpha_at, learning_rate, period_ends
from preceptor.workspace import Workspace, plain_settings


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Args:
        folder: The run folder.
        id: The run's id.
        record: The content of `run.json`.
        trained: Whether it was trained now, and not taken from the store.
    """

    folder: Path
    id: str
    record: dict[str, Any]
    trained: bool = True


def train(
    config: RunConfig,
    store: str | Path = "runs",
    *,
    workspace: Workspace | None = None,
    tell: Callable[[str], None] | None = None,
    wait: float | None = None,
) -> RunResult:
    """Train one model, or take the finished run of the same config and data from the store.

    Args:
        config: The run.
        store: Folder of run folders; the run goes to `store/<id>`.
        workspace: The manifest, opened once for many runs; None reads and checks it here.
        tell: Called with one line an epoch.
        wait: Seconds to wait where another process trains the same run; None = until it ends.

    Returns:
        The finished run.

    Raises:
        InputError: The config or the data cannot be used.
        RunFailedError: The loss became NaN or infinite, or the disk is full.
        HeldError: Another process trains the same run.
        LeaseLostError: Another process took it over while this one was asleep.
    """
    workspace = workspace or Workspace.open(config.manifest, verify=True)
    identity = workspace.run_id(config)
    folder = Path(store) / identity
    with lease(folder, wait=wait) as held:
        there = is_finished(folder)
        if not there:
            torch.set_num_threads(config.training.threads)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                _train(config, identity, folder, workspace, held, tell or (lambda line: None))
            except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
                reason = getattr(error, "strerror", None) or str(error)
                raise RunFailedError(f"run {identity}: {reason}") from error
    return RunResult(folder, identity, read_record(folder), not there)


def _train(
    config: RunConfig,
    identity: str,
    folder: Path,
    workspace: Workspace,
    held: Lease,
    tell: Callable[[str], None],
) -> None:
    settings = config.training
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # fixed order of sums on a GPU
    torch.use_deterministic_algorithms(True, warn_only=True)
    speed = settings.speed
    fabric = Fabric(accelerator=settings.device, devices=1, precision=speed.precision)

    # Data and model.
    torch.manual_seed(_derived(config.seed, -1))
    model = workspace.build(config)
    rows = workspace.guided_rows(config, model)
    size = model.spec.input_size
    plain = plain_settings(model, settings.cache)
    validation = _validation_sets(workspace, plain, model)
    if speed.compile:
        model.compile_trunk()
    if speed.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = _optimiser(settings, model)
    wrapped, optimiser = fabric.setup(model, optimiser)
    stream = TrainingStream(
        rows,
        settings.batch_size,
        seed=config.seed,
        settings=settings.augmentation,
        balanced=settings.balanced,
    )
    ends = period_ends(settings, stream.steps_per_epoch)
    trainer = _Trainer(config, model, wrapped, optimiser, fabric, stream, total=ends[-1])

    # Epochs.
    state = folder / "resume.safetensors"
    progress = load_progress(state, identity, model, optimiser)
    if progress.epoch:
        tell(f"goes on after epoch {progress.epoch} of {len(ends)}")
    with progress_display() as display:
        task = display.add_task(
            f"{config.backbone} seed {config.seed}", total=ends[-1], note="",
            completed=ends[progress.epoch - 1] if progress.epoch else 0,
        )  # fmt: skip
        for epoch in range(progress.epoch, len(ends)):
            started = time.monotonic()
            start = ends[epoch - 1] if epoch else 0
            torch.manual_seed(_derived(config.seed, epoch))
            metrics = {"epoch": epoch + 1.0}
            metrics |= trainer.epoch(epoch, start, ends[epoch], lambda: display.advance(task))
            if not math.isfinite(metrics["loss"]):
                raise RunFailedError(
                    f"run {identity}: the loss is {metrics['loss']} in epoch {epoch + 1}: it "
                    "diverged; a smaller lr or `clip` may help"
                )
            metrics |= validate(model, validation, wrapped)
            score = _score(settings, metrics, validation)
            if score >= progress.best_score or not progress.best_state:  # ties: the later epoch
                progress.best_score, progress.best_epoch = score, epoch
                progress.best_state = snapshot(model)
            seconds = time.monotonic() - started
            progress.seconds += seconds
            progress.history.append(metrics)
            progress.epoch = epoch + 1
            rate = (ends[epoch] - start) * settings.batch_size / seconds
            line = _line(metrics, validation, len(ends), rate)
            tell(line)
            display.update(task, note=line)
            held.check()
            save_progress(state, identity, progress, model, optimiser)

    # The kept epoch, and what the run leaves.
    model.load_state_dict(progress.best_state)
    metrics_table = pd.DataFrame(progress.history)
    metrics_table.to_csv(folder / "metrics.csv", index=False, float_format="%.6g")
    scores = score_frame(model, workspace, workspace.split_rows("val"), plain, wrapped)
    held.check()
    scores.to_parquet(folder / "scores.parquet", index=False)
    save_model(model, folder / "model", fixed_thresholds(scores, model.spec.positive))
    write_atomically(folder / "config.yaml", dump_config(config))
    lines = [_line(row, validation, len(ends), None) for row in progress.history]
    write_atomically(folder / "log.txt", "\n".join(lines) + "\n")
    held.check()
    state.unlink(missing_ok=True)
    finish(
        folder,
        {
            "id": identity,
            "config": config.model_dump(mode="json"),
            "classes": list(model.spec.classes),
            "input_size": size,
            "grid": list(rows.grid),
            "saliency": model.spec.cam,
            "training_images": len(rows),
            "guided_images": int((rows.guides.weight > 0).sum()) if rows.guides else 0,
            "soft_labelled_images": 0
            if rows.soft is None
            else int((~np.isnan(rows.soft)).all(1).sum()),
            "uninformative_maps": int(metrics_table["uninformative"].max() if rows.guides else 0),
            "images_seen": ends[-1] * settings.batch_size
            if settings.length == "steps"
            else len(rows) * settings.epochs,
            "best_epoch": progress.best_epoch + 1,
            "metrics": progress.history[progress.best_epoch],
            "seconds": round(progress.seconds, 3),
            "device": str(fabric.device),
            "versions": _versions(),
        },
    )


class _Trainer:
    """The step and its running sums; nothing in a step waits for the device."""

    def __init__(
        self,
        config: RunConfig,
        model: GuidableModel,
        wrapped: Callable[..., Any],
        optimiser: torch.optim.Optimizer,
        fabric: Fabric,
        stream: TrainingStream,
        *,
        total: int,
    ) -> None:
        self.config, self.model, self.wrapped = config, model, wrapped
        self.optimiser, self.fabric, self.stream, self.total = optimiser, fabric, stream, total
        self.channels_last = config.training.speed.channels_last
        self.loss = GuidedLoss(config.alpha if config.guided else 1.0, config.training.distance)

    def epoch(
        self, epoch: int, start: int, stop: int, advance: Callable[[], None]
    ) -> dict[str, float]:
        """Train steps start ≤ t < stop and return the epoch's mean metrics."""
        config = self.config
        sums = torch.zeros(8, device=self.fabric.device)
        seen, rate = 0, 0.0
        self.model.train()
        for step, batch in enumerate(self.stream.steps(start, stop), start):
            rate = learning_rate(config.training, step, self.total, epoch)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            if config.guided:
                self.loss.alpha = alpha_at(config.alpha, config.alpha_start, step, self.total)
            sums += self._step(batch)
            seen += len(batch.labels)
            advance()
        values = sums.cpu().double().numpy()
        guided = values[5]
        mean = values / max(seen, 1)
        metrics = {
            "lr": rate,
            "loss": mean[0],
            "classification": mean[1],
            "guidance": values[2] / guided if guided else math.nan,
            "grad_logits": mean[3],
            "grad_map": values[4] / guided if guided else math.nan,
            "guided": guided,
            "uninformative": values[6],
            "map_correlation": values[7] / guided if guided else math.nan,
        }
        return {key: float(value) for key, value in metrics.items()}

    def _step(self, batch: Batch) -> Tensor:
        config, settings, device = self.config, self.config.training, self.fabric.device
        images = self.model.preprocess(to_device(batch.images, device, self.channels_last))
        labels = batch.labels.to(device)
        weights = [
            None if part is None else part.to(device)
            for part in (batch.maps, batch.map_weight, batch.sample_weight)
        ]
        maps, map_weight, sample_weight = weights
        soft = None
        if batch.soft is not None and config.soft_labels is not None:
            given = config.soft_labels
            soft = SoftTargets(batch.soft.to(device), given.weight, given.temperature)
        cam = None
        if config.guided:
            logits, _, cam, _ = self.wrapped(
                images, labels if settings.cam_class == "label" else "predicted"
            )
        else:
            logits, _ = self.wrapped(images)
        terms = guided_loss_terms(
            logits, labels, cam, maps, map_weight, sample_weight,
            distance=settings.distance, soft=soft,
        )  # fmt: skip
        loss = self.loss.combine(terms)
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.optimiser.step()
        return self._sums(logits, labels, cam, maps, map_weight, sample_weight, soft, terms, loss)

    @torch.no_grad()
    def _sums(
        self,
        logits: Tensor,
        labels: Tensor,
        cam: Tensor | None,
        maps: Tensor | None,
        map_weight: Tensor | None,
        sample_weight: Tensor | None,
        soft: SoftTargets | None,
        terms: Any,
        loss: Tensor,
    ) -> Tensor:
        """What metrics.csv reports of one batch, summed over its images."""
        at_logits, at_map = gradient_norms(
            logits, labels, terms, cam, maps, map_weight, sample_weight,
            alpha=self.loss.alpha, distance=self.loss.distance, soft=soft,
        )  # fmt: skip
        agreement = torch.zeros((), device=logits.device)
        if cam is not None and maps is not None:
            values, valid = correlation(cam, torch.where(terms.guided[:, None, None], maps, 0))
            agreement = torch.where(valid & terms.guided, values, 0).sum()
        return torch.stack(
            [
                loss * len(labels),
                terms.classification.sum(),
                terms.guidance.sum(),
                at_logits.sum(),
                at_map.sum(),
                terms.guided.sum().float(),
                terms.uninformative.sum().float(),
                agreement,
            ]
        )


def validate(
    model: GuidableModel, sets: dict[str, Rows], forward: Callable[..., Any]
) -> dict[str, float]:
    """Accuracy, AUC and agreement with human maps on each validation set."""
    metrics: dict[str, float] = {}
    for name, rows in sets.items():
        found = predict(model, rows, cams="label" if rows.guides else None, forward=forward)
        metrics[f"{name}_accuracy"] = float(accuracy(rows.labels, found.probabilities))
        metrics[f"{name}_auc"] = float(macro_auc(rows.labels, found.probabilities))
        if rows.guides is not None and found.cams is not None:
            human = rows.maps_on_grid(np.arange(len(rows)))
            values, valid = correlation(found.cams, human)
            valid &= torch.from_numpy(rows.guides.weight > 0)
            metrics[f"{name}_map_correlation"] = float(values[valid].mean())
    return metrics


def _validation_sets(
    workspace: Workspace, settings: Training, model: GuidableModel
) -> dict[str, Rows]:
    """Each validation set, with its human maps where it has any."""
    sets: dict[str, Rows] = {}
    table = workspace.manifest.table
    for name in workspace.manifest.eval_splits("val"):
        which = np.flatnonzero((table["split"] == name).to_numpy())
        has_map = (table["saliency"].iloc[which] != "").to_numpy()
        guides = None
        if has_map.any():
            guides = Guides(has_map.astype(np.float32), None, np.full(len(which), -1, np.int64))
        sets[name] = workspace.rows(
            which, settings, model.spec.input_size, guides=guides, grid=model.grid()
        )
    return sets


def _optimiser(settings: Training, model: torch.nn.Module) -> torch.optim.Optimizer:
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def _score(settings: Training, metrics: dict[str, float], sets: dict[str, Rows]) -> float:
    """What decides which epoch is kept: the worst validation set counts."""
    if settings.checkpoint == "last":
        return metrics["epoch"]
    kind = settings.checkpoint.removeprefix("best_")
    return min(metrics[f"{name}_{kind}"] for name in sets)


def _line(metrics: dict[str, float], sets: dict[str, Rows], epochs: int, rate: float | None) -> str:
    parts = [f"epoch {int(metrics['epoch'])}/{epochs}", f"class {metrics['classification']:.3f}"]
    if math.isfinite(metrics["guidance"]):
        parts.append(f"guide {metrics['guidance']:.3f} (map r {metrics['map_correlation']:.2f})")
    parts += [f"{name} AUC {metrics[f'{name}_auc']:.3f}" for name in sets]
    if rate is not None:
        parts.append(f"{rate:,.0f} images/s")
    return "  ".join(parts)


def _derived(seed: int, epoch: int) -> int:
    """A seed for torch that differs between epochs and seeds."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=7).digest())


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
        "machine": platform.machine(),
    }


def _main() -> None:
    """`python -m preceptor.training CONFIG [STORE]`: one run, a line an epoch."""
    import sys

    from preceptor.configfile import load_config
    from preceptor.errors import PreceptorError

    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m preceptor.training CONFIG [STORE]")
    try:
        config = load_config(sys.argv[1], RunConfig)
        store = sys.argv[2] if len(sys.argv) == 3 else "runs"
        result = train(config, store, tell=lambda line: print(line, flush=True))
    except PreceptorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"run {result.folder}")


if __name__ == "__main__":
    _main()
