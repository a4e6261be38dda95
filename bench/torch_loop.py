"""Federated averaging in PyTorch: one module that each client's model is copied into, SGD by torch.optim, batches as
slices of a permuted copy. One thread: set OMP_NUM_THREADS=1. rec_mlp has sparse gradients of its embeddings, rec_lstm
the dense ones that PyTorch makes unless told otherwise."""
import torch
from torch import nn
from torch.nn import functional

import workload


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)),
            nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, 10))

    def loss(self, x, y):
        return functional.cross_entropy(self.body(x), y)


class Characters(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(workload.CHARACTERS, 8)
        self.memory = nn.LSTM(8, 256, num_layers=2, batch_first=True)
        self.head = nn.Linear(256, workload.CHARACTERS)

    def loss(self, x, y):
        states, _ = self.memory(self.embedding(x))
        return functional.cross_entropy(self.head(states).reshape(-1, workload.CHARACTERS), y.reshape(-1))


class Recommender(nn.Module):
    def __init__(self, memory, sparse):
        super().__init__()
        self.people = nn.Embedding(workload.PEOPLE, 64, sparse=sparse)
        self.items = nn.Embedding(workload.ITEMS, 64, sparse=sparse)
        self.memory = nn.LSTM(128, 128, batch_first=True) if memory else None
        self.hidden = None if memory else nn.Linear(128, 128)
        self.head = nn.Linear(128, 1)

    def loss(self, x, y):
        both = torch.cat((self.people(x[:, 0]), self.items(x[:, 1])), dim=1)
        if self.memory is None:
            state = functional.relu(self.hidden(both))
        else:
            state = self.memory(both[:, None])[0][:, 0]
        return functional.binary_cross_entropy_with_logits(self.head(state)[:, 0], y)


MODELS = {
    "cnn512": Images,
    "lstm": Characters,
    "rec_mlp": lambda: Recommender(memory=False, sparse=True),
    "rec_lstm": lambda: Recommender(memory=True, sparse=False),
}


def epoch(module, optimiser, x, y, batch):
    order = torch.randperm(len(y))
    x, y = x[order], y[order]
    for at in range(0, len(y), batch):
        optimiser.zero_grad(set_to_none=True)
        module.loss(x[at:at + batch], y[at:at + batch]).backward()
        optimiser.step()


def make(work, batch):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = (torch.from_numpy(part) for part in work.pool())
    module = MODELS[work.name]()
    params = list(module.parameters())
    model = [p.detach().clone() for p in params]

    def play(clients):
        mean, total = [torch.zeros_like(p) for p in model], 0
        for c in clients:
            with torch.no_grad():
                for p, from_model in zip(params, model):
                    p.copy_(from_model)
            optimiser = torch.optim.SGD(params, lr=workload.RATE)
            epoch(module, optimiser, x[c], y[c], batch)
            n = c.stop - c.start
            with torch.no_grad():
                for m, p in zip(mean, params):
                    m.add_(p, alpha=n)
            total += n
        for p, m in zip(model, mean):
            p.copy_(m.div_(total))

    return play


if __name__ == "__main__":
    workload.measure(list(MODELS), make)
