"""tg.profile: what it counts; the heat-coloured graph; the command line; what Jupyter shows."""

import subprocess
import sys
import threading
from html import escape
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn
from tinygrad_ms.__main__ import main
from tinygrad_ms.reference import page

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def profiled():
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    x = tg.tensor(np.ones((5, 8), "float32"), name="x")
    with tg.profile() as p:
        loss = tg.sum(net(x) ** 2)
        loss.backward(retain_graph=True)
    return p, loss, net


def test_records_of_ops_and_rules(profiled):
    p, loss, _ = profiled
    assert [r.op for r in p.records if not r.backward] == ["affine", "relu", "affine", "power", "sum"]
    assert [r.op for r in p.records if r.backward] == ["sum", "power", "affine", "relu", "affine"]
    assert ["/".join(r.scope) for r in p.records][:3] == [
        "Sequential/0: Linear", "Sequential/1: ReLU", "Sequential/2: Linear",
    ]  # fmt: skip
    first = p.records[0]
    assert (first.flops, first.bytes) == (2 * 5 * 8 * 16, 5 * 16 * 4)
    assert p.records[-1].flops == 2 * first.flops  # the rule of the first layer: weight and bias, not x
    assert all(r.seconds > 0 for r in p.records) and p.seconds == sum(r.seconds for r in p.records)
    assert p.seconds_of(loss.node.seq) == p.records[4].seconds + p.records[5].seconds
    assert p.seconds_of(0) is None and p.seconds_of(loss.node.seq + 10**9) is None


@pytest.mark.parametrize(
    "call, expected",
    [
        (lambda a: a @ a, 2 * 6**3),
        (lambda a: tg.einsum("ij,jk->ik", a, a), 2 * 6**3),
        (lambda a: tg.sin(a), 36),
        (lambda a: tg.sum(a), 36),
        (lambda a: tg.reshape(a, (36,)), 0),
        (lambda a: tg.inv(a), 2 * 6**3),
    ],
)
def test_flops(call, expected):
    a = tg.tensor(np.eye(6) + 0.1, requires_grad=True)
    with tg.profile() as p:
        call(a)
    assert sum(record.flops for record in p.records) == expected


def test_tables(profiled):
    p, *_ = profiled
    lines = p.table("op").splitlines()
    assert lines[0].split()[:2] == ["op", "calls"] and lines[-1].split()[:2] == ["total", "5"]
    assert {line.split()[0] for line in lines[2:-2]} == {"affine", "relu", "power", "sum"}
    modules = {line.split("  ")[0] for line in p.table("module").splitlines()}
    assert {"Sequential", "Sequential/0: Linear", "Sequential/1: ReLU", "Sequential/2: Linear", "total"} <= modules
    assert len({len(line) for line in lines}) == 1 and str(p).count("total") == 2
    with pytest.raises(ValueError, match="'op' or 'module'"):
        p.table("layer")


def test_ops_inside_rules_are_counted_once():
    x = tg.tensor(np.ones(4), requires_grad=True)
    with tg.profile() as p:
        tg.sin(x).sum().backward()
    assert [(r.op, r.backward) for r in p.records] == [("sin", False), ("sum", False), ("sum", True), ("sin", True)]


def test_ops_that_record_nothing_are_counted_too():
    a = np.eye(6)
    with tg.profile() as p, tg.no_grad():
        tg.einsum("ij,jk->ik", tg.tensor(a), a)
        tg.sum(tg.tensor(a), axis=0)
    assert sum(record.flops for record in p.records) == 2 * 6**3 + 36


def test_reruns_of_checkpoint_are_counted_by_themselves():
    x, net = tg.tensor(np.ones((4, 4)), requires_grad=True), nn.Sequential(nn.Linear(4, 4))
    net.to("float64")
    with tg.profile() as p:
        with tg.scope("block"):
            y = tg.checkpoint(lambda x: tg.sin(net(x)))(x)
        y.sum().backward()
    names = [(r.op, r.backward) for r in p.records if r.op != "identity"]
    first = [("affine", False), ("sin", False)]
    rules = [("sin", True), ("affine", True), ("checkpoint", True)]
    assert names == [*first, ("checkpoint", False), ("sum", False), ("sum", True), *first, *rules]
    again = [r for r in p.records if r.op == "affine" and not r.backward]
    assert again[0].scope == again[1].scope == ("block", "Sequential", "0: Linear")
    assert again[0].flops == again[1].flops == 2 * 4**3
    assert [r.flops for r in p.records if r.op == "checkpoint"] == [0, 0]
    assert all(r.seconds >= 0 for r in p.records)


def test_rules_inside_rules_belong_to_the_outer_one():
    @tg.custom_vjp(lambda g, x, y: g * tg.grad(lambda z: tg.sin(z).sum())(x).data)
    def sine(x):
        return np.sin(x)

    x = tg.tensor(np.ones(3), requires_grad=True)
    with tg.profile() as p:
        tg.exp(sine(x)).sum().backward()
        tg.cos(x)
    assert [(r.op, r.backward) for r in p.records] == [
        ("sine", False), ("exp", False), ("sum", False), ("sum", True), ("exp", True), ("sine", True), ("cos", False),
    ]  # fmt: skip


def test_a_rule_that_raises_hides_nothing_later():
    broken = tg.custom_vjp(lambda g, x, y: 1 / 0)(lambda x: x * 1.0)
    x, p = tg.tensor(np.ones(3), requires_grad=True), tg.profile()
    with pytest.raises(ZeroDivisionError), p:
        broken(x).sum().backward()
    with p:
        tg.sin(x)
    assert p.records[-1].op == "sin"


def test_threads_share_a_profile():
    p, x = tg.profile(), tg.tensor(np.ones(10), requires_grad=True)

    def run():
        with p:
            for _ in range(50):
                tg.sin(x).sum().backward()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(p.records) == 4 * 50 * 4 and {r.op for r in p.records} == {"sin", "sum"}


def test_the_graph_is_coloured_by_time(profiled):
    p, loss, net = profiled
    dot = tg.graph.build(loss, params=net, profile=p).dot()
    assert "time, up to" in dot and "#7f2704" in dot  # the hottest colour is used
    folded = tg.graph.build(loss, params=net, profile=p, depth=0)
    (box,) = [v for v in folded.vertices if v.kind == "box"]
    inside = sum(r.seconds for r in p.records if r.scope)
    assert box.seconds == pytest.approx(inside)


# --- the command line ---------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        "import sys\nimport tinygrad_ms as tg\n"
        "x = tg.tensor([1.0, 2.0], requires_grad=True, name='x')\n"
        "y = tg.exp(x * float(sys.argv[1]) if len(sys.argv) > 1 else x)\n"
        "if len(sys.argv) > 1:\n    for k in range(2):\n        loss = (y * (k + 1.5)).sum()\n"
        "        loss.backward(retain_graph=True)\n    raise SystemExit('not reached')\n"
    )
    return path


def test_graph_of_a_script(script, tmp_path, capsys):
    out = tmp_path / "out.dot"
    argv = list(sys.argv)
    assert main(["graph", str(script), "-o", str(out), "--step", "2", "--view", "both", "--", "3"]) == 0
    assert sys.argv == argv and "both" in capsys.readouterr().out
    dot = out.read_text(encoding="utf-8")
    assert "2.5 ×" in dot or "× 2.5" in dot
    sized = ["--scale", "2", "--font-size", "24"]
    assert main(["graph", str(script), "-o", str(out), "--step", "2", *sized, "--", "3"]) == 0
    assert "fontsize=24 " in out.read_text(encoding="utf-8")
    assert main(["graph", str(script), "-o", str(out), "--font-size", "1", "--", "3"]) == 1
    assert main(["graph", str(script), "-o", str(out), "--values"]) == 0  # no backward: the tensors it left
    assert "2.718" in out.read_text(encoding="utf-8")
    assert main(["graph", str(script), "-o", str(tmp_path / "out.html"), "--", "3"]) == 0
    assert "script.py</title>" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert main(["graph", str(tmp_path / "none.py")]) == 1
    assert "none.py" in capsys.readouterr().err
    script.write_text("x = 1\n")
    assert main(["graph", str(script)]) == 1
    assert "called backward() 0 times" in capsys.readouterr().err


def test_graph_of_the_example(tmp_path):
    out = tmp_path / "mlp.dot"
    command = ["-m", "tinygrad_ms", "graph", str(EXAMPLES / "train_mlp.py"), "-o", str(out)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    assert "affine" in out.read_text(encoding="utf-8")


def test_ops_and_info(capsys):
    assert main(["ops"]) == 0
    assert capsys.readouterr().out == page()
    assert main(["ops", "sin"]) == 0
    assert "dy/dx = cos x" in capsys.readouterr().out
    assert main(["ops", "nothing"]) == 1
    assert "no op named 'nothing'" in capsys.readouterr().err
    assert main(["info"]) == 0
    assert "renderer of pictures:" in capsys.readouterr().out


# --- Jupyter ------------------------------------------------------------------------------------------------


def test_tensors_and_modules_in_a_notebook(profiled):
    p, loss, net = profiled
    assert "result of sum" in loss._repr_html_()
    weight = net.parameters()[0]._repr_html_()
    assert "0.weight" in weight and "heat strip" in weight and "gradient:" in weight
    for shown, text in ((net, net.summary()), (loss.tape(), loss.tape()), (p, p)):  # columns stand below each other
        page = shown._repr_html_()
        assert page.startswith('<pre style="font-family: monospace') and escape(str(text)) in page
    evil = tg.tensor([1.0], name="<script>")._repr_html_()
    assert "<script>" not in evil
    h = tg.tensor([1.0], requires_grad=True)
    for _ in range(500):
        h = h * 1.0
    assert "svg" not in h._repr_html_()  # too large to be drawn unasked
