"""The playground: ``python -m tinygrad_ms play`` trains a small network in the browser, with the real engine.

``settings`` says what a page may ask for, ``points`` makes the data, ``training`` trains, ``server`` answers the page
(``page.html``) on this machine alone. The page sends settings and numbers, and nothing that it sends is ever run.
"""

from tinygrad_ms.play.server import Playground, play

__all__ = ["Playground", "play"]
