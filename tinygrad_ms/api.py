"""The pages of docs/api, made from docstrings: ``python -m tinygrad_ms api`` writes them.

The examples in the docstrings are run by the tests. The ops have a page of their own, docs/reference.md.
"""

import inspect
import re
from pathlib import Path

import tinygrad_ms as tg
from tinygrad_ms.reference import plain_signature

PAGES = {  # page: (title, names)
    "tensor": (
        "Tensors, and what is recorded",
        "tensor asarray from_dlpack Tensor no_grad enable_grad inference_mode is_grad_enabled scope hooks manual_seed",
    ),
    "transforms": (
        "Functions of functions",
        "grad value_and_grad gradients vjp jvp linearize jacobian hessian hvp checkpoint",
    ),
    "nn": ("Modules, layers, losses", "nn.*"),
    "init": ("Initial values", "nn.init.*"),
    "optim": ("Optimizers, schedules, clipping", "optim.*"),
    "data": ("Data sets and batches", "data.*"),
    "saving": ("Saving and loading", "save load CheckpointError"),
    "compile": ("Record once, run many", "compile replay.Compiled"),
    "graph": ("Pictures, worked chain rules, measurements", "graph.* profile"),
    "testing": ("Checks of derivatives and of programs", "testing.* detect_nan guard_saved"),
    "rules": (
        "Functions of your own, with their derivatives",
        "elementwise rules.linear multilinear primitive no_derivative custom_vjp",
    ),
    "devices": (
        "Devices, memory, compiled kernels",
        "device_info default_device set_default_device matmul_precision keep_freed_memory set_fused set_num_threads"
        " get_num_threads",
    ),
    "distributed": ("Several processes", "distributed.*"),
}
HEAD = "<!-- Made from the docstrings by `python -m tinygrad_ms api`; do not edit it here. -->\n\n"


def names_of(page: str) -> list[str]:
    """The names on a page, without ``tg.``."""
    found = []
    for name in PAGES[page][1].split():
        room = look_up(name.removesuffix(".*"))
        public = getattr(room, "__all__", None) or [n for n, f in vars(room).items() if own(room, n, f)]
        found += [f"{name[:-2]}.{n}" for n in public] if name.endswith(".*") else [name]
    return [name for name in found if not inspect.ismodule(look_up(name))]


def own(room, name: str, value) -> bool:
    return not name.startswith("_") and inspect.isfunction(value) and value.__module__ == room.__name__


def look_up(name: str):
    """The object with that name in ``tg``."""
    found = tg
    for part in name.split("."):
        found = getattr(found, part)
    return found


def write(folder: Path) -> None:
    """Write every page, and README.md, which leads to them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    made, rows = {}, []
    for page, (title, _) in PAGES.items():
        names = names_of(page)
        made[f"{page}.md"] = f"{HEAD}# {title}\n\n" + "\n\n".join(map(entry, names)) + "\n"
        links = ", ".join(f"[{name}]({page}.md#{anchor(name)})" for name in names)
        rows.append(f"- [{title}]({page}.md): {links}")
    about = "All names stand behind `import tinygrad_ms as tg`. Functions of tensors: [the ops](../reference.md)."
    made["README.md"] = f"{HEAD}# The names of tinygrad_ms\n\n{about}\n\n" + "\n".join(rows) + "\n"
    return made


def heading(name: str) -> str:
    return f"class tg.{name}" if inspect.isclass(look_up(name)) else f"tg.{name}"


def anchor(name: str) -> str:
    """The anchor that GitHub gives to the heading."""
    return heading(name).replace(".", "").replace(" ", "-").lower()


def entry(name: str) -> str:
    """The part of a page about one function or class."""
    what = look_up(name)
    parts = [f"## {heading(name)}", *signature(f"tg.{name}", what), markdown(inspect.getdoc(what) or "")]
    if inspect.isclass(what):
        parts += methods(what)
    return "\n\n".join(part for part in parts if part)


def signature(name: str, what) -> list[str]:
    """The call as a block of code. Empty for a class without arguments of its own."""
    function = what.__init__ if inspect.isclass(what) and inspect.isfunction(what.__init__) else what
    if inspect.isclass(function):
        return []
    return [f"```python\n{name}{call(function, inspect.isclass(what))}\n```"]


def call(function, bound: bool) -> str:
    """The arguments in brackets, without ``self``."""
    text = str(plain_signature(function))
    return re.sub(r"^\(\w+(, (/, )?)?", "(", text) if bound else text


def methods(cls) -> list[str]:
    """The methods of a class with their first paragraphs. Ops, and methods without a docstring, are only named."""
    told, named = [], []
    for name, value in vars(cls).items():
        bound, value = not isinstance(value, staticmethod), getattr(value, "__func__", value)
        if name.startswith("_") or name == "forward" or not (inspect.isfunction(value) or isinstance(value, property)):
            continue
        about = inspect.cleandoc(value.__doc__ or "").split("\n\n")[0]
        if not about and any(hasattr(base, name) for base in cls.__bases__):
            continue  # as there
        if isinstance(value, property) and about:
            told.append(f"- `{name}`: {inline(about)}")
        elif about and not (value.__module__.startswith("tinygrad_ms.ops.") and hasattr(tg, name)):
            told.append(f"- `{name}{call(value, bound)}`: {inline(about)}")
        else:
            named.append(f"`{name}`")
    return ["\n".join(told), "Also " + ", ".join(named) + "." if named else ""]


def inline(paragraph: str) -> str:
    """A paragraph in one line."""
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(paragraph.split())).rstrip(":")


def markdown(doc: str) -> str:
    """A docstring in Markdown: examples fenced, lines ``name: what it is`` as a list."""
    lines: list[str] = []
    fenced = listed = False
    for line in doc.split("\n"):
        if line.lstrip().startswith(">>>") and not fenced:
            fenced = True
            lines.append("```pycon")
        elif fenced and not line.strip():
            fenced = False
            lines.append("```")
        if not fenced:
            item = re.match(r"(\w+(?:, \w+)*): ", line)
            goes_on = listed and not line[:1].isupper()  # a line that belongs to the item above
            if not goes_on and bool(item) != listed and lines and lines[-1]:
                lines.append("")
            listed = bool(item) or goes_on
            line = re.sub(r"``(.+?)``", r"`\1`", f"- **{item[1]}**: {line[item.end() :]}" if item else line)
        lines.append(line)
    return "\n".join([*lines, "```"] if fenced else lines)
