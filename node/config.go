package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"time"

	"choir.example/internal/jobspec"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
)

// Config says how one node runs. Start from DefaultConfig.
type Config struct {
	Name    string        // of this node in the federation; letters, digits, '.', '_' and '-', at most 63
	Dir     string        // directory for keys, data and unfinished work; made with mode 0700
	HTTP    string        // address of the prediction server; empty: none. Beyond loopback it wants the two files below
	Variant string        // which form of a release to serve; default int8
	Poll    time.Duration // how long a poll may wait, in [100 ms, 30 s]; default 20 s

	// Certificate and Key are PEM files with which the prediction server speaks TLS. Both or neither. Beyond loopback it
	// answers only callers that send the token in Dir/http.token as bearer token.
	Certificate, Key string

	Hours       string // of the day, on the local clock, in which it trains, such as "22-6"; empty: all
	OnlyOnPower bool   // trains only while the machine is not on battery
	Control     bool   // its owner can speak with it while it runs, over the socket Dir/node.sock; default true
	Health      string // loopback address of /healthz, /readyz and /metrics; empty: none
}

// DefaultConfig is a node without a prediction server.
func DefaultConfig() Config { return Config{Variant: "int8", Poll: 20 * time.Second, Control: true} }

// namePattern is what may stand in a certificate and in the federation's books.
var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Validate names the first field that is missing or outside its range.
func (c Config) Validate() error {
	if c.Name == "" || c.Dir == "" {
		return fmt.Errorf("node config: Name and Dir are required")
	}
	if !namePattern.MatchString(c.Name) {
		return fmt.Errorf("node config: Name is %q, want at most 63 of a-z, 0-9, ., _ and -, the first a letter or digit", c.Name)
	}
	if c.Poll < 100*time.Millisecond || c.Poll > 30*time.Second {
		return fmt.Errorf("node config: Poll is %v, want 100ms to 30s", c.Poll)
	}
	switch c.Variant {
	case "float32", "int8", "student", "student-int8":
	default:
		return fmt.Errorf("node config: Variant is %q, want float32, int8, student or student-int8", c.Variant)
	}
	if _, err := parseHours(c.Hours); err != nil {
		return fmt.Errorf("node config: Hours is %q, %w", c.Hours, err)
	}
	if c.Health != "" {
		if loopback, err := onLoopback(c.Health); err != nil || !loopback {
			return fmt.Errorf("node config: Health is %s, want a loopback address such as 127.0.0.1:9102", c.Health)
		}
	}
	return c.validateHTTP()
}

// validateHTTP refuses a prediction server that others could listen in on.
func (c Config) validateHTTP() error {
	switch {
	case c.Certificate != "" && c.Key == "":
		return fmt.Errorf("node config: Certificate is given without a key; give both or neither")
	case c.Certificate == "" && c.Key != "":
		return fmt.Errorf("node config: Key is given without a certificate; give both or neither")
	}
	if c.HTTP == "" {
		return nil
	}
	loopback, err := onLoopback(c.HTTP)
	if err != nil {
		return fmt.Errorf("node config: HTTP: %w", err)
	}
	if !loopback && c.Certificate == "" {
		return fmt.Errorf("node config: HTTP is %s, want a loopback address such as 127.0.0.1:8080, or a certificate and a key for TLS", c.HTTP)
	}
	return nil
}

// checkKey refuses a private key of the prediction server that others can read.
func (c Config) checkKey() error {
	if c.Certificate == "" {
		return nil
	}
	f, err := seal.OpenPrivate(c.Key)
	if err != nil {
		return fmt.Errorf("certificate and key of the prediction server: %w", err)
	}
	return f.Close()
}

// onLoopback reports whether an address can be reached from this machine only.
func onLoopback(address string) (bool, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false, err
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback(), nil
}

// Deps are what a node works with and does not own.
type Deps struct {
	Log     *slog.Logger                                                // never nil
	Dial    func(ctx context.Context, address string) (net.Conn, error) // TCP; TLS is added on top
	Now     func() time.Time                                            // the machine's clock, right or wrong; for use by several goroutines
	Rand    io.Reader                                                   // crypto/rand.Reader, but in tests
	Keys    func(dir string) (*seal.Box, error)                         // opens the data key in a directory; nil: seal.OpenKeys
	Observe Observer                                                    // the zero value observes nothing

	// Of experiments, whose nodes have no data of their own and whose parts need not be in choir; nil in a deployment.
	Lab       Lab
	Algorithm jobspec.Builder // in place of what the job says; called by several goroutines
}

// dataKey opens the data key of a node's directory.
func (d Deps) dataKey(dir string) (*seal.Box, error) {
	open := d.Keys
	if open == nil {
		open = func(dir string) (*seal.Box, error) { return seal.OpenKeys(dir, d.Rand) }
	}
	return DataKey(dir, open)
}

// DataKey opens the data key of a node's directory by open, which is given the directory of keys and makes a key where
// there is none. It refuses a directory that holds files of a key that is gone.
func DataKey(dir string, open func(keys string) (*seal.Box, error)) (*seal.Box, error) {
	keys := filepath.Join(dir, "keys")
	if err := seal.KeyLost(keys, dir, identityFile, storeFile, storeKeysFile, "spool/*", "carry/*", rootsFile, officersFile, rosterFile); err != nil {
		return nil, fmt.Errorf("%w: this node's identity and its data are lost, unless a copy of %s is put back; otherwise start anew with an empty directory, another name and a new token, and restore a data backup", err, keys)
	}
	return open(keys)
}

// Observer is told what happens, as it happens, in the goroutine in which it happens: the next step waits for it. Any
// field may be nil. A payload is only to be read, and is the observer's to keep.
type Observer struct {
	Sending  func(job string, round uint64, attempt uint32, payload []byte) // before the first byte of an update leaves
	Receipt  func(r audit.Receipt, payload []byte)                          // a verified receipt for the update
	Refused  func(r audit.Refusal)                                          // a verified refusal
	Released func(model string, version uint64, variant string)             // a release was verified and is served
}
