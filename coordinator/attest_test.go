package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// finish answers every task of a job of one training round, at the leader, until its release is there.
func (f *testFederation) finish(nodes []*testNode) {
	f.t.Helper()
	leader := f.leader()
	for range 3 { // statistics, training, evaluation
		for i, task := range f.tasks(nodes) {
			nodes[i].answer(leader, task, 1)
		}
	}
	for _, v := range f.voters {
		f.wait(v.Name, "released", func(s *state.State) bool { return len(s.Releases["toy"]) > 0 })
	}
}

// proved is the release as one coordinator proves it to a node that verifies it by the roster it was handed there.
func (n *testNode) proved(coordinator string) *audit.Released {
	n.f.t.Helper()
	reply, err := n.at(coordinator).Poll(n.f.ctx(), &choirv1.PollRequest{WaitMs: 500})
	if err != nil {
		n.f.t.Fatal(err)
	}
	for reply.Roster == nil { // it may be handed out a moment later
		if reply, err = n.at(coordinator).Poll(n.f.ctx(), &choirv1.PollRequest{WaitMs: 500, Versions: map[string]uint64{"toy": 1}}); err != nil {
			n.f.t.Fatal(err)
		}
	}
	roster, err := audit.DecodeRoster(reply.Roster)
	if err == nil {
		err = roster.Verify(n.f.root.Certificate(), time.Now())
	}
	if err != nil {
		n.f.t.Fatal(err)
	}
	rel, err := n.at(coordinator).GetRelease(n.f.ctx(), &choirv1.ReleaseRequest{Model: "toy"})
	if err != nil {
		n.f.t.Fatal(err)
	}
	proof, err := audit.DecodeProof(rel.Proof)
	if err != nil {
		n.f.t.Fatalf("%s: %v", coordinator, err)
	}
	record, err := proof.Verify(roster, n.f.root.Certificate(), time.Now())
	if err != nil {
		n.f.t.Fatalf("%s: %v", coordinator, err)
	}
	return record.(*audit.Released)
}

// Every coordinator proves a release to nodes, as it was committed: the one that led, those that followed, and one that
// was away when it was published.
func TestEveryCoordinatorProvesTheRelease(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	nodes := f.enrol("n1", "n2")
	f.submit(testJob(t, 1))
	f.finish(nodes)
	want := f.member("c1").replica.State().Releases["toy"][0]
	check := func(coordinator string) {
		t.Helper()
		got := nodes[0].proved(coordinator)
		if got.Model != "toy" || got.Version != 1 || len(got.Variants) != len(want.Variants) {
			t.Errorf("%s proves %+v", coordinator, got)
		}
		for i, v := range got.Variants {
			if v.Blob != want.Variants[i].Blob || v.Published != want.Variants[i].Published {
				t.Errorf("%s proves variant %+v, committed is %+v", coordinator, v, want.Variants[i])
			}
		}
	}
	for _, v := range f.voters {
		check(v.Name)
	}
	f.restart(f.kill("c3"))
	f.wait("c3", "caught up", func(s *state.State) bool { return len(s.Releases["toy"]) > 0 })
	check("c3")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if p := f.member("c1").proof(ended, "toy", 2); p != nil {
		t.Error("a release is proved that does not exist")
	}
}

// signingPeer is a peer whose answer to SignHead a test chooses.
type signingPeer struct {
	choirv1.UnimplementedPeersServer
	sign func(ctx context.Context, h audit.Head) ([]byte, error)
}

func (p *signingPeer) SignHead(ctx context.Context, r *choirv1.SignHeadRequest) (*choirv1.SignHeadReply, error) {
	sig, err := p.sign(ctx, audit.Head{Cluster: "shop", Size: r.Size, Root: [32]byte(r.Root)})
	return &choirv1.SignHeadReply{Signature: &choirv1.Signature{Signature: sig}}, err
}

// heads is a coordinator c1 among peers, that does nothing but to ask for heads, and its state.
func heads(t *testing.T, peers map[string]*signingPeer) (*Coordinator, *state.State, *site) {
	t.Helper()
	names := append([]string{"c1"}, slices.Sorted(maps.Keys(peers))...)
	place, wires := newSite(t, names...), map[string]*bufconn.Listener{}
	for name, p := range peers {
		l, server := bufconn.Listen(1<<16), grpc.NewServer()
		wires[name] = l
		choirv1.RegisterPeersServer(server, p)
		var wg sync.WaitGroup
		wg.Go(func() { _ = server.Serve(l) })
		t.Cleanup(func() { server.Stop(); wg.Wait() })
	}
	c := &Coordinator{cfg: Config{Name: "c1"}, deps: Deps{Log: quiet()}}
	c.own.Store(&papers{credential: place.creds["c1"]})
	c.peers = newPeerClients(func(name, _ string) (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///"+name, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return wires[name].DialContext(ctx) }))
	})
	t.Cleanup(c.peers.close)
	s := state.New()
	s.Cluster, s.Log = "shop", s.Log.Append([]byte("record"))
	for _, v := range place.voters {
		s.Coordinators = append(s.Coordinators, state.Coordinator{Name: v.Name, Address: v.Address, Chain: v.Chain})
	}
	return c, s, place
}

// A head carries only signatures that are their signer's. One peer that lies spoils nothing, and one that does not answer
// holds up nobody once enough have signed.
func TestHeadsAreGathered(t *testing.T) {
	var place *site
	as := func(name string) *signingPeer {
		return &signingPeer{sign: func(_ context.Context, h audit.Head) ([]byte, error) {
			return seal.Sign(place.creds[name].Key, audit.DomainHead, h.Message()), nil
		}}
	}
	silent := &signingPeer{sign: func(ctx context.Context, _ audit.Head) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }}
	unwilling := &signingPeer{sign: func(context.Context, audit.Head) ([]byte, error) { return nil, errors.New("another root") }}
	for _, c := range []struct {
		name   string
		peers  map[string]*signingPeer
		enough int
		want   string // the signers
		err    string
	}{
		{"all", map[string]*signingPeer{"c2": as("c2"), "c3": as("c3")}, 3, "[c1 c2 c3]", ""},
		{"a liar", map[string]*signingPeer{"c2": as("c1"), "c3": as("c3")}, 3, "[c1 c3]", ""},
		{"a silent one", map[string]*signingPeer{"c2": silent, "c3": as("c3")}, 2, "[c1 c3]", ""},
		{"liars only", map[string]*signingPeer{"c2": as("c3"), "c3": as("c1")}, 2, "[]",
			"1 of 3 coordinators signed the head, a majority is 2: c.: signature does not verify"},
		{"nobody willing", map[string]*signingPeer{"c2": unwilling, "c3": unwilling}, 2, "[]", "another root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var co *Coordinator
			var s *state.State
			co, s, place = heads(t, c.peers)
			start := time.Now()
			h, err := co.signedHead(t.Context(), s, c.enough)
			if err == nil && time.Since(start) >= peerTimeout {
				t.Error("it waited for all")
			}
			if text := fmt.Sprint(err); c.err == "" && err != nil || !strings.Contains(strings.ReplaceAll(strings.ReplaceAll(text, "c2:", "c.:"), "c3:", "c.:"), c.err) {
				t.Errorf("%v, want %q", err, c.err)
			}
			var signers []string
			for _, sig := range h.Signatures {
				signers = append(signers, sig.Signer)
				key, err := keyOf(place.creds[sig.Signer].Chain)
				if err != nil || !seal.Verify(key, audit.DomainHead, h.Message(), sig.Signature) {
					t.Errorf("signature of %s does not verify, %v", sig.Signer, err)
				}
			}
			if fmt.Sprint(signers) != c.want {
				t.Errorf("signed by %v, want %s", signers, c.want)
			}
		})
	}
}
