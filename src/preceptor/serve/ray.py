"""Models on Ray Serve: its batching, its autoscaling, its restarts.

Two kinds of deployments: replicas of each model, which decode and predict in Ray's batches and of
which Ray runs as many as the load needs; and front replicas, which parse requests and check keys
and limits by the same application as the local server.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from preceptor.errors import InputError, RunFailedError, reason
from preceptor.execution.ray_connection import connect
from preceptor.runtime.cores import core_count
from preceptor.runtime.signal_handlers import handling
from preceptor.serve.engine import all_or_none
from preceptor.serve.served_model import (
    Answer,
    DecodedUpload,
    ModelPath,
    ModelState,
    ServedModel,
    Watch,
    predict_batch,
)
from preceptor.serve.service import BusyError, Service
from preceptor.serve.settings import ServeSettings
from preceptor.serve.uploads import Upload, decode_upload
from preceptor.web.hosts import Hosts, address_of
from preceptor.web.refusal import RefusedError

APPLICATION = "preceptor"
"""Name of the application on Ray Serve."""
FRONTS = 2
"""Number of front replicas, each on a machine of its own: one of them may be lost."""
# A request whose replica has died is sent to another one so often.
_ATTEMPTS = 4
# Seconds between two attempts, in which Ray notices that a replica is gone.
_PAUSE = 0.5
# Seconds between two questions for the state of a model.
_FRESH = 1.0


class ModelReplica:
    """Replica of one model.

    Args:
        model: Name and path; the path must be accessible from all machines.
        settings: Settings.
    """

    def __init__(self, model: ModelPath, settings: ServeSettings) -> None:
        self._model = ServedModel(model, settings)
        self._watch = Watch([self._model], settings.reload)
        self._decoders = ThreadPoolExecutor(settings.workers or core_count())
        network = ThreadPoolExecutor(1)

        async def predict(batch: list[DecodedUpload]) -> list[Answer]:
            return await asyncio.get_running_loop().run_in_executor(network, predict_batch, batch)

        self._batch = _library().batch(
            predict,
            max_batch_size=self._model.current.batch_size,
            batch_wait_timeout_s=settings.delay,
        )

    async def state(self) -> ModelState:
        """State of the model."""
        return self._model.state

    async def predict(self, upload: Upload, maps: bool) -> Answer:
        """Predict an image."""
        model = self._model.current
        canvases = await asyncio.get_running_loop().run_in_executor(
            self._decoders, decode_upload, upload, model.predictor.formats
        )
        answer: Answer = await self._batch(DecodedUpload(model, canvases, maps))
        return answer


class RayEngine:
    """Engine that hands images to the replicas of their model.

    Args:
        handles: Deployment of each model.
    """

    def __init__(self, handles: dict[str, Any]) -> None:
        self._handles = handles
        self._states: dict[str, tuple[float, ModelState]] = {}

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return list(self._handles)

    async def state(self, name: str) -> ModelState:
        """State of a model, of one of its replicas, at most a second old."""
        now = asyncio.get_running_loop().time()
        at, found = self._states.get(name, (now - _FRESH, None))
        if found is None or now - at >= _FRESH:
            found = await self._call(name, "state")
            self._states[name] = (now, found)
        return found

    async def predict(
        self, name: str, uploads: Sequence[Upload], *, maps: bool, until: float
    ) -> list[Answer]:
        """Predict images, see `Engine.predict`; the time-out is that of the caller.

        The replicas of a model load a new version one after the other, so that two images of one
        request may be predicted by two versions while the model is being replaced.
        """
        return await all_or_none([self._call(name, "predict", one, maps) for one in uploads])

    async def _call(self, name: str, method: str, *arguments: Any) -> Any:
        """Call a method of a replica, of another one if it dies: a prediction changes nothing."""
        from ray.exceptions import RayActorError, RayTaskError
        from ray.serve.exceptions import BackPressureError, RayServeException

        for left in reversed(range(_ATTEMPTS)):
            try:
                return await getattr(self._handles[name], method).remote(*arguments)
            except BackPressureError as error:
                raise BusyError("the server is busy; try again in 1 second", 1) from error
            except RayTaskError as error:  # also a subclass of what the replica raised
                if isinstance(error.cause, RefusedError):
                    raise error.cause from error
                raise
            except (RayActorError, RayServeException) as error:
                if not left:
                    raise RefusedError(503, "the model is being started; try again") from error
            await asyncio.sleep(_PAUSE)
        raise AssertionError("the last attempt returns or raises")


class Front:
    """Front replica: the application of the server.

    Args:
        names: Names of the models, in the order of the handles.
        settings: Settings.
        keys: File with the API keys, accessible from all machines; None = none are needed.
        hosts: Hosts that requests may name; None = any.
        handles: Deployment of each model.
    """

    def __init__(
        self,
        names: Sequence[str],
        settings: ServeSettings,
        keys: Path | None,
        hosts: Hosts | None,
        *handles: Any,
    ) -> None:
        engine = RayEngine(dict(zip(names, handles, strict=True)))
        self._service = Service(engine, settings, keys_file=keys, hosts=hosts)

    def __serve_build_asgi_app__(self) -> Any:
        """ASGI application, which Ray Serve asks for."""
        from preceptor.serve.application import application

        return application(self._service)


def application_of(
    models: Sequence[ModelPath],
    settings: ServeSettings,
    keys: Path | None,
    hosts: Hosts | None,
    *,
    replicas: int,
    cores: float = 1.0,
) -> Any:
    """Application of Ray Serve.

    Args:
        models: Models.
        settings: Settings.
        keys: File with the API keys, or None.
        hosts: Hosts that requests may name; None = any.
        replicas: Largest number of replicas per model.
        cores: Cores that a replica of a model reserves.
    """
    serve, cluster = _library(), _ray()
    gpu = settings.device != "cpu" and "GPU" in cluster.cluster_resources()
    ahead = settings.batch_size or 64
    bound = [
        serve.deployment(
            name=f"model {one.name}",
            autoscaling_config={
                "min_replicas": 1,
                "initial_replicas": 1,
                "max_replicas": replicas,
                # One batch is computed while the next one gathers.
                "target_ongoing_requests": 2 * ahead,
            },
            ray_actor_options={"num_cpus": cores, "num_gpus": int(gpu)},
            max_ongoing_requests=4 * ahead,
            max_queued_requests=settings.queue,
        )(ModelReplica).bind(ModelPath(one.name, one.path.absolute()), settings)
        for one in models
    ]
    front = serve.deployment(
        name="front",
        # On one machine both would be lost with it; a second one there would wait for ever.
        num_replicas=min(FRONTS, sum(one["Alive"] for one in cluster.nodes())),
        max_replicas_per_node=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=2 * settings.queue,
    )(serve.ingress()(Front))
    names, own = [one.name for one in models], keys and keys.absolute()
    return front.bind(names, settings, own, hosts, *bound)


def _ray() -> Any:
    """The library Ray."""
    import ray

    return ray


def _library() -> Any:
    """The library Ray Serve.

    Raises:
        InputError: It is not installed.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise InputError(
            f"--engine ray: {error.name} is not installed; "
            "pip install '.[ray]' in the source folder"
        ) from error
    return serve


@contextlib.contextmanager
def serving_on_ray(application: Any, host: str, port: int) -> Iterator[None]:
    """Context in which an application runs on the cluster to which this process is connected.

    At its end Ray Serve is shut down, unless other applications have been added to it.

    Args:
        application: Application.
        host: Address of the proxy, on the head of the cluster.
        port: Port of the proxy.

    Raises:
        InputError: Ray Serve runs on the cluster already.
        RunFailedError: It cannot be started.
    """
    serve = _library()
    from ray.exceptions import RayTaskError
    from ray.serve.config import HTTPOptions
    from ray.serve.exceptions import RayServeException

    running = serve.status()
    if running.proxies or running.applications:  # it would keep its own address
        names = ", ".join(running.applications) or "none"
        raise InputError(
            f"--engine ray: Ray Serve runs on this cluster already (applications: {names}); name "
            "another cluster, or end it with `serve shutdown`"
        )
    try:
        serve.start(http_options=HTTPOptions(host=host, port=port, location="HeadOnly"))
        serve.run(application, name=APPLICATION, route_prefix="/")
    except (RuntimeError, RayServeException, RayTaskError) as error:
        _end(serve)
        raise RunFailedError(f"--engine ray: the models do not start: {reason(error)}") from error
    try:
        yield
    finally:
        _end(serve)


def _end(serve: Any) -> None:
    """End the application, and Ray Serve if there is no other one."""
    from ray.exceptions import RayError

    try:
        others = set(serve.status().applications) - {APPLICATION}
    except RayError:  # nothing answers
        others = set()
    if others:
        serve.delete(APPLICATION)
    else:
        serve.shutdown()


def serve_on_ray(
    models: Sequence[ModelPath],
    settings: ServeSettings,
    keys: Path | None,
    hosts: Hosts | None,
    host: str,
    port: int,
    *,
    address: str | None,
    replicas: int,
) -> None:
    """Serve on a Ray cluster until the process is interrupted or told to end.

    Args:
        models: Models; their paths must be accessible from all machines.
        settings: Settings.
        keys: File with the API keys, accessible from all machines, or None.
        hosts: Hosts that requests may name; None = any.
        host: Address of the proxy, on the head of the cluster.
        port: Port of the proxy.
        address: Address of the cluster, see `connect`.
        replicas: Largest number of replicas per model.

    Raises:
        InputError: There is no cluster at the address, or Ray Serve runs on it already.
        RunFailedError: The models cannot be started.
    """
    _library()
    ray = _ray()
    connect(ray, address)
    stop = threading.Event()
    try:
        found = application_of(models, settings, keys, hosts, replicas=replicas)
        with (
            handling((signal.SIGINT, signal.SIGTERM), lambda *_: stop.set()),
            serving_on_ray(found, host, port),
        ):
            names = ", ".join(one.name for one in models)
            print(f"serving {names} on {address_of(host, port)} (Ray)", flush=True)
            while not stop.wait(1.0):
                pass
    finally:
        ray.shutdown()
    print("stopped")
