package node

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	choirv1 "choir.example/proto/choir/v1"
)

// get reads a page of the health listener.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Those who watch over a node see that it lives, whether it can work, and how much it does.
func TestHealthAndMetrics(t *testing.T) {
	p := newParty(t, "test")
	s := newShop().service()
	var polls atomic.Int64
	again := make(chan struct{})
	s.poll = func(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
		if polls.Add(1) == 2 {
			close(again)
		}
		return hold(ctx, r)
	}
	p.coordinator("c1", s)
	var off atomic.Int64 // by which the clock is wrong
	n := p.node(t.TempDir(), func(c *Config, d *Deps) {
		c.HTTP, c.Health, c.Control, d.Now = "127.0.0.1:0", "127.0.0.1:0", true, func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	}, "c1")
	if err := n.store.SetSchema(toySchema(t)); err != nil {
		t.Fatal(err)
	}
	importCSV(t, n.store, Train, toyCSV(5))
	n.serve.swap(toyModel(t, "toy", 1), 1, [32]byte{})
	running(t, n)
	base := "http://" + n.health.listener.Addr().String()
	if code, body := get(t, base+"/healthz"); code != 200 {
		t.Errorf("healthz: %d %s", code, body)
	}
	<-again // the first poll was answered
	if code, body := get(t, base+"/readyz"); code != 200 {
		t.Errorf("readyz: %d %s", code, body)
	}
	task := p.statisticsTask(p.certify("coordinator", "c1"), "c1")
	task.Job.MinimumExamples = 6
	n.invited(t.Context(), task)
	predictionOf(t, n.serve, byNames)
	_, body := get(t, base+"/metrics")
	for _, line := range []string{
		`choir_node_predictions_total{model="toy"} 2`, `choir_node_prediction_seconds_count 1`, `choir_node_rows{part="train"} 5`,
		`choir_node_rows{part="validation"} 0`, `choir_node_tasks_total{kind="statistics",result="not_done"} 1`,
		`choir_node_sent_bytes_total 0`, `choir_node_updates_waiting 0`, `choir_node_certificate_expiry_timestamp_seconds `,
	} {
		if !strings.Contains(body, "\n"+line) {
			t.Errorf("no line %q in\n%s", line, body)
		}
	}
	r, _ := http.NewRequest("GET", base+"/metrics", nil)
	r.Host = "evil.example"
	if resp, err := http.DefaultClient.Do(r); err != nil || resp.StatusCode != 403 {
		t.Errorf("another host: %v, %v", resp, err)
	}
	off.Store(int64(40 * 24 * time.Hour))
	if code, body := get(t, base+"/readyz"); code != 503 || !strings.Contains(body, "the certificate ended at") || !strings.Contains(body, "this machine's clock says") {
		t.Errorf("with a certificate that ended: %d %s", code, body)
	}
}

// A node whose disk is too full for its store says so for as long as it is.
func TestNodeWithoutRoomIsNotReady(t *testing.T) {
	p, dir := newParty(t, "test"), smallDisk(t, 24<<20)
	s := newShop().service()
	var polls atomic.Int64
	again := make(chan struct{})
	s.poll = func(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
		if polls.Add(1) == 2 {
			close(again)
		}
		return hold(ctx, r)
	}
	p.coordinator("c1", s)
	n := p.node(dir, func(c *Config, _ *Deps) { c.HTTP, c.Health, c.Control = "", "127.0.0.1:0", true }, "c1")
	running(t, n)
	<-again // the first poll was answered
	ready := "http://" + n.health.listener.Addr().String() + "/readyz"
	if code, body := get(t, ready); code != 200 {
		t.Fatalf("with room: %d %s", code, body)
	}
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		_, err = f.Write(make([]byte, 4096))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if code, body := get(t, ready); code != 503 || !strings.Contains(body, "the disk is full: 0 MB are free") || !strings.Contains(body, "make room") {
		t.Errorf("without: %d %s", code, body)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if code, body := get(t, ready); code != 200 {
		t.Errorf("with room again: %d %s", code, body)
	}
}
