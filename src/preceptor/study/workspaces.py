"""The manifests of a study: one for all seeds, or one a seed, each a new draw of the data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preceptor.config.image_format import ImageFormat
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.study.config import StudyConfig


@dataclass
class Workspaces:
    """Opens each manifest of a study when it is first needed, and keeps it open.

    Args:
        manifests: By seed; equal paths are opened once.
        caches: By manifest: the folder of its image caches and file hashes.
        opened: Those opened so far.
        reading: Further arguments of `Manifest.read`.
    """

    manifests: dict[int, Path]
    caches: dict[Path, Path]
    opened: dict[Path, Workspace] = field(default_factory=dict, repr=False)
    reading: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_study(cls, study: StudyConfig, store: Path, domain: str = "") -> Workspaces:
        """Those of a study of one domain, whose results lie in `store`."""
        manifests = {seed: study.manifest_of(seed) for seed in study.seed_list}
        folder = store / "cache" / domain
        caches: dict[Path, Path] = {}
        for seed, path in manifests.items():
            caches.setdefault(path, folder / f"seed-{seed}" if study.draws else folder)
        return cls(manifests, caches)

    @classmethod
    def together(cls, several: Sequence[Workspaces]) -> Workspaces:
        """The manifests of several domains, to be opened by path alone."""
        caches = {path: folder for one in several for path, folder in one.caches.items()}
        opened = {path: space for one in several for path, space in one.opened.items()}
        return cls({}, caches, opened)

    def __getstate__(self) -> dict[str, object]:
        """What another process needs: the names, not the open tables."""
        return self.__dict__ | {"opened": {}}

    def of(self, seed: int) -> Workspace:
        """The workspace of a seed's manifest."""
        return self.at(self.manifests[seed])

    def at(self, manifest: Path) -> Workspace:
        """The workspace of a manifest."""
        if manifest not in self.opened:
            self.opened[manifest] = Workspace(
                Manifest.read(manifest, verify=False, **self.reading), self.caches[manifest]
            )
        return self.opened[manifest]

    @property
    def first(self) -> Workspace:
        """The first seed's; classes and evaluation sets are the same in all."""
        return self.of(next(iter(self.manifests)))

    def all(self) -> list[Workspace]:
        """Each once, in the order of the seeds."""
        return [self.at(path) for path in dict.fromkeys(self.manifests.values())]

    def verify(self, formats: Collection[ImageFormat] = ()) -> None:
        """Decode every image and map of every manifest, and see that the tables fit together.

        Files that an earlier call found sound and that have not changed are not read.

        Args:
            formats: Image formats whose caches are filled by the way.

        Raises:
            InputError: Images, maps or rows that cannot be used, of all manifests; or the draws
                differ in their classes or evaluation sets.
        """
        wrong: list[InputError] = []
        for path in dict.fromkeys(self.manifests.values()):
            try:
                self.opened[path] = Workspace.open(
                    path, self.caches[path], verify=True, formats=formats
                )
            except InputError as error:
                wrong.append(error)
        if len(wrong) > 1:
            raise InputError("\n".join(map(str, wrong)))
        if wrong:
            raise wrong[0]
        first, *others = self.all()
        for other in others:
            for name, ours, theirs in (
                ("classes", first.manifest.classes, other.manifest.classes),
                ("evaluation sets", _sets(first.manifest), _sets(other.manifest)),
            ):
                if list(ours) != list(theirs):
                    raise InputError(
                        f"manifest: every seed's draw needs the same {name}; one has "
                        f"{_listed(ours)}, another {_listed(theirs)}"
                    )


def _sets(manifest: Manifest) -> list[str]:
    return sorted([*manifest.eval_splits("val"), *manifest.eval_splits("test")])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
