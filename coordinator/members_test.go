package coordinator

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/memberlist"
)

// gossiper is one coordinator's gossip on a wire of its own.
type gossiper struct {
	*members
	wire *wire
	stop func()
}

func (s *site) gossip(t *testing.T, name string) *gossiper {
	t.Helper()
	g := &gossiper{wire: s.wire(t, name)}
	g.wire.start()
	var err error
	if g.members, err = openMembers(name, s.address(name), func() []Voter { return s.voters }, g.wire); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { g.run(ctx) })
	g.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := g.close(); err != nil {
			t.Error(err)
		}
		g.wire.close()
	})
	t.Cleanup(g.stop)
	return g
}

// order is what a member answers when asked for all by load.
func (g *gossiper) order() (names []string) {
	for _, m := range g.ByLoad() {
		names = append(names, m.Name)
	}
	return names
}

func agree(t *testing.T, all []*gossiper, want ...string) {
	t.Helper()
	for _, g := range all {
		eventually(t, fmt.Sprintf("%s says %v", g.self.Name, want), func() bool { return slices.Equal(g.order(), want) })
	}
}

func TestMembersFindEachOther(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ada", "bob", "cyd")
	all := []*gossiper{s.gossip(t, "ada"), s.gossip(t, "bob"), s.gossip(t, "cyd")}
	agree(t, all, "ada", "bob", "cyd")
	for _, g := range all {
		for _, m := range g.ByLoad() {
			if m.Address != s.address(m.Name) {
				t.Errorf("%s says that %s is at %s, not at %s", g.self.Name, m.Name, m.Address, s.address(m.Name))
			}
		}
	}
	all[0].SetLoad(7)
	if got := all[0].order(); !slices.Equal(got, []string{"bob", "cyd", "ada"}) {
		t.Errorf("ada does not know its own load at once: %v", got)
	}
	agree(t, all, "bob", "cyd", "ada")
	all[1].SetLoad(7.5)
	agree(t, all, "cyd", "ada", "bob")
	for load := range 100 { // a burst is gossiped as its end
		all[2].SetLoad(float64(100 - load))
	}
	all[2].SetLoad(7)
	agree(t, all, "ada", "cyd", "bob")
}

func TestMemberLeavesAndComesBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ada", "bob", "cyd")
	all := []*gossiper{s.gossip(t, "ada"), s.gossip(t, "bob"), s.gossip(t, "cyd")}
	agree(t, all, "ada", "bob", "cyd")
	all[1].stop()
	agree(t, []*gossiper{all[0], all[2]}, "ada", "cyd")
	all[1] = s.gossip(t, "bob")
	agree(t, all, "ada", "bob", "cyd")
}

func TestKilledMemberIsMissed(t *testing.T) {
	if testing.Short() {
		t.Skip("suspicion takes seconds")
	}
	t.Parallel()
	s := newSite(t, "ada", "bob", "cyd")
	all := []*gossiper{s.gossip(t, "ada"), s.gossip(t, "bob"), s.gossip(t, "cyd")}
	agree(t, all, "ada", "bob", "cyd")
	all[2].wire.kill()
	agree(t, all[:2], "ada", "bob")
}

func TestAddressTooLongToGossip(t *testing.T) {
	s := newSite(t, "ada")
	_, err := openMembers("ada", strings.Repeat("x", memberlist.MetaMaxSize), func() []Voter { return s.voters }, s.wire(t, "ada"))
	if err == nil {
		t.Fatal("accepted")
	}
}

func TestGossipGoesToVotersOnly(t *testing.T) {
	t.Parallel()
	g := newSite(t, "ada").gossip(t, "ada")
	tr := newGossipTransport(g.wire, "ada", g.addressOf)
	if _, err := tr.WriteToAddress([]byte("x"), memberlist.Address{Name: "eve", Addr: gossipAddress}); err == nil {
		t.Error("a packet for a stranger was taken")
	}
	if _, err := tr.DialAddressTimeout(memberlist.Address{Name: "eve", Addr: gossipAddress}, gossipTimeout); err == nil {
		t.Error("a stranger was dialled")
	}
	if err := tr.Shutdown(); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add((&members{self: member{Address: "10.0.0.1:7000"}, load: 3}).NodeMeta(memberlist.MetaMaxSize))
	f.Add((&members{load: math.Inf(1)}).NodeMeta(memberlist.MetaMaxSize))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		if again := (&members{self: m, load: m.Load}).NodeMeta(math.MaxInt); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", b, m, again)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add(frame([]byte("ping")))
	f.Add(frame(nil))
	f.Add(binary.BigEndian.AppendUint32(nil, maxPacket+1))
	f.Add([]byte{0, 0, 0, 9, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readFrame(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, frame(got)) {
			t.Fatalf("%x was read as %x", b, got)
		}
	})
}
