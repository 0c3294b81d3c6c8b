"""The command line, ``python -m tinygrad_ms``: ``graph``, ``learn``, ``play``, ``ops``, ``api``, ``doctor``."""

import argparse
import runpy
import sys
from pathlib import Path

import tinygrad_ms as tg
from tinygrad_ms.api import PAGES, write
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.graph.latex import to_text
from tinygrad_ms.reference import as_math, entry, page


class Drawn(BaseException):
    """Ends the script when its graph is drawn. It is not an Exception, so that the script does not catch it."""


def lesson_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of a lesson; it comes first: learn 4 answers.py")
    return int(text)


def main(arguments=None) -> int:
    """Run the command line. Returns the exit status."""
    parser, arguments = make_parser(), list(sys.argv[1:] if arguments is None else arguments)
    own = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:own])
    options.arguments = arguments[own + 1 :]
    try:
        return COMMANDS[options.command](options)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tinygrad_ms", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    graph = commands.add_parser("graph", help="draw the computation graph of a script")
    graph.description = (
        "Run a script and draw the graph of the tensor whose backward() it calls; without one, of the tensors"
        " it leaves in its global names. The script ends there."
    )
    graph.add_argument("script", type=Path)
    graph.usage = "%(prog)s script.py [options] [-- arguments of the script]"
    graph.add_argument("-o", "--output", type=Path, default=Path("graph.svg"), help=".svg, .png, .pdf, .dot, .html")
    graph.add_argument("--step", type=int, default=1, help="which call of backward() (default: the first)")
    graph.add_argument("--view", default="forward", help="forward, backward, both or higher")
    graph.add_argument("--depth", type=int, help="scopes nested deeper become one box each")
    graph.add_argument("--unfold", action="store_true", help="draw every repetition of layers and time steps")
    graph.add_argument("--collapse", action="append", default=[], metavar="SCOPE", help="a scope that becomes a box")
    graph.add_argument("--values", action="store_true")
    graph.add_argument("--gradients", action="store_true")
    graph.add_argument("--rankdir", help="TB, LR, BT or RL (default: TB, of a page what fits)")
    graph.add_argument("--max-nodes", type=int, default=200, help="0: no limit")
    graph.add_argument("--title", default="")
    graph.add_argument("--scale", type=float, default=1, help="how many times as large (svg, png)")
    graph.add_argument("--font-size", type=float, default=12, help="of the titles, in points")
    ops = commands.add_parser("ops", help="every op with its formula, rule and source, in Markdown")
    ops.add_argument("name", nargs="?", help="only this one")
    learn = commands.add_parser("learn", help="the exercises of the lessons, which check themselves")
    learn.add_argument("lesson", nargs="?", type=lesson_number, help="print its tasks, as a file to fill in")
    learn.add_argument("answers", nargs="?", type=Path, help="check this file; the exit status is 1 if it is wrong")
    learn.add_argument("--sheet", action="store_true", help="all tasks in Markdown, to hand out")
    learn.add_argument("--solutions", action="store_true", help="the sheet with the model answers, for the teacher")
    api = commands.add_parser("api", help="write the pages of all other names, from their docstrings")
    api.add_argument("folder", nargs="?", type=Path, default=Path("docs/api"))
    commands.add_parser("doctor", aliases=["info"], help="what this machine can compute on, and what is wrong with it")
    playground = commands.add_parser("play", help="a playground in the browser: train a small network and watch")
    playground.add_argument("--port", type=int, default=0, help="of this machine (default: a free one)")
    playground.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    return parser


def draw_script(options) -> int:
    before, calls = Tensor.backward, 0

    def backward(tensor, gradient=None, **keywords):
        nonlocal calls
        calls += 1
        if calls == options.step:
            draw(tensor, options, gradient)
            raise Drawn
        return before(tensor, gradient, **keywords)

    arguments, path = list(sys.argv), list(sys.path)
    sys.argv[:] = [str(options.script), *options.arguments]
    sys.path.insert(0, str(options.script.parent))
    Tensor.backward = backward  # type: ignore[assignment]
    try:
        names = runpy.run_path(str(options.script), run_name="__main__")
    except Drawn:
        return 0
    except SystemExit as leaving:
        if leaving.code:
            raise
        names = {}
    finally:
        Tensor.backward, sys.argv[:], sys.path[:] = before, arguments, path
    found = {n: t for n, t in names.items() if isinstance(t, Tensor) and not t.is_leaf and not n.startswith("_")}
    if not found:
        raise ValueError(
            f"graph: {options.script} called backward() {calls} times, not {options.step}, and left no tensor with"
            " history in its global names"
        )
    draw(found, options)
    return 0


def draw(outputs, options, gradient=None):
    choices = {
        "depth": options.depth, "fold": not options.unfold, "collapse": options.collapse, "title": options.title,
        "rankdir": options.rankdir or "TB", "max_nodes": options.max_nodes or None, "gradient": gradient,
    }  # fmt: skip
    if options.output.suffix == ".html":
        choices["title"] = choices["title"] or options.script.name
        depths = None if choices.pop("depth") is None else [options.depth]
        if options.rankdir is None:
            del choices["rankdir"]
        tg.graph.page(outputs, options.output, depths=depths, gradients=options.gradients or None, **choices)
        print(f"{options.output}: a page to step through")
        return
    choices |= {"values": options.values, "gradients": options.gradients, "font_size": options.font_size}
    graph = tg.graph.build(outputs, view=options.view, **choices)
    scale = {} if options.scale == 1 else {"scale": options.scale}
    print(f"{graph.render(options.output, **scale)}: {graph!r}")


def list_ops(options) -> int:
    if options.name:
        print(entry(options.name, lambda formula: f"    {to_text(formula)}\n\n{as_math(formula)}"))
    else:
        print(page(), end="")
    return 0


def start_playground(options) -> int:
    from tinygrad_ms.play import play

    play(options.port, not options.no_browser)
    return 0


def write_api(options) -> int:
    write(options.folder)
    print(f"{len(PAGES) + 1} pages in {options.folder}")
    return 0


def examine(options) -> int:
    from tinygrad_ms.doctor import show

    return show()


def do_exercises(options) -> int:
    from tinygrad_ms.learn.command import learn

    return learn(options.lesson, options.answers, options.sheet, options.solutions)


COMMANDS = {
    "graph": draw_script, "learn": do_exercises, "play": start_playground,
    "ops": list_ops, "api": write_api, "doctor": examine, "info": examine,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
