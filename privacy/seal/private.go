package seal

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ExposedError says that others on this machine may read a file that holds a secret. Whoever could read it may have done
// so: nothing goes on with it until somebody has looked.
type ExposedError struct {
	Path string
	Mode fs.FileMode // its permissions
}

func (e *ExposedError) Error() string {
	return fmt.Sprintf("%s may be read by others (mode %04o)", e.Path, e.Mode)
}

// Cure is the command that closes the file.
func (e *ExposedError) Cure() string { return "chmod 600 " + e.Path }

// OpenPrivate opens a file that only its owner may read. A regular file with any permission for others is an
// ExposedError; a pipe has no mode of its own and passes.
func OpenPrivate(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		err = &ExposedError{path, info.Mode().Perm()}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// ReadPrivate is os.ReadFile for what OpenPrivate opens.
func ReadPrivate(path string) ([]byte, error) {
	f, err := OpenPrivate(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
