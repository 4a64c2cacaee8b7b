"""Manifests of a study: one for all seeds, or one per seed (independent draws of the data)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preceptor.config.settings import ImageFormat
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, raise_all
from preceptor.study.config import StudyConfig


@dataclass
class Workspaces:
    """Workspaces of a study, each opened when it is first used."""

    manifests: dict[int, Path]  # manifest paths by seed; equal paths are opened once
    caches: dict[Path, Path]  # folder of image caches and file hashes by manifest
    opened: dict[Path, Workspace] = field(default_factory=dict, repr=False)
    known: dict[Path, str] = field(default_factory=dict, repr=False)  # hashes in another process

    @classmethod
    def of_study(cls, study: StudyConfig, store: Path) -> Workspaces:
        """Workspaces of a study with one domain and its store, which share one image cache."""
        manifests = {seed: study.manifest_of(seed) for seed in study.seed_list}
        return cls(manifests, dict.fromkeys(manifests.values(), store / "cache"))

    @classmethod
    def together(cls, several: Sequence[Workspaces]) -> Workspaces:
        """Workspaces of several domains, accessed by manifest path."""
        caches = {path: folder for one in several for path, folder in one.caches.items()}
        opened = {path: space for one in several for path, space in one.opened.items()}
        return cls({}, caches, opened)

    def __getstate__(self) -> dict[str, object]:
        """State for another process: the paths, and of the open tables their hashes."""
        hashes = {path: space.hashes.whole for path, space in self.opened.items()}
        return self.__dict__ | {"opened": {}, "known": self.known | hashes}

    def of(self, seed: int) -> Workspace:
        """Workspace of a seed."""
        return self.at(self.manifests[seed])

    def at(self, manifest: Path) -> Workspace:
        """Workspace of a manifest."""
        if manifest not in self.opened:
            cache_dir = self.caches[manifest]
            table = Manifest.read(manifest, verify=False)
            workspace = Workspace(table, cache_dir)
            expected = self.known.get(manifest)
            if expected is not None and expected != workspace.hashes.whole:
                raise InputError(
                    f"{manifest}: its rows or files have changed since the command was started; "
                    "start it again"
                )
            self.opened[manifest] = workspace
        return self.opened[manifest]

    @property
    def first(self) -> Workspace:
        """Workspace of the first seed; classes and evaluation sets are the same in all."""
        return self.of(next(iter(self.manifests)))

    def all(self) -> list[Workspace]:
        """All distinct workspaces, in the order of the seeds."""
        return [self.at(path) for path in dict.fromkeys(self.manifests.values())]

    def verify(self, formats: Collection[ImageFormat] = ()) -> None:
        """Verify every image and map of every manifest, and the consistency of the manifests."""
        wrong: list[InputError] = []
        for path in dict.fromkeys(self.manifests.values()):
            cache = self.caches[path]
            try:
                self.opened[path] = Workspace.open(path, cache, verify=True, formats=formats)
            except InputError as error:
                wrong.append(error)
        raise_all(wrong)
        first, *others = self.all()
        for other in others:
            for name, ours, theirs in (
                ("classes", first.manifest.classes, other.manifest.classes),
                ("evaluation sets", _sets(first.manifest), _sets(other.manifest)),
            ):
                if list(ours) != list(theirs):
                    raise InputError(
                        f"manifest: the draws of all seeds need the same {name}; one has "
                        f"{', '.join(ours)}, another {', '.join(theirs)}"
                    )


def _sets(manifest: Manifest) -> list[str]:
    return sorted([*manifest.eval_splits("val"), *manifest.eval_splits("test")])
