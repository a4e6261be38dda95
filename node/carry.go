package node

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"choir.example/fedavg"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// carry is what strategies have the node keep from round to round, such as SCAFFOLD's c_i: sealed, a file a job. What an
// update leaves lies beside it, named by the attempt, and takes its place when the attempt has closed with the update in
// it, at no other time: an update that came too late, or of a round that was abandoned, leaves no trace.
type carry struct {
	dir   string
	box   *seal.Box
	after map[string]*choirv1.RoundKey // by job: the attempt whose update left something that is not settled
}

// openCarry opens or makes the directory. No other process may have it open.
func openCarry(dir string, box *seal.Box) (*carry, error) {
	c := &carry{dir: dir, box: box, after: map[string]*choirv1.RoundKey{}}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil // made when there is something to keep
	}
	if err != nil {
		return nil, fmt.Errorf("open what strategies keep: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // a write that a crash cut off
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("open what strategies keep: %w", err)
			}
			continue
		}
		if key := attemptNamed(e.Name()); key != nil {
			c.after[key.Job] = key
		}
	}
	return c, nil
}

// attemptNamed is the attempt whose update left a file, nil if the file is a job's.
func attemptNamed(name string) *choirv1.RoundKey {
	job, attempt, _ := strings.Cut(name, ".")
	key := &choirv1.RoundKey{}
	if n, err := fmt.Sscanf(attempt, "%d.%d", &key.Round, &key.Attempt); err != nil || n != 2 {
		return nil
	}
	b, err := hex.DecodeString(job)
	if err != nil {
		return nil
	}
	key.Job = string(b)
	return key
}

func jobFile(job string) string { return hex.EncodeToString([]byte(job)) }

func attemptFile(k *choirv1.RoundKey) string {
	return fmt.Sprintf("%s.%d.%d", jobFile(k.Job), k.Round, k.Attempt)
}

// of is what the node keeps for a job: n vectors of the length, nil before it keeps any.
func (c *carry) of(job string, n, length int) ([][]float32, error) {
	body, err := c.read(jobFile(job))
	if err != nil || body == nil {
		return nil, err
	}
	vectors, err := fedavg.DecodeState(body, n, length)
	if err != nil {
		return nil, fmt.Errorf("what the strategy of job %s keeps: %w", job, err)
	}
	return vectors, nil
}

// leave keeps what an attempt's update leaves, until it is settled.
func (c *carry) leave(k *choirv1.RoundKey, vectors [][]float32) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("keep for the strategy: %w", err)
	}
	if err := c.drop(k.Job); err != nil {
		return err
	}
	if err := c.write(attemptFile(k), fedavg.EncodeState(vectors)); err != nil {
		return err
	}
	c.after[k.Job] = k
	return nil
}

// unsettled are the attempts whose updates left something, in order of jobs.
func (c *carry) unsettled() (keys []*choirv1.RoundKey) {
	for _, k := range c.after {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b *choirv1.RoundKey) int { return strings.Compare(a.Job, b.Job) })
	return keys
}

// adopt puts what a job's last update left in the place of what was kept before.
func (c *carry) adopt(job string) error {
	body, err := c.read(attemptFile(c.after[job]))
	if err == nil && body != nil {
		err = c.write(jobFile(job), body)
	}
	if err != nil {
		return err
	}
	return c.drop(job)
}

// drop forgets what a job's last update left.
func (c *carry) drop(job string) error {
	k := c.after[job]
	if k == nil {
		return nil
	}
	if err := os.Remove(filepath.Join(c.dir, attemptFile(k))); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget for the strategy: %w", err)
	}
	delete(c.after, job)
	return nil
}

func (c *carry) write(name string, body []byte) error {
	return seal.WriteFile(filepath.Join(c.dir, name), c.box.Seal([]byte("carry|"+name), body))
}

// read returns a file's body, nil if there is none.
func (c *carry) read(name string) ([]byte, error) {
	sealed, err := os.ReadFile(filepath.Join(c.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var body []byte
	if err == nil {
		body, err = c.box.Open([]byte("carry|"+name), sealed)
	}
	if err != nil {
		return nil, fmt.Errorf("read what a strategy keeps: %w; remove %s and the node begins anew", err, filepath.Join(c.dir, name))
	}
	return body, nil
}
