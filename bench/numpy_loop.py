"""Federated averaging of dense networks in numpy, gradients by hand, every buffer reused: what a careful person writes
who wants speed without a framework. One thread: set OPENBLAS_NUM_THREADS=1."""
import numpy as np

import workload

WIDTHS = {"logreg": (784, 10), "mlp": (784, 200, 200, 10)}


class Trainer:
    def __init__(self, widths, batch):
        self.rng = np.random.default_rng(2)
        self.shapes = list(zip(widths, widths[1:]))
        self.sizes = [i * o + o for i, o in self.shapes]
        self.params = np.zeros(sum(self.sizes), np.float32)
        self.layers = self.split(self.params)
        self.grads = [np.empty_like(w) for w, _ in self.layers]
        self.sums = [np.empty((batch, o), np.float32) for _, o in self.shapes]
        self.deltas = [np.empty((batch, o), np.float32) for _, o in self.shapes[:-1]]
        self.batch = batch

    def split(self, flat):
        parts = np.split(flat, np.cumsum(self.sizes)[:-1])
        return [(p[:i * o].reshape(i, o), p[i * o:]) for p, (i, o) in zip(parts, self.shapes)]

    def initial(self):
        flat = np.zeros_like(self.params)
        for weights, _ in self.split(flat):
            weights[...] = self.rng.normal(0, (2 / len(weights)) ** 0.5, weights.shape)
        return flat

    def epoch(self, x, y):
        order = self.rng.permutation(len(y))
        x, y = x[order], y[order]
        for at in range(0, len(y), self.batch):
            self.step(x[at:at + self.batch], y[at:at + self.batch])

    def step(self, x, y):
        rows, last = len(y), len(self.layers) - 1
        values = [x]
        for k, (weights, bias) in enumerate(self.layers):
            z = np.dot(values[k], weights, out=self.sums[k][:rows])
            np.add(z, bias, out=z)
            if k < last:
                np.maximum(z, 0, out=z)
            values.append(z)
        delta = values[-1]
        delta -= delta.max(axis=1, keepdims=True)
        np.exp(delta, out=delta)
        delta *= np.float32(workload.RATE / rows) / delta.sum(axis=1, keepdims=True)
        delta[np.arange(rows), y] -= np.float32(workload.RATE / rows)
        for k in range(last, -1, -1):
            weights, bias = self.layers[k]
            below = None
            if k:
                below = np.dot(delta, weights.T, out=self.deltas[k - 1][:rows])
                below *= values[k] > 0
            np.dot(values[k].T, delta, out=self.grads[k])
            weights -= self.grads[k]
            bias -= delta.sum(axis=0)
            delta = below


def make(work, batch):
    x, y = work.pool()
    trainer = Trainer(WIDTHS[work.name], batch)
    model = trainer.initial()
    weighted = np.empty_like(model)

    def play(clients):
        mean, total = np.zeros_like(model), 0
        for c in clients:
            trainer.params[...] = model
            trainer.epoch(x[c], y[c])
            n = c.stop - c.start
            mean += np.multiply(trainer.params, np.float32(n), out=weighted)
            total += n
        np.divide(mean, np.float32(total), out=model)

    return play


if __name__ == "__main__":
    workload.measure(list(WIDTHS), make)
