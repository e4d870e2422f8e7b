"""Convert a checkpoint to GGUF by llama.cpp's own script, which knows tokenizers by a hash and so has never heard of ours.

    python gguf.py LLAMA_CPP_DIRECTORY CHECKPOINT --outfile FILE --outtype bf16

Runs alone: in a process of its own, with torch and transformers.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

# How SmolLM's tokenizer splits text, and ours: digits one by one, then GPT-2's pattern.
_SPLITTING = "smollm"


def main(llama_cpp: Path, *arguments: str) -> None:
    """Run the script, told beforehand what the tokenizer is."""
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    from conversion.base import TextModel

    TextModel.get_vocab_base_pre = lambda self, tokenizer: _SPLITTING
    TextModel._set_vocab_sentencepiece = TextModel._set_vocab_gpt2  # what it looks for first, and needs another package for
    sys.argv = ["convert_hf_to_gguf.py", *arguments]
    runpy.run_path(str(llama_cpp / sys.argv[0]), run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
