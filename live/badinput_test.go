//go:build linux

package live_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Two processes on one directory; a port that somebody else has.
func TestTaken(t *testing.T) {
	t.Parallel()
	s := federation(t)
	for _, name := range []string{"c1", "n1"} {
		first := s.procs[name]
		s.fails(s.again(name), name, "choir: error:")
		if !first.running() {
			t.Errorf("the second %s ended the first", name)
		}
		s.procs[name] = first
	}
	for _, name := range []string{"c1", "n1"} {
		s.procs[name].stop(t)
		text := read(t, s.path(name+".yaml"))
		address := loopback.FindString(text)
		l, err := net.Listen("tcp", strings.Replace(address, "localhost", "127.0.0.1", 1))
		if err != nil {
			t.Fatal(err)
		}
		p := s.again(name)
		s.fails(p, address, "in use")
		t.Log(last(p.log.String(), 2))
		l.Close()
	}
}

// Tokens that do not admit: cut, used by another node, expired, for another role.
func TestTokensThatDoNotAdmit(t *testing.T) {
	t.Parallel()
	s := federation(t)
	s.copyConfig("n1", "n8")
	s.copyConfig("n1", "n9")
	s.choir("token", "create", "--out", "good.token")
	whole := read(t, s.path("good.token"))

	write(t, s.path("cut.token"), whole[:len(whole)/2])
	s.fails(s.start("n9", "node", "--join-file", "cut.token", "--config", "n9.yaml"), "token")

	s.choir("token", "create", "--role", "coordinator", "--out", "role.token")
	s.fails(s.start("n9", "node", "--join-file", "role.token", "--config", "n9.yaml"), "coordinator")

	s.choir("token", "create", "--expiry", "1ms", "--out", "old.token") // it is over before the node has started
	s.fails(s.start("n9", "node", "--join-file", "old.token", "--config", "n9.yaml"), "expired")

	if err := os.WriteFile(s.path("open.token"), []byte(whole), 0o644); err != nil {
		t.Fatal(err)
	}
	s.fails(s.start("n9", "node", "--join-file", "open.token", "--config", "n9.yaml"), "may be read by others", "chmod 600")

	s.start("n8", "node", "--join-file", "good.token", "--config", "n8.yaml")
	s.ready("n8")
	s.fails(s.start("n9", "node", "--join-file", "good.token", "--config", "n9.yaml"), "token")
	if list := s.choir("token", "list"); !strings.Contains(list, "incident") {
		t.Errorf("the token that came back with another key is no incident:\n%s", list)
	}
}

// copyConfig makes a node's configuration from another's, on ports of its own.
func (s *site) copyConfig(from, to string) {
	s.t.Helper()
	text := strings.ReplaceAll(read(s.t, s.path(from+".yaml")), from, to)
	text = loopback.ReplaceAllStringFunc(text, func(string) string { return "127.0.0.1:" + freePort(s.t) })
	write(s.t, s.path(to+".yaml"), text)
}

// What belongs to another federation is told apart: a person's context, a token.
func TestAnotherFederation(t *testing.T) {
	t.Parallel()
	s := federation(t)
	other := newSite(t)
	write(t, other.path("pass"), passphrase+"\n")
	other.start("c1", "coordinator", "--bootstrap", "--config", "c1.yaml", "--root-key", "root.key", "--passphrase-file", "pass")
	other.ready("c1")

	// The other's operator asks this federation.
	path := other.path(".config", "choir", "context.yaml")
	write(t, path, strings.ReplaceAll(read(t, path), other.ports[mainPort(t)], s.ports[mainPort(t)]))
	other.refuses("not of this federation", "cluster", "status")

	// A node of this federation is handed the other's token.
	s.procs["n1"].stop(t)
	write(t, path, strings.ReplaceAll(read(t, path), s.ports[mainPort(t)], other.ports[mainPort(t)]))
	other.choir("token", "create", "--out", "n1.token")
	write(t, s.path("foreign.token"), read(t, other.path("n1.token")))
	s.fails(s.start("n1", "node", "--join-file", "foreign.token", "--config", "n1.yaml"), "the token is of another", "take another directory")

	// A second founding on a directory that has one.
	s.procs["c1"].stop(t)
	s.fails(s.start("c1", "coordinator", "--bootstrap", "--config", "c1.yaml", "--root-key", "other.key", "--passphrase-file", "pass"), "its federation exists", "without --bootstrap")
}

// mainPort is the port of c1 in deploy/local.
func mainPort(t testing.TB) string {
	t.Helper()
	m := loopback.FindStringSubmatch(addressLine.FindString(read(t, "../deploy/local/c1.yaml")))
	if m == nil {
		t.Fatal("c1.yaml has no address on loopback")
	}
	return m[2]
}

// A job that waits for nodes says for which; one for a schema that no node has data of fails with what the nodes said.
func TestJobsThatCannotBe(t *testing.T) {
	t.Parallel()
	s := federation(t)
	write(t, s.path("visits.yaml"), strings.Replace(read(t, s.path("shop.yaml")), "name: shop", "name: visits", 1))
	s.submit("many", map[string]string{"minimum_cohort": "50"})
	s.submit("visits", map[string]string{"schema": "visits.yaml", "duration": "3s", "max_attempts": "1"})
	eventually(t, 10*time.Second, "all nodes are counted", func() error {
		j, err := s.job("many")
		if want := "waits for nodes: 3 of the 3 that may take part are present, the minimum cohort is 50"; err == nil && (j.State != "queued" || j.Reason != want) {
			err = fmt.Errorf("%s: %s", j.State, j.Reason)
		}
		return err
	})
	eventually(t, 30*time.Second, "the job fails", func() error {
		j, err := s.job("visits")
		if want := "n1, n2, n3 declined: its data are not of this schema visits"; err == nil && (j.State != "failed" || !strings.Contains(j.Reason, want)) {
			err = fmt.Errorf("%s: %s", j.State, j.Reason)
		}
		return err
	})
}
