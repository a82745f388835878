"""Where the boxes of an acyclic graph go: layers by longest path, ordered by barycentres.

The method of Sugiyama, Tagawa and Toda (IEEE Trans. SMC 11, 1981), its last part by isotonic regression: in
each layer the places nearest to those wished for that keep the order and the gaps. Time is near linear
in boxes, edges and bends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SWEEPS = 12
"""How often the order is improved, down and up by turns."""
BEND = 0.3
"""Room for an edge that passes between boxes; a box has 1."""
_SLIM = (1 - BEND) / 2

Place = tuple[int, float]
"""The layer, and the centre's place across it, in boxes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is."""

    boxes: dict[str, Place]
    edges: dict[tuple[str, str], list[Place]]
    """(from, to) -> the points on the way, both ends included."""

    @property
    def layers(self) -> int:
        """How many there are."""
        return 1 + max((layer for layer, _ in self.boxes.values()), default=-1)

    @property
    def breadth(self) -> float:
        """Boxes side by side that there must be room for."""
        bends = [at - _SLIM for way in self.edges.values() for _, at in way[1:-1]]
        return 1 + max([*bends, *(at for _, at in self.boxes.values())], default=-1)


def layout(needs: Mapping[str, Iterable[str]]) -> Layout:
    """Place each box behind those it needs; names that are no boxes are passed over.

    Raises ``ValueError`` when boxes need each other in a circle.
    """
    before = {name: [one for one in dict.fromkeys(others) if one in needs] for name, others in needs.items()}
    layer = layers_of(before)
    web = _woven(before, layer)
    _order(web)
    at = _places(web)
    boxes = {name: (layer[name], at[name]) for name in before}
    edges = {
        (source, name): [
            boxes[source],
            *((i, at[source, i]) for i in range(layer[source] + 1, layer[name])),
            boxes[name],
        ]
        for name, others in before.items()
        for source in others
    }
    return Layout(boxes, edges)


def layers_of(before: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The length of the longest path to each box; one that needs nothing stands just before who needs it."""
    missing = {name: len(others) for name, others in before.items()}
    after: dict[str, list[str]] = {name: [] for name in before}
    for name, others in before.items():
        for other in others:
            after[other].append(name)
    layer = dict.fromkeys(before, 0)
    ready = [name for name, count in missing.items() if not count]
    for name in ready:
        for follower in after[name]:
            layer[follower] = max(layer[follower], layer[name] + 1)
            missing[follower] -= 1
            if not missing[follower]:
                ready.append(follower)
    if len(ready) < len(before):
        raise ValueError("the graph has a cycle")
    for name, others in before.items():
        if not others and after[name]:
            layer[name] = min(layer[one] for one in after[name]) - 1
    return layer


Node = str | tuple[str, int]
"""A box, or the bend in a layer of all edges that leave a box and pass there."""


@dataclass(slots=True)
class _Web:
    """Boxes and bends by layer, in order, each tied to neighbours in the next layers only."""

    rows: list[list[Node]]
    left: dict[Node, list[Node]] = field(default_factory=dict)
    right: dict[Node, list[Node]] = field(default_factory=dict)

    def tie(self, one: Node, other: Node) -> None:
        self.right.setdefault(one, []).append(other)
        self.left.setdefault(other, []).append(one)


def _woven(before: Mapping[str, Sequence[str]], layer: Mapping[str, int]) -> _Web:
    web = _Web([[] for _ in range(1 + max(layer.values(), default=-1))])
    for name in before:
        web.rows[layer[name]].append(name)
    reached: dict[str, int] = {}
    for name, others in before.items():
        for source in others:
            last: Node = source
            for i in range(layer[source] + 1, layer[name]):
                bend = (source, i)
                if i > reached.get(source, layer[source]):
                    reached[source] = i
                    web.rows[i].append(bend)
                    web.tie(last, bend)
                last = bend
            web.tie(last, name)
    return web


def _order(web: _Web) -> None:
    """Sort each layer by its neighbours' mean place, and keep the order with the fewest crossings."""
    best, fewest = [list(row) for row in web.rows], _crossings(web)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        ties = web.left if down else web.right
        rows = web.rows if down else web.rows[::-1]
        for fixed, row in pairwise(rows):
            place = {node: i for i, node in enumerate(fixed)}
            own = {node: i * len(fixed) / len(row) for i, node in enumerate(row)}
            row.sort(key=lambda node, place=place, own=own: _mean(place, ties.get(node, ()), own[node]))  # type: ignore[misc]
        if (crossings := _crossings(web)) < fewest:
            best, fewest = [list(row) for row in web.rows], crossings
    web.rows[:] = best


def _mean(place: Mapping[Node, float], neighbours: Sequence[Node], otherwise: float) -> float:
    return sum(place[one] for one in neighbours) / len(neighbours) if neighbours else otherwise


def _crossings(web: _Web) -> int:
    """How many pairs of edges cross (Barth, Mutzel, Juenger 2004): inversions, by a Fenwick tree."""
    total = 0
    for row, following in pairwise(web.rows):
        place = {node: i for i, node in enumerate(following)}
        tree, seen = [0] * (len(following) + 1), 0
        for node in row:
            ends = sorted(place[one] for one in web.right.get(node, ()))
            for end in ends:
                total += seen - _sum(tree, end + 1)
            for end in ends:
                seen += 1
                i = end + 1
                while i < len(tree):
                    tree[i] += 1
                    i += i & -i
    return total


def _sum(tree: Sequence[int], end: int) -> int:
    total = 0
    while end:
        total += tree[end]
        end -= end & -end
    return total


def _places(web: _Web) -> dict[Node, float]:
    """Each as near to its neighbours' mean as order and room allow; the first box's place is 0."""
    at: dict[Node, float] = {}
    for row in web.rows:
        at.update(zip(row, _room(row), strict=True))
    for sweep in range(SWEEPS):
        rows = web.rows if sweep % 2 == 0 else web.rows[::-1]
        for row in rows:
            wishes = [
                _mean(at, [*web.left.get(node, ()), *web.right.get(node, ())], at[node]) for node in row
            ]
            weights = [1.0 if isinstance(node, str) else 4.0 for node in row]
            at.update(zip(row, _apart(wishes, weights, _room(row)), strict=True))
    least = min(
        (place if isinstance(node, str) else place + _SLIM for node, place in at.items()), default=0.0
    )
    return {node: place - least for node, place in at.items()}


def _room(row: Sequence[Node]) -> list[float]:
    """Centres of a row without any gaps."""
    found, edge = [], 0.0
    for node in row:
        half = 0.5 if isinstance(node, str) else BEND / 2
        found.append(edge + half)
        edge += 2 * half
    return found


def _apart(wishes: Sequence[float], weights: Sequence[float], room: Sequence[float]) -> Iterator[float]:
    """The places nearest to `wishes` (least squares) that are as far apart as those of `room` at least.

    Isotonic regression by pooling adjacent violators.
    """
    pools: list[tuple[float, float, int]] = []
    for wish, weight, least in zip(wishes, weights, room, strict=True):
        value, count = wish - least, 1
        while pools and pools[-1][0] >= value:
            other, more, members = pools.pop()
            value = (value * weight + other * more) / (weight + more)
            weight += more
            count += members
        pools.append((value, weight, count))
    placed = (value for value, _, count in pools for _ in range(count))
    return (value + least for value, least in zip(placed, room, strict=True))


__all__ = ["Layout", "Place", "layers_of", "layout"]
