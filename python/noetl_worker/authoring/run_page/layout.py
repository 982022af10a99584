"""The layout of a playbook's steps and arcs as a graph in ranks (Sugiyama's method).

First, arcs that close a cycle are left out. Second, each step gets the rank after the last step that leads to it.
Third, each rank is sorted by the mean position of its steps' neighbours, which gives few crossings. An arc over several
ranks has a position in each of these ranks, and crosses no step.

No small library computes this layout: dagre needs lodash, networkx needs numpy, graphviz is a program.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Final, TypeAlias

_SWEEPS: Final = 6
Edge: TypeAlias = tuple[int, int]
Node: TypeAlias = tuple[int, int | Edge]
"""Node of the graph: its rank, and either a step of this rank or an arc that passes through the rank."""
Neighbours: TypeAlias = tuple[Mapping[Node, Sequence[Node]], Mapping[Node, Sequence[Node]]]
"""Two mappings from a node to its neighbours: the neighbours in the previous rank, and the neighbours in the next rank.
"""


@dataclass(frozen=True, slots=True)
class RunLayout:
    """Positions of a graph's steps and arcs, for drawing the graph."""

    places: list[tuple[int, float]]
    """Position of each step: its rank, and its offset within the rank."""
    routes: Mapping[Edge, list[tuple[int, float]]]
    """Positions that each arc passes, including both ends. An arc that closes a cycle has only its two ends."""


def lay_out(count: int, edges: Sequence[Edge], straight: Collection[Edge] = ()) -> RunLayout:
    """Lay out the steps 0 to `count - 1` and the arcs between them.

    Args:
        straight: arcs to draw as straight lines where possible, even if other arcs then get more bends.
    """
    back = _leading_back(count, edges)
    forward = [edge for edge in dict.fromkeys(edges) if edge not in back]
    ranks = _ranks(count, forward)
    steps: list[Node] = [(rank, step) for step, rank in enumerate(ranks)]
    chains = {edge: _chain(edge, steps) for edge in forward}
    layers: list[list[Node]] = [[] for _ in range(max(ranks, default=0) + 1)]
    for node in (*steps, *(place for chain in chains.values() for place in chain[1:-1])):
        layers[node[0]].append(node)
    lines = _neighbours(chain for edge, chain in chains.items() if edge in straight)
    across = _across(layers, _neighbours(chains.values()), lines)
    least = min(across.values(), default=0.0)
    places = [(node[0], across[node] - least) for node in steps]
    routes = {edge: [(node[0], across[node] - least) for node in chain] for edge, chain in chains.items()}
    return RunLayout(places, routes | {edge: [places[edge[0]], places[edge[1]]] for edge in back})


def _leading_back(count: int, edges: Sequence[Edge]) -> set[Edge]:
    """Return the arcs that close a cycle, found by a depth-first search.

    The search does not recurse, since a playbook may have thousands of steps.
    """
    ways: dict[int, list[int]] = {}
    for start, to in edges:
        ways.setdefault(start, []).append(to)
    back: set[Edge] = set()
    seen: set[int] = set()
    for root in range(count):
        on_path: dict[int, Iterable[int]] = {} if root in seen else {root: iter(ways.get(root, ()))}
        while on_path:
            node = next(reversed(on_path))
            seen.add(node)
            for to in on_path[node]:
                if to in on_path:
                    back.add((node, to))
                elif to not in seen:
                    on_path[to] = iter(ways.get(to, ()))
                    break
            else:
                del on_path[node]
    return back


def _ranks(count: int, edges: Iterable[Edge]) -> list[int]:
    before: dict[int, list[int]] = {node: [] for node in range(count)}
    for start, to in edges:
        before[to].append(start)
    ranks = [0] * count
    for node in TopologicalSorter(before).static_order():
        ranks[node] = max((ranks[start] + 1 for start in before[node]), default=0)
    return ranks


def _chain(edge: Edge, steps: Sequence[Node]) -> list[Node]:
    start, to = steps[edge[0]], steps[edge[1]]
    return [start, *((rank, edge) for rank in range(start[0] + 1, to[0])), to]


def _neighbours(chains: Iterable[Sequence[Node]]) -> Neighbours:
    """Return the neighbours of each node. `chains`: for each arc, the nodes from the arc's start to its end."""
    before: dict[Node, list[Node]] = {}
    after: dict[Node, list[Node]] = {}
    for chain in chains:
        for start, to in pairwise(chain):
            after.setdefault(start, []).append(to)
            before.setdefault(to, []).append(start)
    return before, after


def _across(layers: list[list[Node]], neighbours: Neighbours, lines: Neighbours) -> dict[Node, float]:
    across: dict[Node, float] = {}
    for layer in layers:
        across.update((node, index - (len(layer) - 1) / 2) for index, node in enumerate(layer))
    for sweep in range(_SWEEPS):
        near, on_line = neighbours[sweep % 2], lines[sweep % 2]
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            found = {node: on_line.get(node) or near.get(node, ()) for node in layer}
            wanted = {node: _mean([across[other] for other in found[node]], across[node]) for node in layer}
            layer.sort(key=wanted.__getitem__)
            _spread(layer, wanted, across, [node for node in layer if node in on_line] or layer)
    return across


def _spread(
    layer: Sequence[Node], wanted: Mapping[Node, float], across: dict[Node, float], first: Sequence[Node]
) -> None:
    """Set the offset of each node in one rank of the graph: near the wanted offset, and at least 1 from the next node.

    Args:
        layer: the nodes of the rank, sorted by their wanted offsets.
        wanted: the wanted offset of each node.
        across: mapping in which the new offset of each node is stored.
        first: nodes that matter most. The whole rank is shifted so that these nodes have, on average, their wanted
            offsets.
    """
    at = float("-inf")
    for node in layer:
        across[node] = at = max(wanted[node], at + 1)
    moved = _mean([across[node] - wanted[node] for node in first], 0.0)
    for node in layer:
        across[node] -= moved


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
