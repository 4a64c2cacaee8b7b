"""Maps of a Teacher: its trainings, the making of its maps, committees and generations."""

from __future__ import annotations

from preceptor.config.maps import METHOD_NAMES, MapSource, Method
from preceptor.inference.shards import forwards_of, shards_of
from preceptor.runtime.result_folder import digest
from preceptor.runtime.source_digest import source_digest
from preceptor.study.guided_runs import without_annotation
from preceptor.study.map_steps import map_steps
from preceptor.study.options import GuidanceConfig
from preceptor.study.protocol import Protocol
from preceptor.study.steps import Arm, AverageMaps, MakeMaps, Step, Train
from preceptor.study.teacher import Teacher
from preceptor.study.teacher_runs import MEMBER_STRIDE, teacher_run

# Increased if the arithmetic of RISE changes, so that old maps are not reused.
RISE_NUMERICS = 1


def maps_of(
    protocol: Protocol, teacher: Teacher, seed: int, guiding: GuidanceConfig | None = None
) -> tuple[MapSource, list[Step]]:
    """Maps that guide the Student of a seed, and the steps that make them."""
    guiding = guiding or protocol.study.guiding()
    if teacher.kind == "given":
        path = protocol.study.maps[teacher.name]
        source = MapSource(kind="store", path=path, human=guiding.human_maps, trust=guiding.trust)
        return source, []
    steps: list[Step] = []
    source = MapSource()
    for generation in range(guiding.generations):
        stores = []
        need = steps[-1].id if steps else ""  # the maps of the previous generation
        for place in range(guiding.committee):
            if generation == 0:
                training = teacher_run(protocol, teacher, seed, guiding, place)
            else:
                training = _next_teacher(
                    protocol, teacher, seed, place, generation, guiding, source, need
                )
            made = make_maps(protocol, training, teacher)
            stores.append(made[-1])
            steps += [training, *made]
        if len(stores) > 1:
            steps.append(_average(stores))
        source = MapSource(
            kind="store",
            path=protocol.maps_folder(steps[-1].id),
            identity=steps[-1].id,
            human=guiding.human_maps,
            trust=guiding.trust,
            marks=teacher.kind == "mapper" and generation == 0,
        )
    return source, steps


def _next_teacher(
    protocol: Protocol,
    teacher: Teacher,
    seed: int,
    place: int,
    generation: int,
    guiding: GuidanceConfig,
    maps: MapSource,
    need: str,
) -> Step:
    """Run of the Teacher's backbone on T, guided by the maps of the previous generation."""
    alpha = teacher.alpha if teacher.alpha < 1 else protocol.study.probe_alpha
    config = protocol.config(
        teacher.name,
        seed,
        rows="all",
        alpha=alpha,
        maps=maps,
        guide_classes=guiding.guide_classes,
        post=guiding.post,
        human_post=guiding.human_post,
        seed=seed + MEMBER_STRIDE * place,
    )
    config = without_annotation(config)
    arm = Arm("generation", teacher.name, alpha, str(teacher), generation=generation + 1)
    return protocol.train(arm, config, (need,))


def make_maps(protocol: Protocol, training: Step, teacher: Teacher) -> list[Step]:
    """Steps that make the maps of a trained Teacher for T; the last writes the map store."""
    work = training.work
    assert isinstance(work, Train)
    config = work.config
    # A mapper's next generation is a classifier on its maps.
    plain = teacher.method == "cells" and config.labels == "class"
    method: Method = "cam" if plain else teacher.method
    decision = method == "cam" and config.training.cam_class == "decision"
    train_hash = protocol.rows_hash(config.manifest, "train")
    rise = protocol.study.rise if method == "rise" else None
    how: list[object] = ["decision"] if decision else []
    how += [RISE_NUMERICS, rise.model_dump(mode="json")] if rise else []
    # Maps of such Teachers were once those of mean pooling.
    pooled = config.training.pool != "mean" or config.training.readout == "auto"
    how += ["pooled"] if rise and pooled else []
    how += [source_digest(name) for name in METHOD_NAMES.functions([method])]
    # The record of the maps holds their correlation with human maps of validation images.
    compared = protocol.workspaces.at(config.manifest).validation_hash()
    identity = digest(["maps", training.id, method, train_hash, compared, *how])
    forwards = forwards_of(method, rise)
    manifest = protocol.workspaces.at(config.manifest).manifest
    shards = shards_of(manifest, "train", method, forwards, agreement=True)
    return map_steps(
        MakeMaps(config, training.id, method, rise, shards[0], decision=decision),
        shards,
        identity,
        training.name + ("" if method in ("cam", "cells") else f", {method.upper()}"),
        (training.id,),
        forwards / 3,  # a forward is about a third of a training step
    )


def _average(stores: list[Step]) -> Step:
    ids = tuple(step.id for step in stores)
    return Step(digest(["committee", *ids]), AverageMaps(ids), f"{len(ids)} Teachers", ids)
