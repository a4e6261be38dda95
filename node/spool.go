package node

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"choir.example/fedavg"
	"choir.example/privacy/seal"
)

// spool keeps each signed payload from before its first byte leaves until the node holds a receipt or a signed refusal
// for it, over restarts: what is sent again is the same bytes.
type spool struct {
	dir string
	box *seal.Box

	mu   sync.Mutex        // guards what held holds
	held map[string][]byte // in place of files, of a node that loses nothing with its process; nil: there are files
}

// openSpool opens or makes the spool. No other process may have it open.
func openSpool(dir string, box *seal.Box) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &spool{dir: dir, box: box}
	return s, s.sweep()
}

// sweep removes writes that a crash cut off.
func (s *spool) sweep() error {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if err == nil && strings.HasPrefix(e.Name(), ".") {
			err = os.Remove(filepath.Join(s.dir, e.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	return nil
}

// name is the file of an attempt: one payload each.
func spoolName(h fedavg.Header) string {
	return fmt.Sprintf("%s.%d.%d", hex.EncodeToString([]byte(h.Job)), h.Round, h.Attempt)
}

// hold keeps payloads in memory from now on, as is enough for the nodes of an experiment: one that is killed is given the task
// again unless the update counts, and computes the same bytes. Whatever such a node computes counts in the end, so what an
// update left for the strategy may be adopted without its receipt.
func (s *spool) hold() { s.held = map[string][]byte{} }

// put makes a payload durable, which stays as it is from then on.
func (s *spool) put(h fedavg.Header, payload []byte) error {
	name := spoolName(h)
	if s.held == nil {
		return seal.WriteFile(filepath.Join(s.dir, name), s.box.Seal([]byte("spool|"+name), payload))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[name] = payload
	return nil
}

// get returns the payload of an attempt, nil if there is none.
func (s *spool) get(h fedavg.Header) ([]byte, error) { return s.read(spoolName(h)) }

func (s *spool) read(name string) ([]byte, error) {
	if s.held != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.held[name], nil
	}
	sealed, err := os.ReadFile(filepath.Join(s.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	payload, err := s.box.Open([]byte("spool|"+name), sealed)
	if err != nil {
		return nil, fmt.Errorf("spooled update %s: %w", name, err)
	}
	return payload, nil
}

// drop forgets the payload of an attempt that has its answer.
func (s *spool) drop(h fedavg.Header) error { return s.remove(spoolName(h)) }

func (s *spool) remove(name string) error {
	if s.held != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.held, name)
		return nil
	}
	err := os.Remove(filepath.Join(s.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("drop spooled update: %w", err)
	}
	return nil
}

// names lists the payloads that wait for an answer.
func (s *spool) names() ([]string, error) {
	if s.held != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Sorted(maps.Keys(s.held)), nil
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}
