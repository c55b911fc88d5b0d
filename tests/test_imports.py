"""Who may import whom (DESIGN, section 1): nothing imports upward, nothing imports in a circle.

Imports inside functions count, and those under ``if TYPE_CHECKING``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the bottom up. A room may import its own row and those above it in this list.
LAYERS = [
    ["paper", "seeding", "atomic", "validation", "assets", "checks", "arrays"],
    ["storage"],
    ["cells", "search_space", "reward"],
    ["latency", "data"],
    ["networks"],
    ["deploy", "training"],
    ["contextual"],
    ["bandit", "tabulated"],
    ["build", "forking", "hooks"],
    ["tabular_bandit"],
    ["infos", "observations"],
    ["env", "vector_env", "tabular", "callbacks", "render", "base_env", "wrappers", "__init__"],
    ["agents"],
    ["scripts", "scripts.options"],
    ["scripts.begin"],
    ["scripts.comparison"],
    ["scripts.report"],
    ["scripts.verb"],
    ["scripts.experiment"],
    ["scripts.__main__"],
]
ROOMS = {"comparison", "report", "experiment", "__main__", "begin", "options"}
"""Of scripts; every other file there is a verb, or belongs to one."""
TIER = {name: tier for tier, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for top in ("instanas_env", "agents", "scripts") for path in (ROOT / top).rglob("*.py"))


def dotted(path: Path) -> str:
    """``instanas_env/data/__init__.py`` -> ``instanas_env.data``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in FILES}


def layer(module: str) -> str:
    """The entry of LAYERS that holds ``module``."""
    top, *rest = module.split(".")
    if top == "scripts" and rest:
        return f"scripts.{rest[0] if rest[0] in ROOMS else 'verb'}"
    return top if top != "instanas_env" else (rest or ["__init__"])[0]


def imports(node: ast.AST, functions: bool = True) -> Iterator[str]:
    """Dotted names imported below ``node``; ``from a import b`` gives ``a.b`` if that is a file."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: write absolute imports"
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full in MODULES else str(child.module)
        elif functions or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imports(child, functions)


def imports_of(path: Path, functions: bool = True) -> set[str]:
    return set(imports(ast.parse(path.read_text()), functions))


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_upward(module):
    assert layer(module) in TIER, f"{module} is new: place {layer(module)!r} in LAYERS of {__file__}"
    upward = [
        name
        for name in imports_of(MODULES[module])
        if name in MODULES and TIER.get(layer(name), -1) > TIER[layer(module)]
    ]
    assert not upward, f"{module} imports {', '.join(sorted(upward))} from a layer above its own"


def test_nothing_imports_in_a_circle():
    """``TopologicalSorter`` raises CycleError, which shows the circle."""
    graph = {m: {n for n in imports_of(path) if n in MODULES and n != m} for m, path in MODULES.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == set(MODULES)


def test_the_environment_needs_no_agent_and_draws_nothing():
    """Neither agents, scripts nor SB3 at all; matplotlib only inside the function that draws."""
    for module, path in MODULES.items():
        if module.split(".")[0] == "instanas_env":
            tops = {name.split(".")[0] for name in imports_of(path)}
            assert not tops & {"agents", "scripts", "stable_baselines3"}, f"{module}: {tops}"
            at_import = {name.split(".")[0] for name in imports_of(path, functions=False)}
            assert not at_import & {"matplotlib", "lightning_fabric"}, module


def test_only_one_agent_file_imports_sb3():
    """Everything else must run without stable_baselines3 installed."""
    for module, path in MODULES.items():
        if module.startswith("agents.") and module != "agents.sb3":
            assert not any(name.startswith("stable_baselines3") for name in imports_of(path)), module
