package simulate

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"google.golang.org/grpc/test/bufconn"
)

// NewMemoryNetwork is a network without sockets: what is written waits in memory until it is read. All else is as on
// loopback, the bytes, too. It costs no calls of the operating system, and there may be more ends than it has ports for.
func NewMemoryNetwork() *Network {
	n := NewNetwork()
	n.memory = map[string]*memoryListener{}
	return n
}

// memoryBuffer is how many bytes wait in one direction of a connection: a record of TLS.
const memoryBuffer = 17 << 10

// memoryListener is an end of a memory network.
type memoryListener struct {
	*bufconn.Listener
	address *net.TCPAddr // that nobody else uses; it is not one of this machine
}

// listenMemory opens an end at an address, or at a new one.
func (n *Network) listenMemory(name, address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: len(n.memory) + 1}
	if address != "" {
		var err error
		if at, err = net.ResolveTCPAddr("tcp", address); err != nil {
			return nil, fmt.Errorf("listen for %s again: %w", name, err)
		}
	}
	l := &memoryListener{bufconn.Listen(memoryBuffer), at}
	n.memory[at.String()], n.names[at.String()] = l, name
	return l, nil
}

// Accept waits for a connection.
func (l *memoryListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, net.ErrClosed
	}
	return memoryConn{c, l.address, anybody}, nil
}

// Addr is the listener's.
func (l *memoryListener) Addr() net.Addr { return l.address }

// dialMemory connects to an end.
func (n *Network) dialMemory(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.memory[address]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	}
	c, err := l.DialContext(ctx)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("dial %s: %w", address, ctx.Err())
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	}
	return memoryConn{c, anybody, l.address}, nil
}

// anybody is the address of whoever dials.
var anybody = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}

// memoryConn is a connection with addresses.
type memoryConn struct {
	net.Conn
	local, remote net.Addr
}

// LocalAddr is this end's.
func (c memoryConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end's.
func (c memoryConn) RemoteAddr() net.Addr { return c.remote }
