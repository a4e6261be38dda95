package seal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile writes a file of mode 0600 so that it is there whole or not at all, also after a power cut: a temporary
// name, sync, rename, sync of the directory.
func WriteFile(path string, body []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // nothing to remove once it is renamed
	_, err = f.Write(body)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// replaceFile is WriteFile, and overwrites what it replaces where it lay, so that a key which is taken out is nowhere any
// more. (A disk that writes in other places than it is told to may keep the old blocks for a while.)
func replaceFile(path string, body []byte) error {
	before, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer before.Close()
	if err := WriteFile(path, body); err != nil {
		return err
	}
	if err := overwrite(before); err != nil {
		return fmt.Errorf("overwrite what was %s: %w", path, err)
	}
	return nil
}

// destroyFile overwrites a file and removes it. One that is not there is no error.
func destroyFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("destroy %s: %w", path, err)
	}
	defer f.Close()
	if err := errors.Join(overwrite(f), os.Remove(path)); err != nil {
		return fmt.Errorf("destroy %s: %w", path, err)
	}
	return nil
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
