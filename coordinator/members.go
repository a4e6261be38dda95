package coordinator

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"choir.example/internal/canon"

	"github.com/hashicorp/memberlist"
)

const (
	gossipTimeout = 5 * time.Second
	maxPacket     = 64 << 10
	packetQueue   = 256                    // packets waiting for one peer; more are dropped, as a datagram would be
	loadPeriod    = 100 * time.Millisecond // at most one change of load is gossiped in this time
	joinPeriod    = time.Second
)

// member is a coordinator as gossip knows it.
type member struct {
	Name    string
	Address string
	Load    float64 // updates waiting or being received there
}

// members is the gossip among coordinators: who is alive, and how busy. What it says is a hint, never a quorum.
type members struct {
	list   *memberlist.Memberlist
	trans  *gossipTransport
	self   member
	voters []Voter
	log    *slog.Logger
	wake   chan struct{}

	mu   sync.Mutex // guards load
	load float64
}

// openMembers starts gossip on the wire. run joins the others.
func openMembers(name, address string, voters []Voter, w *wire) (*members, error) {
	m := &members{self: member{Name: name, Address: address}, voters: voters, log: w.log, wake: make(chan struct{}, 1)}
	m.trans = newGossipTransport(w, address)
	host, port, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	conf := memberlist.DefaultLANConfig()
	conf.Name, conf.Transport, conf.Delegate = name, m.trans, m
	conf.AdvertiseAddr, conf.AdvertisePort, conf.BindPort = host.String(), port, port
	conf.GossipInterval, conf.PushPullInterval = 50*time.Millisecond, 10*time.Second
	conf.EnableCompression = false
	conf.Logger = log.New(&lineWriter{w.log, "memberlist"}, "", 0)
	if m.list, err = memberlist.Create(conf); err != nil {
		m.trans.stop()
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	return m, nil
}

func splitAddress(address string) (net.IP, int, error) {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, 0, fmt.Errorf("resolve %s: %w", address, err)
	}
	return a.IP, a.Port, nil
}

// run joins the other voters, again whenever some are missing, and gossips changes of load.
func (m *members) run(ctx context.Context) {
	join := time.NewTicker(joinPeriod)
	defer join.Stop()
	m.join()
	for {
		select {
		case <-ctx.Done():
			return
		case <-join.C:
			m.join()
		case <-m.wake:
			if err := m.list.UpdateNode(gossipTimeout); err != nil {
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

func (m *members) join() {
	if m.list.NumMembers() >= len(m.voters) {
		return
	}
	var others []string
	for _, v := range m.voters {
		if v.Name != m.self.Name {
			others = append(others, v.Address)
		}
	}
	if _, err := m.list.Join(others); err != nil {
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
	var out []member
	for _, n := range m.list.Members() {
		x, err := decodeMeta(n.Meta)
		if err != nil {
			continue
		}
		x.Name = n.Name
		if x.Name == m.self.Name {
			m.mu.Lock()
			x.Load = m.load
			m.mu.Unlock()
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.Load, b.Load), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// close stops gossip.
func (m *members) close() error { return m.list.Shutdown() }

// NodeMeta is what this coordinator gossips of itself; so are the methods below memberlist's delegate.
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

// NotifyMsg takes no messages: decisions travel by raft.
func (*members) NotifyMsg([]byte) {}

// GetBroadcasts sends none.
func (*members) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState adds nothing to a full exchange.
func (*members) LocalState(bool) []byte { return nil }

// MergeRemoteState takes nothing from one.
func (*members) MergeRemoteState([]byte, bool) {}

// Kinds of gossip connections: the first byte on each.
const (
	gossipPackets = 'p'
	gossipStream  = 's'
)

// gossipTransport carries memberlist over the wire's TLS connections: packets as length-prefixed frames on one
// connection a peer, streams on connections of their own.
type gossipTransport struct {
	wire    *wire
	self    string // advertised address, told to peers as the origin of packets
	packets chan *memberlist.Packet
	streams chan net.Conn
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex // guards peers
	peers map[string]chan []byte
}

func newGossipTransport(w *wire, self string) *gossipTransport {
	t := &gossipTransport{
		wire: w, self: self, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		peers: map[string]chan []byte{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.accept)
	return t
}

func (t *gossipTransport) accept() {
	for {
		conn, err := t.wire.queues[protoGossip].Accept()
		if err != nil {
			return
		}
		t.wg.Go(func() { t.serve(conn) })
	}
}

// serve reads the first byte and hands the connection on.
func (t *gossipTransport) serve(conn net.Conn) {
	stop := context.AfterFunc(t.ctx, func() { _ = conn.Close() })
	defer stop()
	var kind [1]byte
	if _, err := io.ReadFull(conn, kind[:]); err != nil {
		_ = conn.Close()
		return
	}
	switch kind[0] {
	case gossipPackets:
		defer conn.Close()
		t.receive(conn)
	case gossipStream:
		select {
		case t.streams <- conn:
		case <-t.ctx.Done():
			_ = conn.Close()
		}
	default:
		_ = conn.Close()
	}
}

// receive reads the origin and then packets, until the connection ends.
func (t *gossipTransport) receive(conn net.Conn) {
	origin, err := readFrame(conn)
	if err != nil {
		return
	}
	from, err := net.ResolveTCPAddr("tcp", string(origin))
	if err != nil {
		return
	}
	for {
		b, err := readFrame(conn)
		if err != nil {
			return
		}
		select {
		case t.packets <- &memberlist.Packet{Buf: b, From: from, Timestamp: time.Now()}:
		case <-t.ctx.Done():
			return
		}
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > maxPacket {
		return nil, fmt.Errorf("gossip packet of %d bytes", size)
	}
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
}

func frame(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...)
}

// FinalAdvertiseAddr is where peers reach this coordinator.
func (t *gossipTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return splitAddress(t.self)
}

// WriteTo queues a packet. It may be lost, as packets may.
func (t *gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	t.mu.Lock()
	queue, ok := t.peers[addr]
	if !ok && t.ctx.Err() == nil {
		queue = make(chan []byte, packetQueue)
		t.peers[addr] = queue
		t.wg.Go(func() { t.send(addr, queue) })
	}
	t.mu.Unlock()
	select {
	case queue <- frame(b):
	default:
	}
	return time.Now(), nil
}

// send writes a peer's packets on one connection, made anew when it breaks.
func (t *gossipTransport) send(addr string, queue <-chan []byte) {
	var conn net.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	for {
		var b []byte
		select {
		case <-t.ctx.Done():
			return
		case b = <-queue:
		}
		if conn == nil {
			var err error
			if conn, err = t.open(addr, gossipPackets, gossipTimeout); err != nil {
				continue
			}
			b = append(frame([]byte(t.self)), b...)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(gossipTimeout))
		if _, err := conn.Write(b); err != nil {
			_ = conn.Close()
			conn = nil
		}
	}
}

// open dials and says which kind of connection this is.
func (t *gossipTransport) open(addr string, kind byte, timeout time.Duration) (net.Conn, error) {
	conn, err := t.wire.dialTLS(protoGossip, addr, timeout)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{kind}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// PacketCh is where packets arrive.
func (t *gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout opens a stream to a peer.
func (t *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.open(addr, gossipStream, timeout)
}

// StreamCh is where streams arrive.
func (t *gossipTransport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown ends all connections and waits.
func (t *gossipTransport) Shutdown() error {
	t.stop()
	return nil
}

func (t *gossipTransport) stop() {
	t.cancel()
	_ = t.wire.queues[protoGossip].Close()
	t.wg.Wait()
}
