"""What the long examples share: types of options, runs that stop and go on, the progress bar, pictures.

Nothing of this is needed to train: ``train.py`` shows the thirty lines that are.
"""

import argparse
import math
import sys
from pathlib import Path

import tinygrad_ms as tg
from tinygrad_ms import distributed


# %% Options
def number(least, below=math.inf, least_itself=True):
    """The type of an option: a number from ``least`` to ``below``, without the latter."""

    def convert(text):
        value = float(text)
        if not (least <= value if least_itself else least < value) or not value < below:
            bound = f"{'of at least' if least_itself else 'above'} {least:g}"
            raise argparse.ArgumentTypeError(
                f"{text} is no number {bound}" + (f" and below {below:g}" if below < math.inf else "")
            )
        return value

    convert.__name__ = "number"  # in argparse's own sentence
    return convert


def count(least):
    """The type of an option: an integer of at least ``least``."""

    def convert(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    convert.__name__ = "integer"
    return convert


def read(parser, arguments):
    """The options, and in ``given`` the names of those that the user gave."""
    options = parser.parse_args(arguments)
    unset = object()
    given = parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(vars(options), unset)))
    options.given = {name for name, value in vars(given).items() if value is not unset}
    return options


def settings(options):
    """The options as a checkpoint holds them."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items() if k != "given"}


# %% Runs that stop and go on
class Run:
    """Everything a checkpoint holds. A subclass is made from options and says how much is ``done``.

    parts: its attributes with a ``state_dict``. records: those that are saved as they are.
    """

    parts: tuple[str, ...] = ()
    records: tuple[str, ...] = ()

    def save(self, path):
        state = {part: getattr(self, part).state_dict() for part in self.parts}
        state |= {name: getattr(self, name) for name in self.records}
        distributed.save(path, {**state, "settings": settings(self.options)})

    def restore(self, state):
        for part in self.parts:
            getattr(self, part).load_state_dict(state[part])
        for name in self.records:
            setattr(self, name, state[name])


def begin(kind, options, goal):
    """The run of that kind, from its beginning or from a checkpoint. ``goal``: the option that says how long it is."""
    if not options.resume:
        return kind(options)
    try:
        state = tg.load(options.resume)
        take_settings(kind, options, state, kept={goal})
        run = kind(options)
        run.restore(state)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        end(f"error: cannot resume: {error}")
    wanted, before = getattr(options, goal), state["settings"][goal]
    if wanted < run.done:
        end(f"error: --{goal} {wanted} is less than the {run.done} that the checkpoint has")
    say(f"resumed after {goal.removesuffix('s')} {run.done} of {wanted}")
    if wanted != before:
        say(f"it was to have {before}; the learning rate goes on along a cosine of the new length")
    return run


def take_settings(kind, options, state, kept):
    """Take the settings of a checkpoint, but for those in ``kept``, and say what was given and is ignored.

    Raises ValueError for a state that is none of this program.
    """
    saved_settings = state.get("settings") if isinstance(state, dict) else None
    known = vars(options).keys() - {"given"}
    needed = (*kind.parts, *kind.records, "settings")
    lacking = [name for name in needed if not isinstance(state, dict) or name not in state]
    if not lacking and (not isinstance(saved_settings, dict) or known - saved_settings.keys()):
        lacking = ["settings of this program"]
    if lacking:
        program = Path(kind.__init__.__code__.co_filename).name
        raise ValueError(f"{options.resume} is no checkpoint of {program}: it has no {', '.join(lacking)}")
    for name in sorted(known - {"resume", "out", "quiet", "device"}):
        given, saved = getattr(options, name), saved_settings[name]
        if name not in options.given:
            setattr(options, name, saved)
        elif name not in kept and given != saved:
            was = "the default" if saved is None else saved
            say(f"--{name.replace('_', '-')} {given} is ignored: the run goes on with {was}, as it was started")
            setattr(options, name, saved)
    if "out" not in options.given:
        options.out = options.resume.parent


class Diverged(Exception):
    """The numbers have overflowed; the text says where."""


# %% What one of several processes says and draws
def say(text):
    """Print, on one of the processes."""
    if distributed.rank() == 0:
        print(text)


def end(text):
    """Stop with an error, which one of the processes prints."""
    sys.exit(text if distributed.rank() == 0 else 1)


class Silent:
    """A progress bar that shows nothing."""

    update = set_postfix = close = lambda self, *args, **kwargs: None


def progress(total, done, quiet, unit):
    """A progress bar; none where ``quiet``, without tqdm, and on all processes but one."""
    try:
        from tqdm import tqdm
    except ImportError:
        say("no progress bar: tqdm is not installed (pip install tqdm)")
        quiet = True
    if quiet or distributed.rank() > 0:
        return Silent()
    return tqdm(total=total, initial=done, unit=unit, dynamic_ncols=True)


def pyplot():
    """Matplotlib, which draws into files alone; ImportError where it is missing."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def save_figure(plt, figure, path):
    figure.savefig(path, dpi=130)
    plt.close(figure)
