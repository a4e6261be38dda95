package coordinator

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/privacy/seal"
)

// Config says how one coordinator runs. The zero value is not usable; start from DefaultConfig.
type Config struct {
	Name    string // of this coordinator; also its raft id
	Cluster string // name of the federation
	Dir     string // directory for keys, log, blobs and spool; made with mode 0700
	Address string // host:port under which nodes and peers reach it; default: the listener's
	Listen  string // host:port to listen on, where that differs; default: Address
	Health  string // loopback host:port of /healthz, /readyz and /metrics; empty: none

	Voters []Voter // the founding coordinators, this one among them; the same list on each. Read from Dir if Deps has no credential

	Officers [][]byte // SHA-256 of the officers' public keys that the genesis pins, in order; of the founders only

	Heartbeat    time.Duration // raft heartbeat and election timeout, in [50 ms, 10 s]; default 500 ms
	BatchUpdates int           // a batch is cut at this many updates, in [1, 64]; default 8
	BatchDelay   time.Duration // or when its first update has waited this long, in [1 ms, 10 s]; default 500 ms
	Uploads      int           // uploads received at once; more wait, in [1, 1024]; default 16
	EpochLife    time.Duration // a new epoch key is made when the newest is so old, in [1 min, 30 d]; default 24 h
	MaxUpdate    int64         // largest envelope in bytes, in [1 KiB, 1 GiB]; default 256 MiB
}

// Voter is a founding coordinator.
type Voter struct {
	Name    string   // as in its certificate; also its raft id
	Address string   // host:port under which nodes and peers reach it
	Chain   [][]byte // identity certificate, DER, leaf first, without the root
}

// DefaultConfig is a coordinator for one site.
func DefaultConfig() Config {
	return Config{
		Heartbeat: 500 * time.Millisecond, BatchUpdates: 8, BatchDelay: 500 * time.Millisecond,
		Uploads: 16, EpochLife: 24 * time.Hour, MaxUpdate: 256 << 20,
	}
}

// Validate names the first field that is missing or outside its range.
func (c Config) Validate() error {
	if err := state.CheckName("coordinator", c.Name); err != nil {
		return fmt.Errorf("coordinator config: Name: %w", err)
	}
	for _, f := range []struct {
		field          string
		value, low, up int64
		unit           string
	}{
		{"Heartbeat", int64(c.Heartbeat / time.Millisecond), 50, 10_000, "ms"},
		{"BatchUpdates", int64(c.BatchUpdates), 1, 64, "updates"},
		{"BatchDelay", int64(c.BatchDelay / time.Millisecond), 1, 10_000, "ms"},
		{"Uploads", int64(c.Uploads), 1, 1024, "uploads"},
		{"EpochLife", int64(c.EpochLife / time.Second), 60, 30 * 24 * 3600, "s"},
		{"MaxUpdate", c.MaxUpdate, 1 << 10, 1 << 30, "bytes"},
		{"Voters", int64(len(c.Voters)), 1, 7, "coordinators"},
	} {
		if f.value < f.low || f.value > f.up {
			return fmt.Errorf("coordinator config: %s is %d, want %d to %d %s", f.field, f.value, f.low, f.up, f.unit)
		}
	}
	for _, f := range []struct{ field, value string }{{"Cluster", c.Cluster}, {"Dir", c.Dir}, {"Address", c.Address}} {
		if f.value == "" {
			return fmt.Errorf("coordinator config: %s is missing", f.field)
		}
	}
	if err := c.checkAddresses(); err != nil {
		return err
	}
	if c.Health != "" {
		host, err := hostOfAddress(c.Health)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("coordinator config: Health is %s, want a loopback address such as 127.0.0.1:9101", c.Health)
		}
	}
	for _, v := range c.Voters {
		if v.Name == c.Name {
			return nil
		}
	}
	return fmt.Errorf("coordinator config: %s is not among Voters", c.Name)
}

// checkAddresses refuses an address that nobody can dial: it goes into the log, tokens and contexts, and stays there.
func (c Config) checkAddresses() error {
	host, err := hostOfAddress(c.Address)
	if err != nil {
		return fmt.Errorf("coordinator config: Address is %s, want %w", c.Address, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("coordinator config: Address is %s, want a host that nodes and peers can dial, such as coordinator-1.example:7101 (where to listen is another key)", c.Address)
	}
	if c.Listen == "" {
		return nil
	}
	if _, err := hostOfAddress(c.Listen); err != nil {
		return fmt.Errorf("coordinator config: Listen is %s, want %w", c.Listen, err)
	}
	return nil
}

// hostOfAddress is the host of host:port.
func hostOfAddress(address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 {
		return "", errors.New("host:port, the port from 1 to 65535")
	}
	return host, nil
}

// Deps are what a coordinator works with and does not own, but for the listener, which Run closes.
type Deps struct {
	Log        *slog.Logger                                                // never nil
	Listener   net.Listener                                                // nil: Run listens on the configuration's Address
	Dial       func(ctx context.Context, address string) (net.Conn, error) // TCP; TLS is added on top. nil: net.Dialer
	Now        func() time.Time                                            // the wall clock; for use by several goroutines
	Rand       io.Reader                                                   // crypto/rand.Reader, but in tests
	Root       *x509.Certificate                                           // of the federation; nil only together with Credential
	Credential *seal.Credential                                            // identity of role coordinator; nil: this, Root and Issuer are read from Dir
	Issuer     *seal.Issuer                                                // certifies nodes
	Keys       func(dir string) (*seal.Box, error)                         // opens the data key in a directory; nil: seal.OpenKeys
	Observe    Observer                                                    // the zero value observes nothing

	// Of experiments, whose parts need not be in choir, and where it is not real time that decides who takes part; nil in
	// a deployment. They are called by several goroutines at once.
	Algorithm jobspec.Builder                                                  // in place of what the specification says
	Available func(job string, round uint64, node string) bool                 // is there in a round, which then waits for all who are
	Trusted   func(ctx context.Context, w fedavg.Work) (*fedavg.Update, error) // the server's own update, of examples that Work lacks
}

// dataKey opens the data key of a coordinator's directory, or makes it where nothing is sealed yet.
func (d Deps) dataKey(dir string) (*seal.Box, error) {
	keys := filepath.Join(dir, "keys")
	if err := seal.KeyLost(keys, dir, identityFile, joiningFile, raftFile, "snapshots/*", "blobs/*", "keys/epoch*.key"); err != nil {
		return nil, fmt.Errorf("%w: this coordinator's identity, its log and its models are lost, unless a copy of %s is put back; otherwise %s", err, keys, rejoinCure)
	}
	if d.Keys != nil {
		return d.Keys(keys)
	}
	return seal.OpenKeys(keys, d.Rand)
}

// Observer is told what happens, as it happens, in the goroutine in which it happens: the next step waits for it. Any
// field may be nil.
type Observer struct {
	Leading      func(coordinator string, term uint64)                  // it leads, and has applied all that was committed before
	RoundOpened  func(coordinator string, e RoundEvent)                 // applied here
	Spooled      func(coordinator string, e RoundEvent, node string)    // an update is verified and durable here, not committed
	BatchApplied func(coordinator string, e RoundEvent, b BatchEvent)   // applied here, whoever folded it
	StepFailed   func(coordinator string, e RoundEvent, err error)      // it leads, and no model could be made of the round's updates
	RoundClosed  func(coordinator string, e RoundEvent)                 // applied here; one that is abandoned is not told
	Released     func(coordinator string, model string, version uint64) // applied here; the first version is 1
}

// RoundEvent names an attempt at a round.
type RoundEvent struct {
	Job     string // its name
	Round   uint64 // of the job; 0 is the statistics round
	Attempt uint32 // at the round, from 1
	Kind    string // statistics, train, evaluate
}

// BatchEvent describes a committed batch.
type BatchEvent struct {
	Index, Term uint64   // of the raft entry
	Coordinator string   // who folded it
	Nodes       []string // whose updates it counts, in order of names; not to be changed
}
