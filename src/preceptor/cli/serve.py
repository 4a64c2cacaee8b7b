"""Command `preceptor serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import finite


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…",
            help="Model folders or exported files, each as PATH or NAME=PATH; the first one is "
            "used for requests that name none.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address; one for other machines needs --keys or --no-keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 = any free one.")] = 8000,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="File with API keys, one per line; each request needs one of them.",
            show_default=False,
        ),
    ] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Accept requests without keys from other machines.")
    ] = False,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Threshold of the decision if a request has none: a rule (eer, fdr5%, bpcer1%) or "
            "a number.",
            show_default="that of the export, else eer if the model has it",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Largest number of images per forward pass.",
            show_default="chosen by a probe",
        ),
    ] = None,
    delay: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            help="Milliseconds for which a batch waits for images.",
            callback=finite,
        ),
    ] = 5.0,
    queue: Annotated[
        int,
        typer.Option(min=1, help="Largest number of images in process; further ones get 429."),
    ] = 256,
    timeout: Annotated[
        float,
        typer.Option(min=0.001, help="Seconds after which a request gets 504.", callback=finite),
    ] = 30.0,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that decode images.", show_default="one per core"),
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, help="Largest body in MiB.")] = 32,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Largest number of pixels per image.")
    ] = 50_000_000,
    max_images: Annotated[
        int, typer.Option(min=1, help="Largest number of images per request.")
    ] = 32,
) -> None:
    """Serve a model over HTTP: scores, decisions and maps.

    POST /predict takes multipart files, JSON with base64, or one image. /models, /healthz, /readyz,
    /metrics and /openapi.json describe the server; / is a page on which to try an image.
    """
    from preceptor.errors import InputError
    from preceptor.runtime.bulk_import import bulk_import
    from preceptor.serve.keys import ApiKeys
    from preceptor.serve.served_model import model_paths
    from preceptor.serve.settings import ServeSettings
    from preceptor.web.hosts import Hosts, address_of, is_local

    if keys is not None and no_keys:
        raise InputError("--keys and --no-keys: choose one of the two")
    if not is_local(host) and keys is None and not no_keys:
        raise InputError(f"--host {host}: others can reach this server; add --keys or --no-keys")
    open_to_all = keys is not None or no_keys
    if keys is not None:
        ApiKeys.read(keys)
    named = model_paths(models)
    settings = ServeSettings(
        threshold=threshold,
        device=device,
        batch_size=batch_size,
        delay=delay / 1000,
        queue=queue,
        timeout=timeout,
        workers=workers,
        body=max_body * 2**20,
        pixels=max_pixels,
        images=max_images,
    )
    try:
        from preceptor.serve.application import application
        from preceptor.web.server import listen
        from preceptor.web.server import serve as serve_until_stopped
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise InputError(
            f"serve: {error.name} is not installed; pip install '.[web]' in the source folder"
        ) from error
    from preceptor.serve.engine import LocalEngine
    from preceptor.serve.figures import Figures
    from preceptor.serve.service import Service

    at = listen(host, port)
    figures = Figures()
    with bulk_import():
        local = LocalEngine(named, settings, figures.batch)
    try:
        bound = at.getsockname()[1]
        hosts = None if open_to_all else Hosts.of(host, bound)
        service = Service(local, settings, figures, keys, hosts)
        app = application(service)
        print(f"serving {', '.join(local.names)} on {address_of(host, bound)}", flush=True)
        try:
            serve_until_stopped(app, at, stop_seconds=int(timeout) + 5, stopping=service.stop)
        finally:
            service.close()
    finally:
        local.close()
    print("stopped")
