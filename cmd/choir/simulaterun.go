package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate"
	"choir.example/simulate/partition"
	"choir.example/simulate/report"
)

// simulateRun is `choir simulate run`.
type simulateRun struct {
	experimentFlags
	outputFlag
	Seed     *uint64 `help:"Of all that is chance. Default: the first of the experiment's seeds, 0 if it has none." placeholder:"N"`
	Fidelity string  `help:"How much is real: ${enum}." enum:"math,system" default:"math"`
	Out      string  `help:"Keep all files in DIR, which must be empty or not exist. Without it only the page is kept." placeholder:"DIR" type:"path"`
	Resume   bool    `help:"Go on with the run in --out that was stopped; begin it if there is none."`
}

// Help is what --help explains.
func (simulateRun) Help() string {
	return `Runs the experiment with one seed: the same seed gives the same model on one kind of processor, on any number of cores, with
or without a break. math calls what nodes and coordinators call, directly; system runs real coordinators and nodes in this
process, and gives the same models.

With --out, DIR has experiment.yaml, which is all that was run; rounds.jsonl and rounds.csv, a line a round; report.html;
result.json. A run that was stopped, or whose machine was, goes on with --resume: after its last snapshot, or, with fidelity
system, with its coordinators and nodes, which lie in DIR until the run is over.
A run whose numbers explode ends early and exits 1. It keeps the rounds before the one that did; --resume does not try that again.

With -o json standard output is one object with the keys
  name, seed, fidelity, rounds, seconds, seconds_per_round
  model_digest: SHA-256 over the bits of the last model's parameters; rounds and it without a round that diverged
  final: accuracy and loss (cross entropy, nat) on the test set after the last round; null if it diverged
  rounds_to: the first round at each accuracy of evaluation.rounds_to that was reached
  series: a list of round, accuracy, loss and model_digest, of the rounds that were measured
  report: the page's path
  diverged: the round that diverged, and why, if one did

Example: choir simulate run quick --set local.learning_rate=0.05 --set rounds=30`
}

// Run runs the experiment.
func (c *simulateRun) Run(ctx context.Context, t *terminal) error {
	if c.Resume && c.Out == "" {
		return &usageError{"--resume needs --out: the directory of the run that was stopped", ""}
	}
	x, err := c.experiment()
	if err != nil {
		return err
	}
	x.Seeds = []uint64{c.seed(t.err, &x)}
	one := oneRun{x: x, fidelity: simulate.Fidelity(c.Fidelity), dir: c.Out, resume: c.Resume, loader: newLoader()}
	early, m := newStages(t.err, x.Name), newMeter(t.err, x.Name)
	one.stage = func(what string) {
		early.begin(what)
		m = newMeter(t.err, x.Name) // what came before is no measure for rounds
	}
	one.progress = func(first int, p simulate.Point) {
		early.end()
		m.rounds(first, p.Round, roundsOf(&x), pointText(p))
	}
	r, err := one.do(ctx, t.err)
	early.end()
	m.finish()
	if r == nil || err != nil && len(r.Series) == 0 && !c.json() {
		return c.explain(ctx, &x, err)
	}
	if c.Out == "" {
		err = errors.Join(err, one.keepPage(r))
	}
	if c.json() {
		err = errors.Join(err, printJSON(t.out, r))
	} else {
		err = errors.Join(err, printResult(t.out, &one, r))
	}
	return c.explain(ctx, &x, err)
}

// seed is the run's.
func (c *simulateRun) seed(talk io.Writer, x *simulate.Experiment) uint64 {
	switch {
	case c.Seed != nil:
		return *c.Seed
	case len(x.Seeds) > 1:
		fmt.Fprintf(talk, "seed %d, the first of %d; choir simulate sweep runs them all\n", x.Seeds[0], len(x.Seeds))
		fallthrough
	case len(x.Seeds) > 0:
		return x.Seeds[0]
	}
	return 0
}

// explain says what to do about a run that ended early.
func (c *simulateRun) explain(ctx context.Context, x *simulate.Experiment, err error) error {
	var file *fs.PathError
	switch {
	case err != nil && ctx.Err() != nil && c.Out != "":
		return &hinted{errors.New("interrupted"), "the same command with --resume goes on"}
	case err != nil && ctx.Err() != nil:
		return errors.New("interrupted; with --out it could go on")
	case errors.As(err, &file) && c.Out != "" && underWay(c.Out):
		return &hinted{err, "mend that, or name another directory; the same command with --resume goes on with what there is"}
	case errors.As(err, new(*hinted)):
	case errors.Is(err, model.ErrDiverged):
		return &hinted{err, "try a lower " + rateOf(x, err)}
	case err != nil && c.Out != "" && simulate.Founded(filepath.Join(c.Out, federationName)):
		return &hinted{err, "the same command with --resume goes on; should that come to the same, remove " + filepath.Join(c.Out, federationName) + ": the run then begins anew"}
	}
	return c.inExperiment(err)
}

// rateOf is the flag of the learning rate that a run diverged with. Where the server has a rate of its own, what nodes come to may
// follow from either.
func rateOf(x *simulate.Experiment, err error) string {
	const local, server = "--set local.learning_rate=…", "--set strategy.server_rate=…"
	switch byServer := errors.Is(err, fedavg.ErrServerDiverged); {
	case byServer && x.Strategy.Name == "feddf":
		return "--set strategy.distil_rate=…"
	case x.Strategy.ServerRate == 0:
		return local
	case byServer:
		return server
	}
	return local + " or " + server
}

// oneRun is an experiment with one seed, in a directory of its own or in none.
type oneRun struct {
	x        simulate.Experiment // its first seed is the run's
	fidelity simulate.Fidelity
	workers  int // 0: one a core
	loader   *simulate.Loader
	dir      string // empty: nothing is kept
	resume   bool
	stage    func(what string)                 // told what begins before there are rounds; nil: not told
	progress func(first int, p simulate.Point) // first is the round that this process began with

	points  []simulate.Point
	picture *partition.Picture
}

// found is the run as reports take it.
func (o *oneRun) found(r *simulate.Result) report.Run {
	return report.Run{Experiment: o.x, Result: r, Points: o.points, Picture: o.picture}
}

// roundsOf is how many rounds an experiment has, at most.
func roundsOf(x *simulate.Experiment) int { return cmp.Or(x.Rounds, simulate.UsualRounds) }

// do runs it, or what is left of it. A run that diverged has a result and an error. What people should know on the way goes
// to talk.
func (o *oneRun) do(ctx context.Context, talk io.Writer) (*simulate.Result, error) {
	d, first := &runDir{}, 1
	cfg := simulate.RunConfig{Seed: o.x.Seeds[0], Fidelity: o.fidelity, Workers: o.workers, Loader: o.loader, Stage: o.stage}
	if o.dir != "" {
		var done *simulate.Result
		var err error
		if d, cfg.Start, done, err = openRunDir(o.dir, &o.x, o.fidelity, o.resume); err != nil {
			return nil, err
		}
		defer d.unlock()
		if done != nil {
			return o.finished(done, talk)
		}
		if cfg.Start != nil {
			first = cfg.Start.Round + 1
		}
		if d.again {
			fmt.Fprintf(talk, "%s: %s\n", o.x.Name, d.standing(cfg.Start, roundsOf(&o.x)))
		}
		cfg.Keep, cfg.Dir = d.keep, d.file(federationName)
	}
	cfg.Progress = func(p simulate.Point) {
		d.add(p)
		o.progress(first, p)
	}
	r, err := simulate.Run(ctx, o.x, cfg)
	if r == nil && o.dir != "" {
		err = errors.Join(err, d.abandon()) // it was refused: there is nothing to go on with
	}
	if errors.Is(err, simulate.ErrFederation) && o.dir != "" {
		err = &hinted{err, fmt.Sprintf("remove %s: the run then begins anew, and comes to the same", d.file(federationName))}
	}
	if err != nil && (r == nil || r.Diverged == "") {
		return nil, err
	}
	o.points = d.points
	p, failed := simulate.Picture(o.x, simulate.RunConfig{Seed: cfg.Seed, Loader: o.loader})
	if err = errors.Join(err, failed); failed == nil {
		o.picture = &p
	}
	if o.dir != "" {
		err = errors.Join(err, d.finish(o.found(r)))
	}
	return r, err
}

// finished is a run that was over already.
func (o *oneRun) finished(r *simulate.Result, talk io.Writer) (*simulate.Result, error) {
	fmt.Fprintf(talk, "%s: was finished already\n", o.dir)
	if err := r.Err(); err != nil {
		return r, fmt.Errorf("experiment %s: %w", r.Name, err)
	}
	return r, nil
}

// keepPage writes the page of a run that has no directory to a temporary file.
func (o *oneRun) keepPage(r *simulate.Result) error {
	f, err := os.CreateTemp("", "choir-simulate-*.html")
	if err != nil {
		return fmt.Errorf("make a temporary file for the page: %w", err)
	}
	r.Report = f.Name()
	var page bytes.Buffer
	err = report.New([]report.Run{o.found(r)}).WritePage(&page)
	if err == nil {
		_, err = f.Write(page.Bytes())
	}
	return errors.Join(err, f.Close())
}

// pointText is what a round came to, in few words.
func pointText(p simulate.Point) string {
	if math.IsNaN(p.Accuracy) {
		return "not measured"
	}
	return fmt.Sprintf("accuracy %.4f, loss %.4f", p.Accuracy, p.Loss)
}

// printResult prints the result for people.
func printResult(w io.Writer, o *oneRun, r *simulate.Result) error {
	fmt.Fprintf(w, "%s: %s in %.1f s, %.4f s a round; seed %d, fidelity %s\n\n", r.Name, counted(r.Rounds, "round"), r.Seconds, r.SecondsPerRound, r.Seed, r.Fidelity)
	tab := newTable("ROUND", "ACCURACY", "LOSS")
	for _, m := range shown(r.Series) {
		tab.add(m.Round, fmt.Sprintf("%.4f", m.Accuracy), fmt.Sprintf("%.4f", m.Loss))
	}
	if err := tab.print(w, "nothing was measured"); err != nil {
		return err
	}
	all := report.New([]report.Run{o.found(r)})
	if published := all.Published(); len(published) > 0 {
		fmt.Fprintln(w)
		tab := newTable("WHAT", "ELSEWHERE", "HERE", "BY")
		for _, p := range published {
			tab.add(p.What, p.Theirs, p.Ours, p.Source)
		}
		if err := tab.print(w, ""); err != nil {
			return err
		}
	}
	printMore(w, r)
	_, err := fmt.Fprintf(w, "\nmodel %s\npage: %s\n", r.ModelDigest, r.Report)
	return err
}

// printMore prints what only some runs have.
func printMore(w io.Writer, r *simulate.Result) {
	if p := r.Personal; p != nil {
		fmt.Fprintf(w, "\non the own examples of %s: accuracy %.4f (deviation %.4f, worst %.4f) by the global model, %.4f (%.4f, %.4f) by their own\n",
			counted(p.Nodes, "node"), p.Global.Mean, p.Global.Deviation, p.Global.Worst, p.Own.Mean, p.Own.Deviation, p.Own.Worst)
	}
	if r.Saturated > 0 {
		fmt.Fprintf(w, "\n%s of updates lay outside compression.range and were cut: set a larger one\n", counted(int(r.Saturated), "coordinate"))
	}
}

// shown are about ten of the rounds that were measured, the last one among them.
func shown(series []simulate.Measurement) (out []simulate.Measurement) {
	const most = 10
	n := len(series)
	if n <= most {
		return series
	}
	for i := range most {
		out = append(out, series[(i+1)*n/most-1])
	}
	return out
}
