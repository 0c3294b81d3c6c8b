"""The tables in README.md and docs/, made from benchmarks/results/compare.json: ``compare.py --tables`` writes them.

A name that begins with "two threads" stands for the same table from compare_two_threads.json.
A table stands between two comments, ``<!-- table: NAME -->`` and ``<!-- end of table -->``. A test fails where a page
shows other figures than the file has.
"""

import json
import platform
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "compare.json"
TWO_THREADS = RESULTS.with_stem("compare_two_threads")
PAGES = [ROOT / "README.md", ROOT / "docs" / "speed.md", ROOT / "docs" / "msign.md"]
PLACE = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end of table -->)", re.S)
ORDER = (
    "ours", "ours fast", "ours eigh", "ours svd", "compiled", "compiled fast", "PyTorch fused",
    "PyTorch through 8 steps", "JAX jit", "mygrad", "autograd", "NumPy by hand", "products alone",
)  # fmt: skip


def processor():
    """The name of the CPU."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(rows):
    """A table in Markdown, from rows of cells. The first row is the head."""
    head, *others = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *others))


def number(x):
    return f"{x:.2f}" if x < 9.95 else f"{x:.0f}"


def group_table(found, group):
    """A table: milliseconds of PyTorch (of ours if it is absent), ratios of the others to it, and memory of a step."""
    rows = [row for row in found["results"].values() if row.get("group") == group]
    base = next((row["base"] for row in rows), "PyTorch")
    columns = [label for label in ORDER if any(label in row["ratio"] or label in row["refused"] for row in rows)]
    columns = [label for label in columns if label != base]
    memory = [label for label in ("ours", "PyTorch") if any(label in row["peak_mb"] for row in rows)]
    head = ["", f"{base}, ms", *(f"{label} / {base}" if label == columns[0] else label for label in columns)]
    body = [head + [f"memory, MB: {', '.join(memory)}"] * bool(memory)]
    for row in rows:
        cells = [row["title"], f"{row['ms'][base]:.3g}"]
        for label in columns:
            refused = "refused" if label in row["refused"] else "-"
            cells.append(number(row["ratio"][label]) if label in row["ratio"] else refused)
        if memory:
            cells.append(", ".join(f"{row['peak_mb'][label]:.1f}" for label in memory))
        body.append(cells)
    return table(body)


def span(ratios):
    low, high = min(ratios), max(ratios)
    return number(low) if number(low) == number(high) else f"{number(low)} to {number(high)}"


def measured(found):
    """The facts of the measurement in one paragraph: time, machine, versions, load."""
    facts = found["facts"]
    versions = dict.fromkeys(who["version"] for who in facts["contenders"].values())
    absent = f" Left out: {'; '.join(f'{label}, {why}' for label, why in facts['absent'].items())}."
    absent = absent if facts["absent"] else ""
    blas = dict.fromkeys(who["blas"] for who in facts["contenders"].values())
    load = " and ".join(f"{load[0]:.1f}" for load in facts["load"])
    clock = "CPU time" if facts["clock"] == "cpu" else "Wall time"
    return (
        f"{clock} on {facts['cpu']}, {facts['threads']} threads and cores for each contender, {facts['date']}, Python"
        f" {facts['python']}, {', '.join(versions)}; BLAS: {'; '.join(blas)}. Load of the machine before and after:"
        f" {load} (a quiet one has up to {facts['threads']}). Medians of {facts['rounds']} rounds.{absent}"
    )


def msign_claim(found):
    """The time of msign with its derivative, as ranges over the sizes."""
    rows = [row for row in found["results"].values() if row.get("group") == "msign" and row["base"] == "PyTorch"]
    if not rows:
        return "Not measured beside PyTorch."
    ways = {label: span([row["ratio"][label] for row in rows]) for label in ("ours eigh", "ours svd", "ours")}
    steps = span([row["ratio"]["ours"] / row["ratio"]["PyTorch through 8 steps"] for row in rows])
    return (
        "The measure is PyTorch's SVD with the closed form written by hand as its backward. Of its time, msign with its"
        f' derivative takes {ways["ours eigh"]} with `method="eigh"`, {ways["ours svd"]} with `method="svd"`, and'
        f" {ways['ours']} with the default, which uses only matrix products. The default takes {steps} of the time of"
        f" PyTorch's automatic derivative through eight steps."
    )


def slower(found, group="programs"):
    """A sentence that names the rows on which eager tinygrad_ms takes longer than PyTorch eager."""
    rows = [row for row in found["results"].values() if row.get("group") == group and row["base"] == "PyTorch"]
    behind = [f"{row['title']} ({number(row['ratio']['ours'])})" for row in rows if row["ratio"]["ours"] > 1]
    if not behind:
        return "On every row eager tinygrad_ms is at least as fast as PyTorch eager."
    return f"Eager tinygrad_ms is slower than PyTorch eager on {len(behind)} of {len(rows)} rows: {'; '.join(behind)}."


def imported(found):
    facts = found["results"]["import"]
    return (
        f"`import tinygrad_ms` takes {facts['ratio']:.2f} times as long as `import numpy`, which is part of it"
        f" ({facts['ms']['tinygrad_ms']:.0f} and {facts['ms']['numpy']:.0f} ms)."
    )


def contents(name, found):
    """The text for the place called ``name`` on a page."""
    sentences = {"measured": measured, "msign claim": msign_claim, "slower": slower, "import": imported}
    if name.startswith("two threads "):
        return contents(name.removeprefix("two threads "), json.loads(TWO_THREADS.read_text(encoding="utf-8")))
    if name.startswith("slower "):
        return slower(found, name.partition(" ")[2])
    return sentences[name](found) if name in sentences else group_table(found, name)


def filled(text, found):
    return PLACE.sub(lambda place: f"{place[1]}{contents(place[2], found)}\n{place[3]}", text)


def write_all(results=RESULTS, pages=PAGES):
    found = json.loads(Path(results).read_text(encoding="utf-8"))
    for page in pages:
        page.write_text(filled(page.read_text(encoding="utf-8"), found), encoding="utf-8")
