package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/fedavg"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func testSpool(t testing.TB, dir string) *spool {
	t.Helper()
	box, err := seal.OpenKeys(filepath.Join(dir, "keys"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openSpool(filepath.Join(dir, "spool"), box.Sub("spool"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// at is a payload of an attempt.
func payloadAt(round uint64, node string) (fedavg.Header, []byte) {
	h := header(node)
	h.Round = round
	return h, (&fedavg.Payload{Header: h, Update: fedavg.Update{Weight: 1, Scalars: []int64{int64(round)}}}).Encode()
}

func TestSpoolKeepsPayloads(t *testing.T) {
	dir := t.TempDir()
	s := testSpool(t, dir)
	h, payload := payloadAt(1, "node-01")
	h2, payload2 := payloadAt(2, "node-01")
	if b, err := s.get(h); b != nil || err != nil {
		t.Errorf("before it was put: %q, %v", b, err)
	}
	for _, x := range []struct {
		h fedavg.Header
		b []byte
	}{{h, payload}, {h2, payload2}} {
		if err := s.put(x.h, x.b); err != nil {
			t.Fatal(err)
		}
	}
	again := h
	again.Attempt++
	if b, err := s.get(again); b != nil || err != nil {
		t.Errorf("another attempt got %q, %v", b, err)
	}
	write(t, filepath.Join(dir, "spool", ".new-123"), payload) // a crash cut this write off
	s = testSpool(t, dir)
	if b, err := s.get(h); !bytes.Equal(b, payload) || err != nil {
		t.Errorf("after a restart: %q, %v", b, err)
	}
	if names, err := s.names(); len(names) != 2 || err != nil {
		t.Errorf("waiting are %q, %v", names, err)
	}
	for path, body := range files(t, filepath.Join(dir, "spool")) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || bytes.Contains(body, payload[:16]) {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if err := s.drop(h); err != nil {
		t.Error(err)
	}
	if err := s.drop(h); err != nil {
		t.Errorf("dropped twice: %v", err)
	}
	if b, err := s.get(h); b != nil || err != nil {
		t.Errorf("after it was dropped: %q, %v", b, err)
	}
	if b, err := s.get(h2); !bytes.Equal(b, payload2) || err != nil {
		t.Errorf("the other one: %q, %v", b, err)
	}
	// A payload belongs to its attempt.
	if err := os.Rename(filepath.Join(dir, "spool", spoolName(h2)), filepath.Join(dir, "spool", spoolName(h))); err != nil {
		t.Fatal(err)
	}
	_, err := s.get(h)
	wantError(t, err, "spooled update", "does not verify")
}

func TestSpoolWhereNothingCanBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, nil)
	_, err := openSpool(filepath.Join(file, "spool"), nil)
	wantError(t, err, "open spool", "not a directory")
}

// ask settles each update of node-01 as a test says, and counts how often it is asked.
func (p *party) settles(name string, asked map[uint64]int, answer func(round uint64) (*choirv1.Outcome, error)) {
	p.coordinator(name, &service{
		outcome: func(r *choirv1.OutcomeRequest) (*choirv1.Outcome, error) {
			asked[r.Key.Round]++
			return answer(r.Key.Round)
		},
	})
}

// After a restart the node asks for each spooled update. It forgets those that are answered for good and keeps the
// others, and what is damaged does not stop it.
func TestRestartSettlesTheSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newParty(t, "test"), t.TempDir()
		n := p.node(dir, nil, "c1")
		for round := range uint64(8) {
			h, payload := payloadAt(round, "node-01")
			if err := n.spool.put(h, payload); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		at := func(round uint64) string {
			h, _ := payloadAt(round, "node-01")
			return filepath.Join(dir, "spool", spoolName(h))
		}
		flip(t, at(5))
		other, payload := payloadAt(6, "node-02") // opens, but is not this node's
		if err := testSpool(t, dir).put(other, payload); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(at(7)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(at(7), 0o700); err != nil { // cannot be read
			t.Fatal(err)
		}
		cred := p.certify(seal.RoleCoordinator, "c1")
		forger := newParty(t, "test").certify(seal.RoleCoordinator, "c1")
		asked := map[uint64]int{}
		p.settles("c1", asked, func(round uint64) (*choirv1.Outcome, error) {
			h, payload := payloadAt(round, "node-01")
			update := seal.UpdateDigest(payload)
			switch round {
			case 0:
				return signedReceipt(cred, "c1", receiptFor(h, update)), nil
			case 1:
				return signedRefusal(cred, "c1", refusalFor(h, update)), nil
			case 2:
				return pendingOutcome, nil
			case 3:
				return nil, status.Error(codes.NotFound, "never heard of")
			}
			return signedReceipt(forger, "c1", receiptFor(h, update)), nil
		})
		var receipts, refusals int
		n = p.node(dir, func(_ *Config, d *Deps) {
			d.Observe.Receipt = func(audit.Receipt, []byte) { receipts++ }
			d.Observe.Refused = func(audit.Refusal) { refusals++ }
		}, "c1")
		start := time.Now()
		if err := n.resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > settleTimeout+time.Second {
			t.Errorf("it took %v", took)
		}
		for round, kept := range map[uint64]bool{0: false, 1: false, 2: true, 3: true, 4: true, 5: false, 6: false, 7: true} {
			if _, err := os.Stat(at(round)); (err == nil) != kept {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if receipts != 1 || refusals != 1 || asked[4] < 2 || asked[5]+asked[6]+asked[7] != 0 {
			t.Errorf("%d receipts, %d refusals, asked %v", receipts, refusals, asked)
		}
		if p.log.count("level=ERROR", "spooled update is damaged and is removed") != 2 || p.log.count("level=ERROR", "cannot be read") != 1 {
			t.Errorf("log: %s", p.log)
		}
		if !n.late {
			t.Error("a forged receipt is not asked about again")
		}
	})
}

func flip(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	write(t, path, b)
}

// statisticsTask invites to a statistics round of the toy schema.
func (p *party) statisticsTask(cred *seal.Credential, coordinator string) *choirv1.Task {
	return &choirv1.Task{
		Key: &choirv1.RoundKey{Job: "job", Round: 3, Attempt: 1}, Kind: choirv1.RoundKind_ROUND_KIND_STATISTICS, Cluster: "test",
		Plan: make([]byte, 32), Job: toyJob(p.t), Keys: []*choirv1.EpochKey{epochKey(p.t, cred, "test", coordinator, nil)}, RemainingMs: 60_000,
	}
}

func toyJob(t testing.TB) *choirv1.JobSpec {
	return &choirv1.JobSpec{
		Name: "job", Model: "toy", Schema: toySchema(t).Encode(), Hidden: []uint32{4}, LocalEpochs: 2, Batch: 4,
		LearningRate: 0.1, Range: 4, Clip: 1, WeightCap: 100,
	}
}

// hold waits as long as a poll may, for there is nothing to do.
func hold(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
	_ = pause(ctx, time.Duration(r.WaitMs)*time.Millisecond)
	return &choirv1.PollReply{}, nil
}

// The payload is durable before its first byte leaves; cut off before its answer and started again, the node sends the
// same bytes though its data have changed, and forgets them with the receipt only.
func TestSameBytesAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newParty(t, "test"), t.TempDir()
		s := &service{}
		cred := p.coordinator("c1", s)
		task := p.statisticsTask(cred, "c1")
		s.poll = func(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
			if r.Done.GetJob() == "" {
				return &choirv1.PollReply{Task: task}, nil
			}
			return hold(ctx, r)
		}
		s.outcome = func(*choirv1.OutcomeRequest) (*choirv1.Outcome, error) { return pendingOutcome, nil }
		var digests [][32]byte
		answered := make(chan bool, 1)
		s.upload = func(stream choirv1.Nodes_UploadServer) error {
			h, _, err := drain(stream)
			if err != nil {
				return err
			}
			digests = append(digests, [32]byte(h.Update))
			select {
			case <-answered:
				return stream.Send(answerWith(signedReceipt(cred, "c1", receiptFor(header("node-01"), [32]byte(h.Update)))))
			default:
				return status.Error(codes.Unavailable, "the leader is gone")
			}
		}
		spoolPath := filepath.Join(dir, "spool", spoolName(header("node-01")))
		var sent [][]byte
		run := func(until func(cancel func()) Observer) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n := p.node(dir, func(_ *Config, d *Deps) { d.Observe = until(cancel) }, "c1")
			if n.store.Schema() == nil {
				if err := n.store.SetSchema(toySchema(t)); err != nil {
					t.Fatal(err)
				}
			}
			importCSV(t, n.store, Train, toyCSV(5))
			if err := n.Run(ctx); err != nil {
				t.Fatal(err)
			}
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
		}
		run(func(cancel func()) Observer {
			return Observer{Sending: func(_ string, _ uint64, _ uint32, payload []byte) {
				if _, err := os.Stat(spoolPath); err != nil {
					t.Errorf("sent before it was kept: %v", err)
				}
				sent = append(sent, payload)
				time.AfterFunc(20*time.Second, cancel) // of the bubble
			}}
		})
		if _, err := os.Stat(spoolPath); err != nil || len(digests) < 5 {
			t.Fatalf("after %d tries without an answer: %v", len(digests), err)
		}
		answered <- true
		run(func(cancel func()) Observer {
			return Observer{
				Sending: func(_ string, _ uint64, _ uint32, payload []byte) { sent = append(sent, payload) },
				Receipt: func(r audit.Receipt, payload []byte) {
					if r.Update != seal.UpdateDigest(payload) {
						t.Error("the receipt is for other bytes")
					}
					time.AfterFunc(time.Second, cancel)
				},
			}
		})
		if len(sent) != 2 || !bytes.Equal(sent[0], sent[1]) {
			t.Errorf("sent %d payloads, which differ", len(sent))
		}
		for _, d := range digests {
			if d != seal.UpdateDigest(sent[0]) {
				t.Error("another update was sent")
			}
		}
		if _, err := os.Stat(spoolPath); !os.IsNotExist(err) {
			t.Errorf("kept although it was answered: %v", err)
		}
	})
}

// A spool in memory does what one on the disk does, and leaves no file.
func TestSpoolInMemory(t *testing.T) {
	dir := t.TempDir()
	s, err := openSpool(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.hold()
	first, second := fedavg.Header{Job: "a", Round: 1}, fedavg.Header{Job: "b", Round: 1}
	for h, payload := range map[*fedavg.Header]string{&first: "one", &second: "two"} {
		if err := s.put(*h, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.get(first); err != nil || string(got) != "one" {
		t.Errorf("%q, %v", got, err)
	}
	if err := s.drop(first); err != nil {
		t.Fatal(err)
	}
	if got, err := s.get(first); got != nil || err != nil {
		t.Errorf("dropped, and there is %q, %v", got, err)
	}
	if names, err := s.names(); err != nil || len(names) != 1 || names[0] != spoolName(second) {
		t.Errorf("%v, %v", names, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("files %v, %v", entries, err)
	}
}
