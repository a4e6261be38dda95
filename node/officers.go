package node

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"choir.example/privacy/seal"
)

const officersFile = "officers"

// officers are the fingerprints of the officers' keys that the node was told of: by its token, then by the coordinators.
type officers struct {
	known bool // it was told once, if only of none
	keys  [][]byte
}

// loadOfficers reads what was told before.
func loadOfficers(dir string, box *seal.Box) (officers, error) {
	path := filepath.Join(dir, officersFile)
	sealed, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return officers{}, nil
	}
	if err != nil {
		return officers{}, fmt.Errorf("read officers: %w", err)
	}
	plain, err := box.Open([]byte(officersFile), sealed)
	if err != nil {
		return officers{}, fmt.Errorf("officers %s: %w: it is damaged; remove it, and the coordinators tell them again", path, err)
	}
	o := officers{known: true}
	for line := range strings.Lines(string(plain)) {
		key, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			return officers{}, fmt.Errorf("officers %s: %w", path, err)
		}
		o.keys = append(o.keys, key)
	}
	return o, nil
}

func (o officers) save(dir string, box *seal.Box) error {
	return seal.WriteFile(filepath.Join(dir, officersFile), box.Seal([]byte(officersFile), []byte(o.lines("\n"))))
}

func (o officers) lines(end string) string {
	var b strings.Builder
	for _, key := range o.keys {
		b.WriteString(hex.EncodeToString(key) + end)
	}
	return b.String()
}

// maxOfficers bounds what a coordinator can make a node keep.
const maxOfficers = 64

// told takes what a coordinator says of the officers, and says once that it is something else than before.
func (n *Node) told(keys [][]byte) {
	if n.officers.known && slices.EqualFunc(keys, n.officers.keys, bytes.Equal) || len(keys) > maxOfficers {
		return
	}
	next := officers{known: true, keys: keys}
	if err := next.save(n.cfg.Dir, n.box); err != nil {
		n.deps.Log.Error("officers' keys not kept", "error", err)
		return
	}
	if n.officers.known {
		n.deps.Log.Warn("the officers' keys of this federation have changed; ask whether that is meant",
			"were", strings.TrimSpace(n.officers.lines(" ")), "are", strings.TrimSpace(next.lines(" ")))
	}
	n.officers = next
}
