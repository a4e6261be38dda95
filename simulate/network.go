package simulate

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// Network is the network of a federation in one process: loopback TCP, or memory. Each end has a name; links between names can be
// cut and healed, and everything that crosses can be copied to a writer. Nothing is shared across it but bytes.
type Network struct {
	mu      sync.Mutex        // guards the fields below
	names   map[string]string // of listeners, by address
	cut     map[link]bool
	conns   map[*linkConn]bool
	sent    map[string]int64 // bytes, by the end that sent them
	capture io.Writer
	memory  map[string]*memoryListener // by address; nil: on loopback
}

// link is a direction of dialling.
type link struct{ from, to string }

// NewNetwork returns a network without ends.
func NewNetwork() *Network {
	return &Network{names: map[string]string{}, cut: map[link]bool{}, conns: map[*linkConn]bool{}, sent: map[string]int64{}}
}

// Capture copies every byte that crosses the network from now on, in both directions, to w.
func (n *Network) Capture(w io.Writer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.capture = w
}

// Sent is how many bytes an end has sent so far on connections that it opened, TLS and all. Nodes open all of theirs.
func (n *Network) Sent(name string) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[name]
}

// Listen opens a named end on a free loopback port.
func (n *Network) Listen(name string) (net.Listener, error) {
	if n.memory != nil {
		return n.listenMemory(name, "")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	n.name(l.Addr().String(), name)
	return l, nil
}

// Relisten opens a named end again on the address it had.
func (n *Network) Relisten(name, address string) (net.Listener, error) {
	if n.memory != nil {
		return n.listenMemory(name, address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s again: %w", name, err)
	}
	n.name(address, name)
	return l, nil
}

func (n *Network) name(address, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[address] = name
}

// Dialer returns the dial function of a named end. A link that is cut refuses at once.
func (n *Network) Dialer(from string) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		n.mu.Lock()
		l := link{from, n.names[address]}
		cut := n.cut[l]
		n.mu.Unlock()
		if cut {
			return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
		}
		conn, err := n.dial(ctx, address)
		if err != nil {
			return nil, err
		}
		c := &linkConn{Conn: conn, network: n, link: l}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.cut[l] {
			_ = conn.Close()
			return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
		}
		n.conns[c] = true
		return c, nil
	}
}

func (n *Network) dial(ctx context.Context, address string) (net.Conn, error) {
	if n.memory != nil {
		return n.dialMemory(ctx, address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// Cut closes the connections that from opened to each of to, and refuses new ones.
func (n *Network) Cut(from string, to ...string) {
	n.mu.Lock()
	var closing []*linkConn
	for _, name := range to {
		n.cut[link{from, name}] = true
	}
	for c := range n.conns {
		if n.cut[c.link] {
			closing = append(closing, c)
		}
	}
	n.mu.Unlock()
	for _, c := range closing {
		_ = c.Close()
	}
}

// Isolate cuts an end off from each of others, both ways.
func (n *Network) Isolate(name string, others ...string) {
	n.Cut(name, others...)
	for _, o := range others {
		n.Cut(o, name)
	}
}

// Rejoin undoes Isolate.
func (n *Network) Rejoin(name string, others ...string) {
	n.Heal(name, others...)
	for _, o := range others {
		n.Heal(o, name)
	}
}

// Heal lets from open connections to each of to again.
func (n *Network) Heal(from string, to ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range to {
		delete(n.cut, link{from, name})
	}
}

// linkConn is a connection on a link.
type linkConn struct {
	net.Conn
	network *Network
	link    link
}

// Close closes the connection.
func (c *linkConn) Close() error {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}

// Read reads, and copies what it read to the capture.
func (c *linkConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.network.copy(b[:n], "")
	return n, err
}

// Write writes, counts, and copies what it writes to the capture, before the other end can have it.
func (c *linkConn) Write(b []byte) (int, error) {
	c.network.copy(b, c.link.from)
	return c.Conn.Write(b)
}

// copy captures bytes and counts them for the end that sends them; empty for those that arrive.
func (n *Network) copy(b []byte, sender string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if sender != "" {
		n.sent[sender] += int64(len(b))
	}
	if n.capture != nil {
		_, _ = n.capture.Write(b) // a test's own buffer
	}
}
