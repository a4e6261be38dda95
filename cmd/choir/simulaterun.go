package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"choir.example/model"
	"choir.example/simulate"
)

// simulateRun is `choir simulate run`.
type simulateRun struct {
	experimentFlags
	outputFlag
	Seed     *uint64 `help:"Of all that is chance. Default: the first of the experiment's seeds, 0 if it has none." placeholder:"N"`
	Fidelity string  `help:"How much is real: ${enum}." enum:"math,system" default:"math"`
}

// Help is what --help explains.
func (simulateRun) Help() string {
	return `Example: choir simulate run quick`
}

// Run runs the experiment.
func (c *simulateRun) Run(ctx context.Context, t *terminal) error {
	x, err := c.experiment()
	if err != nil {
		return err
	}
	m := newMeter(t.err, x.Name)
	r, err := simulate.Run(ctx, x, simulate.RunConfig{
		Seed: c.seed(&x), Fidelity: simulate.Fidelity(c.Fidelity), Progress: func(p simulate.Point) {
			m.rounds(1, p.Round, x.Rounds, pointText(p))
		},
	})
	m.finish()
	if err != nil {
		return c.explain(ctx, err)
	}
	if c.json() {
		return printJSON(t.out, r)
	}
	return printResult(t.out, r)
}

// seed is the run's.
func (c *simulateRun) seed(x *simulate.Experiment) uint64 {
	switch {
	case c.Seed != nil:
		return *c.Seed
	case len(x.Seeds) > 0:
		return x.Seeds[0]
	}
	return 0
}

// explain says what to do about a run that ended early.
func (c *simulateRun) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case errors.Is(err, model.ErrDiverged):
		return &hinted{err, "try a lower --set local.learning_rate=…"}
	}
	return c.inExperiment(err)
}

// pointText is what a round came to, in few words.
func pointText(p simulate.Point) string {
	if math.IsNaN(p.Accuracy) {
		return "not measured"
	}
	return fmt.Sprintf("accuracy %.4f, loss %.4f", p.Accuracy, p.Loss)
}

// printResult prints the result for people.
func printResult(w io.Writer, r *simulate.Result) error {
	fmt.Fprintf(w, "%s: %s in %.1f s (%.4f s a round), seed %d, fidelity %s\n", r.Name, counted(r.Rounds, "round"), r.Seconds, r.SecondsPerRound, r.Seed, r.Fidelity)
	_, err := fmt.Fprintf(w, "accuracy %.4f, loss %.4f, model %s\n", r.Final.Accuracy, r.Final.Loss, r.ModelDigest)
	return err
}
