"""Train tinychat from nothing on the generated corpus and save it as a bf16 model folder.

Usage: python examples/tinychat/train.py --out examples/tinychat/model
"""

import argparse
import copy
import math
import shutil
import time
from itertools import islice
from pathlib import Path

import torch
from chat_tokenizer import CONTEXT_LENGTH, tokenize, train_tokenizer
from corpus import conversations, held_out_examples
from kinds import KINDS
from packing import IGNORE, Batch, batches
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TOKENIZER_CONVERSATIONS = 20_000
HELD_OUT_PER_KIND = 40
WARMUP_STEPS = 200
REPORT_EVERY = 250


def main() -> None:
    """Parse the command line, train, and report the time that it took."""
    args = parse_arguments()
    console = Console()
    wall, cpu = time.perf_counter(), time.process_time()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    # Otherwise the compiled gradient of the embedding adds up in the order in which the threads happen to arrive.
    torch.use_deterministic_algorithms(True)
    tokenizer = train_tokenizer(turn.content for turns in islice(conversations(args.seed), TOKENIZER_CONVERSATIONS) for turn in turns)
    model = new_model(tokenizer)
    console.print(f"tinychat: {model.num_parameters():,} parameters, {len(tokenizer)} tokens, {args.steps} steps, seed {args.seed}")
    train(model, tokenizer, args, console)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    console.print(f"saved {args.out} after {wall / 60:.1f} minutes ({cpu / 60:.1f} CPU minutes)")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model", help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the corpus and of the initial weights")
    parser.add_argument("--steps", type=int, default=7000, help="optimizer steps of 2048 tokens")
    parser.add_argument("--learning-rate", type=float, default=2.5e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; the weights are reproducible for one number of threads")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=shutil.which("g++") is not None,
        help="compile the model for speed (twice as fast, needs g++)",
    )
    return parser.parse_args()


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of just under four million parameters with random weights."""
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,  # about one over the square root of so small a width
        attn_implementation="eager",  # at these lengths plain attention trains faster on a CPU than the fused kernel
        **special,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=256, **special)
    return model


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace, console: Console) -> None:
    """Run the optimizer over the endless corpus for the given number of steps, saving the model as it goes."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    backbone = torch.compile(model.model, dynamic=False) if args.compile else model.model
    held_out = held_out_batches(tokenizer, args.seed)
    stream = batches((tokenize(tokenizer, turns) for turns in conversations(args.seed)), tokenizer.pad_token_id)
    progress = Progress(*Progress.get_default_columns()[:3], TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[loss]}"))
    with progress:
        task = progress.add_task("training", total=args.steps, loss="")
        for step, batch in enumerate(islice(stream, args.steps), start=1):
            loss = next_token_loss(model, backbone, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.param_groups[0]["lr"] = args.learning_rate * warmup_then_cosine(step, args.steps)
            optimizer.step()
            optimizer.zero_grad()
            progress.update(task, advance=1, loss=f"loss {loss.item():.3f}")
            if step % REPORT_EVERY == 0 or step == args.steps:
                console.print(f"step {step:5d}  training loss {loss.item():.3f}  held-out loss {mean_loss(model, held_out):.4f}")
                # Saved at every report, so that an interrupted run leaves a usable model.
                save(model, tokenizer, args.out)


def warmup_then_cosine(step: int, steps: int) -> float:
    """The share of the peak learning rate: a linear rise, then half a cosine down to zero."""
    if step < WARMUP_STEPS:
        return step / WARMUP_STEPS
    done = (step - WARMUP_STEPS) / max(steps - WARMUP_STEPS, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def next_token_loss(model: LlamaForCausalLM, backbone: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the labels that count; the vocabulary projection is computed only where they are."""
    counts = batch.labels != IGNORE
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = backbone(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[counts])
    return functional.cross_entropy(logits.float(), batch.labels[counts])


@torch.inference_mode()
def mean_loss(model: LlamaForCausalLM, held_out: list[Batch]) -> float:
    """The loss averaged over the held-out batches."""
    return sum(next_token_loss(model, model.model, batch).item() for batch in held_out) / len(held_out)


def held_out_batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> list[Batch]:
    """A few batches of held-out examples of all kinds."""
    examples = (held_out_examples(kind, seed, HELD_OUT_PER_KIND) for kind in KINDS)
    interleaved = [example for group in zip(*examples, strict=True) for example in group]
    return list(batches((tokenize(tokenizer, example.turns) for example in interleaved), tokenizer.pad_token_id))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model folder: bf16 safetensors, configuration, tokenizer and chat template."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
