"""The byte-level BPE tokenizer of tinychat, its chat template, and the training view of a conversation."""

from collections.abc import Iterable
from dataclasses import dataclass

from corpus import PLAIN_TEXT, Conversation
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
ROLES = ("system", "user", "assistant")
VOCABULARY_SIZE = 2048
CONTEXT_LENGTH = 1024

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class TokenizedConversation:
    """Token ids, and for each token whether the model has to predict it (the answers and their end)."""

    ids: list[int]
    is_target: list[bool]


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learn the merges from the texts. All 256 bytes are in the vocabulary, so any text survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    # Digits stay single tokens, which is what makes arithmetic learnable.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, BOS, END, *(f"<|{role}|>" for role in ROLES)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",  # so that every prompt of a batch ends where its answer starts
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, conversation: Conversation) -> TokenizedConversation:
    """The token ids that the chat template gives, marked with what the model learns to say."""
    special = tokenizer.convert_tokens_to_ids
    plain = conversation[0].role == PLAIN_TEXT
    ids = [] if plain else [special(BOS)]
    is_target = [False] * len(ids)
    contents = tokenizer([turn.content for turn in conversation], add_special_tokens=False)["input_ids"]
    for turn, content in zip(conversation, contents, strict=True):
        opening = [] if plain else [special(f"<|{turn.role}|>")]
        spoken = turn.role in ("assistant", PLAIN_TEXT)
        ids += [*opening, *content, special(END)]
        is_target += [False] * len(opening) + [spoken] * (len(content) + 1)
    return TokenizedConversation(ids, is_target)
