package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// seat is one replica on a wire of its own; it can be stopped, killed and opened again.
type seat struct {
	*replica
	name string
	wire *wire
	gate *gate
	dir  string
	disk string // that dir is on, where it is a small one
	box  *seal.Box
	log  *slog.Logger
	stop func(handOn bool)
}

func (s *site) seat(t *testing.T, name string) *seat {
	t.Helper()
	return &seat{name: name, dir: t.TempDir(), box: newTestBox(t), log: quiet()}
}

// open starts a replica on a seat's directory.
func (s *site) open(t *testing.T, x *seat, heartbeat time.Duration) {
	t.Helper()
	x.wire, x.gate, x.replica = s.wire(t, x.name), &gate{}, newReplica()
	err := x.replica.open(replicaConfig{
		name: x.name, dir: x.dir, voters: s.voters, heartbeat: heartbeat, box: x.box,
		stream: x.wire.raftStream(), log: x.log, gate: x.gate,
	})
	if err != nil {
		t.Fatal(err)
	}
	x.wire.start()
	r, w := x.replica, x.wire
	var once sync.Once
	x.stop = func(handOn bool) {
		once.Do(func() {
			if err := r.Close(handOn); err != nil {
				t.Errorf("close replica of %s: %v", x.name, err)
			}
			w.close()
		})
	}
	t.Cleanup(func() { x.stop(false) })
}

// kill is what Coordinator.Kill does to a replica.
func (x *seat) kill() {
	x.gate.kill()
	x.wire.kill()
}

func (s *site) seats(t *testing.T, heartbeat time.Duration) []*seat {
	t.Helper()
	var all []*seat
	for _, v := range s.voters {
		x := s.seat(t, v.Name)
		s.open(t, x, heartbeat)
		all = append(all, x)
	}
	return all
}

// leader waits for a leader among the replicas and puts it first.
func leader(t *testing.T, all []*seat) (first *seat, others []*seat) {
	t.Helper()
	eventually(t, "a leader", func() bool {
		for _, x := range all {
			if x.raft.State() == raft.Leader {
				first = x
				return true
			}
		}
		return false
	})
	for _, x := range all {
		if x != first {
			others = append(others, x)
		}
	}
	return first, others
}

func encode(t *testing.T, c *choirv1.Command) []byte {
	t.Helper()
	b, err := state.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *site) genesis(t *testing.T) []byte {
	t.Helper()
	g := &choirv1.Genesis{Cluster: "shop", Root: s.root.Certificate().Raw, TimeMs: 1}
	for _, v := range s.voters {
		g.Coordinators = append(g.Coordinators, &choirv1.CoordinatorEntry{Name: v.Name, Address: v.Address, Chain: v.Chain})
	}
	return encode(t, &choirv1.Command{Body: &choirv1.Command_Genesis{Genesis: g}})
}

// epochs proposes that ada's epoch key advances from lo to hi, one entry each.
func epochs(t *testing.T, x *seat, lo, hi uint64) (index uint64) {
	t.Helper()
	for e := lo; e <= hi; e++ {
		var err error
		if index, err = x.Propose(t.Context(), epoch(t, e)); err != nil {
			t.Fatalf("epoch %d: %v", e, err)
		}
	}
	return index
}

func epoch(t *testing.T, e uint64) []byte {
	t.Helper()
	return encode(t, &choirv1.Command{Body: &choirv1.Command_AnnounceEpoch{AnnounceEpoch: &choirv1.AnnounceEpoch{
		Key: &choirv1.EpochKey{Coordinator: "ada", Epoch: e, Recipient: fmt.Sprint("age1", e)},
	}}})
}

func propose(t *testing.T, x *seat, cmd []byte) uint64 {
	t.Helper()
	index, err := x.Propose(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// agreeAt waits until all have applied the entry and holds their states against each other, byte by byte.
func agreeAt(t *testing.T, index uint64, all ...*seat) {
	t.Helper()
	var want []byte
	for _, x := range all {
		s, err := x.Wait(within(t, 20*time.Second), func(s *state.State) bool { return s.Index >= index })
		if err != nil {
			t.Fatalf("%s has applied %d of %d entries: %v", x.name, x.State().Index, index, err)
		}
		got, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s holds another state than %s:\n%s\n%s", x.name, all[0].name, got, want)
		}
	}
}

func TestReplicasApplyTheSame(t *testing.T) {
	s := newSite(t, "ada", "bob", "cyd")
	all := s.seats(t, 3*steady) // the one who leads at first is told everything
	first, others := leader(t, all)
	propose(t, first, s.genesis(t))
	agreeAt(t, epochs(t, first, 1, 20), all...)
	if name, address := others[0].Leader(); name != first.name || address != s.address(first.name) {
		t.Errorf("%s thinks that %q at %q leads, not %s", others[0].name, name, address, first.name)
	}
	if _, err := others[0].Propose(t.Context(), s.genesis(t)); !errors.Is(err, errNotLeader) {
		t.Errorf("a follower took a command: %v", err)
	}
	index, err := first.Propose(t.Context(), s.genesis(t))
	if !isRefusal(err) || !errors.Is(err, state.ErrExists) {
		t.Errorf("a second genesis: %v", err)
	}
	agreeAt(t, index, all...)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := first.Propose(canceled, s.genesis(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("proposed for a caller that is gone: %v", err)
	}
}

func TestLargeCommandIsRefused(t *testing.T) {
	s := newSite(t, "ada")
	first, _ := leader(t, s.seats(t, steady))
	propose(t, first, s.genesis(t))
	before := first.raft.LastIndex()
	if _, err := first.Propose(t.Context(), make([]byte, state.MaxCommand+1)); !isRefusal(err) {
		t.Errorf("64 KiB and a byte: %v", err)
	}
	if after := first.raft.LastIndex(); after != before {
		t.Errorf("the log grew from %d to %d", before, after)
	}
	if _, err := first.Propose(t.Context(), make([]byte, state.MaxCommand)); !errors.Is(err, state.ErrFormat) {
		t.Errorf("64 KiB of zeros: %v", err)
	}
}

func TestLeaderKilled(t *testing.T) {
	s := newSite(t, "ada", "bob", "cyd")
	all := s.seats(t, 500*time.Millisecond)
	old, others := leader(t, all)
	propose(t, old, s.genesis(t))
	index := epochs(t, old, 1, 5)
	old.kill()
	began, files := time.Now(), contents(t, old.dir)
	next, rest := leader(t, others)
	took := time.Since(began)
	t.Logf("%s leads %v after %s was killed", next.name, took, old.name)
	if took > 3*time.Second {
		t.Errorf("a new leader after %v, want less than 3 s", took)
	}
	if got := next.State().Index; got > index { // the new leader has lost nothing and invented nothing
		t.Errorf("the new leader is at %d, beyond %d", got, index)
	}
	index = epochs(t, next, 6, 10)
	agreeAt(t, index, next, rest[0])
	if _, err := old.Propose(t.Context(), s.genesis(t)); err == nil || isRefusal(err) {
		t.Errorf("the dead leader answered: %v", err)
	}
	old.stop(false)
	if contents(t, old.dir) != files {
		t.Error("the dead leader wrote to its directory")
	}
	s.open(t, old, 500*time.Millisecond) // the machine comes back with what its disk held
	agreeAt(t, index, append(others, old)...)
}

func TestReplicaCatchesUp(t *testing.T) {
	for _, way := range []string{"log", "snapshot"} {
		t.Run(way, func(t *testing.T) {
			s := newSite(t, "ada", "bob", "cyd")
			all := s.seats(t, steady)
			first, others := leader(t, all)
			propose(t, first, s.genesis(t))
			agreeAt(t, epochs(t, first, 1, 3), all...)
			away := others[0]
			away.stop(false)
			first, _ = leader(t, []*seat{first, others[1]})
			epochs(t, first, 4, 40)
			if way == "snapshot" {
				forget(t, first)
			}
			index := epochs(t, first, 41, 42)
			s.open(t, away, steady)
			agreeAt(t, index, first, others[1], away)
			snaps, err := away.snaps.List()
			if err != nil || (len(snaps) > 0) != (way == "snapshot") {
				t.Errorf("caught up by %d snapshots, %v", len(snaps), err)
			}
			away.stop(false) // and it is durable there
			s.open(t, away, steady)
			agreeAt(t, index, first, away)
			for _, x := range []*seat{first, away} {
				if files := ownersFiles(t, x.dir); way == "snapshot" && files < 3 { // the log, a snapshot of two
					t.Errorf("%s has %d files", x.name, files)
				}
			}
		})
	}
}

// ownersFiles counts the files below a directory, and fails the test for what others may look into.
func ownersFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir { // which is the caller's
			return err
		}
		if !d.IsDir() {
			n++
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Snapshots that an earlier version left readable for others are so no more once the replica is open.
func TestOldSnapshotsBecomeTheOwners(t *testing.T) {
	s := newSite(t, "ada")
	first, _ := leader(t, s.seats(t, steady))
	propose(t, first, s.genesis(t))
	forget(t, first)
	first.stop(false)
	dir := filepath.Join(first.dir, snapshotsDir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		if err := os.Chmod(f, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.open(t, first, steady)
	ownersFiles(t, first.dir)
}

// forget makes a replica snapshot its state and drop the log before it.
func forget(t *testing.T, x *seat) {
	t.Helper()
	conf := x.raft.ReloadableConfig()
	conf.TrailingLogs = 1
	if err := x.raft.ReloadConfig(conf); err != nil {
		t.Fatal(err)
	}
	if err := x.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
}

func TestReplicasStartAgainFromDisk(t *testing.T) {
	s := newSite(t, "ada", "bob", "cyd")
	all := s.seats(t, 2*steady)
	first, _ := leader(t, all)
	propose(t, first, s.genesis(t))
	agreeAt(t, epochs(t, first, 1, 10), all...)
	for _, x := range all {
		forget(t, x)
	}
	index := epochs(t, first, 11, 15)
	agreeAt(t, index, all...)
	for _, x := range all {
		x.stop(true)
	}
	for _, x := range all {
		s.open(t, x, 2*steady)
	}
	agreeAt(t, index, all...)
	first, _ = leader(t, all)
	agreeAt(t, epochs(t, first, 16, 17), all...)
}

func TestLeadershipIsHandedOn(t *testing.T) {
	s := newSite(t, "ada", "bob", "cyd")
	all := s.seats(t, 2*time.Second) // an election alone would take longer than the test allows
	old, others := leader(t, all)
	propose(t, old, s.genesis(t))
	began := time.Now()
	old.stop(true)
	next, _ := leader(t, others)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("%s leads only %v later", next.name, took)
	}
}

func TestLeadRunsOneReignAtATime(t *testing.T) {
	s := newSite(t, "ada", "bob", "cyd")
	all := s.seats(t, steady)
	type reign struct {
		name string
		term uint64
		ends <-chan struct{}
	}
	reigns := make(chan reign, 10)
	ctx, cancel := context.WithCancel(t.Context())
	var leading sync.WaitGroup
	for _, x := range all {
		r := x.replica
		leading.Go(func() {
			r.Lead(ctx, func(ctx context.Context, term uint64) {
				reigns <- reign{x.name, term, ctx.Done()}
				<-ctx.Done()
			})
		})
	}
	a := <-reigns
	first, _ := leader(t, all)
	if a.name != first.name || a.term != first.Term() {
		t.Errorf("%s reigns in term %d, but %s leads in %d", a.name, a.term, first.name, first.Term())
	}
	propose(t, first, s.genesis(t))
	if err := first.raft.LeadershipTransfer().Error(); err != nil {
		t.Fatal(err)
	}
	<-a.ends
	b := <-reigns
	if b.name == a.name || b.term <= a.term {
		t.Errorf("after %s in term %d came %s in term %d", a.name, a.term, b.name, b.term)
	}
	for _, x := range all { // what was committed before the reign is seen in it
		if x.name == b.name && x.State().Cluster != "shop" {
			t.Error("the new leader has not applied what was committed before")
		}
	}
	cancel()
	<-b.ends
	leading.Wait()
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	for _, file := range []string{"state.bin", "meta.json"} {
		t.Run(file, func(t *testing.T) {
			s := newSite(t, "ada")
			all := s.seats(t, steady)
			first, _ := leader(t, all)
			propose(t, first, s.genesis(t))
			epochs(t, first, 1, 5)
			forget(t, first)
			first.stop(false)
			found, err := filepath.Glob(filepath.Join(first.dir, "snapshots", "*", file))
			if err != nil || len(found) != 1 {
				t.Fatalf("snapshot files %v, %v", found, err)
			}
			b, err := os.ReadFile(found[0])
			if err != nil {
				t.Fatal(err)
			}
			if file == "meta.json" { // the CRC in it is none against an attacker
				b = bytes.Replace(b, []byte(`"Term":`), []byte(`"Term":1`), 1)
			} else {
				if bytes.Contains(b, []byte("shop")) {
					t.Error("the snapshot lies there in the clear")
				}
				b[len(b)/2] ^= 1
			}
			if err := os.WriteFile(found[0], b, 0o600); err != nil {
				t.Fatal(err)
			}
			r := newReplica()
			w := s.wire(t, "ada")
			err = r.open(replicaConfig{name: "ada", dir: first.dir, voters: s.voters, heartbeat: steady,
				box: first.box, stream: w.raftStream(), log: quiet(), gate: &gate{}})
			if err == nil || !strings.Contains(err.Error(), "snapshot") || !strings.Contains(err.Error(), "join again") {
				t.Fatalf("opened: %v", err)
			}
		})
	}
}

func TestKilledSnapshotsWriteNothing(t *testing.T) {
	s := newSite(t, "ada")
	first, _ := leader(t, s.seats(t, steady))
	propose(t, first, s.genesis(t))
	forget(t, first)
	voters := raft.Configuration{Servers: []raft.Server{{ID: "ada", Address: "x"}}}
	begun, err := first.snaps.Create(1, 3, 2, voters, 1, first.trans)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := begun.Write([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	first.kill()
	before := contents(t, first.dir)
	if _, err := first.snaps.Create(1, 91, 2, voters, 1, first.trans); !errors.Is(err, errKilled) {
		t.Errorf("snapshot begun after the kill: %v", err)
	}
	if err := begun.Close(); !errors.Is(err, errKilled) {
		t.Errorf("snapshot ended after the kill: %v", err)
	}
	if err := begun.Cancel(); !errors.Is(err, errKilled) {
		t.Errorf("snapshot cancelled after the kill: %v", err)
	}
	if contents(t, first.dir) != before {
		t.Error("the directory changed after the kill")
	}
}

// TestSnapshotFromAfarIsAnchored repeats what a broken connection does: entries after the snapshot were stored, the
// answer was lost, and the leader sends them again.
func TestSnapshotFromAfarIsAnchored(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "raft.db"), newTestBox(t))
	snaps := &sealedSnapshots{gate: s.gate, logs: s}
	for _, c := range []struct {
		name         string
		log          []*raft.Log
		index, term  uint64
		first, after uint64
	}{
		{"no snapshot", entries(1, 5), 0, 0, 1, 5},
		{"of this log", entries(1, 5), 4, 1, 1, 5},
		{"far ahead", entries(1, 5), 40, 3, 40, 40},
		{"ahead by one", entries(1, 5), 6, 3, 6, 6},
		{"the entry lacks, later ones are there", entries(41, 45), 40, 3, 40, 45},
		{"of another term than the log", entries(1, 9), 5, 8, 5, 9},
		{"empty log", nil, 7, 2, 7, 7},
	} {
		if err := s.DeleteRange(0, 1000); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.StoreLogs(c.log), snaps.anchor(c.index, c.term)); err != nil {
			t.Fatal(err)
		}
		if e := edges(t, s); e != [2]uint64{c.first, c.after} {
			t.Errorf("%s: the log reaches from %d to %d, want %d to %d", c.name, e[0], e[1], c.first, c.after)
		}
		var l raft.Log
		if err := s.GetLog(c.index, &l); c.index > 0 && (err != nil || l.Term != c.term) {
			t.Errorf("%s: entry %d is %+v, %v", c.name, c.index, l, err)
		}
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	never := func(*state.State) bool { return false }
	if _, err := newReplica().Wait(ctx, never); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// What a newer version wrote is kept out of the log by an older leader; where it is in the log already, an older replica
// applies neither it nor anything after it, takes no snapshot, and says so.
func TestNewerCommandStopsAnOlderReplica(t *testing.T) {
	s := newSite(t, "ada")
	r, _ := leader(t, s.seats(t, steady))
	propose(t, r, s.genesis(t))
	c, err := state.DecodeCommand(s.genesis(t))
	if err != nil {
		t.Fatal(err)
	}
	c.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1<<15, protowire.VarintType), 1))
	newer, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	before, index := r.raft.LastIndex(), r.State().Index
	if _, err := r.Propose(t.Context(), newer); !isRefusal(err) || !errors.Is(err, state.ErrNewer) {
		t.Errorf("proposed: %v", err)
	}
	if after := r.raft.LastIndex(); after != before {
		t.Errorf("the log grew from %d to %d", before, after)
	}

	if err := r.raft.Apply(newer, applyTimeout).Error(); err != nil { // as a newer leader does
		t.Fatal(err)
	}
	if err := <-r.newer; !errors.Is(err, state.ErrNewer) || !strings.Contains(err.Error(), "log entry ") {
		t.Errorf("the replica says %v", err)
	}
	if err := r.raft.Apply(epoch(t, 1), applyTimeout).Error(); err != nil {
		t.Fatal(err)
	}
	if got := r.State().Index; got != index {
		t.Errorf("applied up to %d, want %d", got, index)
	}
	if err := r.raft.Snapshot().Error(); err == nil || !strings.Contains(err.Error(), state.ErrNewer.Error()) {
		t.Errorf("snapshot: %v", err)
	}
}
