"""tg.graph: the structure read off the tape, its DOT text, folding, values and gradients."""

import os
import re
import shutil
import struct
import sys
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.graph import build, recording
from tinygrad_ms.graph.dot_text import write
from tinygrad_ms.graph.latex import to_text
from tinygrad_ms.graph.renderer import draw, find_renderer
from tinygrad_ms.graph.titles import CLUSTER, EDGE, band, clear_titles, justified, points_of
from tinygrad_ms.graph.values import Summary

GOLDEN = Path(__file__).parents[1] / "golden"
HOSTILE = [
    'say "hi"', "<script>alert(1)</script>", "a&b &lt; &amp;", "two\nlines", "back\\slash \\N \\G", "🦉 ő 中文 é",
    "]]> --> <!--", "x" * 10_000, "\x00\x1b[31m", "'; DROP", "{a|b}", "\ud800",
]  # fmt: skip


def leaf(*shape, name=None):
    values = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    return tg.tensor(values, requires_grad=True, name=name)


def titles(graph, kind="op"):
    return [vertex.title for vertex in graph.vertices if vertex.kind == kind]


def labels(dot):
    """Every HTML-like label of a DOT text, cut out by counting brackets as DOT does."""
    for match in re.finditer(r"label=<", dot):
        depth, end = 1, match.end()
        while depth:
            depth += {"<": 1, ">": -1}.get(dot[end], 0)
            end += 1
        yield dot[match.end() : end - 1]


def check_dot(dot):
    """The labels are well-formed, quotes are balanced, and every edge joins nodes that are there."""
    for label in labels(dot):
        ElementTree.fromstring(f"<x>{label.replace('&#8212;', '-')}</x>")
    bare = dot
    for label in labels(dot):
        bare = bare.replace(f"<{label}>", "LABEL", 1)
    bare = re.sub(r'"(\\.|[^"\\])*"', "STRING", bare, flags=re.DOTALL)
    assert '"' not in bare and "<" not in bare.replace("->", "")
    assert bare.count("{") == bare.count("}") and bare.count("[") == bare.count("]")
    nodes = set(re.findall(r"^\s*(n\d+) \[", bare, re.M))
    for tail, head in re.findall(r"(n\d+) -> (n\d+)", bare):
        assert {tail, head} <= nodes
    return nodes


def mlp():
    x = tg.tensor(np.ones((4, 3)), name="x")
    w, b = leaf(3, 2, name="w"), leaf(2, name="b")
    with tg.scope("fc"):
        y = x @ w + b
    return (y * y).sum(), w, b


# --- structure ----------------------------------------------------------------------------------------------


def test_structure_of_a_layer():
    loss, w, b = mlp()
    graph = build(loss, params={"weight": w, "bias": b})
    assert titles(graph) == ["matmul", "add", "multiply", "sum"]
    assert titles(graph, "parameter") == ["weight", "bias"] and titles(graph, "constant") == ["x"]
    assert {v.title: v.scope.path for v in graph.vertices} == {
        "weight": "fc", "bias": "fc", "matmul": "fc", "add": "fc", "x": "", "multiply": "", "sum": "",
    }  # fmt: skip
    add, multiply = graph.find("add")[0], graph.find("multiply")[0]
    assert [e.argument for e in graph.edges if e.source is add and e.target is multiply] == ["a", "b"]
    assert graph.find("matmul")[0].ports == ["a", "b"] and not multiply.ports
    assert add.arrays[0].shape == (4, 2) and add.arrays[0].dtype == "float64"
    assert add.line.endswith(f".py:{mlp.__code__.co_firstlineno + 4}")


def test_numbers_and_keywords_are_in_the_label():
    graph = build((2.5 * leaf(2, 3)).sum(axis=1, keepdims=True))
    assert graph.find("multiply")[0].arguments == {"a": "2.5"}
    assert graph.find("sum")[0].arguments == {"axis": "1", "keepdims": "True"}
    assert "keepdims=True" in graph.dot()


def test_several_outputs_are_named_on_the_edges():
    first, _, third = tg.split(leaf(6), 3)
    graph = build((first * third).sum())
    assert titles(graph) == ["split", "multiply", "sum"]  # no node for an output
    assert [edge.output for edge in graph.edges if edge.source.title == "split"] == ["0", "2"]
    check_dot(graph.dot())


def test_a_graph_knows_two_visits_of_one_scope_apart():
    h = leaf(3)
    for _ in range(2):
        with tg.scope("cell"):
            h = tg.tanh(h)
    assert len(build(h.sum()).scopes) == 2


def drawn():
    x = leaf(2)
    return (x * x).sum()


def test_options_may_be_numpy_numbers_and_any_sequence_of_tensors():
    loss, w, b = mlp()
    plain = build(loss, wrt=[w, b], depth=1, max_nodes=100)
    for wrt in ((w, b), {"a": w, "b": b}, iter([w, b]), [w, w, b]):
        graph = build(loss, wrt=wrt, depth=np.int64(1), max_nodes=np.int32(100), fold=np.int64(3))
        assert graph.dot() == plain.dot()


def test_two_outputs_of_one_name_are_both_drawn():
    x = leaf(2)
    a, b = tg.exp(x).sum(), tg.tanh(x).sum()
    a.name = b.name = "loss"
    assert sum(v.is_output for v in build([a, b]).vertices) == 2


def test_wrt_prunes_and_highlight_marks():
    loss, w, b = mlp()
    pruned = build(loss, wrt=b)
    assert titles(pruned) == ["add", "multiply", "sum"] and titles(pruned, "leaf") == ["b"]
    marked = build(loss, highlight=w)
    assert [v.title for v in marked.vertices if v.highlighted] == ["w", "matmul", "add", "multiply", "sum"]
    assert "penwidth=3.2" in marked.dot() and "highlighted path" in marked.dot()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: build(tg.tensor([1.0])), "not on the tape"),
        (lambda: build(3), "int"),
        (lambda: build([]), "no outputs"),
        (lambda: build(leaf(2), view="sideways"), "forward, backward, both, higher"),
        (lambda: build(leaf(2), rankdir="up"), "TB, LR, BT or RL"),
        (lambda: build(leaf(2) * 2, highlight=leaf(2)), "highlight= names a tensor that the outputs were not"),
        (lambda: build(leaf(2) * 2, params=[1]), "expected a module or a dict"),
        (lambda: build((leaf(2) * 2).sum(), view="higher"), "do not depend on anything"),
        (lambda: build(drawn(), view="higher", wrt=leaf(2)), "wrt= names a tensor that the outputs were not"),
        (lambda: build(drawn(), view="higher", wrt=[]), "graph: wrt= is empty; name a Tensor, or leave it out"),
        (lambda: build(drawn(), wrt=[]), "graph: wrt= is empty; name a Tensor, or leave it out"),
        (lambda: build(drawn(), highlight={}), "graph: highlight= is empty; name a Tensor"),
        (lambda: build(drawn(), wrt="x"), "graph: wrt= is str; expected a Tensor, or a list or dict of Tensors"),
        (lambda: build(drawn(), wrt=[3]), "graph: wrt= has int in it; expected Tensors"),
        (lambda: build({"a": (y := drawn()), "b": y}), "graph: outputs 'a' and 'b' are one Tensor; give it one name"),
        (lambda: build([y := drawn(), y]), "graph: outputs 'output 0' and 'output 1' are one Tensor"),
        (lambda: build(y := drawn(), params={"a": y, "b": y}), "graph: params 'a' and 'b' are one Tensor"),
        (lambda: build(drawn(), params={"a": 3}), "graph: params 'a' is int; expected a Tensor"),
        (lambda: build(None), "graph: outputs is NoneType; expected a Tensor"),
        (lambda: build("loss"), "graph: outputs is str; expected a Tensor"),
        (lambda: build(drawn(), depth=-1), "graph: depth is -1, expected an integer of at least 0"),
        (lambda: build(drawn(), depth=1.5), "graph: depth is 1.5, expected an integer"),
        (lambda: build(drawn(), depth=True), "graph: depth is True, expected an integer"),
        (
            lambda: build(drawn(), fold=-1),
            "graph: fold, when it is not True or False, is -1, expected an integer of at",
        ),
        (lambda: build(drawn(), fold=None), "graph: fold, when it is not True or False, is None"),
        (lambda: build(drawn(), max_nodes=0), "graph: max_nodes is 0, expected an integer of at least 1"),
        (lambda: build(drawn(), collapse=3), "graph: collapse=3; expected the name of a scope"),
        (lambda: build(drawn(), expand=[None]), "graph: expand=[None]; expected the name of a scope"),
        (lambda: build(drawn(), values="all"), "graph: values='all'; expected True, False or a tg.graph.recording()"),
        (lambda: build(drawn(), profile=3), "graph: profile is int; expected a tg.profile()"),
        (lambda: build(drawn(), title=None), "graph: title is None; expected text"),
    ],
)
def test_errors_are_sentences(call, words):
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        call()


# --- DOT ----------------------------------------------------------------------------------------------------


def golden_graphs():
    """Small graphs with all kinds of vertices and edges; ``python -m tests.graph.test_graph`` writes their texts
    anew."""
    loss, w, b = mlp()
    params = {"fc.weight": w, "fc.bias": b}
    yield "forward", build(loss, params=params, title="a layer", saved=True, highlight=b)
    yield "both", build(loss, params=params, view="both", values=True, gradients=True)
    yield "higher", build(tg.tanh(leaf(3, name="x")).sum(), view="higher", rankdir="LR", formulas=True)
    yield "rolled", build(rnn(5), view="both")
    yield "boxes", build(tower(3)[0], depth=0, fold=False, device=True)


def golden_text(graph):
    """Without what other files decide: line numbers, and formulas and sources in tooltips."""
    return re.sub(r"(test_graph\.py):\d+[^\"]*", r"\1:LINE", graph.dot())


@pytest.mark.parametrize("name", ["forward", "both", "higher", "rolled", "boxes"])
def test_golden_dot(name):
    text = golden_text(dict(golden_graphs())[name])
    assert text == (GOLDEN / f"graph_{name}.dot").read_text(encoding="utf-8")
    check_dot(text)


def test_equal_graphs_give_equal_text_whatever_ran_before():
    def text():
        loss, *_ = mlp()
        return build(loss, values=True, gradients=True, saved=True, device=True, formulas=True).dot()

    first = text()
    tg.tanh(leaf(3)).sum().backward()
    assert text() == first


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_breaks_the_text(name):
    x = leaf(2, name=name)
    with tg.scope(name):
        y = tg.tanh(x)
    dot = build({name: y}, gradient=tg.tensor([1.0, 1.0]), view="both", title=name, depth=None).dot()
    check_dot(dot)
    assert len(dot) < 20_000 and "<script" not in dot
    assert all(letter.isprintable() or letter == "\n" for letter in dot)
    dot.encode()  # no half of a surrogate pair
    if find_renderer():
        root = ElementTree.fromstring(draw(dot, "svg"))
        assert not [e for e in root.iter() if e.tag.endswith("script")]
        shown = "".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith("text"))
        assert re.sub(r"\W", "", name)[:5].isascii() is False or re.sub(r"\W|n", "", name)[:5] in re.sub(
            r"\W|n", "", shown
        )


@pytest.mark.parametrize("rankdir", ["TB", "LR", "BT", "RL"])
@pytest.mark.parametrize("view", ["forward", "backward", "both", "higher"])
def test_every_view_in_every_direction(view, rankdir):
    loss, w, _ = mlp()
    graph = build(loss, view=view, rankdir=rankdir, values=True, gradients=True, highlight=w)
    check_dot(graph.dot())
    assert f"rankdir={rankdir}" in graph.dot() and repr(graph).endswith(f"view {view!r}>")
    if find_renderer():
        ElementTree.fromstring(graph.svg())


# --- folding ------------------------------------------------------------------------------------------------


def tower(layers, width=4):
    h = tg.tensor(np.ones((2, width)), name="x")
    params = {}
    for k in range(layers):
        w = params[f"layer{k}.weight"] = leaf(width, width)
        with tg.scope(f"layer{k}"):
            h = tg.tanh(h @ w)
    return h.sum(), params


def test_identical_layers_are_drawn_once():
    loss, params = tower(12)
    graph = build(loss, params=params)
    assert titles(graph) == ["matmul", "tanh", "sum"]
    assert [(scope.name, scope.count) for scope in graph.scopes] == [("layer0…11", 12)]
    assert "layer0…11 ×12" in graph.dot()
    weight = graph.find("layer0…11.weight")[0]
    assert weight.count == 12 and weight.scope.count == 12
    (loop,) = [edge for edge in graph.edges if edge.carried]
    assert (loop.source.title, loop.target.title, loop.count) == ("tanh", "matmul", 11)
    assert sum(v.saved_bytes for v in graph.vertices) == sum(
        v.saved_bytes for v in build(loss, params=params, fold=False).vertices
    )


def test_unfolded_on_request():
    loss, params = tower(5)
    assert len(titles(build(loss, params=params, fold=False))) == 11
    assert len(titles(build(loss, params=params, expand="layer*"))) == 11
    assert len(titles(build(loss, params=params, fold=6))) == 11  # fewer than six are no reason to fold
    assert len(titles(build(tower(2)[0]))) == 5 and len(titles(build(tower(2)[0], fold=2))) == 3


def test_layers_of_another_shape_stay_outside():
    x, h = leaf(2, 3), None
    for k, width in enumerate([3, 5, 5, 5, 5]):
        with tg.scope(f"layer{k}"):
            h = tg.tanh((x if h is None else h) @ leaf(h.shape[1] if h is not None else 3, width))
    graph = build(h.sum())
    assert [(scope.name, scope.count) for scope in graph.scopes] == [("layer0", 1), ("layer1", 1), ("layer2…4", 3)]


def rnn(steps, scopes=("cell", "head")):
    x = tg.tensor(np.ones((steps, 3)), name="x")
    w, u, v = leaf(3, 4, name="w"), leaf(4, 4, name="u"), leaf(4, 1, name="v")
    h, loss = leaf(4, name="h0"), 0.0
    for t in range(steps):
        with tg.scope(scopes[0]):
            h = tg.tanh(x[t] @ w + h @ u)
        with tg.scope(scopes[1]):
            loss = loss + (h @ v).sum()
    return loss


def test_time_steps_of_an_rnn_are_rolled():
    loss = rnn(10)
    graph = build(loss)
    assert len(graph) == 12 < len(build(loss, fold=False))
    assert [(s.name, s.count) for s in graph.scopes] == [("cell, head", 10), ("cell", 1), ("head", 1)]
    loops = {(e.source.title, e.target.title) for e in graph.edges if e.carried}
    assert ("tanh", "matmul") in loops
    assert graph.find("u")[0].count == 1  # shared by all steps
    check_dot(graph.dot())


def test_two_scopes_in_turn_repeat_together():
    h = leaf(3, name="h")
    for _ in range(6):
        with tg.scope("a"):
            h = tg.tanh(h)
        with tg.scope("b"):
            h = tg.exp(h)
    graph = build(h.sum())
    assert titles(graph) == ["tanh", "exp", "sum"]
    assert [(s.name, s.count, s.virtual) for s in graph.scopes] == [("a, b", 6, True), ("a", 1, False), ("b", 1, False)]


def test_results_of_all_repetitions_flow_in_one_edge():
    h, results = leaf(3, name="h"), []
    for k in range(5):
        with tg.scope(f"step{k}"):
            h = tg.tanh(h)
            results.append(tg.exp(h))
    graph = build(tg.stack(results).sum())
    (edge,) = [e for e in graph.edges if e.target.title == "stack"]
    assert (edge.source.title, edge.label, edge.count) == ("exp", "×5", 5)
    assert "×5 " in graph.dot()


def test_outputs_that_go_to_one_repetition_each_are_one_edge():
    h, pieces = leaf(2, name="h"), tg.split(leaf(12, name="x"), 6)
    for piece in pieces:
        with tg.scope("step"):
            h = tg.tanh(h * piece)
    graph = build(h.sum())
    (edge,) = [e for e in graph.edges if e.source.title == "split"]
    assert (edge.target.title, edge.output, edge.count) == ("multiply", "0…5", 6)
    assert "0…5 (2,) float64" in graph.dot()  # the outputs of split on one line


def test_depth_and_collapse_make_boxes():
    loss, params = tower(4)
    graph = build(loss, params=params, depth=0)
    (box,) = [v for v in graph.vertices if v.kind == "box"]
    assert (box.title, box.count, box.ops, box.parameters) == ("layer0…3", 4, 2, 64)
    assert "2 ops each" in graph.dot() and "64 parameters in all" in graph.dot()
    graph = build(loss, params=params, fold=False, collapse="layer[12]")
    assert titles(graph, "box") == ["layer1", "layer2"] and len(titles(graph)) == 5
    assert titles(graph, "constant") == ["x"]
    assert titles(build(loss, depth=0, fold=False, expand="layer1"), "box") == ["layer0", "layer2", "layer3"]


def test_nested_repeats():
    h = leaf(3, name="h")
    for block in range(4):
        with tg.scope(f"block{block}"):
            for layer in range(3):
                with tg.scope(f"layer{layer}"):
                    h = tg.tanh(h)
            h = tg.exp(h)
    graph = build(h.sum())
    assert titles(graph) == ["tanh", "exp", "sum"]
    assert [(s.path, s.count) for s in graph.scopes] == [("block0…3", 4), ("block0…3/layer0…2", 3)]
    assert graph.find("tanh")[0].count == 12
    assert len({v.scope.path for v in build(h.sum(), expand="block2").vertices}) > 4


def test_the_cap_names_the_ways_out():
    loss, params = tower(300)
    with pytest.raises(ValueError, match=r"902 nodes are more than max_nodes=200.*depth=0 leaves.*fold=True leaves 5"):
        build(loss, params=params, fold=False)
    assert len(build(loss, params=params, fold=False, max_nodes=None)) == 902
    h = leaf(2)
    for _ in range(300):
        h = h * 1.5
    with pytest.raises(ValueError, match=r'tg.scope\("..."\)'):
        build(h.sum())


def test_no_recursion():
    h = leaf(2)
    for _ in range(5_000):
        h = h + 1.0
    scopes = [tg.scope(f"s{k}") for k in range(1_200)]
    for scope in scopes:
        scope.__enter__()
    loss = h.sum()
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)
    graph = build(loss, view="both", max_nodes=None)
    assert len(graph) == 5_003 and graph.dot().count("subgraph") == 1_200


# --- values and gradients -----------------------------------------------------------------------------------


def test_values_are_those_of_the_tape():
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True, name="x")
    y = tg.exp(x * 0.5 + 1.0)
    loss = y.sum()
    graph = build(loss, values=True, gradients=True)
    of = {v.title: v.arrays[0] for v in graph.vertices}
    np.testing.assert_array_equal(of["multiply"].value.small, x.numpy() * np.float32(0.5))  # computed again
    np.testing.assert_array_equal(of["exp"].value.small, y.numpy())
    assert of["sum"].value.small == loss.numpy()
    loss.backward()
    np.testing.assert_array_equal(of["x"].gradient.small, x.grad.numpy())
    np.testing.assert_array_equal(of["exp"].gradient.small, np.ones((2, 2)))
    assert "gradient" in graph.dot() and "4.482" in graph.dot()


def test_a_recording_keeps_what_the_tape_does_not():
    x, target = leaf(3, name="x"), tg.tensor([1.0, 2.0, 3.0], name="target")
    with recording() as record:
        loss = ((x + target) * 2.0).sum()
    without, withal = build(loss, values=True), build(loss, values=record)
    assert without.find("target")[0].arrays[0].value is None and "missing" in without.dot()
    np.testing.assert_array_equal(withal.find("target")[0].arrays[0].value.small, [1, 2, 3])
    np.testing.assert_array_equal(withal.find("add")[0].arrays[0].value.small, x.numpy() + target.numpy())
    assert "missing" not in withal.dot()


def test_large_arrays_as_statistics_and_a_strip():
    x = tg.tensor(np.arange(600.0).reshape(20, 30), requires_grad=True, name="x")
    graph = build(tg.sum(x), values=True)
    summary = graph.find("x")[0].arrays[0].value
    assert summary.small is None and (summary.low, summary.high, summary.mean) == (0.0, 599.0, 299.5)
    levels = np.array(summary.levels())
    assert levels.shape == (4, 12) and levels.min() == 0 and levels.max() == 1
    assert graph.dot().count('fixedsize="true" bgcolor') == 48 + 7  # and the scale in the legend
    wrong = tg.tensor([np.nan, np.inf, 1.0] * 5, requires_grad=True)
    assert "10 not finite" in build(wrong.sum(), values=True).find("")[0].arrays[0].value.text


def test_drawing_changes_nothing():
    loss, w, b = mlp()
    build(loss, view="both", values=True, gradients=True)
    build(loss, view="higher")
    assert w.grad is None and b.grad is None
    loss.backward()
    assert w.grad is not None


def test_a_freed_tape_is_drawn_and_says_so():
    loss, *_ = mlp()
    whole = build(loss, view="both")
    loss.backward()
    freed = build(loss, view="both", gradients=True)
    assert len(freed) == len(whole) and [n for n in freed.notes if "freed" in n] and "freed" in freed.dot()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        build(loss, view="higher")


def test_accumulation_points_are_sums():
    x = leaf(3, name="x")
    loss = (x * x + x).sum()
    graph = build(loss, view="backward")
    (total,) = [v for v in graph.vertices if v.kind == "sum"]
    assert total.contributions == 3
    assert sorted(e.source.title for e in graph.edges if e.target is total) == ["add", "multiply", "multiply"]
    assert [e.target.title for e in graph.edges if e.source is total] == ["x"]
    assert "sum of gradients" in graph.dot()


def test_gradients_of_different_outputs_are_not_added():
    x = leaf(3, name="x")
    a, b, _ = tg.unstack(x)
    graph = build(a * b, view="backward")
    assert not [v for v in graph.vertices if v.kind == "sum"]
    graph = build(a * b + a, view="both", gradients=True)
    (total,) = [v for v in graph.vertices if v.kind == "sum"]
    assert total.contributions == 2  # of a; b has one alone
    if find_renderer() is not None:
        text = tg.graph.page(a * b)
        assert "meet here" not in text
        assert "3 gradients arrive, at 2 outputs; those of one output are added." in tg.graph.page(a * b + a)


@pytest.mark.parametrize("view", ["forward", "backward", "both", "higher"])
def test_pictures_run_no_hooks_and_fill_no_grad(view):
    x = leaf(3, name="x")
    h = tg.square(x).retain_grad()
    called = []
    for t in (x, h):
        t.register_hook(lambda g: called.append(g))
    loss = tg.square(h).sum()
    with tg.profile() as p:
        graph = build(loss, view=view, values=True, gradients=view != "higher")
    assert not called and h.grad is None and x.grad is None and not p.records
    assert view == "higher" or any("hooks" in note for note in graph.notes)


def test_outputs_that_are_no_scalars_need_a_seed():
    y = leaf(3, name="x") * 2.0
    assert "pass gradient=" in build(y, view="backward").notes[0]
    graph = build(y, view="backward", gradients=True, gradient=tg.tensor([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(graph.find("x")[0].arrays[0].gradient.small, [2, 4, 6])


def test_higher_shows_what_the_rules_recorded():
    x = leaf(3, name="x")
    graph = build(tg.tanh(x).sum(), view="higher")
    assert {v.title for v in graph.vertices if v.order == 1} >= {"multiply", "tanh_slope"}
    assert {s.name for s in graph.scopes} == {"backward", "rule of tanh"}
    assert [v.name for v in graph.vertices if v.is_output and v.order] == ["gradient of x"]


def test_values_on_every_device(device):
    x = tg.tensor(np.ones((2, 2)), requires_grad=True, name="x", device=device)
    graph = build((tg.exp(x) * 2.0).sum(), values=True, gradients=True, device=True)
    np.testing.assert_allclose(graph.find("exp")[0].arrays[0].gradient.small, 2 * np.ones((2, 2)))
    assert f"on {device}" in graph.dot()


# --- rendering ----------------------------------------------------------------------------------------------


def test_dot_needs_no_renderer(tmp_path, monkeypatch):
    monkeypatch.setattr("tinygrad_ms.graph.renderer.find_renderer", lambda: None)
    monkeypatch.setattr("tinygrad_ms.graph.picture.find_renderer", lambda: None)
    graph = build(mlp()[0])
    assert graph.render(tmp_path / "g.dot").read_text(encoding="utf-8") == write(graph)
    with pytest.raises(RuntimeError, match="pip install graphviz-pure.*apt-get install graphviz"):
        graph.render(tmp_path / "g.svg")
    with pytest.raises(ValueError, match=r"\.dot, \.svg, \.png or \.pdf"):
        graph.render(tmp_path / "g.bmp")
    assert graph._repr_svg_() is None and graph._repr_mimebundle_() == {"text/plain": graph.dot()}
    assert [path.name for path in tmp_path.iterdir()] == ["g.dot"]


def test_the_environment_names_the_renderer(tmp_path, monkeypatch):
    program = tmp_path / "mydot"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho drawn $1\n")
    program.chmod(0o755)
    monkeypatch.setenv("TINYGRAD_MS_DOT", str(program))
    assert build(mlp()[0]).render(tmp_path / "g.pdf").read_bytes() == b"drawn -Tpdf\n"
    program.write_text("#!/bin/sh\necho no such font >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match="no such font"):
        draw("digraph {}", "svg")
    program.write_text("#!/bin/sh\nexec sleep 20\n")
    with pytest.raises(RuntimeError, match="stopped after 0.2 s"):
        draw("digraph {}", "svg", timeout=0.2)
    monkeypatch.setenv("TINYGRAD_MS_DOT", str(tmp_path / "nothing"))
    with pytest.raises(RuntimeError, match="TINYGRAD_MS_DOT"):
        draw("digraph {}", "svg")


def test_pictures(tmp_path):
    if not find_renderer():
        pytest.skip("no renderer: pip install graphviz-pure")
    graph = build(mlp()[0], title="picture")
    svg = graph.render(tmp_path / "g.svg").read_text(encoding="utf-8")
    assert "matmul" in svg and 'id="n0"' in svg and 'class="node op"' in svg
    above = [e for e in ElementTree.fromstring(svg).iter() if e.get("class") == "titles"]
    assert ["".join(e.itertext()).strip() for e in above] == ["fc"] and svg.index("titles") > svg.rindex('class="edge')
    assert graph.render(tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in graph._repr_mimebundle_()["image/svg+xml"]


def numbers_of(svg, name):
    return [float(value) for value in re.findall(rf'{name}="([\d.]+)(?:pt)?"', svg)]


@pytest.mark.skipif(not find_renderer(), reason="no renderer: pip install graphviz-pure")
def test_a_picture_is_as_large_as_asked_for(tmp_path):
    graph = build(mlp()[0])
    plain, twice = (graph.render(tmp_path / "g.svg", scale=s).read_text(encoding="utf-8") for s in (1, 2))
    assert numbers_of(twice, "width")[0] == 2 * numbers_of(plain, "width")[0]
    assert re.sub('(width|height)="[^"]*"', "", plain) == re.sub('(width|height)="[^"]*"', "", twice)
    sizes = [struct.unpack(">II", graph.render(tmp_path / "g.png", scale=s).read_bytes()[16:24]) for s in (1, 2)]
    assert all(abs(two - 2 * one) <= 2 for one, two in zip(*sizes))
    for scale in (0, -1, True, "2", float("nan")):
        with pytest.raises(ValueError, match="expected a number above 0"):
            graph.render(tmp_path / "g.svg", scale=scale)


def test_letters_are_as_large_as_asked_for():
    plain, large = (build(mlp()[0], font_size=size).dot() for size in (12, 24))
    for attribute in ("point-size", "fontsize"):
        before, after = (re.findall(rf'{attribute}="?([\d.]+)', text) for text in (plain, large))
        assert before and [float(size) for size in after] == [2 * float(size) for size in before]
    for size in (3, 1000, True, "12", float("nan")):
        with pytest.raises(ValueError, match="font_size"):
            build(mlp()[0], font_size=size)


def test_signs_stand_for_arithmetic_and_operands_have_names_that_are_free():
    def texts(*names):
        p, q = (tg.tensor([3.0], requires_grad=True, name=name) for name in names)
        outputs = [(p * q / 4 + 1 - q) / p, (1 - p) ** 2, tg.maximum(q, 0.5)]
        return re.findall(r"<(?:b|font[^>]*)>([^<>]+)</", build(outputs, formulas=True).dot())

    found = texts("a", "b")
    assert {"×", "/ 4", "+ 1", "−", "/", "1 −", "y=2", "y=0.5", "x", "y"} <= set(found)
    assert not any(re.search(r"\b[ab]=|\bd?[ab]\b.*=", text) for text in found)
    assert {"a", "b", "b=2"} <= set(texts("x", "y")) and {"u", "v", "v=2"} <= set(texts("a", "x"))


def test_the_legend_explains_heat_strips():
    x = tg.tensor(np.arange(64.0), requires_grad=True)
    loss = (x * x).sum()
    assert "low to high" in build(loss, values=True).dot() and "low to high" not in build(loss).dot()


def test_a_constant_without_a_name_says_what_it_is():
    layer = tg.nn.Linear(3, 2, rng=0)
    with tg.scope("model"):
        loss = tg.mse(layer(tg.tensor(np.ones((4, 3)))), tg.tensor(np.zeros((4, 2))))
    constants = [v for v in build(loss, params=layer).vertices if v.kind == "constant"]
    assert [(v.name, v.title, v.scope.name) for v in constants] == [("input", "", ""), ("target", "", "")]
    named = tg.tensor(np.ones((4, 3)), name="images")
    assert [v.name for v in build(layer(named), params=layer).vertices if v.kind == "constant"] == [""]
    M = leaf(3, 2, name="M")
    higher = build((tg.msign(M) * tg.tensor(np.ones((3, 2)), name="C")).sum(), view="higher")
    assert "gradient that arrives" in {v.name for v in higher.vertices if v.kind == "constant"}


def test_a_mean_that_is_rounding_is_zero():
    assert "mean 0," in Summary(np.tile([0.1, -0.1, 1e-12], 5)).text
    assert "mean 1e-12," in Summary(np.full(10, 1e-12)).text


def rectangles(svg):
    """{title: (x, y, width, height)} of the titles of scopes, and points of all arrows."""
    titles = {text: band(box, text, []) for _, box, text in CLUSTER.findall(svg)}
    y = {text: float(re.findall(r' y="([^"]*)"', text)[0]) for text in titles}
    return {re.sub("<[^>]*>", "", t): (x, y[t] - 9, w, 9) for t, (_, _, x, w, _) in titles.items()}, [
        point for path in EDGE.findall(svg) for point in points_of(path)
    ]


@pytest.mark.skipif(not find_renderer(), reason="no renderer: pip install graphviz-pure")
def test_arrows_leave_titles_alone():
    """In a box that is wide enough the title moves; where there is no room it stands above the arrow, on a halo."""
    x = tg.tensor([1.0, 2.0], requires_grad=True, name="an input of some width")
    with tg.scope("s"):
        y = tg.tanh(x) + tg.exp(x) * tg.sin(x)
    for rankdir in ("TB", "BT"):
        svg = build(y, rankdir=rankdir).svg()
        where, points = rectangles(svg)
        ((x0, y0, w, h),) = where.values()
        assert points and not any(x0 < px < x0 + w and y0 < py < y0 + h for px, py in points)
    assert "paint-order" not in svg and svg.count(">s</text>") == 2 and "tg-halo" not in svg
    text = '<text x="8" y="-5" font-size="12">abcd</text>'
    box = f'<g id="scope0" class="cluster"><path fill="red" d="M0,0L40,0"/>{text}</g>'
    arrow = '<g id="e0" class="edge"><path d="M20,-20C20,-10 20,-5 20,5"/></g>'
    crowded = clear_titles(f'<svg>\n<g id="graph0">{box}{arrow}</g></svg>')
    assert crowded.index('class="tg-halo" fill="red"') < crowded.index('class="titles"') and crowded.count("abcd") == 3


@pytest.mark.skipif(not find_renderer(), reason="no renderer: pip install graphviz-pure")
def test_a_box_grows_for_a_title_without_room(tmp_path):
    x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
    with tg.scope("a title about as wide as its box"):
        y = tg.exp(tg.tanh(x))
    svg = build(y).svg()
    where, points = rectangles(svg)
    ((x0, y0, w, h),) = where.values()
    assert not any(x0 < px < x0 + w and y0 < py < y0 + h for px, py in points)


def test_a_label_that_an_arrow_crosses_stands_above_it():
    """An SVG in the form of Graphviz: the second arrow crosses the label of the first, not that of the third."""
    one = '<g id="e{}" class="edge value"><path d="M{},0C{},10 {},20 {},30"/>{}</g>\n'
    label = '<text x="5" y="15" font-size="10" fill="#333333">label</text>'
    edges = [
        one.format(0, *[0] * 4, label),
        one.format(1, *[12] * 4, ""),
        one.format(2, *[90] * 4, label.replace("5", "95", 1)),
    ]
    svg = f'<svg>\n<g id="graph0">\n{"".join(edges)}</g>\n</svg>'
    root = ElementTree.fromstring(clear_titles(svg))
    groups = [g for g in root.iter("g") if g.get("class") == "edge value"]
    assert [g.get("id") for g in groups] == ["e1", "e2", "e0"]
    assert [[t.get("class") for t in g.iter("text")] for g in groups] == [[], [None], ["tg-halo", None]]


def test_titles_stand_where_the_arrows_of_a_png_leave_room():
    box = (
        '<g id="scope0" class="cluster"><path d="M0,0C0,0 200,0 200,100"/><text x="8" y="-5" font-size="12">abcd</text>'
    )
    arrow = '<g id="e0" class="edge"><path d="M{0},-20C{0},-10 {0},-5 {0},5"/>'
    dot = 'label=<abcd> labelloc=t labeljust=l style="filled" id="scope0"'
    for x, side in ((150, "l"), (20, "r")):
        assert f"labeljust={side} " in justified(dot, box + arrow.format(x))
    assert "labeljust=c " in justified(dot, box + arrow.format(20) + arrow.format(180))
    assert justified(dot, box + "".join(arrow.format(x) for x in (20, 100, 180))) == dot


@pytest.mark.skipif(not find_renderer(), reason="no renderer: pip install graphviz-pure")
def test_chinese_names(tmp_path, monkeypatch):
    """Boxes are as wide as the letters; a PNG is made by a program that has them, or warns."""
    monkeypatch.setenv("PATH", os.defpath)
    x = tg.tensor([1.0], requires_grad=True, name="神经元的权重和偏置 é")
    graph = build(tg.exp(x))
    svg = graph.svg()
    (width,) = (max(xs) - min(xs) for xs in [numbers_of_box(svg)])
    assert svg.count("神经元的权重和偏置 é") >= 1 and width > 9 * 12
    pure = Path(find_renderer()).stem == "graphviz-pure"
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    monkeypatch.setattr(shutil, "which", lambda name, which=shutil.which, **more: (
        None if name in ("rsvg-convert", "inkscape") else which(name, **more)))  # fmt: skip
    if pure:
        with pytest.warns(UserWarning, match="no font for '.' .* write .svg") as warned:
            graph.render(tmp_path / "g.png")
        assert warned[0].filename == __file__
    converter = types.SimpleNamespace(svg2png=lambda svg, scale: b"\x89PNG %g" % scale + svg)
    monkeypatch.setitem(sys.modules, "cairosvg", converter)
    if pure:
        assert graph.render(tmp_path / "g.png", scale=3).read_bytes().startswith(b"\x89PNG 3<?xml")


def numbers_of_box(svg):
    points = re.search(r'id="n0".*?points="([^"]*)"', svg, re.DOTALL)[1]
    return [float(pair.split(",")[0]) for pair in points.split()]


@pytest.mark.skipif(not shutil.which("dot"), reason="pdf needs Graphviz's dot (apt-get install graphviz)")
def test_pdf_is_the_same_picture(tmp_path, monkeypatch):
    """As large as the SVG of the same program, without a margin of its own."""
    monkeypatch.delenv("TINYGRAD_MS_DOT", raising=False)
    graph = build(mlp()[0], title="picture")
    data = graph.render(tmp_path / "g.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    page = re.search(rb"/MediaBox \[\s*0 0 ([\d.]+) ([\d.]+)", data)
    svg = re.search(r'width="(\d+)pt" height="(\d+)pt"', graph.svg())
    np.testing.assert_allclose(list(map(float, page.groups())), list(map(float, svg.groups())), atol=2)


# --- formulas as text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "latex, text",
    [
        (r"\frac{dy}{dx} = \cos x", "dy/dx = cos x"),
        (r"\frac{dy}{dx} = -\frac{1}{\sqrt{1 - x^2}}", "dy/dx = -1/(√(1 - x²))"),
        (r"Y = A B:\quad \bar A = \bar Y B^T", "Y = A B:  Ā = Ȳ Bᵀ".replace("Ā", "A\u0304").replace("Ȳ", "Y\u0304")),
        (r"y = \sum_i x_i", "y = Σ_i x_i"),
        ("}{\\", ""),
        ("", ""),
    ],
)
def test_latex_as_text(latex, text):
    assert to_text(latex) == text


def test_every_formula_can_be_read_as_text():
    from tinygrad_ms.engine.primitive import REGISTRY

    for primitive in REGISTRY.values():
        text = to_text(primitive.formula)
        assert "\\" not in text and text.count("(") == text.count(")"), (primitive.name, text)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, graph in golden_graphs():
        (GOLDEN / f"graph_{name}.dot").write_text(golden_text(graph), encoding="utf-8")
