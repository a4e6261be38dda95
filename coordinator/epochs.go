package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

const (
	epochPrefix = "epoch-"
	epochSuffix = ".key"
	epochAgain  = time.Second // after a key that could not be made, announced or destroyed
)

// keyring is this voter's epoch keys, newest last: the one that is announced, or about to be, and older ones that rounds
// still name. Each lies in a file of its own, sealed under the data key.
type keyring struct {
	gate *gate
	dir  string
	box  *seal.Box
	now  func() time.Time

	mu   sync.Mutex // guards the fields below
	keys []*seal.EpochKey
	made time.Time // when the newest was made, as far as its file says
}

// openKeyring reads the keys of a directory, or makes the first.
func openKeyring(dir string, box *seal.Box, g *gate, now func() time.Time) (*keyring, error) {
	r := &keyring{gate: g, dir: dir, box: box, now: now}
	if err := r.adopt(); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, epochPrefix+"*"+epochSuffix))
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		k, err := r.read(path)
		if err != nil {
			return nil, err
		}
		if k != nil {
			r.keys = append(r.keys, k)
		}
	}
	slices.SortFunc(r.keys, func(a, b *seal.EpochKey) int { return int(int64(a.Epoch) - int64(b.Epoch)) })
	if len(r.keys) == 0 {
		return r, r.rotate()
	}
	if info, err := os.Stat(r.path(r.newest().Epoch)); err == nil {
		r.made = info.ModTime()
	}
	return r, nil
}

// adopt gives the one key of an earlier version its file name of today.
func (r *keyring) adopt() error {
	old := filepath.Join(r.dir, "epoch.key")
	sealed, err := seal.ReadPrivate(old)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read epoch key: %w", err)
	}
	b, err := r.box.Open([]byte("epoch"), sealed)
	if err != nil {
		return fmt.Errorf("epoch key %s: %w", old, err)
	}
	k, err := seal.DecodeEpochKey(b)
	if err != nil {
		return fmt.Errorf("epoch key %s: %w", old, err)
	}
	if err := r.write(k); err != nil {
		return err
	}
	return shred(old)
}

func (r *keyring) path(epoch uint64) string {
	return filepath.Join(r.dir, epochPrefix+strconv.FormatUint(epoch, 10)+epochSuffix)
}

func epochPlace(epoch uint64) []byte { return fmt.Appendf(nil, "epoch|%d", epoch) }

// read is nil for a key that a crash interrupted being destroyed.
func (r *keyring) read(path string) (*seal.EpochKey, error) {
	text := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), epochPrefix), epochSuffix)
	epoch, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("epoch key %s: its name has no number", path)
	}
	sealed, err := seal.ReadPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("read epoch key: %w", err)
	}
	if len(bytes.Trim(sealed, "\x00")) == 0 {
		return nil, shred(path)
	}
	b, err := r.box.Open(epochPlace(epoch), sealed)
	if err != nil {
		return nil, fmt.Errorf("epoch key %s: %w", path, err)
	}
	return seal.DecodeEpochKey(b)
}

func (r *keyring) write(k *seal.EpochKey) error {
	return r.gate.write(func() error {
		return seal.WriteFile(r.path(k.Epoch), r.box.Seal(epochPlace(k.Epoch), k.Encode()))
	})
}

// rotate makes the next key. Epochs count seconds, so that a coordinator that comes back under the name of one that was
// removed never has an epoch of that one.
func (r *keyring) rotate() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	epoch := uint64(max(r.now().Unix(), 1))
	if n := len(r.keys); n > 0 {
		epoch = max(epoch, r.keys[n-1].Epoch+1)
	}
	k, err := seal.NewEpochKey(epoch)
	if err != nil {
		return err
	}
	if err := r.write(k); err != nil {
		return err
	}
	r.keys, r.made = append(r.keys, k), r.now()
	return nil
}

func (r *keyring) newest() *seal.EpochKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys[len(r.keys)-1]
}

// age is how old the newest key is.
func (r *keyring) age() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now().Sub(r.made)
}

// all lists the keys, newest first.
func (r *keyring) all() []*seal.EpochKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.keys)
	slices.Reverse(out)
	return out
}

// openBy tries the keys on something sealed; the newest first.
func openBy[T any](r *keyring, f func(*seal.EpochKey) (T, error)) (out T, err error) {
	for _, k := range r.all() {
		if out, err = f(k); err == nil {
			return out, nil
		}
	}
	return out, err
}

// destroy destroys the keys that nobody needs: overwritten, removed, and forgotten.
func (r *keyring) destroy(needed func(epoch uint64) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	newest := r.keys[len(r.keys)-1].Epoch
	var errs []error
	r.keys = slices.DeleteFunc(r.keys, func(k *seal.EpochKey) bool {
		if k.Epoch == newest || needed(k.Epoch) {
			return false
		}
		err := r.gate.write(func() error { return shred(r.path(k.Epoch)) })
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(errs...)
}

// shred overwrites a file before it is removed. What a file system keeps elsewhere it cannot reach; what was there is
// sealed under the data key besides.
func shred(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("destroy %s: %w", path, err)
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(make([]byte, info.Size()), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("destroy %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("destroy %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// announce keeps the federation and the keyring in step: it commits the public half of a new key, makes the next when
// the newest is old or a job has ended, and destroys those that no round names any more.
func (c *Coordinator) announce(ctx context.Context) {
	ended, first := 0, true
	for ctx.Err() == nil {
		changed := c.replica.Changed()
		s := c.replica.State()
		wait := c.cfg.EpochLife - c.epochs.age()
		if n := endedJobs(s); n != ended {
			if !first && n > ended {
				wait = 0
			}
			ended = n
		}
		if err := c.tendEpochs(ctx, s, wait <= 0); err != nil && ctx.Err() == nil {
			c.deps.Log.Error("epoch keys not in order", "error", err)
			wait = epochAgain
		}
		first = first && s.Cluster == ""
		timer := time.NewTimer(max(wait, epochAgain))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func endedJobs(s *state.State) (n int) {
	for _, j := range s.Jobs {
		if j.Ended() {
			n++
		}
	}
	return n
}

func (c *Coordinator) tendEpochs(ctx context.Context, s *state.State, due bool) error {
	v, ok := s.Coordinator(c.cfg.Name)
	if !ok || !c.itself(v) {
		return nil
	}
	newest := c.epochs.newest()
	if due && v.Epoch.Epoch == newest.Epoch { // one that is not announced yet is new enough
		if err := c.epochs.rotate(); err != nil {
			return err
		}
		newest = c.epochs.newest()
	}
	if v.Epoch.Epoch < newest.Epoch {
		if err := c.announceEpoch(ctx, s, newest); err != nil {
			return err
		}
	}
	s = c.replica.State()
	return c.epochs.destroy(func(epoch uint64) bool { return s.NeedsEpoch(c.cfg.Name, epoch) })
}

func (c *Coordinator) announceEpoch(ctx context.Context, s *state.State, k *seal.EpochKey) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sig := k.Sign(s.Cluster, c.cfg.Name, c.own.Load().key())
	return c.retry(ctx, func() error {
		return c.propose(ctx, &choirv1.Command{Body: &choirv1.Command_AnnounceEpoch{AnnounceEpoch: &choirv1.AnnounceEpoch{
			Key: &choirv1.EpochKey{Coordinator: c.cfg.Name, Epoch: k.Epoch, Recipient: k.Recipient(), Signature: sig},
		}}})
	})
}
