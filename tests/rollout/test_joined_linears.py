"""Linear layers that the compiler joins, against the same layers apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reft_pl.models import compilation
from reft_pl.rollout import packed_weights
from reft_pl.rollout.joined_linears import JoinedLinears
from reft_pl.rollout.packed_weights import PackedWeights

pytestmark = [
    pytest.mark.skipif(compilation._lacking() is not None, reason="nothing compiles C++ here"),
    pytest.mark.slow,  # a C++ compiler takes some ten seconds a graph
]


class Siblings(nn.Module):
    """Layers that read the same numbers, some with a bias, and some that read others."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(64, width, bias=False) for width in (32, 16, 16))
        self.gate, self.up = nn.Linear(64, 48), nn.Linear(64, 48)
        self.down = nn.Linear(48, 64, bias=False)

    def forward(self, x):
        """Something of all of them."""
        x = x.sin()
        attended = self.q(x).cos().sum() + self.k(x).exp().sum() * self.v(x).sum()
        return self.down(self.gate(x).tanh() * self.up(x)), attended


class Counted(JoinedLinears):
    """Notes how many products there were before and after."""

    def __init__(self):
        self.products = []

    def __call__(self, graph):
        for step in (lambda: None, lambda: super(Counted, self).__call__(graph), graph.lint):
            step()
            self.products.append(len(graph.find_nodes(op="call_function", target=torch.ops.reft_pl.packed_linear.default)))

    def uuid(self):
        """Never kept."""


@torch.no_grad()
def test_siblings_become_one_product(monkeypatch):
    monkeypatch.setattr(packed_weights, "SMALLEST", 0)
    torch.manual_seed(0)
    net, join = Siblings(), Counted()
    compiled = torch.compile(net, dynamic=True, options={"post_grad_custom_pre_pass": join})
    for rows in (5, 9):
        x = torch.randn(rows, 64)
        expected = net(x)
        with PackedWeights(net, 8).used():
            found = compiled(x)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert join.products[:2] == [6, 3]  # queries, keys and values; both halves; the last one, by itself
