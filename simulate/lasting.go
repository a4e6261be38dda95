package simulate

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// charter is what a lasting federation keeps beside the directories of its coordinators and nodes, so that the same one can be
// started again. It is written when all nodes are enrolled: before, there is nothing to go on with.
type charter struct {
	Of    string // FederationConfig.Lasting
	Root  []byte // certificate
	Chain [][]byte
	Key   []byte // seed; with Chain the operator's
	Seats []*seat
	Nodes []string

	path string // its own
}

// The files of a lasting federation. No coordinator or node has such a name.
const (
	charterFile  = ".federation"
	foundingFile = ".founding" // there from before the first key is made until there is a charter
)

// ErrFederation is what Run and Start say of coordinators and nodes that a run cannot go on with. Without their directory it
// begins anew, and comes to the same.
var ErrFederation = errors.New("the run cannot go on with these coordinators and nodes")

// chartered reports whether a lasting federation was founded in a directory.
func chartered(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, charterFile))
	return err == nil
}

// open returns the charter of a federation that was founded in the directory, nil if there is none. What was left of a founding
// that did not come to its end is cleared away.
func (f *Federation) open() (*charter, error) {
	c, err := readCharter(filepath.Join(f.cfg.Dir, charterFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, f.begin()
	case err != nil:
		return nil, err
	}
	return c, c.check(&f.cfg, f.nodeNames(), f.cfg.Now())
}

// begin notes that a federation is being founded in a directory that is empty, or has the rest of such a founding alone.
func (f *Federation) begin() error {
	entries, err := os.ReadDir(f.cfg.Dir)
	if err != nil {
		return fmt.Errorf("start federation: %w", err)
	}
	named := func(name string) func(fs.DirEntry) bool { return func(e fs.DirEntry) bool { return e.Name() == name } }
	if len(entries) > 0 && !slices.ContainsFunc(entries, named(foundingFile)) {
		return fmt.Errorf("start federation: %s is not empty, and has no federation; want a directory that is empty or does not exist", f.cfg.Dir)
	}
	for _, e := range slices.DeleteFunc(entries, named(foundingFile)) {
		if err := os.RemoveAll(filepath.Join(f.cfg.Dir, e.Name())); err != nil {
			return fmt.Errorf("start federation: %w", err)
		}
	}
	return seal.WriteFile(filepath.Join(f.cfg.Dir, foundingFile), nil)
}

// keep writes the charter.
func (f *Federation) keep() error {
	c := charter{Of: f.cfg.Lasting, Root: f.root.Raw, Chain: f.human.Chain, Key: f.human.Key.Seed(), Seats: f.seats, Nodes: f.names}
	body, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("keep federation: %w", err)
	}
	sum := sha256.Sum256(body)
	if err := seal.WriteFile(filepath.Join(f.cfg.Dir, charterFile), append(hex.AppendEncode(nil, sum[:]), body...)); err != nil {
		return fmt.Errorf("keep federation: %w", err)
	}
	return os.Remove(filepath.Join(f.cfg.Dir, foundingFile))
}

// readCharter reads what keep wrote.
func readCharter(path string) (*charter, error) {
	b, err := seal.ReadPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("read federation: %w", err)
	}
	const digits = 2 * sha256.Size
	c := &charter{path: path}
	if len(b) > digits {
		if sum := sha256.Sum256(b[digits:]); bytes.Equal(hex.AppendEncode(nil, sum[:]), b[:digits]) && json.Unmarshal(b[digits:], c) == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%s is torn or altered, or of another version of choir: %w", path, ErrFederation)
}

// check refuses a federation of something else, or one whose time is over.
func (c *charter) check(cfg *FederationConfig, nodes []string, now time.Time) error {
	switch {
	case c.Of != cfg.Lasting:
		return fmt.Errorf("%s is of another experiment, or of another seed: %w", c.path, ErrFederation)
	case len(c.Seats) != cfg.Coordinators:
		return fmt.Errorf("%s has %d coordinators, want %d: %w", c.path, len(c.Seats), cfg.Coordinators, ErrFederation)
	case !slices.Equal(c.Nodes, nodes):
		return fmt.Errorf("%s has other nodes: %w", c.path, ErrFederation)
	}
	root, err := x509.ParseCertificate(c.Root)
	if err == nil {
		_, err = seal.VerifyChain(c.Chain, root, now)
	}
	if err != nil {
		return fmt.Errorf("%s: certificate of its operator: %w (the clock says %s): %w", c.path, err, now.UTC().Format(time.DateTime), ErrFederation)
	}
	return nil
}

// again starts the federation of a charter.
func (f *Federation) again(c *charter) (err error) {
	if f.root, err = x509.ParseCertificate(c.Root); err != nil {
		return err
	}
	f.human = &seal.Credential{Chain: c.Chain, Key: ed25519.NewKeyFromSeed(c.Key)}
	f.seats = c.Seats
	for _, s := range f.seats { // without its log a coordinator would begin an empty one
		if log := filepath.Join(f.cfg.Dir, s.Name, "raft.db"); err == nil {
			_, err = os.Stat(log)
		}
	}
	if err == nil {
		err = f.startCoordinators()
	}
	if err == nil { // nodes whose certificates have ended meanwhile want new ones at once
		err = f.patiently(f.ctx, func(ctx context.Context) error {
			_, err := f.Operator().GetStatus(ctx, &choirv1.StatusRequest{})
			return err
		})
	}
	if err == nil {
		err = f.startNodes(func(_ int, e *edge) error { return e.open() })
	}
	if err != nil && f.ctx.Err() == nil {
		err = fmt.Errorf("start federation again: %w: %w", err, ErrFederation)
	}
	return err
}
