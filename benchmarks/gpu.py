"""Everything that is measured on a GPU, in one command.

    make gpu
    python benchmarks/gpu.py [--only SECTION ...] [--again] [--limit 900]
    python benchmarks/gpu.py --device cpu --small          # whether the script works, without a GPU

step            guided ÷ plain, and ÷ the authors' way, for the paper's backbones at their sizes:
                float32 and bf16, channels-last and not
rise            ÷ a plain loop over the same masks
memory          peak of a plain and of a guided step
runs_per_gpu    seconds of a study with one, two and four runs on the GPU

Each section is a process with a time limit. What it found is kept in benchmarks/gpu-NAME.json, NAME
being that of the card; sections that are there are not run again. A section that fails is a row of
the table, with the reason.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import bench_data
import bench_guided_step
import bench_rise
import torch
from bench_guided_step import Sides
from measure import in_turn, machine, ratio

from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.driver import run_study
from preceptor.models.build import build_model
from preceptor.saliency.rise import rise
from preceptor.study.config import StudyConfig
from preceptor.utils.process import release_memory

MARK = "found: "  # begins the last line of a section's process


@dataclass(frozen=True)
class Task:
    """What a section measures on.

    Args:
        device: cuda or cpu.
        small: Whether networks, images and turns are few and small.
    """

    device: str
    small: bool

    @property
    def backbones(self) -> tuple[str, ...]:
        return ("test_byobnet",) if self.small else bench_guided_step.PAPER

    @property
    def turns(self) -> int:
        return 1 if self.small else 9

    @property
    def batch(self) -> int:
        return 4 if self.small else 32

    def sides(self, backbone: str, speed: Training | None = None) -> Sides:
        device = torch.device(self.device)
        return Sides(backbone, self.batch, device, speed, 64 if self.small else None)


@dataclass(frozen=True)
class Figure:
    """A measured figure.

    Args:
        section: Section.
        name: What was measured.
        value: Median.
        unit: Unit; ÷ for ratios.
        least, most: Range over the turns; None = measured once.
    """

    section: str
    name: str
    value: float
    unit: str = "÷"
    least: float | None = None
    most: float | None = None

    @property
    def row(self) -> str:
        """Row of a Markdown table."""
        value = f"{self.value:,.3f}"
        if self.least is not None and self.most is not None:
            value += f" ({self.least:,.3f} to {self.most:,.3f})"
        return f"| {self.section} | {self.name} | {value} {self.unit} |"


@dataclass(frozen=True)
class Section:
    """Result of a section: figures, or the reason of its failure.

    Args:
        figures: Figures.
        seconds: Time that it took.
        machine: What it was measured on.
        error: Reason of a failure in one line, or "".
    """

    figures: tuple[Figure, ...]
    seconds: float
    machine: str
    error: str = ""


def ratio_of(section: str, name: str, seconds: dict[str, list[float]], *pair: str) -> Figure:
    middle, least, most = ratio(seconds, pair[0], pair[1])
    return Figure(section, f"{name}: {pair[0]} ÷ {pair[1]}", middle, "÷", least, most)


def step(task: Task) -> Iterator[Figure]:
    speeds = [Training(precision=p) for p in ("32-true", "bf16-mixed")]
    if not task.small:
        speeds += [speed.model_copy(update={"channels_last": False}) for speed in speeds]
    for backbone in task.backbones:
        for speed in speeds:
            sides = task.sides(backbone, speed)
            steps = {"plain": sides.plain, "guided": sides.guided}
            steps["published"] = sides.published
            seconds = in_turn(steps, turns=task.turns, warm=1 if task.small else 3)
            layout = "last" if speed.channels_last else "first"
            name = f"{backbone}, {speed.precision}, channels-{layout}"
            images = task.batch / sorted(seconds["guided"])[len(seconds["guided"]) // 2]
            yield Figure("step", f"{name}: guided", images, "images/s")
            for other in steps:
                if other != "guided":
                    yield ratio_of("step", name, seconds, "guided", other)


def rise_maps(task: Task) -> Iterator[Figure]:
    masks = 128 if task.small else 4096
    for backbone in ("test_byobnet",) if task.small else ("resnet50", "densenet121"):
        model = build_model(backbone, ["a", "b"], input_size=bench_rise.SIDE).eval()
        model = model.to(task.device).to(memory_format=torch.channels_last)
        image = torch.randn(1, 3, bench_rise.SIDE, bench_rise.SIDE, device=task.device)
        image = image.contiguous(memory_format=torch.channels_last)
        group = bench_rise.blocks(masks)

        def ours(model=model, image=image) -> None:
            rise(model, image, torch.tensor([1]), max_masks=masks, tolerance=0, size="image")
            wait(task)

        def plain(model=model, image=image, group=group) -> None:
            bench_rise.plain(model, image, group)
            wait(task)

        seconds = in_turn({"rise": ours, "plain loop": plain}, turns=task.turns)
        yield Figure("rise", f"{backbone}, {masks} masks", min(seconds["rise"]), "s")
        yield ratio_of("rise", f"{backbone}, {masks} masks", seconds, "rise", "plain loop")


def memory(task: Task) -> Iterator[Figure]:
    needs_card(task)
    device = torch.device(task.device)
    for backbone in task.backbones:
        sides = task.sides(backbone)
        peaks = {}
        for name in ("plain", "guided"):
            release_memory(device)
            getattr(sides, name)()
            peaks[name] = torch.cuda.max_memory_allocated(device)
        yield Figure("memory", f"{backbone}: guided", peaks["guided"] / 2**20, "MiB")
        share = peaks["guided"] / peaks["plain"]
        yield Figure("memory", f"{backbone}: guided ÷ plain", share)


def runs_per_gpu(task: Task) -> Iterator[Figure]:
    with training(task, 64 if task.small else 512) as (config, folder):
        settings = config.training.model_dump() | {"epochs": 1, "length": "epochs", "steps": None}
        study = StudyConfig.model_validate(
            {
                "manifest": config.manifest,
                "positive": "b",
                "annotated": 0.5,
                "teachers": [config.backbone],
                "students": [config.backbone],
                "seeds": 1 if task.small else 4,
                "alphas": [0.5],
                "data_driven": False,
                "controls": [],
                "training": settings,
            }
        )
        for runs in (1,) if task.small else (1, 2, 4):
            started = time.perf_counter()
            run_study(study, folder / str(runs), jobs=runs, runs_per_gpu=runs)
            seconds = time.perf_counter() - started
            yield Figure("runs_per_gpu", f"a study, {runs} on the GPU", seconds, "s")


def needs_card(task: Task) -> None:
    if task.device == "cpu":
        raise RuntimeError("needs a GPU")


def wait(task: Task) -> None:
    if task.device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def training(task: Task, count: int, **values: object) -> Iterator[tuple[RunConfig, Path]]:
    """Config of a training on generated images, and a folder for its runs."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = bench_data.config_of(bench_data.make_data(folder / "data", count))
        backbone = str(values.pop("backbone", config.backbone))
        settings = config.training.model_dump() | {"device": task.device} | values
        yield (
            RunConfig.model_validate(
                config.model_dump() | {"backbone": backbone, "training": settings}
            ),
            folder,
        )


SECTIONS: dict[str, Callable[[Task], Iterator[Figure]]] = {
    "step": step,
    "rise": rise_maps,
    "memory": memory,
    "runs_per_gpu": runs_per_gpu,
}


def measured(name: str, task: Task, limit: float) -> Section:
    """Run a section in a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--device", task.device]
    started = time.perf_counter()
    error = ""
    try:
        done = subprocess.run(
            [*command, *(["--small"] if task.small else [])],
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
        )
        out = done.stdout
        if done.returncode:
            error = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    except subprocess.TimeoutExpired as expired:
        out = expired.stdout.decode() if isinstance(expired.stdout, bytes) else ""
        error = f"not finished within {limit:g} s"
    lines = [line for line in out.splitlines() if line.startswith(MARK)]
    figures = tuple(Figure(**json.loads(line.removeprefix(MARK))) for line in lines)
    return Section(figures, round(time.perf_counter() - started, 1), machine(), error)


def table_of(sections: dict[str, Section]) -> str:
    """Markdown table for RESULTS.md."""
    lines = ["| section | measured | value |", "| --- | --- | --- |"]
    for name, section in sections.items():
        lines += [figure.row for figure in section.figures]
        if section.error:
            reason = " ".join(section.error.split()).replace("|", "/")[:200]
            lines.append(f"| {name} | failed | {reason} |")
    return "\n".join(lines)


def read(file: Path) -> dict[str, Section]:
    """Sections of an earlier call."""
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    return {
        name: Section(tuple(Figure(**figure) for figure in section.pop("figures")), **section)
        for name, section in found.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="small networks and few turns")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--again", action="store_true", help="measure finished sections again")
    parser.add_argument("--limit", type=float, default=900, help="seconds of a section")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="of the JSON file")
    parser.add_argument("--one", choices=SECTIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU; --device cpu --small tries the script without", file=sys.stderr)
        return 2
    task = Task(options.device, options.small)
    if options.one:
        for figure in SECTIONS[options.one](task):
            print(MARK + json.dumps(asdict(figure)), flush=True)
        return 0
    card = torch.cuda.get_device_name() if task.device == "cuda" else "cpu"
    slug = re.sub("[^a-z0-9]+", "-", card.lower()).strip("-")
    file = options.out / f"gpu-{slug}{'-small' if task.small else ''}.json"
    sections = read(file)
    for name in options.only:
        if name not in sections or sections[name].error or options.again:
            sections[name] = measured(name, task, options.limit)
            kept = {known: asdict(sections[known]) for known in SECTIONS if known in sections}
            file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(table_of({name: sections[name]}), flush=True)
    print(f"\n{machine()}; {file}\n\n{table_of(sections)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
