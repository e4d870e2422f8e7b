"""``marquee autoscale``."""

from __future__ import annotations

from typing import Annotated

import typer

from archiver.cli.models import URL, KeyFileOption, ModelName, Url


def autoscale_command(
    name: ModelName,
    most: Annotated[int, typer.Option("--max", help="The most replicas; memory may allow fewer.")],
    least: Annotated[int, typer.Option("--min", help="The fewest replicas, as far as memory allows.")] = 1,
    target_queue_ms: Annotated[float | None, typer.Option(help="How long requests may wait before they run.")] = None,
    target_running: Annotated[float | None, typer.Option(help="Requests in progress, those that wait included, for each replica.")] = None,
    target_kv_usage: Annotated[float | None, typer.Option(help="Share of the KV cache in use, 0 to 1.")] = None,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="How often to look.")] = 5.0,
    up_cooldown: Annotated[float, typer.Option(metavar="SECONDS", help="From one change to more replicas.")] = 30.0,
    down_cooldown: Annotated[float, typer.Option(metavar="SECONDS", help="For how long fewer replicas must suffice.")] = 300.0,
    version: Annotated[str | None, typer.Option(help="This version only; else the default one, as it changes.")] = None,
    url: Url = URL,
    metrics_url: Annotated[str | None, typer.Option(help="The metrics, if they are not where the server's settings say.")] = None,
    key_file: KeyFileOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and log, but scale nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a decision, for a machine.")] = False,
) -> None:
    """Keep a model's number of replicas where its load wants it, until Ctrl-C: engines of a continuous model, workers of another.

    Example: marquee autoscale chat --max 4 --target-queue-ms 200 --dry-run
    """
    from archiver.deploy.autoscale.command import AutoscaleRequest, choose_target, run
    from archiver.deploy.autoscale.policy import Policy
    from archiver.deploy.running_server import RunningServer

    target = choose_target(queue_ms=target_queue_ms, running=target_running, kv_usage=target_kv_usage)
    policy = Policy(least, most, up_cooldown, down_cooldown)
    with RunningServer.at(url, key_file=key_file) as server:
        run(server, AutoscaleRequest(name, policy, target, version, metrics_url, interval, dry_run, as_json))
