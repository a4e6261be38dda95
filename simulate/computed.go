package simulate

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"choir.example/fedavg"
)

// computed keeps what nodes have computed in a round in which somebody lies, a file an update, from before it is sent until the
// next round: liars need all of them, also after a break. It waits for no disk: files outlive the process, and one that did not
// outlive the machine is missing, or does not have its checksum. nil keeps nothing.
type computed struct{ dir string }

// openComputed makes the directory.
func openComputed(dir string) (*computed, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep what nodes compute: %w", err)
	}
	return &computed{dir}, nil
}

func computedName(round int, node string) string { return fmt.Sprintf("%d.%s", round, node) }

// put keeps an update.
func (c *computed) put(round int, node string, u *fedavg.Update) error {
	if c == nil {
		return nil
	}
	body := (&fedavg.Payload{Header: fedavg.Header{Job: jobName, Round: uint64(round), Node: node}, Update: *u}).Encode()
	sum := sha256.Sum256(body)
	draft := filepath.Join(c.dir, ".new-"+node)
	err := os.WriteFile(draft, append(body, sum[:]...), 0o600)
	if err == nil {
		err = os.Rename(draft, filepath.Join(c.dir, computedName(round, node)))
	}
	if err != nil {
		return fmt.Errorf("keep what %s computed: %w", node, err)
	}
	return nil
}

// get is a node's update of a round, nil if there is none that is whole.
func (c *computed) get(round int, node string) (*fedavg.Update, error) {
	if c == nil {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join(c.dir, computedName(round, node)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what %s computed: %w", node, err)
	}
	body := b[:max(0, len(b)-sha256.Size)]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return nil, nil
	}
	p, err := fedavg.DecodePayload(body)
	if err != nil || p.Round != uint64(round) || p.Node != node {
		return nil, nil
	}
	return &p.Update, nil
}

// forget removes the updates of rounds before one.
func (c *computed) forget(before int) error {
	if c == nil {
		return nil
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("forget what nodes computed: %w", err)
	}
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), ".")
		if round, err := strconv.Atoi(number); err == nil && round >= before { // drafts have no number
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget what nodes computed: %w", err)
		}
	}
	return nil
}
