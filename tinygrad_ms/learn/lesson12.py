"""A boundary that moves"""

import numpy as np

from tinygrad_ms.learn.frame import exercise

LOGITS = np.array([[2.0, -1.0], [0.5, 0.4], [-1.0, 3.0], [0.2, 0.9], [1.5, 0.0]])
CLASSES = np.array([0, 1, 1, 1, 0])


def counted(logits, classes):
    return sum(max(range(len(row)), key=row.__getitem__) == c for row, c in zip(logits.tolist(), classes)) / len(
        classes
    )


@exercise((LOGITS, CLASSES), (-LOGITS, CLASSES), (LOGITS[:3], CLASSES[:3]), truth=counted)
def accuracy(logits, classes):
    """The share of samples that are classified right, between 0 and 1. A row of `logits` holds the scores of a
    sample; the class with the highest score is chosen."""
    return np.mean(logits.argmax(axis=1) == classes)


accuracy.wrong("That is a count, not a share.", lambda logits, classes: (logits.argmax(axis=1) == classes).sum())
accuracy.wrong("That is the share of mistakes.", lambda logits, classes: np.mean(logits.argmax(axis=1) != classes))
accuracy.wrong(
    "That is the mean score of the right class.",
    lambda logits, classes: logits[np.arange(len(classes)), classes].mean(),
)


def equal_scores(k):
    return np.logaddexp.reduce(np.zeros(k))


@exercise(2, 10, 1000, truth=equal_scores, shown=False)
def first_loss(k):
    """The cross-entropy of a model that knows nothing yet: it gives `k` classes the same probability. (If the
    first loss of a training is far from it, look for a bug.)"""
    return np.log(k)


first_loss.wrong("That is the probability. The loss is its logarithm, with a sign.", lambda k: 1 / k)
first_loss.wrong("A loss is not below zero here: there is a minus before the logarithm.", lambda k: -np.log(k))
first_loss.wrong("That is measured in bits. The loss takes the natural logarithm.", lambda k: np.log2(k))

W1, W2 = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([[0.0, 1.0], [2.0, -1.0]])
B1, B2 = np.array([0.1, -0.2]), np.array([1.0, 0.5])


def probed(W1, b1, W2, b2):
    """The layer from what it does: its value at 0, and what each unit vector adds."""
    both = lambda x: W2 @ (W1 @ x + b1) + b2
    start = both(np.zeros(2))
    return np.stack([both(x) - start for x in np.eye(2)], axis=1), start


@exercise((W1, B1, W2, B2), (W2, B2, W1, B1), truth=probed)
def collapse(W1, b1, W2, b2):
    """Without a curve between them two layers are one. Return `W, b` such that W x + b is W2 (W1 x + b1) + b2
    for every column x. All matrices are square."""
    return W2 @ W1, W2 @ b1 + b2


collapse.wrong(
    "The product has the wrong order: which of the two meets x first?", lambda W1, b1, W2, b2: (W1 @ W2, W2 @ b1 + b2)
)
collapse.wrong("The first bias passes through the second layer, too.", lambda W1, b1, W2, b2: (W2 @ W1, b1 + b2))
collapse.wrong(
    "The second bias is added after the second layer: it does not pass through it.",
    lambda W1, b1, W2, b2: (W2 @ W1, W2 @ (b1 + b2)),
)
