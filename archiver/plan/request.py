"""What a plan is made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archiver.plan.engines import Engine, KvDtype
from archiver.plan.hardware.profile import Hardware
from archiver.plan.layout import Layout
from archiver.plan.model.facts import ModelFacts
from archiver.plan.workload import Workload


@dataclass(frozen=True)
class PlanRequest:
    """A model, the machine, the load, and what the user has settled already.

    ``count`` devices of ``hardware``. ``settings``: the entries of ``handler.engine`` that the user has set, which a plan keeps to.
    ``engine`` and ``layout``: None leaves them to the plan. ``has_own_code``: requests need logic of the user's own. ``has_other_models``:
    the server is to run models of other kinds and frameworks too. ``has_stated_load``: the user said what the load is.
    """

    model: ModelFacts
    hardware: Hardware
    count: int = 1
    workload: Workload = Workload()
    settings: Mapping[str, Any] = field(default_factory=dict)
    kv_dtype: KvDtype = "auto"
    engine: Engine | None = None
    layout: Layout | None = None
    has_own_code: bool = False
    has_other_models: bool = False
    has_stated_load: bool = False
