package coordinator

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"choir.example/privacy/seal"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

func entry(i uint64) *raft.Log {
	return &raft.Log{Index: i, Term: 1 + i/10, Type: raft.LogCommand, Data: fmt.Appendf(nil, "command %d", i),
		Extensions: []byte{byte(i)}, AppendedAt: time.Unix(0, 1e18+int64(i))}
}

func entries(lo, hi uint64) (ls []*raft.Log) {
	for i := lo; i <= hi; i++ {
		ls = append(ls, entry(i))
	}
	return ls
}

func openStore(t *testing.T, path string, box *seal.Box) *raftStore {
	t.Helper()
	s, err := openRaftStore(path, box, &gate{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func edges(t *testing.T, s *raftStore) [2]uint64 {
	t.Helper()
	first, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	return [2]uint64{first, last}
}

func TestRaftStoreKeepsTheLog(t *testing.T) {
	path, box := filepath.Join(t.TempDir(), "raft.db"), newTestBox(t)
	s := openStore(t, path, box)
	if e := edges(t, s); e != [2]uint64{} {
		t.Fatalf("an empty log reaches from %d to %d, want 0 and 0", e[0], e[1])
	}
	var got raft.Log
	if err := s.GetLog(1, &got); err != raft.ErrLogNotFound { // raft compares with ==
		t.Fatalf("missing entry: %v", err)
	}
	if err := s.StoreLogs(entries(5, 20)); err != nil {
		t.Fatal(err)
	}
	timeless := &raft.Log{Index: 21, Term: 3, Type: raft.LogNoop}
	if err := s.StoreLog(timeless); err != nil {
		t.Fatal(err)
	}
	again := entry(12)
	again.Term, again.Data = 9, []byte("overwritten")
	if err := s.StoreLog(again); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path, box)
	if e := edges(t, s); e != [2]uint64{5, 21} {
		t.Fatalf("the log reaches from %d to %d, want 5 and 21", e[0], e[1])
	}
	for i := uint64(5); i <= 20; i++ {
		want := entry(i)
		if i == 12 {
			want = again
		}
		if err := s.GetLog(i, &got); err != nil || !reflect.DeepEqual(&got, want) {
			t.Fatalf("entry %d: got %+v, %v, want %+v", i, got, err, want)
		}
	}
	if err := s.GetLog(21, &got); err != nil || !got.AppendedAt.IsZero() || got.Type != raft.LogNoop || len(got.Data) != 0 {
		t.Fatalf("entry without a time: %+v, %v", got, err)
	}
}

func TestRaftStoreDeletes(t *testing.T) {
	for _, c := range []struct {
		name                    string
		lo, hi                  uint64
		first, last             uint64
		wantTransactions, stays int
	}{
		{"prefix", 1, 2400, 2401, 2500, 3, 100},
		{"suffix", 2000, 2500, 1, 1999, 1, 1999},
		{"beyond both ends", 0, 9999, 0, 0, 3, 0},
		{"nothing", 3000, 4000, 1, 2500, 1, 2500},
		{"the other way round", 9, 3, 1, 2500, 1, 2500},
		{"exactly one slice", 1, deleteSlice, deleteSlice + 1, 2500, 1, 1500},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, filepath.Join(t.TempDir(), "raft.db"), newTestBox(t))
			if err := s.StoreLogs(entries(1, 2500)); err != nil {
				t.Fatal(err)
			}
			before := transactions(t, s)
			if err := s.DeleteRange(c.lo, c.hi); err != nil {
				t.Fatal(err)
			}
			if n := transactions(t, s) - before; n != c.wantTransactions {
				t.Errorf("%d transactions, want %d", n, c.wantTransactions)
			}
			if e := edges(t, s); e != [2]uint64{c.first, c.last} {
				t.Errorf("the log reaches from %d to %d, want %d to %d", e[0], e[1], c.first, c.last)
			}
			n := 0
			for i := uint64(1); i <= 2500; i++ {
				var l raft.Log
				if s.GetLog(i, &l) == nil {
					n++
				}
			}
			if n != c.stays {
				t.Errorf("%d entries left, want %d", n, c.stays)
			}
		})
	}
}

// transactions is the number of the last write transaction.
func transactions(t *testing.T, s *raftStore) (n int) {
	t.Helper()
	if err := s.db.View(func(tx *bbolt.Tx) error { n = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRaftStoreKeepsStableValues(t *testing.T) {
	path, box := filepath.Join(t.TempDir(), "raft.db"), newTestBox(t)
	s := openStore(t, path, box)
	if _, err := s.Get([]byte("LastVoteCand")); err == nil || err.Error() != "not found" { // raft compares the text
		t.Fatalf("missing value: %v", err)
	}
	if _, err := s.GetUint64([]byte(keyTerm)); err == nil || err.Error() != "not found" {
		t.Fatalf("missing number: %v", err)
	}
	if err := s.Set([]byte("LastVoteCand"), []byte("ada")); err != nil {
		t.Fatal(err)
	}
	for _, term := range []uint64{1, 1 << 60} {
		if err := s.SetUint64([]byte(keyTerm), term); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path, box)
	if v, err := s.Get([]byte("LastVoteCand")); err != nil || string(v) != "ada" {
		t.Errorf("vote: %q, %v", v, err)
	}
	if v, err := s.GetUint64([]byte(keyTerm)); err != nil || v != 1<<60 {
		t.Errorf("term: %d, %v", v, err)
	}
	if _, err := s.GetUint64([]byte("LastVoteCand")); err == nil {
		t.Error("a name was read as a number")
	}
}

// TestRaftKeepsItsTermWhereWeThink holds keyTerm against raft itself.
func TestRaftKeepsItsTermWhereWeThink(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "raft.db"), newTestBox(t))
	_, trans := raft.NewInmemTransport("ada")
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = "ada", raftLogger(quiet())
	voters := raft.Configuration{Servers: []raft.Server{{ID: "ada", Address: "ada"}}}
	if err := raft.BootstrapCluster(conf, s, s, raft.NewInmemSnapshotStore(), trans, voters); err != nil {
		t.Fatal(err)
	}
	if v, err := s.GetUint64([]byte(keyTerm)); err != nil || v != 1 {
		t.Fatalf("raft's term after bootstrap: %d, %v; want 1 under %s", v, err, keyTerm)
	}
}

func TestDamagedRecordsAreRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(log, stable *bbolt.Bucket) error
		want   []string
	}{
		{"flipped bit in an entry", func(log, _ *bbolt.Bucket) error {
			return flip(log, indexKey(7))
		}, []string{"raft entry 7 does not verify"}},
		{"flipped bit in the term", func(_, stable *bbolt.Bucket) error {
			return flip(stable, []byte(keyTerm))
		}, []string{"stable value CurrentTerm does not verify"}},
		{"entries swapped", func(log, _ *bbolt.Bucket) error {
			a, b := bytes.Clone(log.Get(indexKey(3))), bytes.Clone(log.Get(indexKey(4)))
			return errors.Join(log.Put(indexKey(3), b), log.Put(indexKey(4), a))
		}, []string{"raft entry 3 does not verify"}},
		{"entry cut short", func(log, _ *bbolt.Bucket) error {
			return log.Put(indexKey(2), log.Get(indexKey(2))[:10])
		}, []string{"raft entry 2 does not verify"}},
		{"vote under another key", func(_, stable *bbolt.Bucket) error {
			return stable.Put([]byte("LastVoteTerm"), bytes.Clone(stable.Get([]byte(keyTerm))))
		}, []string{"stable value LastVoteTerm does not verify"}},
		{"strange key", func(log, _ *bbolt.Bucket) error {
			return log.Put([]byte("x"), []byte("y"))
		}, []string{"malformed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, box := filepath.Join(t.TempDir(), "raft.db"), newTestBox(t)
			s := openStore(t, path, box)
			if err := errors.Join(s.StoreLogs(entries(1, 9)), s.SetUint64([]byte(keyTerm), 4)); err != nil {
				t.Fatal(err)
			}
			err := s.db.Update(func(tx *bbolt.Tx) error { return c.damage(tx.Bucket(bucketLog), tx.Bucket(bucketStable)) })
			if err := errors.Join(err, s.Close()); err != nil {
				t.Fatal(err)
			}
			_, err = openRaftStore(path, box, &gate{})
			for _, want := range append(c.want, path, "remove it from the cluster and join again") {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v does not say %q", err, want)
				}
			}
		})
	}
}

func TestMissingEntriesAreNoticed(t *testing.T) {
	for _, c := range []struct {
		first, last, without, snapshot uint64
		want                           string
	}{
		{1, 9, 0, 0, ""},
		{0, 0, 0, 0, ""},
		{0, 0, 0, 40, ""},  // all in the snapshot
		{1, 9, 0, 40, ""},  // raft leaves old entries behind
		{1, 9, 0, 9, ""},   // nothing new since
		{5, 9, 0, 4, ""},   // as much as there must be
		{1, 20, 5, 10, ""}, // the gap lies before the snapshot's end
		{5, 9, 0, 0, "entries 1 to 4 are missing"},
		{5, 9, 0, 3, "entries 4 to 4 are missing"},
		{1, 9, 5, 0, "entries 5 to 5 are missing"},
		{1, 9, 5, 4, "entries 5 to 5 are missing"},
	} {
		s := openStore(t, filepath.Join(t.TempDir(), "raft.db"), newTestBox(t))
		if c.last > 0 {
			if err := s.StoreLogs(entries(c.first, c.last)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.DeleteRange(c.without, c.without); err != nil {
			t.Fatal(err)
		}
		err := s.complete(c.snapshot)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func flip(b *bbolt.Bucket, key []byte) error {
	v := bytes.Clone(b.Get(key))
	v[len(v)/2] ^= 1
	return b.Put(key, v)
}

func TestAnotherKeyOpensNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := openStore(t, path, newTestBox(t))
	if err := errors.Join(s.StoreLogs(entries(1, 3)), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := openRaftStore(path, newTestBox(t), &gate{}); !errors.Is(err, seal.ErrSealed) {
		t.Fatalf("opened with another key: %v", err)
	}
}

// TestDamagedFileNeverLies flips bytes of the file and cuts it short: it either refuses or holds what was written.
func TestDamagedFileNeverLies(t *testing.T) {
	dir, box := t.TempDir(), newTestBox(t)
	path := filepath.Join(dir, "raft.db")
	s := openStore(t, path, box)
	for i := uint64(1); i <= 120; i += 10 {
		if err := s.StoreLogs(entries(i, i+9)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.SetUint64([]byte(keyTerm), 4), s.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, 1))
	refused := 0
	for trial := range 150 {
		b := bytes.Clone(whole)
		if trial%5 == 0 {
			b = b[:rnd.IntN(len(b))]
		} else {
			b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		}
		damaged := filepath.Join(dir, fmt.Sprintf("%d.db", trial))
		if err := os.WriteFile(damaged, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openRaftStore(damaged, box, &gate{})
		if err != nil {
			refused++
			continue
		}
		if e := edges(t, s); e != [2]uint64{1, 120} {
			t.Errorf("seed %d, trial %d: the log reaches from %d to %d", seed, trial, e[0], e[1])
		}
		for i := uint64(1); i <= 120; i++ {
			var l raft.Log
			if err := s.GetLog(i, &l); err != nil || !reflect.DeepEqual(&l, entry(i)) {
				t.Errorf("seed %d, trial %d: entry %d is %+v, %v", seed, trial, i, l, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of 150 damaged files refused", refused)
	if refused == 0 {
		t.Error("no damaged file was refused")
	}
}

func TestOneDirectoryOneCoordinator(t *testing.T) {
	path, box := filepath.Join(t.TempDir(), "raft.db"), newTestBox(t)
	openStore(t, path, box)
	_, err := openRaftStore(path, box, &gate{})
	if err == nil || !strings.Contains(err.Error(), "another coordinator is using this directory") {
		t.Fatalf("opened twice: %v", err)
	}
}

func TestKilledStoreWritesNothing(t *testing.T) {
	path, box := filepath.Join(t.TempDir(), "raft.db"), newTestBox(t)
	s := openStore(t, path, box)
	vote := []byte("LastVoteCand")
	err := errors.Join(s.StoreLogs(entries(1, 9)), s.SetUint64([]byte(keyTerm), 4), s.Set(vote, []byte("ada")))
	if err != nil {
		t.Fatal(err)
	}
	before := contents(t, path)
	s.kill()
	if err := s.SetUint64([]byte(keyTerm), 5); err != nil {
		t.Errorf("raft would panic: %v", err)
	}
	for what, err := range map[string]error{
		"store": s.StoreLogs(entries(10, 12)), "delete": s.DeleteRange(1, 3), "vote": s.Set(vote, []byte("bob")),
		"number": s.SetUint64([]byte("LastVoteTerm"), 5),
	} {
		if !errors.Is(err, errKilled) {
			t.Errorf("%s after the kill: %v", what, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if after := contents(t, path); after != before {
		t.Error("the file changed after the kill")
	}
	s = openStore(t, path, box)
	if term, err := s.GetUint64([]byte(keyTerm)); err != nil || term != 4 {
		t.Errorf("term %d, %v; want 4", term, err)
	}
}

func TestKillWaitsForTheWriteUnderWay(t *testing.T) {
	g := &gate{}
	begun, finish, written, killed := make(chan struct{}), make(chan struct{}), make(chan error), make(chan struct{})
	go func() {
		written <- g.write(func() error {
			close(begun)
			<-finish
			return nil
		})
	}()
	<-begun
	go func() { g.kill(); close(killed) }()
	for g.check() == nil {
		runtime.Gosched()
	}
	select {
	case <-killed:
		t.Fatal("kill returned while a write was under way")
	default:
	}
	close(finish)
	if err := <-written; err != nil {
		t.Error(err)
	}
	<-killed
	if err := g.write(func() error { t.Error("written after the kill"); return nil }); !errors.Is(err, errKilled) {
		t.Errorf("write after the kill: %v", err)
	}
}

func FuzzDecodeLog(f *testing.F) {
	f.Add(encodeLog(entry(3)))
	f.Add(encodeLog(&raft.Log{Index: 3, Type: raft.LogBarrier}))
	f.Add([]byte{})
	f.Add(make([]byte, 21))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l raft.Log
		if err := decodeLog(b, 3, &l); err != nil {
			return
		}
		if again := encodeLog(&l); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", b, l, again)
		}
	})
}

// A write that fails is told, and not in a flood.
func TestFailedWriteIsTold(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "raft.db"), newTestBox(t))
	var out bytes.Buffer
	s.failed = complain(slog.New(slog.NewTextHandler(&out, nil)), "the disk takes nothing")
	full := errors.New("no space left on device")
	for range 3 {
		if err := s.update(func(*bbolt.Tx) error { return full }); !errors.Is(err, full) {
			t.Fatalf("%v", err)
		}
	}
	if got := strings.Count(out.String(), "no space left on device"); got != 1 {
		t.Errorf("told %d times:\n%s", got, &out)
	}
}
