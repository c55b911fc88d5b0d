"""The module-wise look-up table (section 4.1): a mask's latency is the sum of its modules' latencies.

The same table holds other additive costs, MACs or parameters, for ``cost="flops"`` and ``"params"``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from instanas_env import checks
from instanas_env.search_space import SearchSpace
from instanas_env.storage import PathLike, load_json, save_json
from instanas_env.validation import items, json_object, number, record, text

MOST = 1e18  # of any unit
UNITS = ("ms", "MMACs", "parameters")
_COST = number(0)
_TABLE = record(
    {
        "search_space": SearchSpace.from_config,
        "unit": text(*UNITS),
        "fixed": _COST,
        "controller": _COST,
        "modules": items(items(_COST, high=100), high=1000),
        "record": json_object,
    }
)


@dataclass(frozen=True)
class LatencyTable:
    """Additive costs of a search space's modules; ms unless ``unit`` says otherwise.

    Attributes:
        space: the search space.
        modules: float64 ``(num_cells, num_modules)``, each module with the addition that joins it.
        fixed: of what every child has: the call, stem and head.
        controller: of the network that chooses the mask; not part of :meth:`lookup`.
        unit: "ms", "MMACs" or "parameters".
        record: how it was measured: device, threads, versions, spread.
    """

    space: SearchSpace
    modules: Tensor
    fixed: float
    controller: float = 0.0
    unit: str = "ms"
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.instance("modules", self.modules, Tensor)
        for name in ("fixed", "controller"):
            checks.number(name, getattr(self, name), 0, MOST)
        shape, expected = tuple(self.modules.shape), self.space.mask_shape
        if shape != expected:
            raise ValueError(f"modules: got shape {shape}; {expected} will do")
        checks.choice("unit", self.unit, UNITS)
        if not ((self.modules >= 0) & (self.modules <= MOST)).all():
            raise ValueError("modules: a latency table holds finite numbers that are not negative")

    def lookup(self, masks: Tensor) -> Tensor:
        """Cost of each mask: bool ``(..., num_cells, num_modules)`` to float64 ``(...)``."""
        self.space.check_masks(masks)
        return (masks.cpu().double() * self.modules).sum((-2, -1)) + self.fixed

    def cheapest_mask(self) -> Tensor:
        """The mask that costs least: in each cell that needs a module, its cheapest one."""
        mask = self.space.path(self.modules.argmin(1).tolist())
        return mask & self.space.needs_module.unsqueeze(1)

    def reference(self, name: str) -> float:
        """Cost of a reference network: "full" (all modules), "mobilenet_v2" or "cheapest"."""
        masks = {
            "full": self.space.full_mask,
            "mobilenet_v2": self.space.mobilenet_v2_mask,
            "cheapest": self.cheapest_mask,
        }
        return self.lookup(masks[checks.choice("bounds: reference", name, tuple(masks))]()).item()

    def save(self, path: PathLike) -> None:
        """Write the table as JSON."""
        content = {name: getattr(self, name) for name in ("unit", "fixed", "controller")}
        content |= {"modules": self.modules.tolist(), "record": self.record}
        save_json(path, {"search_space": self.space.config, **content})

    @classmethod
    def load(cls, path: PathLike) -> LatencyTable:
        """Read a table; ``ValueError`` names a file that is none."""
        with checks.explained(f"latency_table: {path} is not a latency table"):
            content = _TABLE(load_json(path), "table")
            modules = torch.tensor(content.pop("modules"), dtype=torch.float64)
            return cls(content.pop("search_space"), modules, **content)
