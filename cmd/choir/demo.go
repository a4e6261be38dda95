package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"choir.example/simulate"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// demoCommand is `choir demo`.
type demoCommand struct {
	Keep         string `help:"Keep all files in DIR, which must be empty or not exist. Without it only the page is kept." placeholder:"DIR" type:"path"`
	Output       string `short:"o" help:"What to print on standard output: ${enum}." enum:"table,json" default:"table"`
	Rounds       uint64 `help:"Training rounds." default:"20"`
	Seed         uint64 `help:"Seed of all that is chance, but for keys and timing. One seed gives one model." default:"0"`
	Nodes        int    `help:"Edge nodes, one a region; fewer than nine merge regions, more split them, by the seed." default:"9"`
	Coordinators int    `help:"Coordinators; one or two only with --no-kill." default:"3"`
	NoKill       bool   `help:"Do not kill the leading coordinator in the middle of a round."`
	Verbose      bool   `short:"v" help:"Log what coordinators and nodes do, on standard error."`
}

// Help is what `choir demo --help` explains.
func (demoCommand) Help() string {
	return `Starts coordinators and nodes in this process, with certificates, tokens and encrypted stores of their own, trains a
model on web-shop sessions of nine regions, kills the leading coordinator in the middle of a round, publishes compressed
variants, and asks a node for a prediction. Afterwards it recounts the nodes' receipts against the audit log, verifies
that log, and writes a page with the curves. Exits 1 if anything is not as it must be.

With -o json standard output is one object with the keys
  seed, coordinators, nodes, rounds_committed, seconds
  model: name, version, digest (of the float32 variant)
  metrics: federated, local_mean and central, each with auc and accuracy on the pooled held-out rows
  variants: a list of name, bytes, auc, p50_us and p99_us (float32, int8 and student-int8; those that were published)
  uplink_bytes_per_node_round
  failover: round and seconds (0 with --no-kill), and of all rounds receipts, counted, lost and twice
  prediction: model_version, probability
  audit: records, verified
  report: the page's path
What is not as it must be is said on standard error.

Example: choir demo --rounds 10 --keep /tmp/choir-demo`
}

// check refuses what cannot work.
func (c *demoCommand) check() error {
	switch {
	case c.Rounds < 1 || c.Rounds > 1000:
		return &usageError{fmt.Sprintf("--rounds is %d, want 1 to 1000", c.Rounds), ""}
	case c.Nodes < 1 || c.Nodes > 100:
		return &usageError{fmt.Sprintf("--nodes is %d, want 1 to 100", c.Nodes), ""}
	case c.Coordinators < 1 || c.Coordinators > 7:
		return &usageError{fmt.Sprintf("--coordinators is %d, want 1 to 7", c.Coordinators), ""}
	case c.Coordinators < 3 && !c.NoKill:
		return &usageError{fmt.Sprintf("%d coordinators have no majority left when one is killed", c.Coordinators), "add --no-kill, or take three coordinators"}
	case c.Nodes < 2 && !c.NoKill:
		return &usageError{"one node is not enough to catch the leader in the middle of a round", "add --no-kill, or take two nodes"}
	}
	return nil
}

// Run runs the demo.
func (c *demoCommand) Run(ctx context.Context, t *terminal) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	dir, report, cleanup, err := c.place()
	if err != nil {
		return err
	}
	made := false
	defer func() { err = errors.Join(err, cleanup(made)) }()
	log := slog.New(slog.DiscardHandler)
	if c.Verbose {
		log = slog.New(slog.NewTextHandler(t.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	shown := newProgress(t.err)
	r, err := simulate.Demo(ctx, simulate.DemoConfig{
		Dir: dir, Report: report, Coordinators: c.Coordinators, Nodes: c.Nodes, Rounds: c.Rounds, Seed: c.Seed,
		Kill: !c.NoKill, Log: log, Progress: shown.show,
	})
	shown.finish()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	made = true
	if c.Output == "json" {
		err = json.NewEncoder(t.out).Encode(r)
	} else {
		err = printDemo(t.out, r, c.Keep)
	}
	if err == nil && len(r.Problems) > 0 {
		for _, p := range r.Problems {
			fmt.Fprintf(t.err, "choir: error: %s\n", p)
		}
		return errSilent
	}
	return err
}

// place decides where files lie: below --keep, or in a temporary directory that cleanup removes, all but a page that
// was made.
func (c *demoCommand) place() (dir, report string, cleanup func(made bool) error, err error) {
	if c.Keep != "" {
		if entries, err := os.ReadDir(c.Keep); err == nil && len(entries) > 0 {
			return "", "", nil, &hinted{fmt.Errorf("%s is not empty", c.Keep), "name a directory that is empty or does not exist"}
		}
		if err := os.MkdirAll(c.Keep, 0o700); err != nil {
			return "", "", nil, fmt.Errorf("make %s: %w", c.Keep, err)
		}
		return c.Keep, filepath.Join(c.Keep, "report.html"), func(bool) error { return nil }, nil
	}
	if dir, err = os.MkdirTemp("", "choir-demo-"); err != nil {
		return "", "", nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	page := dir + ".html"
	return dir, page, func(made bool) error {
		err := os.RemoveAll(dir)
		if !made {
			err = errors.Join(err, os.RemoveAll(page))
		}
		return err
	}, nil
}

// printDemo prints the result for people.
func printDemo(w io.Writer, r *simulate.DemoResult, keep string) error {
	fmt.Fprintf(w, "%s, %s, %s, seed %d: %.1f s\n", counted(r.Coordinators, "coordinator"), counted(r.Nodes, "node"),
		counted(int(r.Rounds), "round"), r.Seed, r.Seconds)
	f := r.Failover
	if f.Victim != "" {
		fmt.Fprintf(w, "leader %s killed in round %d: the next batch was committed after %.2f s\n", f.Victim, f.Round, f.Seconds)
	}
	fmt.Fprintf(w, "recount: %d receipts, %d counted, %d lost, %d twice\n", f.Receipts, f.Counted, f.Lost, f.Twice)
	fmt.Fprintf(w, "audit log: %d records, verified offline: %v\n\n", r.Audit.Records, r.Audit.Verified)
	fmt.Fprintf(w, "%-30s  %6s  %8s\n", "trained on", "AUC", "accuracy")
	for _, row := range []struct {
		name string
		simulate.Score
	}{
		{"the federation", r.Metrics.Federated}, {r.Alone(), r.Metrics.LocalMean}, {"all data in one place", r.Metrics.Central},
	} {
		fmt.Fprintf(w, "%-30s  %.4f  %6.2f %%\n", row.name, row.AUC, 100*row.Accuracy)
	}
	fmt.Fprintf(w, "\n%-14s  %7s  %6s  %9s  %9s   in process, one core\n", "variant", "bytes", "AUC", "p50", "p99")
	for _, v := range r.Released {
		fmt.Fprintf(w, "%-14s  %7d  %.4f  %6.1f µs  %6.1f µs\n", v.Name, v.Bytes, v.AUC, v.P50, v.P99)
	}
	fmt.Fprintf(w, "%-14s  %7s  %6s  %6.1f µs  %6.1f µs   %s over HTTP\n\n", "", "", "", r.HTTP.P50, r.HTTP.P99, r.HTTPVariant)
	fmt.Fprintf(w, "uplink: %d bytes a node and round, TLS and all; AUC from summed histograms: %.6f off the exact one\n", r.Uplink, r.HistogramGap)
	fmt.Fprintf(w, "prediction of a node: %s\n\n", r.Answer)
	if keep != "" {
		fmt.Fprintf(w, "check it yourself: choir audit verify %s --root %s\n",
			filepath.Join(keep, "audit", "run.bundle"), "$(cat "+filepath.Join(keep, "audit", "root.fingerprint")+")")
	}
	_, err := fmt.Fprintf(w, "page: %s\n", r.Report)
	return err
}

// counted is a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// progress shows where the demo stands: a bar on a terminal, plain lines elsewhere.
type progress struct {
	w    io.Writer
	bar  *progressbar.ProgressBar // nil off a terminal
	last string
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions(1, progressbar.OptionSetWriter(w), progressbar.OptionClearOnFinish(),
			progressbar.OptionSetWidth(24))
	}
	return p
}

func (p *progress) show(s simulate.DemoProgress) {
	line := s.Stage
	if s.Round > 0 && s.Round < s.Of { // afterwards the stage says it all
		line = fmt.Sprintf("%s: round %d of %d", s.Stage, s.Round, s.Of)
		if s.After > 0 {
			line += fmt.Sprintf(", AUC %.4f after round %d", s.AUC, s.After)
		}
	}
	if p.bar != nil {
		p.bar.ChangeMax64(int64(s.Of))
		p.bar.Describe(line)
		_ = p.bar.Set64(int64(s.Round)) // a bar that cannot be drawn is no reason to stop
		return
	}
	if line != p.last {
		fmt.Fprintln(p.w, line)
	}
	p.last = line
}

func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
