"""The workload that both sides of compare.sh compute; model/bench_test.go has the same formulas.

3,400 users hold 100 to 200 examples each (40 to 60 sequences of 80 characters): slices of one shared pool. A round
trains a cohort of users one after the other, each from the global model, one epoch of SGD at rate 0.05 with a
permutation of its own, and averages the models by examples. What the examples hold does not matter, only their shapes.
"""
import argparse
import json
import statistics
import time

import numpy as np

USERS, RATE = 3400, 0.05
SEQUENCE, CHARACTERS = 80, 90
PEOPLE, ITEMS = 6040, 3706


class Workload:
    """One process's part: the pool, and who trains in which round."""

    def __init__(self, name, cohort):
        self.name, self.text = name, name == "lstm"
        self.rows = 2000 if self.text else 20000
        self.cohort = cohort or (5 if self.text else 50)

    def examples(self, user):
        return 40 + 7 * user % 21 if self.text else 100 + 37 * user % 101

    def clients(self, number):
        """The slices of the pool that a round trains on."""
        for slot in range(number * self.cohort, (number + 1) * self.cohort):
            user = slot * 7919 % USERS
            start = user * 131 % (self.rows - 200)
            yield slice(start, start + self.examples(user))

    def pool(self):
        rng = np.random.default_rng(1)
        if self.text:
            text = rng.integers(1, CHARACTERS, (self.rows, SEQUENCE + 1))
            return text[:, :-1].copy(), text[:, 1:].copy()
        if self.name.startswith("rec"):
            pairs = np.column_stack([rng.integers(0, top, self.rows) for top in (PEOPLE, ITEMS)])
            return pairs, rng.integers(0, 2, self.rows).astype(np.float32)
        return rng.random((self.rows, 784), np.float32), rng.integers(0, 10, self.rows)


def measure(workloads, make):
    """Runs rounds as the command line says and prints their median speed. make(workload, batch) returns a function
    that trains the clients of a round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=workloads)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--cohort", type=int, default=0, help="clients a round; 0: 50, or 5 of text")
    parser.add_argument("--rounds", type=int, default=5, help="that are measured, after one that is not")
    args = parser.parse_args()
    workload = Workload(args.workload, args.cohort)
    play = make(workload, args.batch)
    speeds, times = [], []
    for number in range(args.rounds + 1):
        clients = list(workload.clients(number))
        start = time.perf_counter()
        play(clients)
        seconds = time.perf_counter() - start
        times.append(seconds)
        speeds.append(sum(c.stop - c.start for c in clients) / seconds)
    print(json.dumps({"workload": args.workload, "batch": args.batch, "samples_per_s": statistics.median(speeds[1:]),
                      "s_per_round": statistics.median(times[1:])}))
