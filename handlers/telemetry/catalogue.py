"""Every metric there is, with its meaning: the one list that code, ``config/metrics.yaml`` and ``docs/metrics.md`` agree on."""

from __future__ import annotations

from handlers.telemetry.metric import Metric

REQUESTS = Metric(
    "marquee_requests_total",
    "counter",
    "count",
    "Requests whose fate is known: `ok`, `cancelled` (the client left) or the HTTP status of their error",
    ("status",),
)
REQUEST_TIME = Metric(
    "marquee_request_seconds", "histogram", "s", "From when the handler first saw a request until its answer was handed over"
)
PART_TIME = Metric(
    "marquee_request_part_seconds", "histogram", "s", "The same time, divided: the parts of a request add up to it", ("part",)
)
QUEUE_TIME = Metric("marquee_queue_seconds", "histogram", "s", "Until the model first read of the prompt, or the request gave up waiting")
FIRST_TOKEN_TIME = Metric("marquee_time_to_first_token_seconds", "histogram", "s", "Until the first token: tokenize, queue and prefill")
TOKEN_TIME = Metric("marquee_inter_token_seconds", "histogram", "s", "Mean time between the tokens of a request, after its first one")
PROMPT_TOKENS = Metric("marquee_prompt_tokens_total", "counter", "count", "Tokens of prompts")
CACHED_TOKENS = Metric("marquee_cached_prompt_tokens_total", "counter", "count", "Of these, tokens found in the prefix cache")
GENERATED_TOKENS = Metric("marquee_generated_tokens_total", "counter", "count", "Tokens generated, counted when their request ends")
WASTED_TOKENS = Metric(
    "marquee_tokens_after_disconnect_total", "counter", "count", "Of these, tokens generated after their client was last known to be there"
)

BATCHES = Metric("marquee_batches_total", "counter", "count", "Steps of a continuous engine, or batches of a synchronous handler")
BATCHED_SEQUENCES = Metric(
    "marquee_batched_sequences_total",
    "counter",
    "count",
    "Sequences in these: by each batch, those that got a token in a step, or its rows",
)
POSITIONS = Metric(
    "marquee_batch_positions_total", "counter", "count", "Token positions that the batches of a synchronous handler computed"
)
PADDING = Metric("marquee_padding_positions_total", "counter", "count", "Of these, padding, and rows whose sequence had ended")

RUNNING = Metric("marquee_running_sequences", "gauge", "count", "Sequences that run")
WAITING = Metric("marquee_waiting_sequences", "gauge", "count", "Sequences that wait to run")
ADMITTED = Metric(
    "marquee_admitted_sequences", "gauge", "count", "How many may run at once: fewer than configured for a while after memory ran out"
)
ENGINES = Metric("marquee_engines", "gauge", "count", "Engines that serve")
TOKEN_RATE = Metric("marquee_generated_tokens_per_second", "gauge", "count", "Tokens generated in a second, over the last five")
STEP_P50 = Metric("marquee_step_p50_milliseconds", "gauge", "ms", "Median of the last 1,000 steps, of the slowest engine")
STEP_P99 = Metric("marquee_step_p99_milliseconds", "gauge", "ms", "The 99th percentile of these")
PREEMPTIONS = Metric("marquee_preemptions_total", "counter", "count", "Sequences that gave their KV blocks back, to be computed again")
OUT_OF_MEMORY = Metric(
    "marquee_out_of_memory_total", "counter", "count", "Steps for which memory did not suffice; they were repeated smaller"
)
DRAFTED = Metric("marquee_draft_tokens_total", "counter", "count", "Guesses of speculative decoding")
ACCEPTED = Metric("marquee_accepted_draft_tokens_total", "counter", "count", "Of these, guesses that were right")
ACCEPTANCE = Metric("marquee_draft_acceptance_ratio", "gauge", "count", "Share of all guesses that was right, 0 to 1")
RESTARTS = Metric("marquee_engine_restarts_total", "counter", "count", "Engine processes that died or hung, and were replaced")

KV_USED = Metric("marquee_kv_blocks_used", "gauge", "count", "KV blocks of running sequences")
KV_BLOCKS = Metric("marquee_kv_blocks", "gauge", "count", "KV blocks that there are")
KV_USAGE = Metric("marquee_kv_usage_ratio", "gauge", "count", "Share of the KV blocks that is used, 0 to 1")
HIT_RATIO = Metric("marquee_prefix_hit_ratio", "gauge", "count", "Share of all prompt tokens that was found in the prefix cache, 0 to 1")

LOAD_TIME = Metric("marquee_load_seconds", "gauge", "s", "From the start of loading until the worker was ready", ("WorkerName",))
WEIGHT_BYTES = Metric("marquee_weight_bytes", "gauge", "B", "The weights", ("WorkerName",))
KV_BYTES = Metric("marquee_kv_cache_bytes", "gauge", "B", "The KV cache")
ACTIVATION_BYTES = Metric("marquee_activation_bytes", "gauge", "B", "Activations and logits of the largest step")
CONTEXT_BYTES = Metric("marquee_context_bytes", "gauge", "B", "The driver and its libraries")
GRAPH_BYTES = Metric("marquee_graph_bytes", "gauge", "B", "Captured graphs")
PREDICTED_BYTES = Metric("marquee_predicted_memory_bytes", "gauge", "B", "What the archive's plan predicts of each part", ("part", "bound"))

STATUSES = ("ok", "cancelled", "429", "500", "503")
"""Of requests, from the start: of a series that appears with its first request nobody sees that it has grown."""

GROUPS: dict[str, tuple[Metric, ...]] = {
    "Requests": (
        *(REQUESTS, REQUEST_TIME, PART_TIME, QUEUE_TIME, FIRST_TOKEN_TIME, TOKEN_TIME),
        *(PROMPT_TOKENS, CACHED_TOKENS, GENERATED_TOKENS, WASTED_TOKENS),
    ),
    "Batches": (BATCHES, BATCHED_SEQUENCES, POSITIONS, PADDING),
    "Engines of continuous batching": (
        *(RUNNING, WAITING, ADMITTED, ENGINES, TOKEN_RATE, STEP_P50, STEP_P99),
        *(DRAFTED, ACCEPTED, ACCEPTANCE, PREEMPTIONS, OUT_OF_MEMORY, RESTARTS, KV_USED, KV_BLOCKS, KV_USAGE, HIT_RATIO),
    ),
    "Loading and memory": (*(LOAD_TIME, WEIGHT_BYTES, KV_BYTES, ACTIVATION_BYTES, CONTEXT_BYTES, GRAPH_BYTES, PREDICTED_BYTES),),
}
METRICS = tuple(metric for group in GROUPS.values() for metric in group)
