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
command goes on with a sweep after a break. A cell that cannot be is told before the first one begins; neither it nor one that
diverges stops the others, and the exit code then is 1. At the end, and whenever it is called, choir simulate report shows what there is.

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
	mine := share.cells(all)
	if share.of > 1 {
		fmt.Fprintf(t.err, "%s: %d of %d cells (%s)\n", share, len(mine), len(all), share.from)
	}
	s := &sweep{dir: c.Out, fidelity: simulate.Fidelity(c.Fidelity), meter: newMeter(t.err, "sweep"), total: len(mine), loader: newLoader()}
	left := s.check(ctx, mine, newStages(t.err, "sweep"))
	refused := len(s.failed)
	tellFailed(t.err, s.failed)
	s.divide(c.Parallel, len(left))
	s.run(ctx, left)
	s.meter.finish()
	if ctx.Err() != nil {
		return &hinted{fmt.Errorf("interrupted; %d of %d cells are finished", len(s.runs), len(mine)), "the same command goes on"}
	}
	if err := c.answer(t.out, s, len(all), len(mine)); err != nil {
		return err
	}
	tellFailed(t.err, s.failed[refused:])
	if refused > 0 && len(left) > 0 {
		fmt.Fprintf(t.err, "left out, as was said before the first one began: %s\n", counted(refused, "cell"))
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
func failedAs(c *cell, err error) failedCell {
	err = c.from.explain(err)
	f := failedCell{Cell: c.dir, Reason: err.Error()}
	var known *hinted
	if errors.As(err, &known) {
		f.hint = known.hint
	}
	return f
}

// tellFailed says why cells failed, each reason once.
func tellFailed(w io.Writer, failed []failedCell) {
	cells := map[string][]string{} // by reason
	for _, f := range failed {
		cells[f.Reason] = append(cells[f.Reason], f.Cell)
	}
	for _, f := range failed {
		alike := cells[f.Reason]
		if alike[0] != f.Cell {
			continue
		}
		more := ""
		if len(alike) > 1 {
			more = fmt.Sprintf(" and %d more", len(alike)-1)
		}
		fmt.Fprintf(w, "choir: error: %s%s: %s\n", f.Cell, more, f.Reason)
		if f.hint != "" {
			fmt.Fprintf(w, "hint: %s\n", f.hint)
		}
	}
}

// check takes out the cells that cannot be, so that people hear of them before hours of others, and counts the rounds of the
// rest. Of a setup the first seed is looked at, and the others if that cannot be: what only some seeds cannot do is told when
// they are run. Cells that were begun before have been looked at.
func (s *sweep) check(ctx context.Context, cells []cell, early *stages) (left []cell) {
	defer early.end()
	early.begin("checking cells")
	var setup *changedExperiment // the one that was looked at last
	fine := false
	for _, c := range cells {
		if setup == c.from && fine || ctx.Err() != nil || begun(filepath.Join(s.dir, c.dir)) {
			left = append(left, c)
			continue
		}
		setup = c.from
		err := simulate.Check(c.x, simulate.RunConfig{Seed: c.x.Seeds[0], Fidelity: s.fidelity, Loader: s.loader})
		if fine = err == nil; fine {
			left = append(left, c)
			continue
		}
		s.failed = append(s.failed, failedAs(&c, err))
		s.over++
	}
	for _, c := range left {
		s.rounds += roundsOf(&c.x)
	}
	return left
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
		s.failed = append(s.failed, failedAs(&c, err))
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
