"""Measure a tinychat model on held-out examples: accuracy per kind by greedy decoding, and perplexity of the reference answers.

Usage: python examples/tinychat/evaluate.py examples/tinychat/model --json
"""

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from chat_tokenizer import tokenize
from corpus import held_out_examples
from example import Example
from kinds import KINDS
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

# Any seed but the training one's would do: the split is by content and does not depend on it.
SEED = 1
MAX_NEW_TOKENS = 300


@dataclass(frozen=True)
class Score:
    """How a model does on one kind of example: right answers, and the loss of the reference answers in nats over their tokens."""

    kind: str
    examples: int
    right: int
    tokens: int
    nats: float

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.right / self.examples

    @property
    def perplexity(self) -> float:
        """Perplexity per token of the reference answers, the end of the turn included."""
        return math.exp(self.nats / self.tokens)


def main() -> None:
    """Parse the command line, score every kind, and show the result as a table or as JSON."""
    args = parse_arguments()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()
    scores = [
        score_kind(model, tokenizer, kind, args.examples)
        for kind in track(args.kinds, "evaluating", console=Console(stderr=True), transient=True)
    ]
    scores.append(total(scores))
    if args.json:
        print(json.dumps([asdict(score) | {"accuracy": score.accuracy, "perplexity": score.perplexity} for score in scores], indent=2))
        return
    Console().print(as_table(scores))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=Path(__file__).parent / "model", help="model folder")
    parser.add_argument("--examples", type=int, default=200, help="held-out examples per kind")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="kinds to evaluate")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="type of the weights while running")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def score_kind(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: str, number: int) -> Score:
    """The score on so many held-out examples of a kind."""
    examples = held_out_examples(kind, SEED, number)
    answers = greedy_answers(model, tokenizer, examples)
    right = sum(KINDS[kind].is_right(example, answer) for example, answer in zip(examples, answers, strict=True))
    losses = torch.cat([reference_losses(model, tokenizer, example) for example in examples])
    return Score(kind, number, right, len(losses), losses.sum().item())


def total(scores: list[Score]) -> Score:
    """All kinds together."""
    return Score(
        "all",
        sum(score.examples for score in scores),
        sum(score.right for score in scores),
        sum(score.tokens for score in scores),
        sum(score.nats for score in scores),
    )


@torch.inference_mode()
def greedy_answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: list[Example], batch_size: int = 50) -> list[str]:
    """The model's answer to each example's prompt, decoded in left-padded batches."""
    tokenizer.padding_side = "left"
    answers: list[str] = []
    for start in range(0, len(examples), batch_size):
        prompts = [[asdict(turn) for turn in example.prompt] for example in examples[start : start + batch_size]]
        inputs = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True)
        outputs = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        answers += tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


@torch.inference_mode()
def reference_losses(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example) -> torch.Tensor:
    """The loss of each token of the reference answer and of its end, in nats."""
    ids = torch.tensor(tokenize(tokenizer, example.turns).ids)
    # Only the last answer counts: earlier ones in the conversation may be about values seen in training.
    first = len(ids) - len(tokenizer(example.answer)["input_ids"]) - 1
    logits = model(ids[None]).logits[0, first - 1 : -1]
    return functional.cross_entropy(logits.float(), ids[first:], reduction="none")


def as_table(scores: list[Score]) -> Table:
    """The scores as a table for the terminal."""
    table = Table("kind", "examples", "accuracy", "perplexity", title="tinychat on held-out examples")
    for score in scores:
        table.add_row(score.kind, str(score.examples), f"{score.accuracy:.1%}", f"{score.perplexity:.3f}")
    return table


if __name__ == "__main__":
    main()
