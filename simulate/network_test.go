package simulate

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// echo answers on a named end with what it gets.
func echo(t *testing.T, n *Network, name string) string {
	t.Helper()
	l, err := n.Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func say(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, len(text)))
	return err
}

func TestNetworkCutsAndHeals(t *testing.T)       { cutsAndHeals(t, NewNetwork()) }
func TestMemoryNetworkCutsAndHeals(t *testing.T) { cutsAndHeals(t, NewMemoryNetwork()) }

func cutsAndHeals(t *testing.T, n *Network) {
	address := echo(t, n, "b")
	dial := n.Dialer("a")
	c, err := dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	other, err := n.Dialer("c")(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := say(c, "hello"); err != nil {
		t.Fatal(err)
	}
	n.Isolate("a", "b")
	if err := say(c, "hello"); err == nil {
		t.Error("a cut connection still works")
	}
	if _, err := dial(t.Context(), address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial over a cut link: %v", err)
	}
	if err := say(other, "hello"); err != nil {
		t.Errorf("another link was cut too: %v", err)
	}
	n.Rejoin("a", "b")
	healed, err := dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer healed.Close()
	if err := say(healed, "hello"); err != nil {
		t.Error(err)
	}
}

func TestNetworkCountsAndCaptures(t *testing.T) {
	n, wire := NewNetwork(), &bytes.Buffer{}
	address := echo(t, n, "b")
	n.Capture(wire)
	c, err := n.Dialer("a")(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := say(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if wire.String() != "hellohello" || n.Sent("a") != 5 || n.Sent("b") != 0 {
		t.Errorf("captured %q; a sent %d bytes, b %d", wire, n.Sent("a"), n.Sent("b"))
	}
}
