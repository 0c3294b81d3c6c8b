"""The playground: settings and their sentences, the door, a training whose numbers are the engine's, the page."""

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.__main__ import main
from tinygrad_ms.graph.values import Summary
from tinygrad_ms.play.points import make, read_csv
from tinygrad_ms.play.server import MOST_BYTES, Playground
from tinygrad_ms.play.settings import DATA, OPTIMIZERS, Settings, checked
from tinygrad_ms.play.training import Training

ROOT = Path(__file__).parents[2]

# --- settings -----------------------------------------------------------------------------------------------------


def test_settings_that_are_right():
    assert checked({}) == Settings()
    made = checked({"data": "spirals", "layers": [[4, "relu"], [2, "none"]], "lr": 1, "optimizer": "Muon"})
    assert made.layers == ((4, "relu"), (2, "none")) and made.lr == 1.0 and made.batch == 32


@pytest.mark.parametrize(
    "sent, sentence",
    [
        ([], "settings are a list; expected an object with some of data, points, noise"),
        ({"code": "import os"}, "setting 'code' is unknown; there are data, points"),
        ({"data": "stars"}, "data is 'stars'; expected one of moons, spirals, circles, digits, csv"),
        ({"data": ["moons"]}, "data is ['moons']; expected one of"),
        ({"points": 5}, "points is 5; expected a whole number from 20 to 2000"),
        ({"points": 1e3}, "points is 1000.0; expected a whole number"),
        ({"points": True}, "points is True; expected a whole number"),
        ({"batch": None}, "batch is None; expected a whole number from 1 to 2000"),
        ({"seed": 10**400}, "seed is 1000000000"),
        ({"noise": -1}, "noise is -1; expected a number from 0 to 1"),
        ({"noise": float("nan")}, "noise is nan; expected a number from 0 to 1"),
        ({"lr": 0}, "lr is 0: nothing would be learnt"),
        ({"lr": 10**400}, "lr is 1000"),
        ({"lr": "0.1"}, "lr is '0.1'; expected a number from 0 to 10"),
        ({"optimizer": "__import__('os')"}, "optimizer is \"__import__('os')\"; expected one of SGD, momentum, Adam"),
        ({"layers": "8"}, "layers are a text; expected a list of at most 6 hidden layers"),
        ({"layers": [[8, "tanh"]] * 7}, "layers are a list of 7; expected a list of at most 6"),
        ({"layers": [8]}, 'layer 1 is 8; expected neurons and activation, such as [8, "tanh"]'),
        ({"layers": [[8, "tanh"], [0, "tanh"]]}, "layer 2 has 0 neurons; expected a whole number from 1 to 64"),
        ({"layers": [[8, "swish"]]}, "layer 1 has the activation 'swish'; expected one of tanh, relu"),
        ({"csv": 3}, "csv is a number; expected the text of a file"),
    ],
    ids=repr,
)
def test_each_mistake_has_its_sentence(sent, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        checked(sent)
    assert len(str(raised.value)) < 250


TABLE = "height,weight,kind\n" + "".join(f"{i},{i % 5},{'cat' if i % 2 else 'dog'}\n" for i in range(12))


def test_a_csv_with_and_without_names():
    points = read_csv(TABLE)
    assert points.names == ["height", "weight"] and points.class_names == ["cat", "dog"]
    assert points.features.shape == (12, 2) and abs(points.features.mean(axis=0)).max() < 1e-6
    assert points.classes.tolist() == [1, 0] * 6
    bare = read_csv(TABLE.partition("\n")[2].replace("cat", "10").replace("dog", "9"))
    assert bare.names == ["x1", "x2"] and bare.class_names == ["9", "10"] and len(bare.classes) == 12


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "csv: the file has no rows"),
        ("1\n2\n", "csv: row 1 has 1 columns; expected 1 to 64 of numbers, and the class"),
        (TABLE + "1,2\n", "csv: row 14 has 2 columns and row 1 has 3"),
        (TABLE.replace("3,3,cat", "3,three,cat"), "csv: row 5, column weight is 'three'; expected a number"),
        (TABLE.replace("3,3,cat", "3,nan,cat"), "csv: row 5, column weight is 'nan'; expected a number"),
        ("1,2,a\n" * 5, "csv: 5 rows are too few"),
        ("1,2,a\n" * 6000, "csv: 6000 rows are too many"),
        ("1,2,a\n" * 20, "csv: the last column has 1 different values; expected 2 to 10 classes"),
        ("".join(f"1,2,{i}\n" for i in range(20)), "csv: the last column has 20 different values"),
        ('1,2,"a\x00' + "b" * 200_000, "csv: "),
    ],
    ids=lambda value: value[:20],
)
def test_each_bad_csv_has_its_sentence(text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_csv(text)


@pytest.mark.parametrize("data", DATA[:4])
def test_data_is_the_same_for_the_same_seed(data):
    first, second = (make(checked({"data": data, "points": 120})) for _ in range(2))
    assert np.array_equal(first.features, second.features) and np.isfinite(first.features).all()
    assert set(first.classes) == set(range(len(first.class_names)))


# --- a training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns_moons(optimizer):
    rates = {"SGD": 0.5, "momentum": 0.1, "Muon": 0.02}
    training = Training(checked({"optimizer": optimizer, "lr": rates.get(optimizer, 0.03), "layers": [[12, "tanh"]]}))
    before = training.value
    training.run(400, 60)
    assert training.steps == 400 and training.value < 0.3 < before and training.history[-1][3] > 0.9


def test_what_is_shown_is_what_the_engine_has():
    """Weights, gradients, loss and boundary belong together, and one step is one step of the optimizer."""
    training = Training(checked({"optimizer": "SGD", "lr": 0.5, "layers": [[3, "tanh"]], "batch": 10}))
    training.run(5, 60)
    shown = training.state()
    assert shown["step"] == 5 and len(shown["history"]) == 6 and len(shown["batch"]) == 10
    weight, bias, weight2, bias2 = (p.numpy().copy() for p in training.net.parameters())
    x, classes = training.points.features[training.batch], training.points.classes[training.batch]
    h = np.tanh(x @ weight.T + bias)
    p = np.exp(h @ weight2.T + bias2)
    p /= p.sum(axis=1, keepdims=True)
    assert shown["loss"] == pytest.approx(-np.log(p[np.arange(10), classes]).mean(), rel=1e-5)
    gradient = (((p - np.eye(2)[classes]) / 10) @ weight2 * (1 - h * h)).T @ x
    drawn = np.frombuffer(base64.b64decode(shown["layers"][0]["weight"]["gradient"]), np.uint8).reshape(3, 2)
    signed = (drawn / 127.5 - 1) * shown["layers"][0]["weight"]["gradient_most"]
    assert np.allclose(signed, gradient, atol=0.01 * abs(gradient).max())
    training.step()
    assert np.allclose(training.net.layers[0].weight.numpy(), weight - 0.5 * gradient, atol=1e-6)
    grid = np.frombuffer(base64.b64decode(training.state()["grid"]), np.uint8)
    assert np.array_equal(grid, training.scores(training.plane(72)).argmax(axis=1))


def test_the_page_of_this_very_step():
    training = Training(checked({"layers": [[2, "tanh"]], "batch": 1}))
    training.run(3, 60)
    text = training.page()
    assert f"Step 3 on moons: loss {training.value:.4g}" in text
    steps = json.loads(text.split('id="data">')[1].split("</script>")[0])["levels"][0]["steps"]
    weight = next(s for s in steps if s["phase"] == "backward" and s["title"] == "0.weight")
    assert weight["sums"][0]["numbers"] == Summary(training.net.layers[0].weight.grad).text
    assert training.steps == 3  # looking changes nothing


def test_a_training_that_diverges_says_so():
    training = Training(checked({"optimizer": "SGD", "lr": 10, "layers": [[8, "none"], [8, "none"], [8, "none"]]}))
    training.run(500, 60)
    assert "a smaller learning rate may help" in training.stopped and training.steps < 500
    state = training.state()
    assert state["loss"] is None and state["step"] == training.steps
    json.dumps(state, allow_nan=False)


@pytest.mark.parametrize("settings", [{"data": "digits", "points": 200}, {"data": "csv", "csv": TABLE}, {"layers": []}])
def test_other_data_is_shown_too(settings):
    training = Training(checked(settings))
    training.run(2, 60)
    facts, state = training.facts(), training.state(since=1)
    assert len(state["history"]) == 2 and len(facts["points"]) == len(facts["classes"])
    assert facts["slice"] == (settings.get("data") == "digits") == (state["answers"] is not None)
    json.dumps([facts, state], allow_nan=False)


# --- the door -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    tg.set_default_device("cpu")
    with Playground() as started:
        thread = threading.Thread(target=started.serve_forever, daemon=True)
        thread.start()
        yield started
        started.shutdown()


def ask(server, method, name, body=None, token=None, **headers):
    """(status, headers, text) of one request."""
    place = urlsplit(server.url)
    path = f"/{server.token if token is None else token}/{name}"
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} if data is not None else {}
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    connection.request(method, path, data, given | {key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


def test_the_page_asks_for_nothing_from_elsewhere(server):
    status, headers, text = ask(server, "GET", "")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    nonce = re.search("script-src 'nonce-([^']+)'", policy)[1]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert text.count(f'nonce="{nonce}"') == 2 and "@@" not in text
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
    assert "Python" not in headers["Server"]
    assert not re.search(r"(src|href)\s*=|https?://|@import|eval\(|innerHTML", text)
    assert nonce not in ask(server, "GET", "")[2]


def test_it_listens_on_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32
    with Playground() as other:
        assert other.token != server.token and other.server_port != server.server_port


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_is_turned_away(server, method):
    name, body = ("", None) if method == "GET" else ("start", {})
    for token in ("", "x", server.token[:-1], server.token + "x", "ä"):
        quoted = "%C3%A4" if token == "ä" else token
        status, _, text = ask(server, method, name, body, token=quoted)
        assert status == 403 and "the token" in json.loads(text)["error"]
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", ""):
        status, _, text = ask(server, method, name, body, Host=host)
        assert status == 403 and "127.0.0.1 alone" in json.loads(text)["error"]
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{server.server_port}", "http://127.0.0.1"):
        status, _, text = ask(server, method, name, body, Origin=origin)
        assert status == 403 and "its own page alone" in json.loads(text)["error"]
    assert ask(server, method, name, body, Origin=server.url.rpartition("/")[0].rpartition("/")[0])[0] == 200
    assert ask(server, method, name, body, Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "body, headers, status, sentence",
    [
        (b"{", {}, 400, "is no JSON"),
        (b'{"lr": NaN}', {}, 400, "is no JSON"),
        (b"[" * 100_000, {}, 400, "is no JSON"),
        (b"[]", {}, 400, "must be a JSON object"),
        (b"\xff\xfe", {}, 400, "is no JSON"),
        (b"{}", {"Content_Type": "text/plain"}, 415, "must be JSON"),
        (b"{}", {"Content_Length": "x"}, 411, "must say its length"),
        ({"data": "stars"}, {}, 422, "data is 'stars'"),
        ({"data": "csv", "csv": "1,2"}, {}, 422, "csv: the file has no rows"),
    ],
    ids=str,
)
def test_what_is_no_setting_is_refused(server, body, headers, status, sentence):
    got, _, text = ask(server, "POST", "start", body, **headers)
    assert got == status and sentence in json.loads(text)["error"]


def test_too_much_is_refused_before_it_is_read(server):
    got, _, text = ask(server, "POST", "start", b"{}", Content_Length=str(MOST_BYTES + 1))
    assert got == 413 and "at most 2 MB" in json.loads(text)["error"]


def test_other_addresses_and_methods(server):
    assert ask(server, "GET", "../../etc/passwd")[0] == 404 and ask(server, "GET", "start")[0] == 404
    assert ask(server, "POST", "step", {})[0] == 404 and ask(server, "PUT", "start", {})[0] == 501


def test_a_training_by_requests(server):
    status, _, text = ask(server, "POST", "start", {"layers": [[4, "tanh"]], "batch": 8})
    facts = json.loads(text)
    key = {"training": facts["training"]}
    assert status == 200 and facts["state"]["step"] == 0 and len(facts["points"]) == 300
    state = json.loads(ask(server, "POST", "run", {**key, "steps": 3, "seconds": 5, "since": 1})[2])
    assert state["step"] == 3 and len(state["history"]) == 3
    page = ask(server, "GET", f"step?training={facts['training']}")
    assert page[0] == 200 and "Step 3 on moons" in page[2] and "connect-src" not in page[1]["Content-Security-Policy"]
    for sent, sentence in (
        ({"lr": -1}, "lr is -1"), ({"steps": 10**6}, "steps from 0 to 10000"), ({"since": -1}, "since"),
        ({"seconds": "1"}, "seconds must be a number"),
    ):  # fmt: skip
        status, _, text = ask(server, "POST", "run", key | sent)
        assert status == 422 and sentence in json.loads(text)["error"]
    assert ask(server, "POST", "run", {"training": "no such"})[0] == 410
    assert ask(server, "GET", "step?training=../..")[0] == 410
    for _ in range(4):  # the oldest training goes
        ask(server, "POST", "start", {"points": 20, "layers": []})
    assert "press Restart" in json.loads(ask(server, "POST", "run", key)[2])["error"]


def test_two_windows_do_not_disturb_each_other(server):
    keys = [json.loads(ask(server, "POST", "start", {"layers": [[2, "tanh"]]})[2])["training"] for _ in range(2)]
    threads = [
        threading.Thread(target=ask, args=(server, "POST", "run", {"training": key, "steps": n, "seconds": 9}))
        for key, n in zip(keys * 3, (1, 2) * 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps = [json.loads(ask(server, "POST", "run", {"training": key, "steps": 0})[2])["step"] for key in keys]
    assert steps == [3, 6]


def test_a_port_that_is_taken(server, capsys):
    assert main(["play", "--no-browser", "--port", str(server.server_port)]) == 1
    assert f"port {server.server_port} cannot be had; choose another with --port" in capsys.readouterr().err
    assert main(["play", "--no-browser", "--port", "99999"]) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_it():
    command = [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
               "from tinygrad_ms.__main__ import main; raise SystemExit(main(['play', '--no-browser']))"]  # fmt: skip
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert re.fullmatch(r"The playground is at http://127\.0\.0\.1:\d+/\S{32}/\n", run.stdout.readline())
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert run.returncode == 0 and "The playground has ended." in out and err == ""
