package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"choir.example/simulate"
	"choir.example/simulate/report"

	"golang.org/x/sync/errgroup"
)

// simulateSweep is `choir simulate sweep`.
type simulateSweep struct {
	sweepFlags
	outputFlag
	Fidelity string `help:"How much is real: ${enum}." enum:"math,system" default:"math"`
	Out      string `help:"Directory of the sweep: a directory below it for each run, and the report of all." placeholder:"DIR" type:"path" required:""`
	Shard    string `help:"Run the I-th of N shares of the cells. Default: what a Kubernetes Indexed Job or a Slurm array says, or all." placeholder:"I/N"`
	Parallel int    `help:"Cells at a time, each on so many cores as are left. Default: one a core." placeholder:"N"`
}

// Help is what --help explains.
func (simulateSweep) Help() string {
	return `Runs every combination of values with every seed. What was finished is skipped and what was stopped goes on, so the same
command goes on with a sweep after a break. A cell that cannot be or that diverges does not stop the others; the exit code
then is 1. At the end, and whenever it is called, choir simulate report shows what there is.

Past one machine, each runs a share of the cells: --shard 0/4 to 3/4, or what the environment says (JOB_COMPLETION_INDEX with
JOB_COMPLETIONS; SLURM_ARRAY_TASK_ID). Shares may have one directory or several: choir simulate report takes any number.
deploy/kubernetes/sweep.yaml and deploy/slurm/sweep.sbatch are ready files.

With -o json standard output is one object with the keys cells, share, done (counts), failed (a list of cell and reason),
setups as choir simulate report has them, and report, the page's path.

Example: choir simulate sweep quick --grid local.learning_rate=0.03,0.1,0.3 --grid local.epochs=1,2 --seeds 0-2 --out rates`
}

// Run runs the share of this machine.
func (c *simulateSweep) Run(ctx context.Context, t *terminal) error {
	if c.Parallel < 0 || c.Parallel > 1024 {
		return &usageError{fmt.Sprintf("--parallel is %d, want 1 to 1024", c.Parallel), ""}
	}
	all, err := c.cells(simulate.Fidelity(c.Fidelity))
	if err != nil {
		return err
	}
	share, err := c.share()
	if err != nil {
		return err
	}
	var mine []cell
	for i, cell := range all {
		if share.mine(i) {
			mine = append(mine, cell)
		}
	}
	if share.of > 1 {
		fmt.Fprintf(t.err, "%s: %d of %d cells (%s)\n", share, len(mine), len(all), share.from)
	}
	s := &sweep{dir: c.Out, fidelity: simulate.Fidelity(c.Fidelity), meter: newMeter(t.err, "sweep"), total: len(mine), loader: newLoader()}
	for _, cell := range mine {
		s.rounds += roundsOf(&cell.x)
	}
	s.divide(c.Parallel, len(mine))
	s.run(ctx, mine)
	s.meter.finish()
	if ctx.Err() != nil {
		return &hinted{fmt.Errorf("interrupted; %d of %d cells are finished", len(s.runs), len(mine)), "the same command goes on"}
	}
	if err := c.answer(t.out, s, len(all), len(mine)); err != nil {
		return err
	}
	for _, f := range s.failed {
		fmt.Fprintf(t.err, "choir: error: %s: %s\n", f.Cell, f.Reason)
		if f.hint != "" {
			fmt.Fprintf(t.err, "hint: %s\n", f.hint)
		}
	}
	if len(s.failed) > 0 {
		return errSilent
	}
	return nil
}

// share is that of this machine.
func (c *simulateSweep) share() (shard, error) {
	if c.Shard != "" {
		return parseShard(c.Shard, "--shard")
	}
	return scheduledShard(os.Getenv)
}

// answer writes the report and prints what it says.
func (c *simulateSweep) answer(out io.Writer, s *sweep, cells, share int) error {
	page := ""
	r := report.New(s.runs)
	if len(s.runs) > 0 {
		files, err := writeReport(c.Out, r)
		if err != nil {
			return err
		}
		page = files.page
	}
	if c.json() {
		return printJSON(out, map[string]any{
			"cells": cells, "share": share, "done": len(s.runs), "failed": append([]failedCell{}, s.failed...), "setups": setupsFound(r), "report": page,
		})
	}
	if err := printSetups(out, r); err != nil || page == "" {
		return err
	}
	_, err := fmt.Fprintf(out, "page: %s\n", page)
	return err
}

// sweep is cells under way.
type sweep struct {
	dir      string
	fidelity simulate.Fidelity
	meter    *meter
	total    int // cells
	rounds   int // of all cells
	parallel int // cells at a time
	workers  int // of a cell
	loader   *simulate.Loader

	mu     sync.Mutex // guards what follows
	over   int        // cells that are done or failed
	done   int        // rounds that are behind
	saved  int        // rounds among them that nobody had to wait for: of an earlier sweep, or after a target
	runs   []report.Run
	failed []failedCell
}

// failedCell is one that could not be run to its end.
type failedCell struct {
	Cell   string `json:"cell"`
	Reason string `json:"reason"`
	hint   string // what to do about it, if that is known
}

// failedAs is a cell and why it failed.
func failedAs(cell string, err error) failedCell {
	f := failedCell{Cell: cell, Reason: err.Error()}
	var known *hinted
	if errors.As(err, &known) {
		f.hint = known.hint
	}
	return f
}

// divide gives the cores to cells: as many cells at a time as there are cores, since a small model's round has parts that one
// core does alone, and a core for each; where fewer cells are left, they have several.
func (s *sweep) divide(parallel, cells int) {
	cores := runtime.GOMAXPROCS(0)
	s.parallel = parallel
	if parallel == 0 {
		s.parallel = max(1, min(cores, cells))
	}
	s.workers = max(1, cores/s.parallel)
}

// run runs cells until none is left, or ctx is over.
func (s *sweep) run(ctx context.Context, cells []cell) {
	var g errgroup.Group
	g.SetLimit(s.parallel)
	for _, c := range cells {
		g.Go(func() error {
			if ctx.Err() == nil {
				s.cell(ctx, c)
			}
			return nil
		})
	}
	_ = g.Wait() // no cell fails the others
}

// cell runs one cell, or what is left of it.
func (s *sweep) cell(ctx context.Context, c cell) {
	behind := 0 // rounds
	one := oneRun{
		x: c.x, fidelity: s.fidelity, workers: s.workers, loader: s.loader, dir: filepath.Join(s.dir, c.dir), resume: true,
		progress: func(first int, p simulate.Point) {
			s.move(p.Round-behind, max(first-1-behind, 0))
			behind = p.Round
		},
	}
	r, err := one.do(ctx, io.Discard)
	diverged := r != nil && r.Diverged != ""
	if err != nil && ctx.Err() != nil && !diverged {
		return
	}
	rest := roundsOf(&c.x) - behind
	defer s.move(rest, rest)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over++
	if err == nil || diverged {
		var run *report.Run
		if run, err = readRun(one.dir); err == nil {
			s.runs = append(s.runs, *run)
		}
	}
	switch {
	case err != nil:
		s.failed = append(s.failed, failedAs(c.dir, err))
	case diverged:
		s.failed = append(s.failed, failedCell{Cell: c.dir, Reason: r.Diverged})
	}
}

// move shows that so many rounds more are behind, of which some were saved.
func (s *sweep) move(rounds, saved int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.saved = s.done+rounds, s.saved+saved
	s.meter.rounds(s.saved+1, s.done, s.rounds, fmt.Sprintf("%d of %s", s.over, counted(s.total, "cell")))
}
