"""A configuration as the parts of a model, in the order in which a token passes them; their weights are its parameters, to the element."""

from __future__ import annotations

from collections.abc import Iterator

from archiver.plan.model.attention import read_attention
from archiver.plan.model.facts import Role
from archiver.plan.model.family import Family, Kind
from archiver.plan.model.feed_forward import read_feed_forward
from archiver.plan.model.layer_kinds import layer_kinds, read_window
from archiver.plan.model.recurrent import read_recurrent
from archiver.plan.model.settings import Settings
from archiver.plan.model.weights import Part, Plain, Weight, norm


def model_parts(settings: Settings, family: Family) -> Iterator[Part]:
    """Yield the parts of a language model; raises UsageError, which names the key, for a configuration that lacks what is needed."""
    kinds = layer_kinds(settings, family)
    yield Plain(tuple(_embeddings(settings, family)))
    num_norms = family.num_norms if isinstance(family.num_norms, int) else family.num_norms(settings)
    norms = norm(settings.number("hidden_size"), family.norm_vectors, num_norms)
    in_each_layer = Plain((*norms, *family.extras_of_layer(settings)))
    num_keeping = len(kinds) - settings.number("num_kv_shared_layers", 0)
    for layer, kind in enumerate(kinds):
        yield in_each_layer
        yield from _mixers(settings, family, kind, keeps=layer < num_keeping)
        if kind in ("mlp", "experts") or not family.has_one_part_a_layer:
            yield read_feed_forward(settings, family, layer, kind)
    yield Plain(tuple(_head(settings, family)))


def _mixers(settings: Settings, family: Family, kind: Kind, *, keeps: bool) -> Iterator[Part]:
    if kind in ("recurrent", "both"):
        yield read_recurrent(settings, family)
    if kind in ("full", "sliding", "both"):
        window = read_window(settings, family) if kind == "sliding" else None
        yield read_attention(settings, family, window=window, keeps=keeps)


def _embeddings(settings: Settings, family: Family) -> Iterator[Weight]:
    hidden_size = settings.number("hidden_size")
    yield Weight(Role.EMBEDDING, settings.number("vocab_size"), settings.number("word_embed_proj_dim", hidden_size))
    if family.positions is not None:
        yield Weight(Role.POSITION, settings.number("max_position_embeddings") + family.positions, hidden_size)
    if family.has_embedding_norm:
        yield from norm(hidden_size, family.norm_vectors)
    yield from family.extras(settings)


def _head(settings: Settings, family: Family) -> Iterator[Weight]:
    hidden_size, vocab_size = settings.number("hidden_size"), settings.number("vocab_size")
    if settings.flag(family.has_final_norm):
        yield from norm(hidden_size, family.norm_vectors)
    is_tied = settings.flag("tie_word_embeddings")
    if not is_tied:
        yield Weight(Role.HEAD, vocab_size, hidden_size)
    if settings.flag(family.head_bias):
        yield Weight(Role.EMBEDDING if is_tied else Role.HEAD, vocab_size)
