"""Slurm, Kubernetes, Docker, environment variables: files that are valid and name what exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from preceptor.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SBATCH = EXAMPLES / "slurm" / "study.sbatch"
FILES = [SBATCH, EXAMPLES / "slurm" / "README.md", EXAMPLES / "docker" / "Dockerfile"]
FILES += [EXAMPLES / "kubernetes" / "rayjob.yaml", EXAMPLES / "paper" / "README.md"]
BASH = shutil.which("bash")


def commands(group: Any, above: str = "preceptor") -> set[str]:
    """All commands, such as "preceptor study run"."""
    found = {above}
    for name, command in getattr(group, "commands", {}).items():
        found |= commands(command, f"{above} {name}")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_commands_it_names_exist(file: Path) -> None:
    known = commands(typer.main.get_command(app))
    text = file.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/:.-])preceptor (?:study \w+\b(?!\.)|\w+)", text)
    assert named
    for one in named:
        # The word after `preceptor study` may be the file of the study.
        assert one in known or " ".join(one.split()[:2]) == "preceptor study", one


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_the_slurm_script_is_bash() -> None:
    assert BASH is not None
    subprocess.run([BASH, "-n", SBATCH], check=True)
    lines = [line for line in SBATCH.read_text().splitlines() if line.startswith("#SBATCH")]
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in lines)
    told = subprocess.run([BASH, SBATCH], capture_output=True, text=True, env={}, check=False)
    assert told.returncode != 0
    assert "name the study file" in told.stderr


def test_the_manifest_of_kubernetes_is_a_rayjob() -> None:
    job = yaml.safe_load((EXAMPLES / "kubernetes" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["entrypoint"].startswith("preceptor study ")
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RECIPE"] in ("paper", "cyborg")
    cluster = spec["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in pods):
        mounts = {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
    images = {one["image"] for group in pods for one in group["template"]["spec"]["containers"]}
    assert len(images) == 1  # Ray needs the same versions everywhere


def test_the_docker_file_copies_what_there_is() -> None:
    lines = (EXAMPLES / "docker" / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert {"pyproject.toml", "src"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    (extras,) = [line.partition("=")[2] for line in lines if line.startswith("ARG EXTRAS=")]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name} = \[", text, re.MULTILINE) for name in extras.split(","))


def test_every_environment_variable_that_is_read_is_documented() -> None:
    read = re.compile(r"os\.environ(?:\.get|\.setdefault)?[\[(]\s*\"([A-Z_]+)\"")
    tested = re.compile(r"\"([A-Z_]+)\" (?:not )?in os\.environ")
    names: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        names |= {*read.findall(text), *tested.findall(text)}
    documented = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert "PRECEPTOR_CACHE" in names
    assert [name for name in sorted(names) if f"`{name}`" not in documented] == []


def test_continuous_integration_names_what_exists() -> None:
    """Targets of make, commands, and Python from the lowest version on."""
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = re.findall(r"^make (\S+)", "\n".join(runs), re.MULTILINE)
    targets = (ROOT / "Makefile").read_text(encoding="utf-8").split(".PHONY: ")[1].split("\n")[0]
    assert {"lint", "test", "docs", "matrix"} == set(made) <= set(targets.split())
    known = commands(typer.main.get_command(app))
    for one in re.findall(r"bin/preceptor (data \w+)", "\n".join(runs)):
        assert f"preceptor {one}" in known
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = jobs["test"]["strategy"]["matrix"]["python"]
    assert f">={versions[0]}" == project["requires-python"]
    matrix = (ROOT / "benchmarks" / "matrix.py").read_text(encoding="utf-8")
    folders = re.search(r"FOLDERS = \(([^)]*)\)", matrix)
    assert folders is not None
    for name in re.findall(r'"(\w+)"', folders[1]):
        assert (ROOT / "tests" / name).is_dir(), name
