package coordinator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	maxPacket   = 64 << 10
	packetQueue = 256 // packets waiting for one peer; more are dropped, as datagrams would be
)

// Kinds of gossip connections: the first byte on each.
const (
	gossipPackets = 'p'
	gossipStream  = 's'
)

// gossipAddress stands for every member: memberlist insists on an IP address, but ours have names, and the transport
// finds the way by them. A member whose host moves to another address stays the same member.
const gossipAddress = "127.0.0.1:1"

var _ memberlist.NodeAwareTransport = (*gossipTransport)(nil)

// gossipTransport carries memberlist over the wire's TLS connections: packets as length-prefixed frames on one
// connection a peer, streams on connections of their own. Peers are found by name.
type gossipTransport struct {
	wire      *wire
	self      string
	addressOf func(name string) (address string, ok bool)
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	stopped   chan struct{}
	once      sync.Once
	wg        sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	ended bool
	peers map[string]chan []byte
	conns map[net.Conn]bool // incoming, but for streams handed on
}

func newGossipTransport(w *wire, self string, addressOf func(string) (string, bool)) *gossipTransport {
	t := &gossipTransport{
		wire: w, self: self, addressOf: addressOf,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), stopped: make(chan struct{}),
		peers: map[string]chan []byte{}, conns: map[net.Conn]bool{},
	}
	t.wg.Go(t.accept)
	return t
}

func (t *gossipTransport) accept() {
	for {
		conn, err := t.wire.queues[protoGossip].Accept()
		if err != nil {
			return
		}
		t.mu.Lock()
		if t.ended {
			t.mu.Unlock()
			_ = conn.Close()
			return
		}
		t.conns[conn] = true
		t.wg.Go(func() { t.serve(conn) })
		t.mu.Unlock()
	}
}

// serve reads the kind of a connection and then its packets; a stream is handed on.
func (t *gossipTransport) serve(conn net.Conn) {
	keep := false
	defer func() {
		t.mu.Lock()
		delete(t.conns, conn)
		t.mu.Unlock()
		if !keep {
			_ = conn.Close()
		}
	}()
	var kind [1]byte
	_ = conn.SetReadDeadline(time.Now().Add(gossipTimeout))
	if _, err := io.ReadFull(conn, kind[:]); err != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	switch kind[0] {
	case gossipPackets:
		t.receive(conn)
	case gossipStream:
		select {
		case t.streams <- conn:
			keep = true
		case <-t.stopped:
		}
	}
}

// receive reads packets until the connection ends.
func (t *gossipTransport) receive(conn net.Conn) {
	for {
		b, err := readFrame(conn)
		if err != nil {
			return
		}
		select {
		case t.packets <- &memberlist.Packet{Buf: b, From: conn.RemoteAddr(), Timestamp: time.Now()}:
		case <-t.stopped:
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
		return nil, fmt.Errorf("gossip packet of %d bytes, at most %d are allowed", size, maxPacket)
	}
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
}

func frame(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...)
}

// WriteToAddress queues a packet. It may be lost, as packets may.
func (t *gossipTransport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	t.mu.Lock()
	queue, ok := t.peers[to.Name]
	if !ok && !t.ended {
		address, known := t.addressOf(to.Name)
		if !known {
			t.mu.Unlock()
			return time.Time{}, fmt.Errorf("gossip with %s: not a voter", to.Name)
		}
		queue = make(chan []byte, packetQueue)
		t.peers[to.Name] = queue
		t.wg.Go(func() { t.send(address, queue) })
	}
	t.mu.Unlock()
	select {
	case queue <- frame(b):
	default:
	}
	return time.Now(), nil
}

// send writes a peer's packets on one connection, made anew when it breaks. When the transport stops, what is queued
// still leaves if the connection takes it: it may be a goodbye.
func (t *gossipTransport) send(address string, queue <-chan []byte) {
	var conn net.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	for {
		select {
		case b := <-queue:
			conn = t.deliver(conn, address, b, gossipTimeout)
		case <-t.stopped:
			for conn != nil && len(queue) > 0 {
				conn = t.deliver(conn, address, <-queue, leaveTimeout)
			}
			return
		}
	}
}

// deliver writes one packet and returns the connection for the next, nil if it broke.
func (t *gossipTransport) deliver(conn net.Conn, address string, b []byte, timeout time.Duration) net.Conn {
	if conn == nil {
		var err error
		if conn, err = t.open(address, gossipPackets, timeout); err != nil {
			return nil
		}
	}
	_ = conn.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := conn.Write(b); err != nil {
		_ = conn.Close()
		return nil
	}
	return conn
}

// open dials and says which kind of connection this is.
func (t *gossipTransport) open(address string, kind byte, timeout time.Duration) (net.Conn, error) {
	conn, err := t.wire.dialTLS(protoGossip, address, timeout)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{kind}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// DialAddressTimeout opens a stream to a peer.
func (t *gossipTransport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	address, ok := t.addressOf(to.Name)
	if !ok {
		return nil, fmt.Errorf("gossip with %s: not a voter", to.Name)
	}
	return t.open(address, gossipStream, timeout)
}

// WriteTo and DialTimeout are for members without a name; there are none.
func (t *gossipTransport) WriteTo(_ []byte, addr string) (time.Time, error) {
	return time.Time{}, fmt.Errorf("gossip with %s: members have names", addr)
}

// DialTimeout refuses, as WriteTo does.
func (t *gossipTransport) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	return nil, fmt.Errorf("gossip with %s: members have names", addr)
}

// FinalAdvertiseAddr is gossipAddress.
func (t *gossipTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv4(127, 0, 0, 1).To4(), 1, nil
}

// PacketCh is where packets arrive.
func (t *gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is where streams arrive.
func (t *gossipTransport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown ends all connections and waits.
func (t *gossipTransport) Shutdown() error {
	t.once.Do(func() { close(t.stopped) })
	t.mu.Lock()
	t.ended = true
	for conn := range t.conns {
		_ = conn.Close()
	}
	t.mu.Unlock()
	_ = t.wire.queues[protoGossip].Close()
	t.wg.Wait()
	return nil
}
