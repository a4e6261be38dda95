package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
)

const rosterFile = "roster"

// errNotListed says that a coordinator's certificate is not in the newest roster that the node knows.
var errNotListed = errors.New("its key is not among those of the coordinators")

// rosterBook keeps the newest list of coordinators that a majority of them signed. Who is not in it is refused, whatever
// the root once certified. Before the first list, every coordinator that the root certified is spoken with. A nil
// rosterBook is one without a list.
type rosterBook struct {
	path string
	box  *seal.Box

	mu   sync.Mutex // guards held
	held *audit.Roster
}

func openRoster(dir string, box *seal.Box) (*rosterBook, error) {
	b := &rosterBook{path: filepath.Join(dir, rosterFile), box: box}
	sealed, err := os.ReadFile(b.path)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	plain, err := box.Open([]byte(rosterFile), sealed)
	if err != nil {
		return nil, fmt.Errorf("roster %s: %w: it is damaged; remove it, and the coordinators send it again", b.path, err)
	}
	r, err := audit.DecodeRoster(plain)
	if err != nil {
		return nil, fmt.Errorf("roster %s: %w", b.path, err)
	}
	b.held = &r
	return b, nil
}

// version is the held list's, 0 if there is none.
func (b *rosterBook) version() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held == nil {
		return 0
	}
	return b.held.Version
}

// latest is the list held; ok is false if there is none.
func (b *rosterBook) latest() (r audit.Roster, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held == nil {
		return r, false
	}
	return *b.held, true
}

// take replaces the list held by a newer one, which a majority of the coordinators in it signed and, so that nobody who
// was removed can speak for the others, a majority of those in the list held. It reports whether it did.
func (b *rosterBook) take(encoded []byte, id *identity, now time.Time) (bool, error) {
	next, err := audit.DecodeRoster(encoded)
	if err != nil {
		return false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held != nil && next.Version <= b.held.Version {
		return false, nil
	}
	if err := next.Verify(id.trusted(), now); err != nil {
		return false, clockError(err, now)
	}
	if b.held != nil && !next.SignedByMajorityOf(*b.held) {
		return false, fmt.Errorf("roster %d is not signed by a majority of roster %d; if most coordinators were replaced while this node was away, remove %s after asking the operator",
			next.Version, b.held.Version, b.path)
	}
	if err := seal.WriteFile(b.path, b.box.Seal([]byte(rosterFile), encoded)); err != nil {
		return false, err
	}
	b.held = &next
	return true, nil
}

// check refuses a coordinator that is not in the list.
func (b *rosterBook) check(who seal.Identity) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held != nil && !b.held.Lists(who.Name, who.Key) {
		return fmt.Errorf("coordinator %s: %w", who.Name, errNotListed)
	}
	return nil
}

// coordinator verifies that a chain is of a coordinator of the federation, one that is in the roster.
func (id *identity) coordinator(chain [][]byte, now time.Time) (seal.Identity, error) {
	who, err := id.known.VerifyChain(chain, id.trusted(), now)
	if err != nil {
		return who, clockError(err, now)
	}
	if who.Role != seal.RoleCoordinator {
		return who, fmt.Errorf("it is certified for %s %s: %w", who.Role, who.Name, seal.ErrRole)
	}
	return who, id.roster.check(who)
}
