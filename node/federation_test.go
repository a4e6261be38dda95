package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/model/data"
	"choir.example/node"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
	"choir.example/simulate"
)

// journal keeps what one node sent and what it was answered, over its restarts.
type journal struct {
	mu       sync.Mutex // guards the fields below
	sent     map[uint64][][]byte
	receipts map[uint64]int
	released chan struct{}
}

func (j *journal) observer(sending func()) node.Observer {
	return node.Observer{
		Sending: func(_ string, round uint64, _ uint32, payload []byte) {
			j.mu.Lock()
			j.sent[round] = append(j.sent[round], bytes.Clone(payload))
			j.mu.Unlock()
			sending()
		},
		Receipt:  func(r audit.Receipt, _ []byte) { j.mu.Lock(); j.receipts[r.Round]++; j.mu.Unlock() },
		Released: func(string, uint64, string) { close(j.released) },
	}
}

// A node among real coordinators: it enrols by token, is cut off and stopped at the moment it sends an update, comes
// back, sends the same bytes, is counted once a round, and serves the release.
func TestNodeComesBackAmongRealCoordinators(t *testing.T) {
	schema, rows, regions, err := data.Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	var parts []data.Parts
	for _, p := range simulate.Partition(rows[:1500], regions[:1500], 2, 0) {
		parts = append(parts, data.Split(schema, p, 0))
	}
	network := simulate.NewNetwork()
	f, err := simulate.Start(t.Context(), simulate.FederationConfig{
		Dir: t.TempDir(), Cluster: "test", Coordinators: 1, Schema: schema, Parts: parts[:1], Network: network, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	cfg := node.DefaultConfig()
	cfg.Name, cfg.Dir, cfg.HTTP, cfg.Poll = "edge", filepath.Join(t.TempDir(), "edge"), "127.0.0.1:0", 500*time.Millisecond
	deps := node.Deps{Log: slog.New(slog.DiscardHandler), Dial: network.Dialer("edge"), Now: time.Now, Rand: rand.Reader}
	enrolByToken(t, f, cfg, deps)

	j := &journal{sent: map[uint64][][]byte{}, receipts: map[uint64]int{}, released: make(chan struct{})}
	stopped, stop := context.WithCancel(t.Context())
	deps.Observe = j.observer(sync.OnceFunc(func() { network.Cut("edge", "c1"); stop() }))
	n := open(t, cfg, deps)
	fill(t, n.Store(), schema, parts[1])
	first := make(chan error, 1)
	go func() { first <- n.Run(stopped) }()

	spec := simulate.PurchaseJob(schema, 2, 1, 0)
	spec.StudentRows, spec.StudentEpochs, spec.GateStudentPpm, spec.GateInt8Ppm, spec.DurationMs = 64, 1, 1e6, 1e6, 60_000
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	if _, err := f.Operator().SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: spec}); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	network.Heal("edge", "c1")
	deps.Observe = j.observer(func() {})
	n = open(t, cfg, deps)
	importRows(t, n.Store(), node.Train, schema, parts[1].Held) // what was signed before must not change with it
	running, end := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() { second <- n.Run(running) }()
	defer func() {
		end()
		if err := <-second; err != nil {
			t.Error(err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	if s, err := f.WaitJob(ctx, spec.Name, nil); err != nil || s.State != "finished" {
		t.Fatalf("job: %v, %v", s, err)
	}
	select {
	case <-j.released:
	case <-ctx.Done():
		t.Fatal("no release came")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.sent[0]) < 2 || len(j.sent) < 2 {
		t.Errorf("the node sent %d times in round 0, and in %d rounds", len(j.sent[0]), len(j.sent))
	}
	for round, payloads := range j.sent {
		for _, p := range payloads {
			if !bytes.Equal(p, payloads[0]) {
				t.Errorf("round %d: two different payloads were signed", round)
			}
		}
		if j.receipts[round] != 1 {
			t.Errorf("round %d: %d receipts", round, j.receipts[round])
		}
	}
	resp, err := http.Get("http://" + n.Address() + "/v2/models/purchase")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), `"versions":["1"]`) {
		t.Errorf("%s: %s (%v)", resp.Status, body, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// enrolByToken enrols with a real coordinator, which refuses the token to anybody else afterwards.
func enrolByToken(t *testing.T, f *simulate.Federation, cfg node.Config, deps node.Deps) {
	t.Helper()
	reply, err := f.Operator().CreateToken(t.Context(), &choirv1.CreateTokenRequest{LifetimeMs: 60_000})
	if err != nil {
		t.Fatal(err)
	}
	token, err := seal.ParseToken(reply.Token)
	if err != nil {
		t.Fatal(err)
	}
	guess := *token
	guess.Secret = make([]byte, len(token.Secret))
	if err := node.Enrol(t.Context(), cfg, deps, &guess); err == nil {
		t.Error("enrolled with a guessed secret")
	}
	if err := node.Enrol(t.Context(), cfg, deps, token); err != nil {
		t.Fatal(err)
	}
	thief := cfg
	thief.Name, thief.Dir = "thief", t.TempDir()
	if err := node.Enrol(t.Context(), thief, deps, token); err == nil || !strings.Contains(err.Error(), "enrol thief") {
		t.Errorf("a used token: %v", err)
	}
}

func open(t *testing.T, cfg node.Config, deps node.Deps) *node.Node {
	t.Helper()
	n, err := node.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func fill(t *testing.T, s *node.Store, schema *data.Schema, p data.Parts) {
	t.Helper()
	if err := s.SetSchema(schema); err != nil {
		t.Fatal(err)
	}
	importRows(t, s, node.Train, schema, p.Train)
	importRows(t, s, node.Validation, schema, p.Validation)
}

func importRows(t *testing.T, s *node.Store, part node.Part, schema *data.Schema, rows []data.Row) {
	t.Helper()
	var file bytes.Buffer
	if err := data.WriteCSV(&file, schema, rows); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(t.Context(), &file, node.Source{Name: "rows.csv", Part: part}); err != nil {
		t.Fatal(err)
	}
}
