import functools

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn


@pytest.fixture(scope="session")
def digits():
    """Return images ``(n, 64)`` in multiples of 0.02 from 0 to 1, and labels ``(n,)``."""
    images, labels = load_digits(return_X_y=True)
    images = (torch.tensor(images, dtype=torch.float64) / 16 * 50).round() / 50
    return images.float(), torch.tensor(labels)


@pytest.fixture(scope="session")
def trained(digits):
    """Return a function: a small network trained on all digits but the first 300, by its seed."""

    @functools.cache
    def network(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(digits[0][300:]), digits[1][300:]).backward()
            optimizer.step()
        optimizer.zero_grad()
        return model

    return network
