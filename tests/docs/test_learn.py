"""The lessons run: every block, in order, in an empty folder, prints what it shows. The map and the table are true."""

import re

import pytest

from tests.learn_pages import BLOCK, FOLDER, lessons, notebook, run

LESSONS = lessons()
MAP = (FOLDER / "README.md").read_text(encoding="utf-8")
TABLE = (FOLDER / "equations.md").read_text(encoding="utf-8")
EQUATIONS, SLIPS = TABLE.split("\n## Slips")
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| .+? \| \[\d\d\]\((\d\d-[\w-]+\.md)\) \|$", EQUATIONS, re.M)
CORRECTIONS = re.findall(r"^\| (.+?) \| (.+?) \| \[\d\d\]\((\d\d-[\w-]+\.md)\) \| (.+) \|$", SLIPS, re.M)


def read(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_each_block_prints_what_it_shows(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = run(read(path), path.name)
    assert results
    for shown, printed in results:
        assert printed == shown


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_fence_of_a_lesson_is_one_that_is_run_or_compared(path):
    """A block in another language, or an output that no block prints, would not be checked."""
    fences = re.findall(r"^```(.*)$", read(path), re.M)
    assert set(fences[0::2]) <= {"python", "text"} and set(fences[1::2]) == {""}
    assert fences.count("text") == sum(bool(block["shown"]) for block in BLOCK.finditer(read(path)))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_notebook_is_the_page(path):
    assert read(path.with_suffix(".ipynb")) == notebook(read(path)), "run: python -m tests.learn_pages"


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_notebook_runs(path, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(book)
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [cell.outputs for cell in book.cells if cell.cell_type == "code"]
    printed = ["".join(o.text for o in cell if o.get("name") == "stdout") for cell in outputs]
    assert printed == [block["shown"] or "" for block in BLOCK.finditer(read(path))]


def test_the_lessons_are_numbered_without_a_gap():
    assert [path.name[:2] for path in LESSONS] == [f"{k:02}" for k in range(1, len(LESSONS) + 1)]


def test_the_map_lists_the_lessons_in_order_by_their_titles():
    rows = re.findall(r"^\| (\d\d) \| \[(.+?)\]\((.+?)\) \|", MAP, re.M)
    titles = [read(path).splitlines()[0].removeprefix(f"# {int(path.name[:2])}. ") for path in LESSONS]
    assert rows == [(path.name[:2], title, path.name) for path, title in zip(LESSONS, titles)]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.md")), ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```$", "", read(path), flags=re.S | re.M)
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (path.parent / target).exists(), target


def test_a_lesson_leads_to_its_neighbours():
    for k, path in enumerate(LESSONS):
        neighbours = [LESSONS[i].name for i in (k - 1, k + 1) if 0 <= i < len(LESSONS)]
        last = read(path).rstrip().splitlines()[-1]
        assert re.findall(r"\((\d\d-.+?)\)", last) == neighbours, path.name


@pytest.mark.parametrize("source, place, lesson", ROWS, ids=lambda value: value)
def test_a_lesson_names_the_equation_that_the_table_says_it_teaches(source, place, lesson):
    """``place`` stands in the lesson behind the name of the source, and no longer number goes on from it."""
    text = " ".join(read(FOLDER / lesson).split())
    assert re.search(re.escape(f"{source}, {place}") + r"(?!\.?\d)", text), f"{lesson} does not name {source}, {place}"


def test_the_table_is_complete():
    """Every numbered equation of ai-edu and Su, and every section of the others that holds formulas."""
    lines = [line for line in EQUATIONS.splitlines() if line.startswith("| ")]
    assert len(ROWS) == len(lines) - 1  # the head is no row
    numbers = [*range(1, 22), *range(30, 34), 40, 41, *range(50, 53), *range(60, 65), 70, 71, *range(80, 84)]
    sections = "1 2 3 4 4.1 4.2 4.3 4.4 4.5.1 4.5.2 4.5.3 5 6 6.1 6.2 8.2 8.4".split()
    everything = {("ai-edu", f"({k})") for k in (*numbers, *range(90, 104))} | {("Su", f"({k})") for k in range(1, 24)}
    everything |= {("Parr and Howard", f"section {k}") for k in sections}
    everything |= {("AIDIY", f"section {k}") for k in range(1, 6)}
    assert {row[:2] for row in ROWS} == everything


def test_every_slip_of_the_sources_is_corrected_in_a_lesson():
    page = read(FOLDER.parent / "matrix_calculus.md").split("## Statements that do not hold as printed")[1]
    listed = re.findall(r"^\| (Parr and Howard|ai-edu|AIDIY),? (.+?) \|", page, re.M)
    assert listed
    assert listed == [row[:2] for row in CORRECTIONS if row[0] != "Su"]
    for source, place, lesson, words in CORRECTIONS:
        assert words in " ".join(read(FOLDER / lesson).split()), f"{lesson} does not correct {source}, {place}"
