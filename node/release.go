package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"choir.example/internal/blob"
	"choir.example/model"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// A release that the node serves is kept in one file, release.choir: the version in eight bytes, the blob's id, the
// model file. It is public to the federation and not sealed.
const releaseFile = "release.choir"

// held is the version of each model that the node has.
func (n *Node) held() map[string]uint64 {
	if n.serve == nil {
		return map[string]uint64{}
	}
	out := n.serve.skipped()
	if m := n.serve.current.Load(); m != nil {
		out[m.model.Name] = max(out[m.model.Name], m.version)
	}
	return out
}

// follow fetches a newer release's variant, verifies it against the release, keeps it and serves it from then on. A
// node without a prediction server follows none.
func (n *Node) follow(ctx context.Context, ref *choirv1.ReleaseRef) {
	if n.serve == nil {
		return
	}
	if err := n.adopt(ctx, ref); err != nil && ctx.Err() == nil {
		n.deps.Log.Warn("release not taken", "model", ref.Model, "version", ref.Version, "error", err)
		n.serve.skip(ref.Model, ref.Version)
	}
}

func (n *Node) adopt(ctx context.Context, ref *choirv1.ReleaseRef) error {
	rel, err := n.client.release(ctx, ref.Model, ref.Version)
	if err != nil {
		return err
	}
	for _, v := range rel.Variants {
		if v.Name != n.cfg.Variant {
			continue
		}
		if !v.Published {
			return fmt.Errorf("variant %s was withheld: %s", v.Name, v.Reason)
		}
		body, err := n.client.fetch(ctx, v.Blob)
		if err != nil {
			return err
		}
		return n.install(rel.Version, body)
	}
	return fmt.Errorf("the release has no variant %s", n.cfg.Variant)
}

// install keeps a verified model file and swaps it in.
func (n *Node) install(version uint64, body []byte) error {
	m, err := model.Decode(body)
	if err != nil {
		return err
	}
	id := blob.ID(body)
	file := append(append(binary.BigEndian.AppendUint64(nil, version), id[:]...), body...)
	if err := seal.WriteFile(filepath.Join(n.cfg.Dir, releaseFile), file); err != nil {
		return err
	}
	n.serve.swap(m, version, id)
	if f := n.deps.Observe.Released; f != nil {
		f(m.Name, version, m.Variant)
	}
	return nil
}

// loadRelease serves the release kept from before a restart, if it verifies.
func (n *Node) loadRelease() error {
	if n.serve == nil {
		return nil
	}
	path := filepath.Join(n.cfg.Dir, releaseFile)
	file, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read release: %w", err)
	}
	if len(file) < 40 || blob.ID(file[40:]) != [32]byte(file[8:40]) {
		return fmt.Errorf("release in %s is damaged; it will be fetched again", path)
	}
	m, err := model.Decode(file[40:])
	if err != nil {
		return fmt.Errorf("release in %s: %w", path, err)
	}
	n.serve.swap(m, binary.BigEndian.Uint64(file), [32]byte(file[8:40]))
	return nil
}
