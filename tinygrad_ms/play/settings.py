"""What a page may ask for. Each value is checked, and each mistake gets a sentence."""

from dataclasses import dataclass, field

from tinygrad_ms import nn, optim
from tinygrad_ms.options import is_int, is_real

DATA = ("moons", "spirals", "circles", "digits", "csv")
ACTIVATIONS = {
    "tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "silu": nn.SiLU, "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU, "none": nn.Identity,
}  # fmt: skip
OPTIMIZERS = {
    "SGD": lambda net, lr: optim.SGD(net.parameters(), lr),
    "momentum": lambda net, lr: optim.SGD(net.parameters(), lr, momentum=0.9),
    "Adam": lambda net, lr: optim.Adam(net.parameters(), lr),
    "AdamW": lambda net, lr: optim.AdamW(net.parameters(), lr),
    "Muon": lambda net, lr: optim.Muon(net.named_parameters(), lr, adamw=[f"{len(net.layers) - 1}.*"], adamw_lr=lr),
}
MOST_LAYERS, MOST_NEURONS, MOST_POINTS = 6, 64, 2000


@dataclass(frozen=True)
class Settings:
    """A training to start. ``checked`` makes one of what a page sent."""

    data: str = "moons"
    points: int = 300
    noise: float = 0.12
    csv: str = field(default="", repr=False)
    layers: tuple[tuple[int, str], ...] = ((8, "tanh"), (8, "tanh"))  # neurons and activation of each hidden layer
    optimizer: str = "Adam"
    lr: float = 0.03
    batch: int = 32
    seed: int = 0


def checked(sent) -> Settings:
    """The Settings that ``sent``, the JSON of a page, asks for. Raises ValueError with a sentence for anything else."""
    names = Settings.__dataclass_fields__
    if not isinstance(sent, dict):
        raise ValueError(f"settings are {kind(sent)}; expected an object with some of {', '.join(names)}")
    for name in sent:
        if name not in names:
            raise ValueError(f"setting {clip(name)} is unknown; there are {', '.join(names)}")
    given = {name: sent.get(name, names[name].default) for name in names}
    for name, choices in (("data", DATA), ("optimizer", OPTIMIZERS)):
        if not isinstance(given[name], str) or given[name] not in choices:
            raise ValueError(f"{name} is {clip(given[name])}; expected one of {', '.join(choices)}")
    for name, low, high in (("points", 20, MOST_POINTS), ("batch", 1, MOST_POINTS), ("seed", 0, 10**6)):
        if not is_int(given[name]) or not low <= given[name] <= high:
            raise ValueError(f"{name} is {clip(given[name])}; expected a whole number from {low} to {high}")
    given["noise"] = a_number("noise", given["noise"], 0, 1)
    given["lr"] = learning_rate(given["lr"])
    if not isinstance(given["csv"], str):
        raise ValueError(f"csv is {kind(given['csv'])}; expected the text of a file")
    if "layers" in sent:
        given["layers"] = hidden_layers(sent["layers"])
    return Settings(**given)


def learning_rate(value) -> float:
    rate = a_number("lr", value, 0, 10)
    if rate == 0:
        raise ValueError("lr is 0: nothing would be learnt; expected a number above 0, to 10")
    return rate


def a_number(name, value, low, high) -> float:
    if not is_real(value) or not low <= value <= high:
        raise ValueError(f"{name} is {clip(value)}; expected a number from {low} to {high}")
    return float(value)


def hidden_layers(sent) -> tuple[tuple[int, str], ...]:
    if not isinstance(sent, list) or len(sent) > MOST_LAYERS:
        shown = f"a list of {len(sent)}" if isinstance(sent, list) else kind(sent)
        raise ValueError(f"layers are {shown}; expected a list of at most {MOST_LAYERS} hidden layers")
    found = []
    for i, layer in enumerate(sent, 1):
        pair = layer if isinstance(layer, list) and len(layer) == 2 else None
        if pair is None:
            raise ValueError(f'layer {i} is {clip(layer)}; expected neurons and activation, such as [8, "tanh"]')
        neurons, activation = pair
        if not is_int(neurons) or not 1 <= neurons <= MOST_NEURONS:
            raise ValueError(f"layer {i} has {clip(neurons)} neurons; expected a whole number from 1 to {MOST_NEURONS}")
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            names = ", ".join(ACTIVATIONS)
            raise ValueError(f"layer {i} has the activation {clip(activation)}; expected one of {names}")
        found.append((int(neurons), activation))
    return tuple(found)


def kind(value) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "missing"}
    return names.get(type(value), "a number")


def clip(value) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
