"""``marquee plan``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from archiver.cli.options import PLANNED, AsJson, Auto, Config, Count, Gpu, Revision


def plan_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=PLANNED)],
    gpu: Gpu = None,
    count: Count = None,
    auto: Auto = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Plan for this machine's CPU.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="With --cpu: measure its memory and arithmetic; takes seconds.")] = False,
    prompt_tokens: Annotated[str | None, typer.Option(metavar="P50,P95", help="Lengths of prompts.  [default: 512,2048]")] = None,
    output_tokens: Annotated[str | None, typer.Option(metavar="P50,P95", help="Lengths of answers.  [default: 128,512]")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests in progress at once.")] = None,
    shared_prefix_tokens: Annotated[int, typer.Option(help="Tokens that prompts begin with as others do.")] = 0,
    ttft_ms: Annotated[float | None, typer.Option(help="How long the first token may take.")] = None,
    itl_ms: Annotated[float | None, typer.Option(help="How long each further token may take.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="The longest sequence, in tokens; the model's own by default.")] = None,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="What to compute in.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Plan as if the weights were quantized so (`marquee quantize --list`).")] = None,
    kv_dtype: Annotated[Literal["auto", "fp8"], typer.Option(help="Numbers of the KV cache.")] = "auto",
    engine: Annotated[Literal["marquee", "vllm"] | None, typer.Option(help="Whose figures; what runs the plan by default.")] = None,
    tensor_parallel: Annotated[int | None, typer.Option(help="GPUs that share each layer; chosen by default.")] = None,
    pipeline_parallel: Annotated[int | None, typer.Option(help="GPUs that share the layers; chosen by default.")] = None,
    config: Config = None,
    own_code: Annotated[bool, typer.Option("--own-code", help="Requests need code of your own before or after the model.")] = False,
    other_models: Annotated[bool, typer.Option("--other-models", help="The server also runs models of other kinds or frameworks.")] = False,
    simulate: Annotated[Path | None, typer.Option(metavar="TRACE", help="Replay a JSONL file of arrivals against the plan.")] = None,
    points: Annotated[Path | None, typer.Option(metavar="FILE", help="Measured steps for --simulate.")] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Show the plan as flags for vLLM, SGLang, TGI, llama.cpp and Triton.")] = False,
    chart: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw memory and speed (.png, .svg, .pdf).")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIRECTORY", help="Write plan.json, model-config.yaml, config.properties.")] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Predict memory and speed of a model on given hardware, and choose a configuration by that. Exit code 1: it won't fit.

    Needs config.json and headers only: no weights, no GPU. Example: marquee plan ./my-model --gpu h100 --concurrency 64
    """
    from archiver.display import stage_progress
    from archiver.plan.command import Output, PlanOptions, plan_for, show
    from archiver.plan.target import TargetOptions
    from archiver.plan.workload import Workload, read_quantiles

    load = (prompt_tokens, output_tokens, rate, concurrency, ttft_ms, itl_ms)
    options = PlanOptions(
        model=model,
        revision=revision,
        target=TargetOptions(gpu=gpu, count=count, auto=auto, cpu=cpu, measure=measure),
        workload=Workload(
            prompt_tokens=read_quantiles(prompt_tokens, "--prompt-tokens", Workload.prompt_tokens),
            output_tokens=read_quantiles(output_tokens, "--output-tokens", Workload.output_tokens),
            rate=rate,
            concurrency=concurrency,
            ttft_ms=ttft_ms,
            itl_ms=itl_ms,
            shared_prefix_tokens=shared_prefix_tokens,
        ),
        has_stated_load=any(value is not None for value in load),
        dtype=dtype,
        recipe=recipe,
        kv_dtype=kv_dtype,
        engine=engine,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        config=config,
        settings={"max_model_len": max_model_len} if max_model_len is not None else {},
        has_own_code=own_code,
        has_other_models=other_models,
    )
    with stage_progress() as on_stage:
        plan, warnings = plan_for(options, on_stage)
    for warning in warnings:
        logging.warning(warning)
    show(plan, options, Output(as_json, chart, out, peers, simulate, points))
    raise typer.Exit(1 if plan.verdict.fits == "no" else 0)
