"""Train a small network on handwritten digits: everything that is needed, and nothing else.

python examples/train.py        two seconds on a laptop; leaves digits.npz
"""

import tinygrad_ms as tg
from tinygrad_ms import nn, optim
from tinygrad_ms.data import DataLoader, load_digits, train_test_split

tg.manual_seed(0)
digits = load_digits()  # images (1797, 8, 8) with pixels from 0 to 16
pixels = digits.images.reshape(-1, 64).astype("float32") / 16
x, x_test, y, y_test = train_test_split(pixels, digits.labels, test_fraction=0.2, seed=0)

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = optim.AdamW(model.parameters(), lr=3e-3)
loader = DataLoader(x, y, batch_size=64, shuffle=True, seed=0)

for epoch in range(1, 11):
    losses = []
    for images, labels in loader:
        loss = tg.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with tg.no_grad():
        accuracy = (model(x_test).argmax(axis=1).numpy() == y_test).mean()
    print(f"epoch {epoch:2}: loss {sum(losses) / len(losses):.3f}, test accuracy {accuracy:.1%}")

tg.save("digits.npz", model.state_dict())
