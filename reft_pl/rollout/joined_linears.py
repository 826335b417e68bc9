"""A pass of torch's compiler: linear layers that multiply the same numbers, such as queries, keys and values, become one.

Few rows are multiplied sooner than a product is set up, and one wide product is faster than several narrow ones.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import Any

from torch import fx, ops
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files


class JoinedLinears(CustomGraphPass):
    """Joins the ``packed_linear`` nodes of a functional graph, whose outputs are then parts of one."""

    def __call__(self, graph: fx.Graph) -> None:
        """Change ``graph``."""
        siblings: dict[tuple[fx.Node, bool], list[fx.Node]] = defaultdict(list)
        for node in graph.find_nodes(op="call_function", target=ops.reft_pl.packed_linear.default):
            x, weights, biases = node.args
            if all(weight.op == "placeholder" for weight in (*weights, *biases)):
                siblings[x, bool(biases)].append(node)
        for (x, _), nodes in siblings.items():
            if len(nodes) > 1:
                _join(graph, x, nodes)

    def uuid(self) -> bytes:
        """What compiled code is kept under."""
        return get_hash_for_files((__file__,))


def _join(graph: fx.Graph, x: fx.Node, nodes: list[fx.Node]) -> None:
    weights = [weight for node in nodes for weight in node.args[1]]  # type: ignore[union-attr]
    biases = [bias for node in nodes for bias in node.args[2]]  # type: ignore[union-attr]
    widths = [node.meta["val"].shape[-1] for node in nodes]
    with graph.inserting_before(nodes[0]):
        joined = _call(graph, ops.reft_pl.packed_linear.default, x, weights, biases)
        whole = _call(graph, ops.aten.split_with_sizes.default, joined, widths, -1)
        parts = [_call(graph, operator.getitem, whole, index) for index in range(len(nodes))]
    for node, part in zip(nodes, parts, strict=True):
        node.replace_all_uses_with(part)
        graph.erase_node(node)


def _call(graph: fx.Graph, target: Any, *args: Any) -> fx.Node:
    """A new node that knows what it gives, as the compiler expects of every node."""
    node = graph.call_function(target, args)
    node.meta["val"] = target(*fx.map_arg(args, lambda argument: argument.meta["val"]))
    return node
