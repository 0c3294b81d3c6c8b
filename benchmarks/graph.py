"""How long pictures take: ``python benchmarks/graph.py [ops ...]`` builds graphs of so many ops, as DOT
text, in each view.

The promise is 2,000 nodes in less than 5 s; layout by a renderer comes on top and is measured where one is
found.
"""

import sys
from time import perf_counter

import tinygrad_ms as tg
from tinygrad_ms.graph.renderer import draw, find_renderer


def network(ops):
    """Layers of five ops each, in a scope of their own, all different so that nothing folds."""
    h = tg.tensor([1.0, 2.0], requires_grad=True, name="h")
    for layer in range(ops // 5):
        with tg.scope(f"layer {'ab'[layer % 2]}"):
            w = tg.tensor([0.5, 0.5], requires_grad=True, name=f"w{layer}")
            h = tg.tanh(h * w + 0.1) + tg.sin(h) * 0.1
    return h.sum()


def main(sizes):
    print(f"{'ops':>8}  {'view':<9}{'nodes':>8}{'build s':>10}{'DOT s':>8}{'layout s':>10}")
    for ops in sizes:
        loss = network(ops)
        for view in ("forward", "both", "higher"):
            start = perf_counter()
            graph = tg.graph.build(loss, view=view, fold=False, max_nodes=None, gradients=view == "both")
            built = perf_counter()
            dot = graph.dot()
            written = perf_counter()
            layout = "-"
            if find_renderer() and len(graph) <= 1000:
                draw(dot)
                layout = f"{perf_counter() - written:.2f}"
            print(f"{ops:>8}  {view:<9}{len(graph):>8}{built - start:>10.3f}{written - built:>8.3f}{layout:>10}")


if __name__ == "__main__":
    tg.keep_freed_memory()
    main([int(n) for n in sys.argv[1:]] or [200, 2000])
