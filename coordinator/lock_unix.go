//go:build unix

package coordinator

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockDir keeps a second process, or coordinator, out of a directory until unlock is called or the process ends.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errors.New("another coordinator is using it; stop that one, or give this one a directory of its own")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("directory %s: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
