package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"choir.example/node"
)

// nodeStatus is `choir node status`.
type nodeStatus struct {
	nodeFlag
	outputFlag
}

// Help is what --help explains.
func (nodeStatus) Help() string {
	return `Shows what the node holds, what it does, and everything that left this machine: job, round, size, time, digest, policy and
whether it counted. Asks the node if it runs, and reads its directory if not.

Example: choir node status --config n1.yaml`
}

// Run shows the node's status.
func (c *nodeStatus) Run(ctx context.Context, t *terminal) error {
	file, err := c.file()
	if err != nil {
		return err
	}
	s, err := statusOf(ctx, t, file)
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(t.out, s)
	}
	return printNode(t, s)
}

// statusOf asks the running node, or opens the directory of one that does not run.
func statusOf(ctx context.Context, t *terminal, file nodeFile) (*node.Status, error) {
	control, err := node.Control(ctx, file.Dir)
	if err == nil {
		return control.Status(ctx)
	}
	if !errors.Is(err, node.ErrNotRunning) {
		return nil, err
	}
	n, err := openStopped(t, file)
	if err != nil {
		return nil, err
	}
	s, err := n.Status()
	return s, errors.Join(err, n.Close())
}

// openStopped opens the directory of a node that does not run, without any listener.
func openStopped(t *terminal, file nodeFile) (*node.Node, error) {
	log, _, err := logKeys{"text", "error"}.start(io.Discard)
	if err != nil {
		return nil, err
	}
	cfg := file.config()
	cfg.HTTP, cfg.Health = "", ""
	n, err := node.New(cfg, node.Deps{Log: log, Dial: dialTCP, Now: now, Rand: random, Keys: newKeyring(t, file.unseal()).open})
	if cure := (*hinted)(nil); errors.As(err, &cure) {
		return nil, err
	}
	if err != nil {
		return nil, &hinted{err, "is this the right node? Name its configuration with --config; one that never ran is enrolled with choir node --join-file"}
	}
	return n, nil
}

func printNode(t *terminal, s *node.Status) error {
	state := "does not run"
	switch {
	case s.NotReady != "":
		state = "runs, but is not ready: " + s.NotReady
	case s.Running && s.Doing != "":
		state = "runs: " + s.Doing
	case s.Running && s.Resting != "":
		state = "runs, rests: " + s.Resting
	case s.Running:
		state = "runs"
	}
	fmt.Fprintf(t.out, "%s of federation %s %s; certificate until %s\n", s.Name, s.Federation, state, s.CertificateExpires.UTC().Format(time.RFC3339))
	fmt.Fprintf(t.out, "holds %d rows for training, %d for validation, %d held back", s.Rows[node.Train], s.Rows[node.Validation], s.Rows[node.Held])
	if s.Schema != "" {
		fmt.Fprintf(t.out, ", of schema %s", s.Schema)
	}
	fmt.Fprintln(t.out)
	for _, m := range s.Models {
		fmt.Fprintf(t.out, "answers with model %s, release %d, %s, digest %s\n", m.Name, m.Version, m.Variant, m.Digest)
	}
	fmt.Fprintf(t.out, "%d updates wait for an answer\n\nwhat left this machine\n", s.Waiting)
	tab := newTable("TIME", "JOB", "ROUND", "KIND", "BYTES", "POLICY", "NOISE", "CLIP", "OUTCOME", "DIGEST")
	for _, x := range s.Sent {
		tab.add(x.Time.UTC().Format(time.RFC3339), x.Job, fmt.Sprintf("%d.%d", x.Round, x.Attempt), x.Kind, x.Bytes, x.Policy, x.Mechanism, x.Clip, x.Outcome, x.Update[:min(len(x.Update), 16)])
	}
	if err := tab.print(t.out, "nothing"); err != nil || len(s.Declined) == 0 {
		return err
	}
	fmt.Fprintln(t.out, "\nwhat it declined")
	tab = newTable("TIME", "JOB", "ROUND", "REASON")
	for _, x := range s.Declined {
		tab.add(x.Time.UTC().Format(time.RFC3339), x.Job, fmt.Sprintf("%d.%d", x.Round, x.Attempt), x.Reason)
	}
	return tab.print(t.out, "nothing")
}
