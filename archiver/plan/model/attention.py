"""Attention: its projections, and the keys and values that it keeps.

Sources: multi-head attention (Vaswani et al. 2017), multi-query (Shazeer 2019), grouped-query (Ainslie et al. 2023), multi-head latent
attention (DeepSeek-V2, 2024); which biases and norms a family adds is in its row of the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archiver.plan.model.facts import CacheLayer, Role
from archiver.plan.model.family import Family
from archiver.plan.model.settings import Settings
from archiver.plan.model.weights import Part, Weight, linear, norm


@dataclass(frozen=True)
class Attention:
    """Queries of ``num_heads``, keys and values of ``num_kv_heads`` heads; all of ``head_dim``.

    ``window``: of how many tokens it keeps something; None: of all. ``qk_norm_elements``: of the norms of queries and keys.
    ``keeps`` is false where a layer has no keys and values but reads an earlier one's. ``gates``: projections
    as large as the query's beside it.
    """

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm_elements: int = 0
    gates: int = 0
    has_sinks: bool = False
    keeps: bool = True

    def weights(self) -> Iterator[Weight]:
        """Yield the projections, norms, and sinks (one a head: what it attends to instead of any token)."""
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        yield from linear(Role.QUERY, queries * (1 + self.gates), self.hidden_size, bias=self.qkv_bias)
        if self.keeps:
            yield from linear(Role.KEY_VALUE, keys, self.hidden_size, bias=self.qkv_bias, count=2)
        yield from linear(Role.OUTPUT, self.hidden_size, queries, bias=self.out_bias)
        yield from norm(self.qk_norm_elements, 1)
        if self.has_sinks:
            yield Weight(Role.QUERY, self.num_heads)

    def cache(self) -> Iterator[CacheLayer]:
        """Yield a key and a value of each KV head."""
        if self.keeps:
            kind = "sliding" if self.window else "full"
            yield CacheLayer(kind, self.num_kv_heads, 2 * self.head_dim, self.window)  # type: ignore[arg-type]


@dataclass(frozen=True)
class LatentAttention:
    """Attention whose keys and values come from a latent vector of ``kv_rank`` that all heads share, and a rotary key of ``rope_dim``.

    A head's query and key have ``plain_dim`` elements without position besides. ``query_rank``: of the queries' own latent; 0: none.
    A plan counts what good engines keep, and transformers too: the latent vector and the rotary key. An engine that attends to what it is
    handed by the model, as our continuous one, keeps the keys and values of all heads: ``expanded_elements``.
    """

    hidden_size: int
    num_heads: int
    kv_rank: int
    query_rank: int
    plain_dim: int
    rope_dim: int
    value_dim: int
    bias: bool = False

    def weights(self) -> Iterator[Weight]:
        """Yield the projections down to what is shared, their norms, and those up to the heads."""
        queries = self.num_heads * (self.plain_dim + self.rope_dim)
        if self.query_rank:
            yield from linear(Role.LATENT, self.query_rank, self.hidden_size, bias=self.bias)
            yield from norm(self.query_rank, 1)
        yield from linear(Role.QUERY, queries, self.query_rank or self.hidden_size)
        yield from linear(Role.LATENT, self.kv_rank + self.rope_dim, self.hidden_size, bias=self.bias)
        yield from norm(self.kv_rank, 1)
        yield from linear(Role.KEY_VALUE, self.num_heads * (self.plain_dim + self.value_dim), self.kv_rank)
        yield from linear(Role.OUTPUT, self.hidden_size, self.num_heads * self.value_dim, bias=self.bias)

    def cache(self) -> Iterator[CacheLayer]:
        """Yield the latent vector and the rotary key."""
        expanded = self.num_heads * (self.plain_dim + self.rope_dim + self.value_dim)
        yield CacheLayer("latent", 1, self.kv_rank + self.rope_dim, expanded_elements=expanded)


def read_attention(settings: Settings, family: Family, *, window: int | None = None, keeps: bool = True) -> Part:
    """Return the attention of a layer; raises UsageError for sizes that are missing."""
    hidden_size, num_heads = settings.number("hidden_size"), settings.number("num_attention_heads")
    if settings.get("kv_lora_rank"):
        return LatentAttention(
            hidden_size,
            num_heads,
            kv_rank=settings.number("kv_lora_rank"),
            query_rank=settings.number("q_lora_rank", 0),
            plain_dim=settings.number("qk_nope_head_dim"),
            rope_dim=settings.number("qk_rope_head_dim"),
            value_dim=settings.number("v_head_dim"),
            bias=settings.flag("attention_bias"),
        )
    head_dim, num_kv_heads = read_head_dim(settings), read_kv_heads(settings)
    has_norm = bool(family.qk_norm) and settings.flag(family.has_qk_norm)
    norms = {"head": (1 + keeps) * family.norm_vectors * head_dim, "heads": (num_heads + num_kv_heads) * head_dim}
    return Attention(
        hidden_size,
        num_heads,
        num_kv_heads,
        head_dim,
        window,
        qkv_bias=settings.flag(family.qkv_bias),
        out_bias=settings.flag(family.out_bias),
        qk_norm_elements=norms[family.qk_norm] if has_norm and family.qk_norm else 0,
        gates=int(family.has_output_gate),
        has_sinks=family.has_sinks,
        keeps=keeps,
    )


def read_head_dim(settings: Settings) -> int:
    """Return the elements of a query head: of latent attention both parts; where nothing is said, the heads divide the hidden size."""
    if settings.get("kv_lora_rank"):
        return settings.number("qk_nope_head_dim") + settings.number("qk_rope_head_dim")
    return settings.number("head_dim", settings.number("hidden_size") // max(settings.number("num_attention_heads"), 1))


def read_kv_heads(settings: Settings) -> int:
    """Return the heads that keys and values have: one with Falcon's and StarCoder's ``multi_query``, by default as many as queries."""
    if settings.flag("multi_query") and not settings.flag("new_decoder_architecture"):
        return 1
    return settings.number("num_key_value_heads", settings.number("num_attention_heads"))
