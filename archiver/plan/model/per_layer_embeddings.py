"""What Gemma 3n has besides a decoder: embeddings for each layer, several streams of hidden states (AltUp), low-rank bypasses (LAuReL).

Sources: AltUp (Baykal et al. 2023), LAuReL (Menghani et al. 2024), and transformers' model definition.
"""

from __future__ import annotations

from collections.abc import Iterator

from archiver.plan.model.facts import Role
from archiver.plan.model.layer_kinds import read_num_layers
from archiver.plan.model.settings import Settings
from archiver.plan.model.weights import Weight, norm


def shared_weights(settings: Settings) -> Iterator[Weight]:
    """Yield what there is once: the embeddings of all layers, their projection, and the projections between streams."""
    hidden_size, width = settings.number("hidden_size"), settings.number("hidden_size_per_layer_input", 256)
    all_layers = width * read_num_layers(settings)
    yield Weight(Role.EMBEDDING, settings.number("vocab_size_per_layer_input", 262144), all_layers)
    yield Weight(Role.MLP, all_layers, hidden_size)
    yield from norm(width, 1)
    yield Weight(Role.MLP, hidden_size, hidden_size, 2 * (settings.number("altup_num_inputs", 4) - 1))


def per_layer_weights(settings: Settings) -> Iterator[Weight]:
    """Yield what each layer has: the mixing of streams, the bypass, and the gate of the layer's own embedding."""
    hidden_size, width = settings.number("hidden_size"), settings.number("hidden_size_per_layer_input", 256)
    streams, rank = settings.number("altup_num_inputs", 4), settings.number("laurel_rank", 64)
    yield Weight(Role.MLP, hidden_size + streams**2 + streams**3)
    yield Weight(Role.ROUTER, streams, hidden_size)
    yield Weight(Role.MLP, rank, hidden_size)
    yield Weight(Role.MLP, hidden_size, rank)
    yield Weight(Role.MLP, width, hidden_size)
    yield Weight(Role.MLP, hidden_size, width)
    yield from norm(hidden_size, 1, count=3)
