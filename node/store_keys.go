package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"choir.example/internal/canon"
	"choir.example/privacy/seal"
)

// keyFile holds the key of each import, sealed under the node's data key in a file beside the store. It is small and
// written anew with each change, so that a key which is taken out is nowhere any more: the file before is overwritten
// where it lay. (A disk that writes in other places than it is told to may keep the old blocks for a while.)
type keyFile struct {
	path string
	box  *seal.Box
	keys map[string][]byte // by id
}

// openKeyFile reads the keys. With fs.ErrNotExist the keyFile is empty and can be used.
func openKeyFile(path string, box *seal.Box) (*keyFile, error) {
	k := &keyFile{path: path, box: box.Sub("import keys"), keys: map[string][]byte{}}
	sealed, err := seal.ReadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, fmt.Errorf("the keys of its imports are missing: %w; put %s back, or restore a backup", err, path)
	}
	if err != nil {
		return nil, err
	}
	plain, err := k.box.Open([]byte("keys"), sealed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: it is damaged, or was sealed under other keys than those that lie beside it", path, err)
	}
	r := canon.NewReader(plain)
	if v := r.Uint(); r.Err() == nil && v != 1 {
		return nil, fmt.Errorf("%s: version %d is not known", path, v)
	}
	for range r.Len(1) {
		id := r.String()
		k.keys[id] = r.Fixed(keyBytes)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// keyBytes is the length of an import's key.
const keyBytes = 32

// add makes a key for an import and returns its box.
func (k *keyFile) add(id string) (*seal.Box, error) {
	key := k.box.NewKey()
	next := maps.Clone(k.keys)
	next[id] = key
	if err := k.write(next); err != nil {
		return nil, err
	}
	return k.box.Under(key)
}

// open returns the box of an import, nil if its key is not there.
func (k *keyFile) open(id string) (*seal.Box, error) {
	if key, ok := k.keys[id]; ok {
		return k.box.Under(key)
	}
	return nil, nil
}

// destroy makes the keys of some imports vanish. Those that are gone already are no error.
func (k *keyFile) destroy(ids ...string) error {
	next := maps.Clone(k.keys)
	maps.DeleteFunc(next, func(id string, _ []byte) bool { return slices.Contains(ids, id) })
	if len(next) == len(k.keys) {
		return nil
	}
	return k.write(next)
}

// write replaces the file and overwrites what it replaces.
func (k *keyFile) write(keys map[string][]byte) error {
	var w canon.Writer
	w.Uint(1)
	w.Uint(uint64(len(keys)))
	for _, id := range slices.Sorted(maps.Keys(keys)) {
		w.String(id)
		w.Fixed(keys[id])
	}
	before, err := os.OpenFile(k.path, os.O_WRONLY, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := seal.WriteFile(k.path, k.box.Seal([]byte("keys"), w.Buf)); err != nil {
		if before != nil {
			err = errors.Join(err, before.Close())
		}
		return diskError(err)
	}
	k.keys = keys
	if before == nil {
		return nil
	}
	return errors.Join(overwrite(before), before.Close())
}

// overwrite fills a file with zeros, where it lies.
func overwrite(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, info.Size()), 0); err != nil {
		return err
	}
	return f.Sync()
}
