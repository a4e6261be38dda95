package coordinator

import (
	"errors"
	"fmt"
	"path/filepath"

	"choir.example/internal/lockdir"
)

// lockDir keeps a second process, or coordinator, out of a directory until unlock is called or the process ends.
func lockDir(dir string) (unlock func(), err error) {
	unlock, err = lockdir.Lock(filepath.Join(dir, "lock"))
	if errors.Is(err, lockdir.ErrTaken) {
		err = errors.New("another coordinator is using it; stop that one, or give this one a directory of its own")
	}
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", dir, err)
	}
	return unlock, nil
}
