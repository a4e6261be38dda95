package node

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"choir.example/fedavg"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// running starts a node and waits until its owner can speak with it.
func running(t *testing.T, n *Node) *Controller {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return reach(t, n.cfg.Dir)
}

func reach(t *testing.T, dir string) *Controller {
	t.Helper()
	for range 1000 {
		if c, err := Control(t.Context(), dir); err == nil {
			return c
		}
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatalf("no node answers in %s", dir)
	return nil
}

func withControl(c *Config, _ *Deps) { c.Control = true }

// The owner sees over the socket what left the machine: what, when, how much, under which policy, with what outcome. It
// is there before the first byte leaves, and after a restart.
func TestOwnerSeesWhatLeft(t *testing.T) {
	p, dir := newParty(t, "test"), t.TempDir()
	s := newShop().service()
	cred := p.coordinator("c1", s)
	task := p.statisticsTask(cred, "c1")
	given := make(chan struct{}, 1)
	given <- struct{}{}
	s.poll = func(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
		select {
		case <-given:
			return &choirv1.PollReply{Task: task}, nil
		default:
			return hold(ctx, r)
		}
	}
	var n *Node
	pending, answered := make(chan Sent, 1), make(chan struct{}, 1)
	s.upload = func(stream choirv1.Nodes_UploadServer) error {
		h, _, err := drain(stream)
		if err != nil {
			return err
		}
		pending <- n.journal.all()[0]
		return stream.Send(answerWith(signedReceipt(cred, "c1", receiptFor(header("node-01"), [32]byte(h.Update)))))
	}
	n = p.node(dir, func(c *Config, d *Deps) {
		c.Control = true
		d.Observe.Receipt = func(audit.Receipt, []byte) { answered <- struct{}{} }
	}, "c1")
	if err := n.store.SetSchema(toySchema(t)); err != nil {
		t.Fatal(err)
	}
	importCSV(t, n.store, Train, toyCSV(5))
	c := running(t, n)
	if first := <-pending; first.Outcome != OutcomePending || first.Job != "job" {
		t.Errorf("while it is sent: %+v", first)
	}
	<-answered
	var status *Status
	for range 1000 { // the journal is written after the observer was told
		var err error
		if status, err = c.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status.Doing == "" {
			break
		}
	}
	if !status.Running || status.Name != "node-01" || status.Federation != "test" || status.Rows[Train] != 5 || status.Schema != "toy" {
		t.Errorf("status is %+v", status)
	}
	if time.Until(status.CertificateExpires) < 29*24*time.Hour {
		t.Errorf("the certificate ends at %v", status.CertificateExpires)
	}
	sent := status.Sent[0]
	if len(status.Sent) != 1 || sent.Kind != "statistics" || sent.Round != task.Key.Round || sent.Outcome != OutcomeCounted || sent.Index == 0 ||
		sent.Bytes < 100 || len(sent.Update) != 64 || sent.Policy != "plain" || sent.Mechanism != "none" || time.Since(sent.Time) > time.Minute {
		t.Errorf("what left is %+v", status.Sent)
	}
	if len(status.Jobs) != 1 || status.Jobs[0].Counted != 1 || status.Jobs[0].Bytes != int64(sent.Bytes) {
		t.Errorf("the jobs are %+v", status.Jobs)
	}
	j, err := openJournal(dir)
	if err != nil || len(j.all()) != 1 || j.all()[0] != sent {
		t.Errorf("the journal on disk is %+v, %v", j.all(), err)
	}
	_ = j.close()
}

// The socket is the owner's alone, goes with the node, and one that a killed node left does not hinder the next.
func TestControlSocketIsTheOwners(t *testing.T) {
	p, dir := newParty(t, "test"), t.TempDir()
	path := filepath.Join(dir, controlSocket)
	_, err := Control(t.Context(), dir)
	if !errors.Is(err, ErrNotRunning) {
		t.Errorf("before the first start: %v", err)
	}
	s := newShop().service()
	s.poll = hold
	p.coordinator("c1", s)
	n := p.node(dir, withControl, "c1")
	killed, err := n.startControl() // and never removed, as after kill -9
	if err != nil {
		t.Fatal(err)
	}
	_ = killed.listener.Close()
	if _, err := Control(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after a kill: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Run(ctx) }()
	c := reach(t, dir)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
	}
	_, err = c.send(t.Context(), http.MethodGet, "/v1/nothing", nil)
	wantError(t, err, "404")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

// A directory with a path longer than a socket's may be works all the same.
func TestControlSocketInADeepDirectory(t *testing.T) {
	p, dir := newParty(t, "test"), filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	s := newShop().service()
	s.poll = hold
	p.coordinator("c1", s)
	if _, err := running(t, p.node(dir, withControl, "c1")).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// The journal is bounded, and drops what a power cut left half written, and nothing else.
func TestJournalIsBoundedAndSurvivesTornLines(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	task := &choirv1.Task{Key: &choirv1.RoundKey{Job: "job"}, Kind: choirv1.RoundKind_ROUND_KIND_TRAIN, Job: &choirv1.JobSpec{Clip: 1.5}}
	for i := range maxSent + 10 {
		j.add(Sent{Job: "old", Round: uint64(i), Outcome: OutcomeCounted})
	}
	if err := j.sending(task, [32]byte{1}, 999, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := j.answered(fedavg.Header{Job: "job"}, [32]byte{1}, &answer{refusal: &audit.Refusal{Index: 7, Reason: "late"}}); err != nil {
		t.Fatal(err)
	}
	all := j.all()
	last := all[len(all)-1]
	if len(all) != maxSent || last.Outcome != OutcomeRefused || last.Reason != "late" || last.Index != 7 || last.Clip != 1.5 {
		t.Errorf("%d entries, the last is %+v", len(all), last)
	}
	if err := errors.Join(j.rewrite(), j.close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, journalFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, append(whole, whole[:40]...))
	again, err := openJournal(dir)
	if err != nil || len(again.all()) != maxSent || again.all()[maxSent-1] != last {
		t.Errorf("after a torn line: %d entries, %v", len(again.all()), err)
	}
	if err := again.sending(task, [32]byte{2}, 1, time.Now()); err != nil {
		t.Fatal(err)
	}
	_ = again.close()
	third, err := openJournal(dir)
	if err != nil || third.all()[maxSent-1].Bytes != 1 {
		t.Errorf("what is written after a torn line is lost: %v", err)
	}
	_ = third.close()
}
