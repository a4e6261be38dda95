package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"choir.example/internal/canon"

	"github.com/hashicorp/memberlist"
)

const (
	gossipTimeout = 3 * time.Second        // for a dial, a full exchange, or a packet on its way out
	leaveTimeout  = 500 * time.Millisecond // for saying goodbye
	loadPeriod    = 100 * time.Millisecond // at most one change of load is gossiped in this time
	joinPeriod    = time.Second
)

// member is a coordinator as gossip knows it.
type member struct {
	Name    string
	Address string
	Load    float64 // updates there without an outcome yet: being received, waiting, or being committed
}

// members is the gossip among coordinators: who is alive, and how busy. What it says is a hint, never a quorum.
type members struct {
	list   *memberlist.Memberlist
	self   member
	voters func() []Voter
	log    *slog.Logger
	wake   chan struct{}

	mu    sync.Mutex // guards the fields below
	load  float64
	alive map[string]member
}

// openMembers starts gossip on the wire. run joins the others.
func openMembers(name, address string, voters func() []Voter, w *wire) (*members, error) {
	m := &members{
		self: member{Name: name, Address: address}, voters: voters, log: w.log, wake: make(chan struct{}, 1),
		alive: map[string]member{},
	}
	if n := len(m.NodeMeta(math.MaxInt)); n > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("start gossip: address of %d bytes is too long", len(address))
	}
	trans := newGossipTransport(w, name, m.addressOf)
	conf := memberlist.DefaultLANConfig()
	conf.Name, conf.Transport, conf.Delegate, conf.Events, conf.RequireNodeNames = name, trans, m, m, true
	conf.GossipInterval, conf.PushPullInterval, conf.TCPTimeout = 50*time.Millisecond, 10*time.Second, gossipTimeout
	conf.EnableCompression = false
	conf.DisableTcpPings = true // packets travel on TCP already
	conf.Logger = log.New(&lineWriter{w.log, "memberlist"}, "", 0)
	list, err := memberlist.Create(conf)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start gossip: %w", err), trans.Shutdown())
	}
	m.list = list
	return m, nil
}

// addressOf is where a voter is reached.
func (m *members) addressOf(name string) (string, bool) {
	for _, v := range m.voters() {
		if v.Name == name {
			return v.Address, true
		}
	}
	return "", false
}

// run joins the other voters, again whenever some are missing, and gossips changes of load.
func (m *members) run(ctx context.Context) {
	var joining sync.WaitGroup
	defer joining.Wait()
	joining.Go(func() {
		for ctx.Err() == nil {
			m.join()
			pause(ctx, joinPeriod)
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
			if err := m.list.UpdateNode(leaveTimeout); err != nil {
				m.log.Debug("load not gossiped", "error", err)
			}
			pause(ctx, loadPeriod)
		}
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// join asks the voters that gossip does not know.
func (m *members) join() {
	var missing []string
	voters := m.voters()
	m.mu.Lock()
	for _, v := range voters {
		if _, ok := m.alive[v.Name]; !ok && v.Name != m.self.Name {
			missing = append(missing, v.Name+"/"+gossipAddress)
		}
	}
	m.mu.Unlock()
	if len(missing) == 0 {
		return
	}
	if _, err := m.list.Join(missing); err != nil {
		m.log.Debug("gossip did not reach all", "error", err)
	}
}

// SetLoad changes what this coordinator gossips of its load.
func (m *members) SetLoad(load float64) {
	m.mu.Lock()
	same := m.load == load
	m.load = load
	m.mu.Unlock()
	if same {
		return
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// ByLoad lists the living coordinators, this one included, the least loaded first, those of equal load by name.
func (m *members) ByLoad() []member {
	m.mu.Lock()
	out := slices.Collect(maps.Values(m.alive))
	for i := range out {
		if out[i].Name == m.self.Name {
			out[i].Load = m.load // what it gossips may be older
		}
	}
	m.mu.Unlock()
	slices.SortFunc(out, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.Load, b.Load), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// close tells the others goodbye, as far as they can be reached, and stops gossip.
func (m *members) close() error {
	if err := m.list.Leave(leaveTimeout); err != nil {
		m.log.Debug("left without saying goodbye", "error", err)
	}
	return m.list.Shutdown()
}

// NodeMeta is what this coordinator gossips of itself; with the methods below it is memberlist's delegate.
func (m *members) NodeMeta(limit int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var w canon.Writer
	w.String(m.self.Address)
	w.Uint(math.Float64bits(m.load))
	if len(w.Buf) > limit {
		return nil
	}
	return w.Buf
}

func decodeMeta(b []byte) (member, error) {
	r := canon.NewReader(b)
	x := member{Address: r.String(), Load: math.Float64frombits(r.Uint())}
	return x, r.Close()
}

// NotifyJoin takes in a member that is alive. Memberlist's own list is not safe to read while it changes, so members
// keeps a copy by these three.
func (m *members) NotifyJoin(n *memberlist.Node) {
	x, err := decodeMeta(n.Meta)
	if err != nil {
		m.log.Warn("gossip not understood", "from", n.Name, "error", err)
		return
	}
	x.Name = n.Name
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alive[x.Name] = x
}

// NotifyUpdate takes in a change of load.
func (m *members) NotifyUpdate(n *memberlist.Node) { m.NotifyJoin(n) }

// NotifyLeave strikes out a member that is dead or has left.
func (m *members) NotifyLeave(n *memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.alive, n.Name)
}

var (
	_ memberlist.Delegate      = (*members)(nil)
	_ memberlist.EventDelegate = (*members)(nil)
)

// NotifyMsg takes no messages: decisions travel by raft.
func (*members) NotifyMsg([]byte) {}

// GetBroadcasts sends none.
func (*members) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState adds nothing to a full exchange.
func (*members) LocalState(bool) []byte { return nil }

// MergeRemoteState takes nothing from one.
func (*members) MergeRemoteState([]byte, bool) {}
